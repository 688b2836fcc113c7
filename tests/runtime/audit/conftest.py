"""What several files of this room start from: one honest training of a moment, told by a liar who has every key."""

from __future__ import annotations

import asyncio

import pytest

from runtime.jobs.children import Children
from tests.runtime.audit.court import Court

SHORT = "short honest"


@pytest.fixture(scope="session")
def short_court(tmp_path_factory: pytest.TempPathFactory) -> Court:
    """A home whose first session, `SHORT`, is an honest training of one epoch."""
    made = Court(tmp_path_factory.mktemp("short"))
    asyncio.run(_hear(made))
    return made


async def _hear(court: Court) -> None:
    children = Children()
    try:
        await court.hear(children, "short ", ["honest"], training={"epochs": 1, "batch_size": 20})
    finally:
        await children.close()
