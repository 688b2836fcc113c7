"""This checkout against an earlier commit, turn by turn on one machine: `python benchmarks/against.py COMMIT`.

    step_26k, step_1m       time of a step of the real training job (`benchmarks/step.py`)
    append, fold            time per event that is stored durably; that is read back, admitted and folded
                            (`benchmarks/log.py --quick`)
    ready, first_window     seconds from `swarm up -d` on an empty home to its return; from the genesis of the first
                            session there to its first window, by the log
    help                    processor time of `swarm --help`
    audit_full, audit_log   seconds of `swarm audit` of one session, which the earlier commit trained

Each figure is the median of the ratios of this checkout to the other, pair by pair, with the interval in which it lies
with a confidence of 90 % (bootstrap, corrected for bias and acceleration), and the probability of ratios so far from 1
if neither were quicker (signs of the logarithms flipped; all figures looked at together, by Holm). In every other turn
the earlier commit goes first. Turns that FILE has already are not made again, so that it goes on where it was ended.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import commit, parser, report
from runtime.statistics.resampling import bootstrap, holm, sign_flip

ROOT = Path(__file__).parents[1]
Figures = dict[str, float]
Pair = tuple[Figures, Figures]
"""What one turn measured of this checkout, and of the other."""

REQUEST = {
    "data": {"source": "digits"},
    "model": {"architecture": "mlp", "hidden": [64]},
    "early_stopping": {"enabled": False},
    "export": {"formats": []},
}


def main() -> None:
    """Measure what is asked for, and report."""
    asks = parser(__doc__ or "")
    asks.add_argument("commit", help="the commit to compare with")
    asks.add_argument("--turns", type=int, help="pairs of each (15, of audits 3; quick: 1)")
    asks.add_argument(
        "--only", choices=SUBJECTS, action="append", help="leave the rest out; may be given several times"
    )
    asked = asks.parse_args()
    with tempfile.TemporaryDirectory(prefix="against") as folder, checkout(asked.commit, Path(folder) / "tree") as tree:
        pairs = {name: measured(asked, name, tree, Path(folder)) for name in asked.only or SUBJECTS}
    ratios = {
        key: [ours[key] / theirs[key] for ours, theirs in found] for found in pairs.values() for key in found[0][0]
    }
    asked.json = None  # it has the turns
    report(asked, compared(ratios), {"commit": commit(), "against": asked.commit, "load": f"{os.getloadavg()[0]:.1f}"})


@contextmanager
def checkout(named: str, tree: Path) -> Iterator[Path]:
    """The files of a commit, in a folder of their own."""
    tree.mkdir()
    packed = subprocess.run(["git", "archive", named], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x"], cwd=tree, input=packed, check=True)
    # As the other's modules are compiled already, so that no process pays for it.
    for place in (tree, ROOT):
        folders = [place / name for name in ("agents", "benchmarks", "bus", "contracts", "runtime")]
        subprocess.run([sys.executable, "-m", "compileall", "-q", *map(str, folders)], check=True)
    yield tree


def measured(asked: argparse.Namespace, name: str, tree: Path, folder: Path) -> list[Pair]:
    """The turns of one subject: those that the file has, then new ones, each written there when it is made."""
    stored: dict[str, Any] = {"commits": [commit(), asked.commit], "pairs": {}}
    if asked.json and asked.json.exists():
        stored = json.loads(asked.json.read_text())
        if stored["commits"] != [commit(), asked.commit]:
            raise SystemExit(f"{asked.json} is about {stored['commits']}; name another file.")
    pairs: list[Pair] = [(ours, theirs) for ours, theirs in stored["pairs"].get(name, [])]
    turns = asked.turns or (1 if asked.quick else 3 if name == "audit" else 15)
    measure = SUBJECTS[name](folder, tree, quick=asked.quick) if len(pairs) < turns else None
    while measure is not None and len(pairs) < turns:
        sides = [ROOT, tree] if len(pairs) % 2 else [tree, ROOT]
        found = {side: measure(side) for side in sides}
        pairs.append((found[ROOT], found[tree]))
        print(f"{name} {len(pairs)}/{turns}", *(f"{one:.3f}" for one in ratios_of(pairs[-1])), file=sys.stderr)
        if asked.json:
            stored["pairs"][name] = pairs
            asked.json.write_text(json.dumps(stored, indent=1))
    return pairs


def ratios_of(pair: Pair) -> list[float]:
    """One pair's ratios, in the order of its figures."""
    return [pair[0][key] / pair[1][key] for key in pair[0]]


