"""A home with very many sessions and one very long one, and a clock that sees how long a loop did nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from bus import records
from bus.chain import START, Draft, Head, compose, extended
from bus.port import StoredRecord
from contracts import ids
from contracts.event import Event
from contracts.operator import RULES, SessionRequested
from runtime.host.swarm_node import SwarmNode
from tests.runtime.recorded_home import REQUEST, TIME, claimed, window


class Clock:
    """Looks how long the loop did nothing else, and how much this process computed meanwhile.

    The second is the same on a machine that has other work to do.
    """

    def __init__(self) -> None:
        self.longest = self.computed = 0.0
        self._look()

    async def run(self) -> None:
        while True:
            self._look()
            await asyncio.sleep(0.001)
            self.tick()

    def tick(self) -> None:
        """The loop has come round."""
        self.longest = max(self.longest, time.perf_counter() - self._wall)
        self.computed = max(self.computed, time.process_time() - self._processor)

    def _look(self) -> None:
        self._wall, self._processor = time.perf_counter(), time.process_time()


@asynccontextmanager
async def watched() -> AsyncIterator[Clock]:
    """A clock that ticks meanwhile."""
    clock = Clock()
    task = asyncio.create_task(clock.run())
    await asyncio.sleep(0)
    try:
        yield clock
        clock.tick()
    finally:
        task.cancel()


def write(made: SwarmNode, session: str, appends: Sequence[tuple[str, Sequence[Event]]], seq: int) -> None:
    """A session's file as a host would write it, without its care for power cuts."""
    parts, heads = [records.title(session)], dict[str, Head]()
    for lane, events in appends:
        drafts = [Draft(event, str(ids.new_uuid())) for event in events]
        key, head = made.keys["desk" if lane == "operator" else lane], heads.get(lane, START)
        said = compose(drafts, session=session, lane=lane, head=head, signer=key, source="/swarm/test", time=TIME)
        parts += [
            records.frame(StoredRecord(seq + n, one.subject, one.body, one.headers)) for n, one in enumerate(said)
        ]
        seq += len(said)
        heads[lane] = extended(head, said, seq - 1)
    made.home.session(session)
    made.home.log(session).write_bytes(b"".join(parts))


def fill(made: SwarmNode, sessions: int, events: int) -> tuple[str, list[str]]:
    """So many sessions that are in the home's files only, and one of so many windows, which is given first."""
    head = made.tail.admission.keyring().head
    genesis = SessionRequested(kind="training", keyring=head, request=REQUEST, asked_by="test", rules=RULES)
    named = [ids.session_id(ids.new_uuid()) for _ in range(sessions + 1)]
    for n, session in enumerate(named[1:]):
        write(made, session, [("operator", [genesis])], 1000 + n)
    windows = [window(n, n + 1) for n in range(events)]
    appends = [("trainer", windows[n : n + 900]) for n in range(0, events, 900)]
    write(made, named[0], [("operator", [genesis]), ("trainer", [claimed()]), *appends], 10_000)
    return named[0], named[1:]
