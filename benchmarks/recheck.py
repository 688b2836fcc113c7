"""What `training.recheck` costs: sessions of a swarm that runs, whose n-th windows another process computes again.

    over_none_N_SIZE      seconds from the claim to the completion of a session with `recheck: N` over those of one
                          without, of the same turn; the median of all turns
    ms_per_window_N_SIZE  by how many milliseconds the session takes longer for each window that is rechecked
    window_ms_SIZE        what a window takes where none is

All sessions of a turn run one after the other, each by itself, in the order of `EVERY`, turned round in every other
turn; SIZE is the number of parameters. A window has 50 steps, and is computed by one thread.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.overhead import WIDTHS, request
from benchmarks.report import parser, report
from contracts.trainer import TrainingClaimed, TrainingCompleted, WindowRechecked, WindowRecorded
from runtime.api.swarm import Swarm
from runtime.home.home import Home
from runtime.log.archive import Archive

EVERY = (0, 1, 4, 16)
EPOCHS = {"26k": 140, "1m": 44}
"""Of 23 steps each."""


async def trained(running: Swarm, home: Path, size: str, epochs: int, recheck: int) -> tuple[float, int, int]:
    """Seconds of one session, its windows, and those of them that were rechecked."""
    asked = request(WIDTHS[size], epochs)
    asked["training"] |= {"recheck": recheck} if recheck else {}
    session = await running.submit(asked)
    while not (await running.session(session)).get("sealed"):
        await asyncio.sleep(0.2)
    facts = Archive(Home(home)).history(session).facts
    ends = {type(fact.event): datetime.fromisoformat(fact.envelope.time) for fact in facts}
    kinds = [type(fact.event) for fact in facts]
    seconds = (ends[TrainingCompleted] - ends[TrainingClaimed]).total_seconds()
    return seconds, kinds.count(WindowRecorded), kinds.count(WindowRechecked)


async def main() -> None:
    """Measure and report."""
    options = parser(__doc__ or "")
    options.add_argument("--size", choices=EPOCHS, help="measure this one alone")
    asked = options.parse_args()
    turns = 1 if asked.quick else 7
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="recheck-", ignore_cleanup_errors=True) as folder:
        home = Path(folder) / "home"
        try:
            async with Swarm.start(home=home) as running:
                for size in [asked.size] if asked.size else EPOCHS:
                    # The first session starts processes that the others find.
                    epochs = EPOCHS[size] * 4 // 5 if asked.quick else EPOCHS[size]
                    await trained(running, home, size, epochs, 1)
                    taken: dict[int, list[tuple[float, int, int]]] = {every: [] for every in EVERY}
                    for turn in range(turns):
                        for every in EVERY if turn % 2 else EVERY[::-1]:
                            taken[every].append(await trained(running, home, size, epochs, every))
                    figures[f"window_ms_{size}"] = 1e3 * statistics.median(one / n for one, n, _ in taken[0])
                    for every in EVERY[1:]:
                        pairs = list(zip(taken[every], taken[0], strict=True))
                        figures[f"over_none_{every}_{size}"] = statistics.median(
                            one[0] / other[0] for one, other in pairs
                        )
                        more = statistics.median((one[0] - other[0]) / max(1, one[2]) for one, other in pairs)
                        figures[f"ms_per_window_{every}_{size}"] = 1e3 * more
        finally:
            down = [sys.executable, "-P", "-m", "runtime.cli.start", "down", "--home", str(home)]
            await asyncio.to_thread(subprocess.run, down, check=False, stdout=subprocess.DEVNULL)
    load = f"{os.getloadavg()[1]:.1f} over 5 minutes"
    report(asked, figures, {"turns": str(turns), "load": load})


if __name__ == "__main__":
    asyncio.run(main())
