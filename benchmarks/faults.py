"""Whether faults of training are found, named and repaired, and healthy trainings left alone.

    detected        faulty requests of which a finding says that something is wrong (severity `note` does not count)
    right_class     of these, those whose first finding by priority names the class of the fault
    false_alarms    healthy requests with a finding of which severity is not `note`
    repaired        faulty requests whose score comes within the twin's noise of the twin's by three tries at most:
                    remedies that act by themselves, proposals approved, next requests submitted
    by_chance       the same with three remedies drawn from all ladders, at the step at which something was found, for a
                    sample of these
    over_random     repaired over by_chance, of that sample

Each key has `_n` beside it, how many were counted, and all again with `_held` for the tasks that were held out when the
rules were made. A request counts as faulty when its score on clean rows falls below its healthy twin's by
more than the twin's noise over several seeds, and by 0.05 at least; as healthy when it ends as well as its task allows.
What does not is replaced by the next candidate, by a rule (`benchmarks/faults_cases/classes.py`). Results are kept
under `--store` by the content that gave them, so that a run goes on where it was interrupted, and rules can be asked
again without any training.

What the ladders did is counted by problem and remedy. `--record` writes it to `docs/faults.json`, with everything else,
and adds the counts of `docs/faults*.json` up in the table from which `swarm diagnose` tells what a remedy is worth.

The held-out half is run with `--held`. `docs/faults-seal.json` has the digest of its cases, and `--seal` writes there
that of the rules as they are; `--held` refuses to run with others than these, writes `docs/faults-held-2.json` once,
and refuses to do so again unless `--again` says so. `docs/faults-held.json` is what the first held-out half told, whose
cases have been tuned with since.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import hashlib
import json
import math
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from agents.data_manager.jobs import prepare_dataset
from benchmarks.faults_cases import classes, tasks
from benchmarks.faults_cases.classes import Asked, Case, with_seed
from benchmarks.faults_cases.kept import folded_again, priority
from benchmarks.faults_cases.live import decided_live
from benchmarks.faults_cases.repairs import Counts, Goal, Repair, added, by_chance, by_ladder, counted_tries
from benchmarks.faults_cases.tasks import SCORES, Rows
from benchmarks.faults_cases.trial import Forced, Trial, hold
from benchmarks.report import commit, parser, report
from contracts.data_manager import DatasetPrepared
from contracts.trainer import ControlEvaluated, TrainingClaimed, WindowRecorded
from runtime.diagnosis.health import EXPECTED
from runtime.engine.loop import ENGINE_BITS
from runtime.home.workloads import inspect_file
from runtime.jobs.children import Children
from runtime.node.capabilities import PreparationOrder

ROOT = Path(__file__).parents[1]
PATHS = ("--store", "--table", "--json")
"""Options that say where, which is nothing of what was measured."""

TABLE, HELD_TABLE = ROOT / "docs" / "faults.json", ROOT / "docs" / "faults-held-2.json"
SEAL = ROOT / "docs" / "faults-seal.json"
AT_ONCE = 2
SEEDS, SEEDS_QUICK = 3, 2
LEAST_NOISE, LEAST_FALL = 0.02, 0.05
"""Twins are never taken to be more alike than this, and what falls by less is no fault."""

WORKLOAD_FILE = Path(tasks.__file__).with_name("workload.py")

FORM = 1
"""Raised when the bench itself would now hold a session otherwise."""

PRIORS = {name: math.log(count) for name, count in (tasks.CLASSES | tasks.VOCABULARY).items()}
PRIORS |= {"diabetes": 1.0, "waves": 1.0}
"""The loss of who knows nothing but how many answers there are."""


@dataclass
class Bench:
    """Where sessions are held, and what is known of those that were."""

    children: Children
    store: Path
    code: str
    rules: str
    turns: asyncio.Semaphore
    datasets: dict[str, asyncio.Future[DatasetPrepared]] = field(default_factory=dict)
    sessions: dict[str, asyncio.Future[dict[str, Any]]] = field(default_factory=dict)
    seeds: int = SEEDS
    """How many sessions of a twin, each with a seed of its own, tell its noise."""
    trained: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each session took when it was held, where that was kept."""

    @cached_property
    def blobs(self) -> Path:
        """The store of blobs, another one for each data manager: what it notices is kept with what it prepared."""
        return self.store / f"blobs-{_digest((ROOT / 'agents' / 'data_manager').rglob('*.py'))}"

    async def prepared(self, data: Mapping[str, object]) -> DatasetPrepared:
        """The dataset of a section `data`, prepared as the data manager does, once."""
        key = json.dumps(data, sort_keys=True)
        if key not in self.datasets:
            self.datasets[key] = asyncio.ensure_future(self._prepare(data))
        return await self.datasets[key]

    async def _prepare(self, data: Mapping[str, object]) -> DatasetPrepared:
        place, roots = self.blobs / "datasets", [self.store / "rows"]
        order = PreparationOrder(data=data, store=place, roots=roots, trusted=[], workloads=[])
        made = await self.children.run(prepare_dataset, order)
        if not isinstance(made, DatasetPrepared):
            raise TypeError(f"{data} was not prepared: {made}")
        return made

    async def held(
        self, asked: Asked, *, mode: str = "observe", approved: int = 0, forced: Sequence[Forced] = ()
    ) -> dict[str, Any]:
        """The session of a request under a mode of diagnosis: held now, kept from before, or just being held.

        Of what waits for a person so much is `approved`; `forced` is what takes effect without any finding.
        """
        about: dict[str, Any] = {"asked": asdict(asked), "code": self.code}
        if mode != "observe":
            about |= {"mode": mode, "approved": approved, "forced": [asdict(one) for one in forced]}
            about |= {"rules": self.rules} if mode == "fix" else {}
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]
        if key not in self.sessions:
            self.sessions[key] = asyncio.ensure_future(self._kept(key, asked, mode, approved, forced))
        return await self.sessions[key]

    async def _kept(self, key: str, asked: Asked, mode: str, approved: int, forced: Sequence[Forced]) -> dict[str, Any]:
        place = self.store / "held" / f"{key}.json.gz"
        if place.exists():
            found = json.loads(gzip.decompress(place.read_bytes()))
            self.seconds |= {key: found["seconds"]} if "seconds" in found else {}
            return found
        async with self.turns:
            begun = time.monotonic()
            found = await self._hold(asked, mode, approved, forced)
            found["seconds"] = self.seconds[key] = time.monotonic() - begun
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = place.with_suffix(f".{random.randrange(10**9)}")
        fresh.write_bytes(gzip.compress(json.dumps(found).encode(), 1))
        fresh.rename(place)
        self.trained += 1
        return found

    async def _hold(self, asked: Asked, mode: str, approved: int, forced: Sequence[Forced]) -> dict[str, Any]:
        task, request = asked.rows.task, self.request(asked, mode)
        start = None
        if asked.start is not None:
            start = {name: one for name, one in asdict(asked.start).items() if one is not None}
            request["model"] = {**request["model"], "init": "weights.safetensors"}
        foreign = request["model"]["architecture"] == "workload"
        try:
            held = await self.children.run(
                hold,
                Trial(
                    request=request,
                    prepared=(await self.prepared(request["data"])).model_dump(mode="json"),
                    blobs=self.blobs,
                    unseen=await self._unseen(asked.rows),
                    score=SCORES[task],
                    prior=PRIORS[task],
                    start=start,
                    workloads=[inspect_file(str(WORKLOAD_FILE), name=classes.WORKLOAD)] if foreign else [],
                    approved=approved,
                    forced=forced,
                ),
                log=self.store / "jobs.log",
            )
        except Exception as error:
            error.add_note(f"in the session of {asked}")
            raise
        return asdict(held)

    def request(self, asked: Asked, mode: str) -> dict[str, Any]:
        """The request as it is read, whose rows lie in the store."""
        data = {**asked.rows.source(self.store / "rows"), **asked.data}
        return {**asked.request, "data": data, "diagnosis": {"mode": mode}}

    async def _unseen(self, rows: Rows) -> Path:
        """Clean rows: a file of arrays, or the dataset whose test split they are."""
        if (arrays := rows.unseen()) is None:
            clean = await self.prepared(Rows(rows.task, seed=rows.seed).source(self.store / "rows"))
            return self.blobs / "datasets" / clean.root
        place = self.store / "rows" / f"clean-{rows.key}.npz"
        if not place.exists():
            fresh = place.with_suffix(f".{random.randrange(10**9)}")
            with fresh.open("wb") as file:
                np.savez(file, **arrays)
            fresh.rename(place)
        return place


