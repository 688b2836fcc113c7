"""How long one command keeps everything else in the host waiting: heartbeats, wake-ups and other commands among it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from bus import subjects
from contracts import ids
from contracts.commands import MOST_KEYS, MOST_VALUES
from contracts.operator import RULES, SessionRequested
from contracts.request.reading import MOST_PROBLEMS
from runtime.commands.session_index import SessionIndex
from runtime.host.swarm_node import SwarmNode
from runtime.log.archive import Archive
from tests.harness import crew
from tests.runtime.commands.crowded import fill, watched, write
from tests.runtime.recorded_home import REQUEST, claimed

LONGEST = 0.05
"""Seconds of this process's work for which the loop may stand still; 0.02 are usual (`benchmarks/commands.py`)."""

TRIES = 3
"""What a command itself takes it takes every time; a machine with other work adds something now and then."""

SESSIONS, EVENTS = 1000, 40_000


async def asked(made: SwarmNode, verb: str, body: Any) -> dict[str, Any]:
    answer: dict[str, Any] = orjson.loads(await made.commands.answer(subjects.command(verb), orjson.dumps(body)))
    return answer


async def every_page(made: SwarmNode) -> int:
    after, count, ended = "", 0, False
    while not ended:
        page = await asked(made, "sessions", {"after": after})
        after, count, ended = page["next"], count + len(page["sessions"]), page["ended"]
    return count


def wrong(items: int) -> dict[str, Any]:
    return {"loss": {"type": "cross_entropy", "class_weights": ["x"] * items}}


async def held(made: SwarmNode, command: Callable[[], Awaitable[Any]], *, fresh: bool = True) -> tuple[float, Any]:
    """For how long a command kept the host from everything else, and what it answered."""
    least = 1.0
    for _ in range(TRIES):
        if fresh:  # nothing has been read before
            made.commands._index = SessionIndex(made.home, made.tail)
        async with watched() as clock:
            answer = await command()
        least = min(least, clock.computed)
        if least < LONGEST:
            break
    return least, answer


async def test_no_command_keeps_the_host_from_its_other_work(tmp_path: Path) -> None:
    async with crew(tmp_path, ()) as made:
        long, others = fill(made, SESSIONS, EVENTS)
        many, some = {f"key{n}": n for n in range(50_000)}, {f"key{n}": n for n in range(900)}
        commands: dict[str, tuple[str, Any]] = {
            "a beginning that fits none": ("session", {"session": "nothing"}),
            "a beginning": ("session", {"session": others[7][:-2]}),
            "last": ("session", {"session": "last"}),
            "events": ("events", {"session": long, "after": EVENTS - 700, "limit": 500}),
            "session": ("session", {"session": long}),
            "train": ("train", many),
            "many wrong keys": ("train", {f"key{n}": n for n in range(MOST_KEYS)}),
            "a crowd": ("train", {"loss": {"type": "multi_task", "terms": [some] * 50}}),
            "many wrong items": ("train", wrong(100_000)),
            "wrong items": ("train", wrong(MOST_VALUES - 10)),
            "many numbers": ("train", {"export": {"formats": [*range(100_000)]}}),
            "search": ("search", {"base": {"data": many}}),
            "a long word": ("train", {"data": {"source": "digits" * 50_000}}),
            "rows": ("fork", {"session": others[7], "step": 1, "without": [f"train:{n}" for n in range(50_000)]}),
        }
        taken = {
            name: await held(made, lambda one=one: asked(made, *one), fresh=name != "session")
            for name, one in commands.items()
        }
        taken["sessions"] = await held(made, lambda: every_page(made))
    answers = {name: answer for name, (_, answer) in taken.items()}
    assert answers["sessions"] == SESSIONS + 1
    assert answers["a beginning"]["session"] == others[7]
    assert len(answers["events"]["events"]) == 500
    assert answers["session"]["events"] == EVENTS + 2
    assert "50000 keys in one place" in answers["train"]["error"]["message"]
    for name in ("a crowd", "many wrong items", "many numbers"):
        assert f"more than {MOST_VALUES} values" in answers[name]["error"]["message"]
    for name in ("many wrong keys", "wrong items"):
        assert len(answers[name]["error"]["problems"]) == MOST_PROBLEMS + 1
    assert max(longest for longest, _ in taken.values()) < LONGEST, taken.keys()


async def test_numbers_for_very_many_classes_are_no_crowd(tmp_path: Path) -> None:
    weights = {"loss": {"type": "cross_entropy", "class_weights": [0.5] * 99_999}}
    repeats = {"sampler": {"type": "weighted", "repeats": [2] * 99_999}}
    halves = {"sampler": {"type": "weighted", "repeats": [0.5] * 99_999}}
    async with crew(tmp_path, ()) as made:
        for body, found in ((weights, False), (repeats, False), (halves, True)):
            answer = await asked(made, "train", REQUEST | body)
            assert (f"more than {MOST_VALUES} values" in str(answer)) == found, str(answer)[:300]


async def test_a_file_is_read_again_only_when_it_has_grown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    within = Archive.history
    monkeypatch.setattr(Archive, "history", lambda self, session: read.append(session) or within(self, session))
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
