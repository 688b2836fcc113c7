"""How long one command keeps everything else in the host waiting: heartbeats, wake-ups and other commands among it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from bus import records, subjects
from bus.chain import START, Draft, Head, compose, extended
from bus.port import Stored
from contracts import ids
from contracts.event import Event
from contracts.operator import RULES, SessionRequested
from contracts.request.problems import MOST_PROBLEMS
from runtime.crew import Crew
from runtime.desk.bodies import MOST_KEYS
from runtime.records.archive import Archive
from tests.harness import crew
from tests.runtime.recorded_home import REQUEST, TIME, claimed, window

LONGEST = 0.3
"""Seconds that the host may stand still; measured are some hundredths, and machines may be busy."""

SESSIONS, EVENTS = 1000, 20_000


class Clock:
    """Looks how long the loop did nothing else."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def run(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            self.longest = max(self.longest, time.perf_counter() - before)


@asynccontextmanager
async def watched() -> AsyncIterator[Clock]:
    clock = Clock()
    task = asyncio.create_task(clock.run())
    await asyncio.sleep(0)
    try:
        yield clock
    finally:
        task.cancel()


def write(made: Crew, session: str, appends: Sequence[tuple[str, Sequence[Event]]], seq: int) -> None:
    """A session's file as a host would write it, without its care for power cuts."""
    parts, heads = [records.title(session)], dict[str, Head]()
    for lane, events in appends:
        drafts = [Draft(event, str(ids.new_uuid())) for event in events]
        key, head = made.keys["desk" if lane == "operator" else lane], heads.get(lane, START)
        said = compose(drafts, session=session, lane=lane, head=head, signer=key, source="/swarm/test", time=TIME)
        parts += [records.frame(Stored(seq + n, one.subject, one.body, one.headers)) for n, one in enumerate(said)]
        seq += len(said)
        heads[lane] = extended(head, said, seq - 1)
    made.home.session(session)
    made.home.log(session).write_bytes(b"".join(parts))


def fill(made: Crew) -> tuple[str, list[str]]:
    """Very many sessions that are in the home's files only, and one of very many events, which is given first."""
    head = made.tail.admission.keyring().head
    genesis = SessionRequested(kind="training", keyring=head, request=REQUEST, asked_by="test", rules=RULES)
    named = [ids.session_id(ids.new_uuid()) for _ in range(SESSIONS + 1)]
    for n, session in enumerate(named[1:]):
        write(made, session, [("operator", [genesis])], 1000 + n)
    windows = [window(n, n + 1) for n in range(EVENTS)]
    appends = [("trainer", windows[n : n + 900]) for n in range(0, EVENTS, 900)]
    write(made, named[0], [("operator", [genesis]), ("trainer", [claimed()]), *appends], 10_000)
    return named[0], named[1:]


async def asked(made: Crew, verb: str, body: Any) -> dict[str, Any]:
    answer: dict[str, Any] = orjson.loads(await made.desk.answer(subjects.command(verb), orjson.dumps(body)))
    return answer


async def every_page(made: Crew) -> int:
    after, count, ended = "", 0, False
    while not ended:
        page = await asked(made, "sessions", {"after": after})
        after, count, ended = page["next"], count + len(page["sessions"]), page["ended"]
    return count


async def test_no_command_keeps_the_host_from_its_other_work(tmp_path: Path) -> None:
    async with crew(tmp_path, ()) as made:
        long, others = fill(made)
        commands = {
            "sessions": every_page(made),
            "a beginning that fits none": asked(made, "session", {"session": "nothing"}),
            "a beginning": asked(made, "session", {"session": others[7][:-2]}),
            "last": asked(made, "session", {"session": "last"}),
            "events": asked(made, "events", {"session": long, "after": EVENTS - 700, "limit": 500}),
            "session": asked(made, "session", {"session": long}),
            "train": asked(made, "train", {f"key{n}": n for n in range(50_000)}),
            "many wrong keys": asked(made, "train", {f"key{n}": n for n in range(MOST_KEYS)}),
            "many wrong items": asked(made, "train", {"export": {"formats": [*range(20_000)]}}),
            "search": asked(made, "search", {"base": {"data": {f"key{n}": n for n in range(50_000)}}}),
            "a long word": asked(made, "train", {"data": {"source": "digits" * 50_000}}),
        }
        held, answers = {}, {}
        for name, command in commands.items():
            async with watched() as clock:
                answers[name] = await command
            held[name] = round(clock.longest, 3)
    assert answers["sessions"] == SESSIONS + 1
    assert answers["a beginning"]["session"] == others[7]
    assert len(answers["events"]["events"]) == 500
    assert answers["session"]["events"] == EVENTS + 2
    assert "50000 keys in one place" in answers["train"]["error"]["message"]
    assert len(answers["many wrong keys"]["error"]["problems"]) == MOST_PROBLEMS + 1
    assert max(held.values()) < LONGEST, held


async def test_a_file_is_read_again_only_when_it_has_grown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    within = Archive.read
    monkeypatch.setattr(Archive, "read", lambda self, session: read.append(session) or within(self, session))
    async with crew(tmp_path, ()) as made:
        head = made.tail.admission.keyring().head
        session, genesis = (
            ids.session_id(ids.new_uuid()),
            SessionRequested(kind="training", keyring=head, request=REQUEST, asked_by="test", rules=RULES),
        )
        for size in (1, 2):
            write(made, session, [("operator", [genesis]), ("trainer", [claimed()])][:size], 1000)
            for _ in range(3):
                assert (await asked(made, "session", {"session": session}))["events"] == size
            assert read == [session] * size
