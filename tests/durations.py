"""What the suite knows of its own tests: how long each file takes, and which tests start processes or are slow.

`durations.json` is written by `python -m pytest --record-durations ...` (see `CONTRIBUTING.md`). By it, files that take
long begin first, so that no worker is left alone with one at the end, and `--fast` leaves out what is slow or starts
processes. A test that it does not know is run.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).with_name("durations.json")
SLOW_SECONDS = 0.3
STARTS = ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.forkpty")


class Starts:
    """How many processes this one has started."""

    def __init__(self) -> None:
        self.count = 0
        sys.addaudithook(self._hear)

    def _hear(self, event: str, _: tuple[Any, ...]) -> None:
        self.count += event in STARTS


starts = Starts()


class Recorder:
    """Gathers the reports of a whole run, from all workers."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._tests: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._processes: defaultdict[str, set[str]] = defaultdict(set)
        self._shared: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take one phase of one test."""
        file, _, rest = report.nodeid.partition("::")
        name = rest.partition("[")[0]
        self._seconds[file] += report.duration
        self._tests[file, name] += report.duration
        started = dict(report.user_properties)
        # What a fixture takes is taken by whichever test of the file comes first.
        if started.get("setup") or (report.when == "setup" and report.duration > SLOW_SECONDS):
            self._shared.add(file)
        if started.get("call"):
            self._processes[file].add(name)

    def pytest_sessionfinish(self) -> None:
        """Write what was gathered, over what was known of the files that ran."""
        known = read()
        for file, seconds in self._seconds.items():
            names = {name for where, name in self._tests if where == file}
            slow = {name for name in names if self._tests[file, name] > SLOW_SECONDS}
            left_out = names if file in self._shared else slow | self._processes[file]
            known[file] = {"seconds": round(seconds, 1), "not_fast": sorted(left_out)}
        there = {file: one for file, one in known.items() if (FILE.parents[1] / file).exists()}
        FILE.write_text(json.dumps(there, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read() -> dict[str, dict[str, Any]]:
    """What is known by file: `seconds`, and the names of tests that are `not_fast`."""
    found: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def longest_first(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, and with those that nothing is known of; the order in a file stays."""
    known = read()
    items.sort(key=lambda item: -known.get(_file(item), {"seconds": float("inf")})["seconds"])


def fast_only(items: list[pytest.Item]) -> list[pytest.Item]:
    """Leave what is fast and starts no process; returns what was left out."""
    known = read()
    left_out = [item for item in items if _name(item) in known.get(_file(item), {}).get("not_fast", ())]
    items[:] = [item for item in items if item not in set(left_out)]
    return left_out


@contextmanager
def noted(item: pytest.Item, phase: str) -> Iterator[None]:
    """Tell in the reports of a test that it started processes in this phase."""
    before = starts.count
    yield
    if starts.count > before:
        item.user_properties.append((phase, starts.count - before))


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def _name(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[2].partition("[")[0]