def code_digest() -> str:
    """What events of a session depend on besides its request: the bits of the engine, the forms of events, our rows."""
    forms = [one.schema_id for one in (DatasetPrepared, TrainingClaimed, WindowRecorded, ControlEvaluated)]
    ours = [Path(tasks.__file__), WORKLOAD_FILE, ROOT / "runtime" / "engine" / "sensors.py"]
    return f"{FORM} {ENGINE_BITS} {' '.join(forms)} {_digest(ours)}"


def rules_digest() -> str:
    """A digest of the code on which decisions depend."""
    places = ("agents/data_manager", "agents/trainer", "runtime/diagnosis", "runtime/engine/parts")
    ours = [Path(tasks.__file__).with_name(name) for name in ("trial.py", "kept.py")]
    return _digest([*ours, *(file for place in places for file in (ROOT / place).rglob("*.py"))])


def held_digest() -> str:
    """A digest of all that is held out: requests, rows and code."""
    every = [one for case in classes.cases() if case.held for one in case.candidates()]
    well = [classes.healthy(number) for number in range(classes.HEALTHY) if classes.held_healthy(number)]
    asked = json.dumps([[asdict(one) for one in every], [[asdict(one) for one in each] for _, each in well]])
    return f"{hashlib.sha256(asked.encode()).hexdigest()[:16]} {_digest([Path(tasks.__file__), WORKLOAD_FILE])}"


