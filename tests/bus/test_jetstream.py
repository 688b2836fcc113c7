from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.bus.conformance import ROOM, Conformance
from tests.bus.served import Served, served


class TestJetStream(Conformance):
    @pytest.fixture
    async def world(self, tmp_path: Path) -> AsyncIterator[Served]:
        async with served(tmp_path) as world:
            yield world

    @pytest.fixture
    async def small_world(self, tmp_path: Path) -> AsyncIterator[Served]:
        async with served(tmp_path, facts_bytes=ROOM) as world:
            yield world
