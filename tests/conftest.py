"""What holds for every test: a busy machine is no reason to fail, and a property says what it says at any speed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

from runtime.processes.children import Children
from tests.zygotes import nurseries

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

LONG = (
    "test_kills.py",
    "test_faults.py",
    "test_readme.py",
    "test_full.py",
    "test_swarm_up.py",
    "test_exporter.py",
    "test_here.py",
    "test_lone.py",
    "test_guests.py",
    "test_takeover.py",
    "test_trainer.py",
    "test_reexecution.py",
    "test_bad_input.py",
    "test_gpu.py",
    "test_tampering.py",
)
"""Files that take long, the longest first: begun last, they would keep one process busy after all others."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest; the order within a file stays."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="session", autouse=True)
def _nurseries() -> Iterator[None]:
    """Zygotes that tests start in their own process need not import torch each."""
    with nurseries():
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def children() -> AsyncIterator[Children]:
    """Jobs of a module; its tests share their zygotes, and the loop of the module."""
    made = Children()
    yield made
    await made.close()