def judges_digest() -> str:
    """A digest of the code that says what is wrong with a session."""
    ours = [ROOT / "runtime" / "diagnosis" / "evidence.py", ROOT / "runtime" / "engine" / "sensors.py"]
    places = (ROOT / "runtime" / "diagnosis" / "rules", ROOT / "agents" / "data_manager")
    return _digest([*ours, *(file for place in places for file in place.rglob("*.py"))])


def unsealed() -> str:
    """Why the held-out half may not be run now; nothing when it may."""
    seal = json.loads(SEAL.read_text())
    if seal["held"] != held_digest():
        return f"the held-out cases are not those that {SEAL} names: {held_digest()} instead of {seal['held']}"
    if seal.get("rules") != judges_digest():
        return f"the rules are not those that {SEAL} names: {judges_digest()} instead of {seal.get('rules')}; --seal"
    return ""


def _digest(files: Iterable[Path]) -> str:
    hasher = hashlib.sha256()
    for file in sorted(files):
        hasher.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes())
    return hasher.hexdigest()[:16]


# What counts


@dataclass(frozen=True)
class Counted:
    """One case that counts: the session without any remedy, its twin's score and noise."""

    case: Case
    severity: int
    asked: Asked
    twin: Asked
    session: Mapping[str, Any]
    expected: float
    noise: float


async def twin_of(bench: Bench, twin: Asked, measure: str) -> tuple[float, float]:
    """The mean of a healthy request's measure over several seeds, and its noise: two standard deviations."""
    base = twin.request["reproducibility"]["seed"]
    seeds = [with_seed(twin, base + 1000 * n) for n in range(bench.seeds)]
    found = [one[measure] for one in await asyncio.gather(*(bench.held(one) for one in seeds))]
    return statistics.mean(found), max(LEAST_NOISE, 2 * statistics.stdev(found))


async def counted(bench: Bench, case: Case) -> Counted | None:
    """The first candidate of a case that falls below its twin; None when none does."""
    for severity, one in enumerate(case.candidates()):
        expected, noise = await twin_of(bench, one.twin, case.fault.measure)
        session = await bench.held(one.faulty)
        if expected - session[case.fault.measure] > max(noise, LEAST_FALL):
            return Counted(case, severity, one.faulty, one.twin, session, expected, noise)
    return None


GOOD_ENOUGH = 0.93
"""A healthy request's score beside the best that any of its task's reached."""

NO_RISE = 0.1
"""By how much its validation loss ends above its lowest, in units of the loss of who knows nothing."""


async def healthy(bench: Bench, number: int) -> tuple[Asked, Mapping[str, Any]] | None:
    """The first of a healthy case's requests that ends as well as its task allows; None when none does."""
    task, attempts = classes.healthy(number)
    expected, noise = await twin_of(bench, classes.base(task, 0, 0), "score")
    for asked in attempts:
        session = await bench.held(asked)
        seen = [one for one in session["validation"] if math.isfinite(one)]
        rise = (seen[-1] - min(seen)) / PRIORS[task] if seen else math.inf
        if session["score"] >= min(GOOD_ENOUGH * expected, expected - noise) and rise <= NO_RISE:
            return asked, session
    return None


# What was found


