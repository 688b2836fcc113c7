"""Sessions that are submitted at once to a swarm on this machine, held against the same ones, one after the other.

at_once           seconds for all of them at once over those one after the other (median of turns, each its own pair)
alone_s, all_s    the seconds of each way, from the first request to the last seal (medians)
trained_at_once   the most sessions that had a slot at any time
status_p95_ms     95th percentile of `status`, asked ten times a second meanwhile; status_most_ms is its longest
longest_beat_s    the longest time between two heartbeats of an agent meanwhile; they are sent every five seconds
beats_missed      how many that should have come did not: those that are later than half their distance

Thirty sessions, three turns; `--quick` has six, and one turn. Requests differ in their seeds alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import parser, report
from benchmarks.startup import swarm
from bus import nkeys, subjects
from bus.jetstream import connect
from bus.rights import seed_file
from contracts.roles import RESOURCE_MONITOR
from runtime.commands.client import SwarmClient
from runtime.home import settings
from runtime.home.home import Home
from runtime.node.presence import BEAT

EVERY = 0.1
"""Seconds between two questions."""


@dataclass
class StatusLog:
    """What `status` answered while sessions trained."""

    seconds: list[float] = field(default_factory=list)
    beats: dict[str, list[float]] = field(default_factory=dict)
    """By agent, when its heartbeats came."""
    slots: int = 0

    async def ask(self, found: SwarmClient) -> None:
        """Ask until cancelled."""
        while True:
            begun = time.perf_counter()
            told = await found.command("status", timeout=60.0)
            self.seconds.append(time.perf_counter() - begun)
            self.slots = max(self.slots, len((told["queue"] or {"slots": []})["slots"]))
            await asyncio.sleep(EVERY)

    async def hear(self, home: Home) -> None:
        """Listen to heartbeats until cancelled, as only an agent may."""
        url = json.loads(home.creds.read_bytes())["url"]
        async with (
            connect(url, RESOURCE_MONITOR, nkeys.read(seed_file(home.seeds, RESOURCE_MONITOR))) as bus,
            bus.hear(subjects.heartbeats()) as beats,
        ):
            async for subject, _ in beats:
                self.beats.setdefault(subject, []).append(time.perf_counter())

    def gaps(self) -> list[float]:
        """The seconds between heartbeats of the same agent."""
        return [after - before for one in self.beats.values() for before, after in pairwise(one)]


async def main() -> None:
    """Turn by turn one after the other, then at once."""
    asks = parser(__doc__ or "")
    asks.add_argument("--slots", type=int, default=0, help="of the swarm; else as many as it finds")
    asks.add_argument("--turns", type=int, default=3)
    asks.add_argument("--epochs", type=int, default=60, help="of 24 steps each, for every session")
    asked = asks.parse_args()
    count, turns = (6, 1) if asked.quick else (30, asked.turns)
    alone, together, logs = list[float](), list[float](), list[StatusLog]()
    with tempfile.TemporaryDirectory(prefix="queue") as folder:
        home = Path(folder) / "home"
        swarm(home, "up", "-d", *(["--slots", str(asked.slots)] if asked.slots else []))
        try:
            async with SwarmClient.connect(settings.load(home=str(home))) as found:
                await seconds(found, [0, 1], asked.epochs, at_once=True)
                for turn in range(turns):
                    seeds = range(100 * turn + 10, 100 * turn + 10 + count)
                    alone.append(await seconds(found, seeds, asked.epochs, at_once=False))
                    logs.append(StatusLog())
                    async with meanwhile(logs[-1], found, Home(home)):
                        together.append(await seconds(found, seeds, asked.epochs, at_once=True))
                    print(f"turn {turn + 1}: {alone[-1]:.1f} s, {together[-1]:.1f} s", file=sys.stderr)
        finally:
            swarm(home, "down")
    ratios = [at_once / one_by_one for one_by_one, at_once in zip(alone, together, strict=True)]
    answers, gaps = [one for log in logs for one in log.seconds], [one for log in logs for one in log.gaps()]
    figures = {
        "at_once": statistics.median(ratios),
        "alone_s": statistics.median(alone),
        "all_s": statistics.median(together),
        "trained_at_once": max(log.slots for log in logs),
        "status_p95_ms": 1e3 * statistics.quantiles(answers, n=20)[-1],
        "status_most_ms": 1e3 * max(answers),
        "longest_beat_s": max(gaps, default=0.0),
        "beats_missed": sum(round(gap / BEAT) - 1 for gap in gaps if gap > 1.5 * BEAT),
    }
    turns_told = ", ".join(f"{one:.2f}" for one in sorted(ratios))
    load = f"{os.getloadavg()[0]:.1f}"
    report(
        asked,
        figures,
        {"sessions": str(count), "epochs": str(asked.epochs), "turns": turns_told, "load at the end": load},
    )


async def seconds(found: SwarmClient, seeds: Iterable[int], epochs: int, *, at_once: bool) -> float:
    """How long it takes until sessions of these seeds are sealed."""
    begun, sessions = time.perf_counter(), list[str]()
    for seed in seeds:
        sessions.append(await found.submit(wanted(seed, epochs)))
        if not at_once:
            await found.wait(sessions[-1])
    for session in sessions:
        await found.wait(session)
    return time.perf_counter() - begun


@asynccontextmanager
async def meanwhile(watched: StatusLog, found: SwarmClient, home: Home) -> AsyncIterator[None]:
    """Inside, `status` is asked all the time."""
    tasks = [asyncio.create_task(watched.ask(found)), asyncio.create_task(watched.hear(home))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            raise error


def wanted(seed: int, epochs: int) -> dict[str, Any]:
    """A training that is judged and kept twelve times; of sixty epochs it has about fourteen hundred steps."""
    return {
        "name": f"queued {seed}",
        "data": {"source": "digits"},
        "model": {"architecture": "mlp", "hidden": [64]},
        "training": {"epochs": epochs, "batch_size": 64},
        "validation": {"every_epochs": max(1, epochs // 12)},
        "early_stopping": {"enabled": False},
        "reproducibility": {"seed": seed},
        "export": {"formats": []},
    }


if __name__ == "__main__":
    asyncio.run(main())
