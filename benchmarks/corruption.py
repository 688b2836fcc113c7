"""Whether a single bit that flips in the memory or on the disk of a machine that trains is found by a full audit.

    flips              trainings in each of which one bit was flipped, at a random step and place
    changed            of these, those whose record, or stored bytes, differ from those of the training without a flip
    located            of these, those of which a full audit names first the very event and a field in which it differs
    same               those that changed no recorded value and ended in the same state root
    stopped            those that changed no recorded value before they ended the training with an error
    missed             all others: 0, or the audit has a hole

With `--live N` the same is asked of N sessions of a swarm that runs (a host, a broker, children), whose training child
flips a bit of its own memory, or whose stored checkpoint is flipped: `live_VERDICT`; and of as many with `recheck: 1`:
`rechecked_VERDICT`. `live_told` and `rechecked_told` count the sessions that say themselves that something is wrong.

`located_PLACE`, `same_PLACE` and `stopped_PLACE` count them for each place. The bit is flipped in the live tensor: in
`weights` and `optimizer` (moments, averages) between two steps, in `gradient` between the way back and the move, in
`batch` after its rows were gathered, in `checkpoint` in the copy of the state before its digests are taken; in `stored`
it is flipped in the file of a checkpoint, which a full audit reads before it computes anything. What such a machine
would have recorded is recorded, and the product's own audit computes it again. Every flip follows from `--seed` and its
number. Results are kept under `--store`, so that a run goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.faults_cases import flipped
from benchmarks.faults_cases.flipped import PLACES, Outcome, Portion, plant
from benchmarks.faults_cases.flipped_live import LiveOutcome, flip_live
from benchmarks.report import parser, report
from runtime.jobs.children import Children
from runtime.replay.audit_subject import engine_digest

FLIPS, CI_FLIPS = 2000, 50
AT_ONCE, PORTION = 2, 25


def code_digest() -> str:
    """What an outcome depends on besides seed and number: the bench, the engine, and what audits."""
    return hashlib.sha256(Path(flipped.__file__).read_bytes() + engine_digest().encode()).hexdigest()[:16]


async def run_flips(
    seed: int, numbers: Sequence[int], keep: Callable[[Sequence[Outcome]], None], *, seconds: float = float("inf")
) -> None:
    """Have children plant these flips, two at once, and hand what comes of them to `keep`; none begins too late."""
    waiting, ends = list(numbers), time.monotonic() + seconds
    children = Children()

    async def work() -> None:
        while waiting and time.monotonic() < ends:
            mine, waiting[:] = waiting[:PORTION], waiting[PORTION:]
            keep(await children.run(plant, Portion(seed, mine)))

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(work())
    finally:
        await children.close()


def counted(found: Sequence[Outcome]) -> dict[str, float]:
    """The figures of some outcomes."""
    verdicts = Counter(one.verdict for one in found)
    by_place = Counter((one.verdict, one.place) for one in found)
    changed = verdicts["located"] + sum(1 for one in found if one.verdict == "missed")
    figures = {"flips": len(found), "changed": changed}
    figures |= {name: verdicts[name] for name in ("located", "same", "stopped", "missed")}
    figures |= {f"{name}_{place}": by_place[name, place] for name in ("located", "same", "stopped") for place in PLACES}
    return figures


def kept_in(path: Path) -> list[Outcome]:
    """What was kept of an earlier run; a last line that was interrupted counts as none."""
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [Outcome(**json.loads(one)) for one in lines]


def report_live(asked: argparse.Namespace) -> None:
    """Flip bits in live sessions, without and with rechecked windows, and report."""
    figures, begun, lines = dict[str, float](), time.monotonic(), list[LiveOutcome]()
    for name, recheck in {"live": 0, "rechecked": 1}.items():
        with tempfile.TemporaryDirectory(prefix="flips-", ignore_cleanup_errors=True) as folder:
            found = asyncio.run(flip_live(Path(folder) / "home", asked.seed, asked.live, recheck))
        lines += found
        figures |= {f"{name}_{what}": count for what, count in counted(found).items() if "_" not in what}
        figures[f"{name}_told"] = sum(1 for one in found if one.told)
    for one in lines:
        if one.verdict == "missed":
            print(one)
    if asked.table:
        asked.table.write_text("".join(f"{one}\n" for one in lines))
    report(asked, figures, {"seconds": f"{time.monotonic() - begun:.0f}"})


def main() -> None:
    """Measure and report."""
    options = parser(__doc__ or "")
    options.add_argument("--store", type=Path, default=Path("/tmp/stigmergy-corruption"), help="where results are kept")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--flips", type=int, help=f"how many; {FLIPS}, and {CI_FLIPS} with --quick, unless said")
    options.add_argument("--seconds", type=float, default=float("inf"), help="begin none after so many seconds")
    options.add_argument("--live", type=int, help="flip so many bits in sessions of a swarm that runs, and none else")
    options.add_argument("--table", type=Path, help="write every outcome to this file")
    asked = options.parse_args()
    if asked.live:
        report_live(asked)
        return
    wanted = range(asked.flips or (CI_FLIPS if asked.quick else FLIPS))
    place = asked.store / f"{code_digest()}-{asked.seed}.jsonl"
    place.parent.mkdir(parents=True, exist_ok=True)
    found = {one.number: one for one in kept_in(place)}
    place.write_text("".join(json.dumps(asdict(one)) + "\n" for one in found.values()))
    missing, begun = [number for number in wanted if number not in found], time.monotonic()

    def keep(outcomes: Sequence[Outcome]) -> None:
        with place.open("a") as file:
            file.writelines(json.dumps(asdict(one)) + "\n" for one in outcomes)
        found.update({one.number: one for one in outcomes})

    asyncio.run(run_flips(asked.seed, missing, keep, seconds=asked.seconds))
    told = [found[number] for number in wanted if number in found]
    for one in told:
        if one.verdict == "missed":
            print(one)
    if asked.table:
        asked.table.write_text("".join(f"{one}\n" for one in told))
    planted = sum(1 for number in missing if number in found)
    report(asked, counted(told), {"planted now": str(planted), "seconds": f"{time.monotonic() - begun:.0f}"})


if __name__ == "__main__":
    main()