async def told(bench: Bench, asked: Asked, session: Mapping[str, Any]) -> list[str]:
    """The rules whose findings in a session are more than a note, the first by priority first.

    The data manager is asked again as well, for what it notices is evidence too.
    """
    prepared = await bench.prepared(bench.request(asked, "observe")["data"])
    found = folded_again(session["bodies"], prepared)
    return [one["rule"] for one in sorted(found, key=priority) if one["severity"] != "note"]


@dataclass(frozen=True)
class Verdicts:
    """What the rules make of all that counts."""

    faults: list[tuple[Counted, list[str]]]
    alarms: list[tuple[int, Asked, Mapping[str, Any], list[str]]]
    none_fell: list[str]
    none_healthy: list[int]
    repairs: Mapping[str, tuple[Repair, Repair | None]] = field(default_factory=dict)
    """By the ladder, and where it was tried by chance, for each fault that was tried, by its id."""

    def figures(self, ending: str) -> dict[str, float]:
        """Shares, each with how many were counted."""
        found = [(one, names) for one, names in self.faults if names]
        right = [one for one, names in found if names[0] in one.case.fault.named_by]
        false = [names for *_, names in self.alarms if names]
        shares = {
            "detected": (len(found), len(self.faults)),
            "right_class": (len(right), len(found)),
            "false_alarms": (len(false), len(self.alarms)),
        }
        if self.repairs:
            both = [(ours, theirs) for ours, theirs in self.repairs.values() if theirs is not None]
            ours, theirs = sum(one.reached for one, _ in both), sum(one.reached for _, one in both)
            shares |= {"repaired": (sum(one.reached for one, _ in self.repairs.values()), len(self.repairs))}
            shares |= {"by_chance": (theirs, len(both)), "over_random": (ours, theirs)}
        figures: dict[str, float] = {}
        for name, (part, whole) in shares.items():
            figures[name + ending] = part / whole if whole else math.nan
            figures[f"{name}{ending}_n"] = whole
        return figures

    @property
    def counts(self) -> Counts:
        """What the ladders did, by problem and remedy."""
        return counted_tries(ours for ours, _ in self.repairs.values())

    def table(self) -> str:
        """Confusion, misses and false alarms as text."""
        lines = ["class -> first finding (how often)"]
        by: dict[str, Counter[str]] = {}
        for one, names in self.faults:
            by.setdefault(one.case.fault.name, Counter())[names[0] if names else "-"] += 1
        for name, seen in by.items():
            lines.append(f"  {name:24} " + ", ".join(f"{what} {n}" for what, n in seen.most_common()))
        lines += ["", "not found, or named otherwise:"]
        for one, names in self.faults:
            if not names or names[0] not in one.case.fault.named_by:
                measure = one.case.fault.measure
                fall = f"{measure} {one.session[measure]:.3f} (twin {one.expected:.3f} +- {one.noise:.3f})"
                where = f"severity {one.severity} {fall} steps {one.session['steps']}"
                lines.append(f"  {one.case.id} {where}: {names or '-'}")
                lines.append(f"      {_short(asdict(one.asked))}")
        lines += ["", "false alarms:"]
        for number, asked, session, names in self.alarms:
            if names:
                where = f"score {session['score']:.3f} steps {session['steps']}"
                lines.append(f"  healthy {number} {asked.rows.task} {where}: {names}")
                lines.append(f"      {_short(asdict(asked))}")
        lines += ["", "repaired (by the ladder; by chance):"] if self.repairs else []
        for id, repairs in self.repairs.items():
            ours, theirs = ("-" if one is None else "yes" if one.reached else "NO" for one in repairs)
            lines.append(f"  {id:32} {ours:4}{theirs:4}{'; '.join(map(str, repairs[0].tried))}")
        if self.none_fell:
            lines += ["", f"no candidate fell: {', '.join(self.none_fell)}"]
        if self.none_healthy:
            lines += ["", f"no candidate was healthy: {self.none_healthy}"]
        return "\n".join(lines)


def _short(asked: Mapping[str, Any]) -> str:
    request = {name: one for name, one in asked["request"].items() if name != "validation"}
    rows = {name: one for name, one in asked["rows"].items() if one}
    return json.dumps({"rows": rows, **request, "start": asked["start"]})


