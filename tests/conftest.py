"""What holds for every test: a busy machine is no reason to fail, and a property says what it says at any speed."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

from runtime.jobs.children import Children
from tests import durations
from tests.zygotes import nurseries

# As many workers as processors compute at once: a second thread of each would only wait for a processor.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    """What is run, and whether it is written down how long it took."""
    parser.addoption("--fast", action="store_true", help="only tests that are fast and start no process")
    parser.addoption("--record-durations", action="store_true", help="write tests/durations.json")


def pytest_configure(config: pytest.Config) -> None:
    """Gather durations where the reports of all workers arrive."""
    if config.getoption("--record-durations") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(durations.Recorder())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what takes longest; the order within a file stays."""
    durations.longest_first(items)
    if config.getoption("--fast"):
        config.hook.pytest_deselected(items=durations.fast_only(items))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Note the processes of fixtures."""
    with durations.noted(item, "setup"):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Note the processes of a test."""
    with durations.noted(item, "call"):
        return (yield)


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
