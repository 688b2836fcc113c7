"""What the tail promises to those who wait for a message: a fact when it says so, and never a wait without an end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bus.admission import Admission
from bus.memory import MemoryBus
from bus.port import Stored
from runtime.records.tail import Tail
from tests.runtime.recorded_home import RecordedHome, evaluated, window


@pytest.fixture
def recorded(tmp_path: Path) -> RecordedHome:
    return RecordedHome(tmp_path / "home")


def following(recorded: RecordedHome) -> Tail:
    tail = Tail(MemoryBus(), Admission(root=recorded.fingerprint))
    for stored in recorded.stream:
        tail.take(stored)
    return tail


def an_append(recorded: RecordedHome, session: str) -> list[Stored]:
    before = len(recorded.stream)
    recorded.say(session, "trainer", window(0, 50), evaluated(50, 0.5))
    return recorded.stream[before:]


async def is_decided(tail: Tail, seq: int) -> bool:
    waiting = asyncio.ensure_future(tail.decided(seq))
    await asyncio.sleep(0)
    decided = waiting.done()
    waiting.cancel()
    return decided


async def test_the_middle_of_an_append_is_undecided_until_its_end_is_there(recorded: RecordedHome) -> None:
    session = recorded.requested()
    tail = following(recorded)
    first, last = an_append(recorded, session)
    assert tail.take(first) == []
    assert tail.seq == first.seq
    assert not await is_decided(tail, first.seq)
    assert len(tail.take(last)) == 2
    assert await is_decided(tail, first.seq)
    assert await is_decided(tail, last.seq)


async def test_an_append_that_never_ends_is_decided_by_whatever_comes_next(recorded: RecordedHome) -> None:
    session = recorded.requested()
    tail = following(recorded)
    first, last = an_append(recorded, session)
    tail.take(first)
    assert not await is_decided(tail, first.seq)
    tail.take(Stored(last.seq, "swarm.ev.00.00-elsewhere.trainer.window_recorded", b"no event"))
    assert await is_decided(tail, first.seq)


async def test_a_second_beginning_in_the_lane_ends_the_first(recorded: RecordedHome) -> None:
    session = recorded.requested()
    tail = following(recorded)
    first, _ = an_append(recorded, session)
    tail.take(first)
    again = Stored(first.seq + 1, first.subject, first.body, first.headers)
    tail.take(again)
    assert await is_decided(tail, first.seq)
    assert not await is_decided(tail, again.seq)


async def test_what_is_no_event_is_decided_at_once(recorded: RecordedHome) -> None:
    tail = following(recorded)
    seq = len(recorded.stream) + 1
    tail.take(Stored(seq, "swarm.ev.00.00-elsewhere.trainer.window_recorded", b"no event"))
    assert await is_decided(tail, seq)
    assert [void.seq for void in tail.voids] == [seq]