async def verdicts(bench: Bench, cases: Sequence[Case], numbers: Sequence[int]) -> Verdicts:
    """Hold every session that is needed, and ask the rules."""

    async def of_case(case: Case) -> tuple[Counted, list[str]] | None:
        one = await counted(bench, case)
        return (one, await told(bench, one.asked, one.session)) if one else None

    async def of_healthy(number: int) -> tuple[int, Asked, Mapping[str, Any], list[str]] | None:
        one = await healthy(bench, number)
        return (number, *one, await told(bench, *one)) if one else None

    faulty, well = await asyncio.gather(asyncio.gather(*map(of_case, cases)), asyncio.gather(*map(of_healthy, numbers)))
    return Verdicts(
        [one for one in faulty if one],
        [one for one in well if one],
        [case.id for case, one in zip(cases, faulty, strict=True) if one is None],
        [number for number, one in zip(numbers, well, strict=True) if one is None],
    )


async def with_repairs(bench: Bench, found: Verdicts, most: int, drawn: int) -> Verdicts:
    """The same, once what is proposed was tried, for a fixed sample of so many faults where there are more.

    For a fixed sample of these, so many are `drawn`, remedies are drawn by chance as well.
    """
    faults = [one for one, _ in found.faults]
    picked = faults if len(faults) <= most else random.Random(3).sample(faults, most)
    beside = picked if len(picked) <= drawn else random.Random(4).sample(picked, drawn)
    tried = await asyncio.gather(*(repairs_of(bench, one, drawn=one in beside) for one in picked))
    return replace(found, repairs={one.case.id: repairs for one, repairs in zip(picked, tried, strict=True)})


OTHER_PATIENCES = (1, 4, 8)
"""After so many evaluations that were no better other twins stop than the ladder's remedy does."""


async def goal_of(bench: Bench, one: Counted) -> Goal:
    """What a repair has to reach: the twin's measure without its noise.

    A remedy that says when to stop is not held against a twin that stops as it does, but against the best of others.
    """
    measure, twins = one.case.fault.measure, [(one.expected, one.noise)]
    if one.asked.request["early_stopping"].get("enabled") is False:
        others = [one.twin.having(early_stopping={"patience": patience}) for patience in OTHER_PATIENCES]
        twins = await asyncio.gather(*(twin_of(bench, other, measure) for other in others))
    expected, noise = max(twins)
    return Goal(measure, expected - noise)


async def repairs_of(bench: Bench, one: Counted, *, drawn: bool) -> tuple[Repair, Repair | None]:
    """A fault put right by its ladder, and by chance where remedies are `drawn`."""
    goal = await goal_of(bench, one)
    if not drawn:
        return await by_ladder(bench, one.asked, goal), None
    chance = by_chance(bench, one.asked, one.session, one.case.id, goal)
    ours, theirs = await asyncio.gather(by_ladder(bench, one.asked, goal), chance)
    return ours, theirs


def chosen(asked: argparse.Namespace, *, held: bool) -> tuple[list[Case], list[int]]:
    """The cases and healthy numbers of one half; of the quick ones every few."""
    cases = [one for one in classes.cases() if one.held == held]
    numbers = [n for n in range(classes.HEALTHY) if classes.held_healthy(n) == held]
    if asked.only:
        cases = [one for one in cases if any(word in one.id for word in asked.only)]
    if asked.quick:
        cases = random.Random(32).sample(cases, min(32, len(cases)))
        numbers = random.Random(40).sample(numbers, 40)
    if asked.share < 1:
        cases = random.Random(1).sample(cases, max(1, round(asked.share * len(cases))))
        numbers = random.Random(2).sample(numbers, max(1, round(asked.share * len(numbers))))
    return cases, numbers


LIVE = 24
"""Cases that are also run in a swarm."""


async def differing_live(bench: Bench, found: Verdicts) -> tuple[list[str], int]:
    """Cases of which a swarm decided otherwise than this bench does, and how many were compared."""
    able = [one for one, _ in found.faults if one.asked.start is None]
    picked = random.Random(24).sample(able, min(LIVE, len(able)))
    here = [await bench.held(one.asked, mode="fix") for one in picked]
    requests = [bench.request(one.asked, "fix") for one in picked]
    with tempfile.TemporaryDirectory(prefix="faults-live") as folder:
        live = await decided_live(Path(folder) / "home", bench.store / "rows", requests, WORKLOAD_FILE)
    differing = []
    for one, ours, theirs in zip(picked, here, live, strict=True):
        if list(ours["decisions"]) != theirs:
            alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ours["decisions"], theirs)))  # noqa: B905
            differing.append(f"{one.case.id}: here {ours['decisions'][alike:][:1]}, live {theirs[alike:][:1]}")
    return differing, len(picked)


