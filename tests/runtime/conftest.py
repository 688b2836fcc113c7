"""What several files of this room start from: a long training that nobody disturbed, and homes that leave nobody."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests import chaos
from tests.chaos import Arena, Result


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """What `chaos.LONG` comes to when nobody disturbs it."""
    return asyncio.run(chaos.undisturbed(tmp_path_factory.mktemp("undisturbed"), chaos.LONG))


@pytest.fixture
async def arena(tmp_path: Path) -> AsyncIterator[Arena]:
    """A home of its own; nobody is left when the test ends."""
    made = Arena(tmp_path)
    yield made
    await made.down()
    made.kill("all", random.Random(0))
