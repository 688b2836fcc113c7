import contextlib
from collections.abc import AsyncIterator

import pytest

from bus import subjects
from bus.memory import MemoryBus
from bus.port import Record, StoredRecord
from tests.bus.conformance import ROOM, WAKE_AGAIN, Conformance


class MemoryWorld:
    def __init__(self, room: int | None = None) -> None:
        self.admin = MemoryBus(room=room, wake_again=WAKE_AGAIN)

    @contextlib.asynccontextmanager
    async def bus(self, identity: str = "trainer") -> AsyncIterator[MemoryBus]:
        yield self.admin

    async def restart(self) -> None:
        pass

    def cut(self, *, stored: bool) -> None:
        self.admin.cut(stored=stored)


class TestMemory(Conformance):
    @pytest.fixture
    def world(self) -> MemoryWorld:
        return MemoryWorld()

    @pytest.fixture
    def small_world(self) -> MemoryWorld:
        return MemoryWorld(room=ROOM)


async def test_a_stream_goes_on_behind_the_records_that_it_was_given() -> None:
    subject = subjects.fact("00-a", "trainer", "window.recorded")
    kept = [StoredRecord(seq, subject, b"%d" % seq) for seq in (3, 7)]
    for after, following in ((0, 8), (20, 21)):
        bus = MemoryBus(kept=kept, after=after)
        await bus.consumer("validator", [subjects.EVERYTHING])
        lane = subjects.lane("00-a", "trainer")
        assert await bus.append([Record(subject, b"new")], lane=lane, after=7) == following
        async with bus.read(subjects.EVERYTHING, after=3) as records:
            assert [one.seq async for one in records] == [7, following]
        async with bus.wakes("validator") as wakes:
            assert [(await anext(wakes)).stored.seq for _ in range(3)] == [3, 7, following]
