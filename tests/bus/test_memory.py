import contextlib
from collections.abc import AsyncIterator

import pytest

from bus.memory import MemoryBus
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
