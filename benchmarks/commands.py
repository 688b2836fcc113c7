"""How long a command keeps the host from everything else, in a home of 1,000 sessions and one of 100,000 events.

    idle            nothing is asked: what the machine itself keeps the host waiting
    events          a page of the long session, of which nobody has asked anything before
    events_later    every page of it
    show, last      the summary of the long session, and of the newest
    sessions        every page of the list of all sessions
    unknown_keys    a request with 50,000 unknown keys in one place
    crowd           one with 900 unknown keys in each of 50 places
    wrong_items     one with a list of 100,000 wrong items
    few_wrong       the same with 4,000, all of which are judged
    rows            a fork without 50,000 rows, each of which is named
    audit           an audit of the long session, which has trained nothing

A coroutine in the host's loop sleeps a millisecond again and again. NAME_ms is the longest that it was away,
NAME_cpu_ms the most that the process computed while it was away, which other work on the machine does not lengthen;
NAME_s how long the answer took. Of all turns the worst counts; each begins with a host that has read nothing. Host and
bus are one process, as in the tests, so that no server takes part.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import filesystem, options, report
from bus import subjects
from runtime.host.swarm_node import SwarmNode
from runtime.jobs import garbage
from tests.harness import crew
from tests.runtime.commands.crowded import fill, watched

PAGE = 1000
IDLE_SECONDS = 1.0

Command = Callable[[], Awaitable[object]]


def asking(made: SwarmNode, verb: str, body: Any) -> Command:
    """The command, which must be answered."""
    data = orjson.dumps(body)
    return lambda: made.commands.answer(subjects.command(verb), data)


async def pages(made: SwarmNode, verb: str, body: dict[str, Any], last: Callable[[dict[str, Any]], bool]) -> None:
    """Every page of an answer."""
    page: dict[str, Any] = {"next": body.get("after", "")}
    while True:
        page = orjson.loads(await asking(made, verb, body | {"after": page["next"]})())
        if last(page):
            return


async def held(command: Command) -> tuple[float, float, float]:
    """The longest that the loop stood still while the command was answered, what was computed then, and all of it."""
    async with watched() as clock:
        begun = time.perf_counter()
        await command()
        took = time.perf_counter() - begun
    return 1000 * clock.longest, 1000 * clock.computed, took


def wrong(items: int) -> dict[str, Any]:
    """A request in whose list nothing is what it must be."""
    return {"loss": {"type": "cross_entropy", "class_weights": ["x"] * items}}


async def turn(made: SwarmNode, long: str, events: int) -> dict[str, float]:
    """Every command once, as a host that has just begun answers it."""
    some = {f"key{n}": n for n in range(900)}
    later: dict[str, Any] = {"session": long, "after": 0, "limit": PAGE}
    commands: dict[str, Command] = {
        "idle": lambda: asyncio.sleep(IDLE_SECONDS),
        "events": asking(made, "events", {"session": long, "after": events - PAGE, "limit": PAGE}),
        "events_later": lambda: pages(made, "events", later, lambda page: not page["events"]),
        "show": asking(made, "session", {"session": long}),
        "sessions": lambda: pages(made, "sessions", {}, lambda page: bool(page["ended"])),
        "last": asking(made, "session", {"session": "last"}),
        "unknown_keys": asking(made, "train", {f"key{n}": n for n in range(50_000)}),
        "crowd": asking(made, "train", {"loss": {"type": "multi_task", "terms": [some] * 50}}),
        "wrong_items": asking(made, "train", wrong(100_000)),
        "few_wrong": asking(made, "train", wrong(4000)),
        "audit": asking(made, "audit", {"session": long}),
        "rows": asking(made, "fork", {"session": long, "step": 1, "without": [f"train:{n}" for n in range(50_000)]}),
    }
    found = {}
    for name, command in commands.items():
        found[f"{name}_ms"], found[f"{name}_cpu_ms"], found[f"{name}_s"] = await held(command)
    return found


async def main() -> None:
    """Measure and report."""
    asked_for = options(__doc__ or "")
    garbage.collect_seldom()  # as the host does
    sessions, events, turns = (200, 20_000, 1) if asked_for.quick else (1000, 100_000, 3)
    taken, load = list[dict[str, float]](), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=os.environ.get("SWARM_BENCH_DIR", ".")) as folder:
        for number in range(turns):
            async with crew(Path(folder) / str(number), ()) as made:
                taken.append(await turn(made, fill(made, sessions, events)[0], events))
        figures = {name: max(one[name] for one in taken) for name in taken[0]}
        notes = {"filesystem": filesystem(Path(folder)), "turns": str(turns), "load": f"{load:.1f}"}
        report(asked_for, figures | {"sessions": sessions, "events": events}, notes)


if __name__ == "__main__":
    asyncio.run(main())