def write_tables(asked: argparse.Namespace, found: Verdicts) -> dict[str, float]:
    """Write what is known by now to the files that were asked for, and for the held-out half to its own.

    What the product tells of each remedy is what the tables of record have counted.
    """
    figures = found.figures("_held" if asked.held else "")
    if asked.table:
        asked.table.write_text(f"{json.dumps(figures, indent=1)}\n\n{found.table()}\n")
    if asked.held or asked.record:
        given = [text for text in sys.argv[1:] if not (Path(text).is_absolute() or text in PATHS)]
        told: dict[str, Any] = {"commit": commit(), "options": given, "rules": judges_digest()}
        told |= {"figures": figures, "counts": found.counts, "table": found.table().splitlines()}
        (HELD_TABLE if asked.held else TABLE).write_text(json.dumps(told, indent=1) + "\n")
        EXPECTED.write_text(gains_of_record())
    return figures


def gains_of_record() -> str:
    """What `swarm diagnose` tells of each remedy, as JSON: the counts of all tables of record, added up."""
    tables = [json.loads(file.read_bytes()) for file in sorted(TABLE.parent.glob("faults*.json"))]
    return json.dumps(added([one["counts"] for one in tables if "counts" in one]), indent=1) + "\n"


async def main() -> None:
    """Measure and report."""
    options = parser(__doc__ or "")
    options.add_argument(
        "--store", type=Path, default=Path(tempfile.gettempdir()) / "stigmergy-faults", help="where results are kept"
    )
    options.add_argument("--at-once", type=int, default=AT_ONCE, help="sessions that are held at once, one thread each")
    options.add_argument("--held", action="store_true", help="run the half that was held out instead")
    options.add_argument("--record", action="store_true", help="write docs/faults.json, and the product's table")
    options.add_argument("--again", action="store_true", help="run the held-out half although it was run before")
    options.add_argument("--seal", action="store_true", help="say that the rules are final as they are, and end")
    options.add_argument("--only", nargs="*", default=[], help="only cases with such a word in their names")
    options.add_argument("--share", type=float, default=1.0, help="a fixed sample of so large a share")
    options.add_argument("--repairs", type=int, help="for how many faults to try what is proposed (all; quick: 4)")
    options.add_argument("--drawn", type=int, default=48, help="for how many of these to draw remedies by chance (48)")
    options.add_argument("--live", action="store_true", help=f"also run {LIVE} cases in a swarm, and compare decisions")
    options.add_argument("--table", type=Path, help="write confusion, misses and false alarms to this file")
    asked = options.parse_args()
    if asked.seal:
        SEAL.write_text(json.dumps({"held": held_digest(), "rules": judges_digest()}, indent=1) + "\n")
        return
    if asked.held and (why := unsealed()):
        sys.exit(why)
    if asked.held and HELD_TABLE.exists() and not asked.again:
        sys.exit(f"{HELD_TABLE} is there: the held-out half was run once. Give --again to run it although it was seen.")
    cases, numbers = chosen(asked, held=asked.held)
    children, begun = Children(), time.monotonic()
    bench = Bench(children, asked.store, code_digest(), rules_digest(), asyncio.Semaphore(asked.at_once))
    bench.seeds = SEEDS_QUICK if asked.quick else SEEDS
    try:
        found = await verdicts(bench, cases, numbers)
        write_tables(asked, found)
        most = asked.repairs if asked.repairs is not None else 4 if asked.quick else len(cases)
        if most:
            found = await with_repairs(bench, found, most, asked.drawn)
        differing, compared = await differing_live(bench, found) if asked.live else ([], 0)
    finally:
        await children.close()
    figures = write_tables(asked, found)
    if asked.live:
        figures |= {"differing_live": len(differing), "differing_live_n": compared}
        print("\n".join(["decided otherwise live:", *differing]), end="\n\n")
    print(found.table(), end="\n\n")
    whole = statistics.mean(bench.seconds.values()) * len(bench.sessions) / asked.at_once if bench.seconds else 0.0
    notes = {
        "sessions, of which now": f"{len(bench.sessions)}, {bench.trained}",
        "seconds": f"{time.monotonic() - begun:.0f}",
        "seconds for all sessions": f"{whole:.0f}, by those whose time is known, {asked.at_once} at once",
    }
    report(asked, figures, notes)


if __name__ == "__main__":
    asyncio.run(main())
