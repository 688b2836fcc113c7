"""Sessions that are killed again and again, and what of them differs from an undisturbed run: nothing may.

    kills          SIGKILLs of host, server, a child, a zygote or all of them, at random moments and at named failpoints
    differences    sessions that did not complete with the same bits, lost or doubled an event, or left something behind
    sessions       sessions that were brought to their end in spite of it

Several sessions are disturbed at once, each in a home of its own; what is over is followed by one of another model.
`--json FILE` is read before it is written: figures are cumulative over runs, so `--kills 1000` goes on where the last
run stopped. `--report FILE` writes them as a page.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import commit, filesystem, machine
from tests import chaos
from tests.chaos import Arena, Result
from tests.harness import small_request

REQUESTS: dict[str, dict[str, Any]] = {
    **chaos.MODELS,
    "mlp, plain": chaos.LONG,
    "mlp, repaired": small_request(
        optimizer={"type": "sgd", "learning_rate": 1000.0}, training={"epochs": 16, "batch_size": 64}
    ),
}
"""A session of each takes a few seconds when nobody disturbs it. The last is rewound by the diagnostician."""

PER_SESSION = 12


@dataclass
class Tally:
    """What has been found so far, in this run and in those before it."""

    kills: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    sessions: int = 0
    seconds: float = 0.0
    seeds: list[int] = field(default_factory=list)
    differences: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def kept(cls, path: Path | None) -> Tally:
        """The tally of earlier runs."""
        if path is None or not path.exists():
            return cls()
        raw = json.loads(path.read_text())["state"]
        raw["kills"], raw["models"] = Counter(raw["kills"]), Counter(raw["models"])
        return cls(**raw)

    def figures(self) -> dict[str, float]:
        """The numbers that count."""
        kinds = {f"kills_{name.replace(' ', '_').replace('-', '_')}": n for name, n in sorted(self.kills.items())}
        total = {"kills": self.kills.total(), "differences": len(self.differences), "sessions": self.sessions}
        return {**total, **kinds, "seconds": round(self.seconds, 1)}

    def keep(self, path: Path | None) -> None:
        """Write it down; a run that is killed itself loses one session at most."""
        if path is not None:
            told = {"figures": self.figures(), "machine": machine(), "commit": commit(), "state": vars(self)}
            fresh = path.with_name(f".{path.name}")
            fresh.write_text(json.dumps(told, indent=2))
            fresh.replace(path)


async def one(folder: Path, name: str, undisturbed: Result, seed: int, kills: int, tally: Tally) -> None:
    """One session in a home of its own; the home stays where it is when something differs."""
    rng, arena = random.Random(seed), Arena(folder)
    begun = time.monotonic()
    found: list[str]
    done: Counter[str] = Counter()
    try:
        await chaos.risen(arena)
        session = await arena.submit(REQUESTS[name], f"chaos {seed}")
        done = await chaos.torment(arena, session, rng, kills, longest=rng.choice((0.5, 1.5, 3.0)), armed=0.5)
        await arena.ended(session)
        found = await arena.judge(session, undisturbed)
        await arena.down()
        found += [f"left behind: {process}" for process in await arena.strays()]
    except Exception as error:  # noqa: BLE001 - whatever goes wrong is a difference, and the next session is tried
        found = [f"{type(error).__name__}: {error}"]
        await arena.down()
    tally.sessions += 1
    tally.kills += done
    tally.models[name] += done.total()
    tally.seeds.append(seed)
    told = ", ".join(f"{kind} {n}" for kind, n in sorted(done.items()))
    print(f"seed {seed:>10}  {name:<32} {time.monotonic() - begun:6.1f} s  {told}", flush=True)
    if found:
        tally.differences.append({"seed": seed, "model": name, "home": str(folder), "found": found})
        print(*(f"    {line}" for line in found), f"    kept in {folder}", sep="\n", flush=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


async def run(asked: argparse.Namespace, tally: Tally) -> None:
    """Sessions, several at once, until so many kills are counted in all."""
    seed = asked.seed if asked.seed is not None else random.SystemRandom().randrange(2**31)
    print(f"--seed {seed}: the moments of the kills are drawn from it; what the system does meanwhile is not")
    work = Path(tempfile.mkdtemp(prefix="chaos-", dir=asked.dir))
    print(f"homes in {work} ({filesystem(work)})")
    names = ["mlp"] if asked.quick else list(REQUESTS)
    begun, before = time.monotonic(), tally.seconds
    places = asyncio.Semaphore(asked.at_once)
    known = dict(zip(names, await asyncio.gather(*(_undisturbed(work, name, places) for name in names)), strict=True))
    numbers, promised = count(), Counter[int]()

    async def disturb() -> None:
        while (left := asked.kills - tally.kills.total() - promised.total()) > 0:
            number = next(numbers)
            name, kills = names[number % len(names)], min(PER_SESSION, left)
            promised[number] = kills
            await one(work / f"{seed + number}", name, known[name], seed + number, kills, tally)
            del promised[number]
            tally.seconds = before + time.monotonic() - begun
            tally.keep(asked.json)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(asked.at_once):
            tasks.create_task(disturb())
    if not tally.differences:
        shutil.rmtree(work, ignore_errors=True)


async def _undisturbed(work: Path, name: str, places: asyncio.Semaphore) -> Result:
    async with places:
        return await chaos.undisturbed(work / f"undisturbed-{name}", REQUESTS[name])


def page(tally: Tally) -> str:
    """The figures as a page."""
    rows = [f"| {kind} | {n} |" for kind, n in sorted(tally.kills.items())]
    models = [f"| {name} | {n} |" for name, n in sorted(tally.models.items())]
    found = [f"- seed {one['seed']}, {one['model']}: {'; '.join(one['found'])}" for one in tally.differences]
    about = ", ".join(f"{name} {value}" for name, value in machine().items())
    lines = [
        "# Killed, resumed, compared",
        "",
        f"{tally.kills.total()} kills in {tally.sessions} sessions, {len(tally.differences)} of which differed from an",
        "undisturbed run. Compared are the final weights, every window and evaluation on the path, the files with the",
        "stream, every message that a witness saw stored, chains, signatures and seals, and the table of processes.",
        "",
        f"`python benchmarks/chaos.py --json FILE --report FILE` ({about}; commit {commit()[:12]})",
        "",
        "| killed by SIGKILL | times |",
        "|---|---|",
        *rows,
        "",
        "| model | kills |",
        "|---|---|",
        *models,
        "",
        *(["Differences:", "", *found] if found else ["No difference."]),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Kill, compare, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a dozen kills of one model, under a minute")
    parser.add_argument("--kills", type=int, help="kills in all, those of earlier runs included (1000; quick: 12)")
    parser.add_argument("--at-once", type=int, default=3, help="sessions that are disturbed at the same time (3)")
    parser.add_argument("--seed", type=int, help="from which moments and victims are drawn")
    parser.add_argument("--dir", type=Path, help="where homes are made (the system's temporary folder)")
    parser.add_argument("--json", type=Path, help="read and write the figures in this file")
    parser.add_argument("--report", type=Path, help="write a page about all runs")
    asked = parser.parse_args()
    asked.kills = asked.kills or (12 if asked.quick else 1000)
    tally = Tally.kept(asked.json)
    try:
        asyncio.run(run(asked, tally))
    finally:
        if asked.report:
            asked.report.write_text(page(tally))
    for name, value in tally.figures().items():
        print(f"{name:<44} {value:>10,}")
    return 1 if tally.differences else 0


if __name__ == "__main__":
    sys.exit(main())