def compared(ratios: dict[str, list[float]]) -> Figures:
    """What the ratios of each figure say; of one turn there is no interval."""
    chances = holm([sign_flip([math.log(one) for one in found]) for found in ratios.values()])
    figures: Figures = {}
    for (key, found), chance in zip(ratios.items(), chances, strict=True):
        figures |= {key: statistics.median(found), f"{key}_p": chance, f"{key}_n": len(found)}
        if len(found) > 1:
            _, low, high = bootstrap(found, statistics.median)
            figures |= {f"{key}_low": low, f"{key}_high": high}
    return figures


def environment(tree: Path) -> dict[str, str]:
    """This environment, with that checkout's packages before those that are installed."""
    return os.environ | {"PYTHONPATH": str(tree)}


def swarm(tree: Path, home: Path, *words: str) -> str:
    """Run one command of that checkout on a home; what it answered."""
    command = [sys.executable, "-m", "runtime.cli.start", "--home", str(home), *words]
    done = subprocess.run(command, cwd=tree, env=environment(tree), check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed: {done.stdout[-500:]}{done.stderr[-500:]}")
    return done.stdout


def trained(tree: Path, home: Path, epochs: int) -> str:
    """Train to the end in the swarm of a home; the session."""
    path = home.parent / "request.json"
    path.write_text(json.dumps(REQUEST | {"training": {"epochs": epochs, "batch_size": 64}}))
    return str(json.loads(swarm(tree, home, "run", str(path), "--json").splitlines()[-1])["session"])


Measure = Callable[[Path], Figures]


def steps(folder: Path, before: Path, *, quick: bool) -> Measure:
    """Microseconds per step."""

    def measure(tree: Path) -> Figures:
        command = [sys.executable, "-P", str(ROOT / "benchmarks" / "step.py")]
        done = subprocess.run(command, cwd=tree, env=environment(tree), check=True, stdout=subprocess.PIPE)
        figures: Figures = json.loads(done.stdout)
        return figures

    return measure


def log(folder: Path, before: Path, *, quick: bool) -> Measure:
    """Seconds per event."""

    def measure(tree: Path) -> Figures:
        out = folder / "figures.json"
        command = [sys.executable, str(tree / "benchmarks" / "log.py"), "--quick", "--json", str(out)]
        subprocess.run(command, cwd=tree, env=environment(tree), check=True, stdout=subprocess.DEVNULL)
        found = json.loads(out.read_text())["figures"]
        return {"append": 1 / found["append_per_s"], "fold": 1 / found["fold_per_s"]}

    return measure


def startup(folder: Path, before: Path, *, quick: bool) -> Measure:
    """One life of a swarm on an empty home."""

    def measure(tree: Path) -> Figures:
        with tempfile.TemporaryDirectory(dir=folder) as life:
            home = Path(life) / "home"
            began = time.perf_counter()
            swarm(tree, home, "up", "-d")
            ready = time.perf_counter() - began
            try:
                session = trained(tree, home, 2)
                told = [json.loads(line) for line in swarm(tree, home, "events", session, "--json").splitlines()]
            finally:
                swarm(tree, home, "down")
        # The first of each kind: the list is turned round so that it is what stays.
        times = {line["name"]: datetime.fromisoformat(line["time"]) for line in reversed(told)}
        first = (times["window.recorded"] - times["session.requested"]).total_seconds()
        before_help = resource.getrusage(resource.RUSAGE_CHILDREN)
        swarm(tree, Path(life), "--help")
        after_help = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = sum(getattr(after_help, key) - getattr(before_help, key) for key in ("ru_utime", "ru_stime"))
        return {"ready": ready, "first_window": first, "help": spent}

    return measure


def audits(folder: Path, before: Path, *, quick: bool) -> Measure:
    """Whole processes, beside no swarm; one session of the earlier commit is audited by both."""
    home = folder / "audited"
    swarm(before, home, "up", "-d")
    try:
        session = trained(before, home, 60 if quick else 1500)
    finally:
        swarm(before, home, "down")

    def measure(tree: Path) -> Figures:
        found: Figures = {}
        for mode in ("full", "log"):
            began = time.perf_counter()
            answer = json.loads(
                swarm(tree, home, "audit", session, "--mode", mode, "--fresh", "--json").splitlines()[-1]
            )
            found[f"audit_{mode}"] = time.perf_counter() - began
            if answer["verdict"] != "pass":
                raise SystemExit(f"the audit failed: {answer}")
        return found

    return measure


SUBJECTS: dict[str, Callable[..., Measure]] = {"step": steps, "log": log, "startup": startup, "audit": audits}

if __name__ == "__main__":
    main()
