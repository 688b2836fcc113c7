"""The real training job as benchmarks run it: over rows they made up, killed and resumed where they say."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents.trainer.jobs import AttemptTask, Leave, PlanEnd, StateFile, TrainingNews, train_plan
from bus.blobs import DirectoryBlobs
from contracts.errors import ChildDied
from contracts.event import Event
from contracts.request import read_request
from contracts.trainer import WindowRecorded
from runtime.jobs.children import A, Children, O, R, T
from runtime.jobs.job import Job, Seal, job, torch_profile

Plan = Mapping[str, Any]
PATH = ("window.recorded", "control.evaluated")
"""What must come out the same again."""


@dataclass
class Told:
    """What one child told about its training, in order, and when; `killed` when it was not let to its end."""

    at: list[float] = field(default_factory=list)
    frames: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    killed: bool = False

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The data of every frame of one kind."""
        return [data for name, data in self.frames if name == kind]

    def path(self, after: int = 0) -> list[tuple[str, dict[str, Any]]]:
        """Windows and evaluations of the steps after one."""
        return [(kind, data) for kind, data in self.frames if kind in PATH and _step(data) > after]

    @property
    def root(self) -> str:
        """The root over all state that was kept last."""
        return str(self.of("checkpoint.written")[-1]["state_root"])

    @property
    def us(self) -> float:
        """Microseconds per step, from the first window to the last."""
        seen = [
            (data["last"], at)
            for at, (kind, data) in zip(self.at, self.frames, strict=True)
            if kind == "window.recorded"
        ]
        (first, begin), (last, end) = seen[0], seen[-1]
        return 1e6 * (end - begin) / (last - first)


@dataclass(frozen=True)
class Bench:
    """Where benchmarks train: children, and a folder for rows and blobs."""

    children: Children
    folder: Path
    device: str = "cpu"

    async def ask(self, job: Job[A, R, T, O], argument: A) -> R:
        """Run one job to its end."""
        return await self.children.run(job, argument, log=self.folder / "jobs.log")

    async def plan(self, request: Mapping[str, Any], rows: Mapping[str, Any]) -> Plan:
        """The plan of a request over made-up rows, which are written if they are not there."""
        return await self.ask(plan_made_rows, MadeRows(request, rows, self.rows(rows), self.device))

    def rows(self, rows: Mapping[str, Any]) -> Path:
        """Where such rows lie."""
        return self.folder / "rows" / "-".join(map(str, rows.values()))

    async def train(
        self, plan: Plan, rows: Mapping[str, Any], name: str, *, after: Told | None = None, until: int | None = None
    ) -> Told:
        """Train with blobs under `name`: from the last checkpoint of `after`; SIGKILL at the window of step `until`."""
        state, evaluations = (None, []) if after is None else self._resuming(after, name)
        task = AttemptTask(
            plan=plan,
            seal=Seal(1),
            device=self.device,
            dataset=self.rows(rows),
            verify=False,
            blobs=self.folder / name,
            resume=state,
            initial=None,
            evaluations=evaluations,
            workloads=(),
        )
        told = Told()
        async with self.children.job(train_plan, task, log=self.folder / "jobs.log") as child:
            try:
                async for one in child:
                    if isinstance(one, PlanEnd):
                        await child.order(Leave(keep=False))
                        continue
                    told.at.append(time.perf_counter())
                    told.frames.append(_frame(one))
                    if until is not None and isinstance(one, WindowRecorded) and one.last >= until:
                        child.kill()
            except ChildDied:
                if until is None:
                    raise
                told.killed = True
        return told

    def _resuming(self, after: Told, name: str) -> tuple[StateFile, list[tuple[int, float]]]:
        kept = after.of("checkpoint.written")[-1]
        place = DirectoryBlobs(self.folder / name).check(kept["blob"])
        seen = [one for one in after.of("control.evaluated") if one["step"] <= kept["step"]]
        values = [(one["step"], float.fromhex(one["values"][one["metric"]])) for one in seen]
        return StateFile(place, kept["state_root"]), values


def _frame(told: TrainingNews) -> tuple[str, dict[str, Any]]:
    """An event under its wire name, anything else under that of its class."""
    if isinstance(told, Event):
        return told.wire, told.model_dump(mode="json")
    return type(told).__name__, {"step": getattr(told, "step", 0)}


def _step(data: Mapping[str, Any]) -> int:
    return int(data["last"] if "last" in data else data["step"])


@dataclass(frozen=True)
class MadeRows:
    """Rows to make, where they lie, and the request that trains on them."""

    request: Mapping[str, Any]
    rows: Mapping[str, Any]
    place: Path
    device: str


@job(purpose="prepare", profile=lambda made: torch_profile(1, made.device))
def plan_made_rows(made: MadeRows) -> Mapping[str, Any]:
    """Rows of noise as a canonical dataset, and the plan that trains on them."""
    from runtime.engine import dataset
    from runtime.engine.dataset import Dataset
    from runtime.engine.facts import describe
    from runtime.engine.plan import Plan
    from runtime.engine.resolve import resolve

    place, rows = made.place, dict(made.rows)
    if not place.exists():
        make, task = KINDS[rows["kind"]]
        splits = {name: make(count) for name, count in (("train", rows["count"]), ("val", rows.get("val", 1000)))}
        dataset.write(place, splits, describe(splits, task))
    facts = Dataset.open(place, verify=False).facts
    asked = read_request(made.request)
    return Plan(asked, resolve(asked, facts, cores=1, cuda=made.device == "cuda")).as_json()


@dataclass(frozen=True)
class SensorTurns:
    """A plan to train, the rows, and how many windows of each kind take turns."""

    plan: Mapping[str, Any]
    dataset: Path
    pairs: int


@dataclass(frozen=True)
class SensorCosts:
    """Processor time of each window with sensors and without, pair by pair, and the last window as its event."""

    sensed: tuple[float, ...]
    plain: tuple[float, ...]
    window: WindowRecorded


@job(purpose="prepare", profile=lambda asked: torch_profile(1, "cpu"))
def time_sensors(asked: SensorTurns) -> SensorCosts:
    """Train one plan twice in one process, with sensors and without, window by window in turn."""
    from dataclasses import replace

    from runtime.engine import seal
    from runtime.engine.dataset import Dataset
    from runtime.engine.loop import Run
    from runtime.engine.plan import Plan
    from runtime.replay.comparison import window_event

    seal.apply(profile="exact", threads=1)
    plan, dataset = Plan.from_json(asked.plan), Dataset.open(asked.dataset, verify=False)
    runs = [Run.start(replace(plan, resolved=replace(plan.resolved, sensors=told)), dataset) for told in (1, 0)]
    taken: tuple[list[float], list[float]] = [], []
    last: WindowRecorded | None = None
    for turn in range(asked.pairs + 2):
        for which in (0, 1) if turn % 2 else (1, 0):
            begun = time.process_time()
            told = runs[which].advance().window
            taken[which].append(time.process_time() - begun)
            if which == 0 and told is not None:
                last = window_event(told)
    assert last is not None
    # The first windows warm caches.
    return SensorCosts(tuple(taken[0][2:]), tuple(taken[1][2:]), last)


def _noise(*shape: int) -> Any:
    import numpy as np

    return np.random.default_rng(shape[0]).standard_normal(shape, dtype="<f4")


def _classes(count: int, below: int = 10) -> Any:
    import numpy as np

    return np.random.default_rng(count + 1).integers(0, below, count).astype("<i8")


KINDS: Mapping[str, tuple[Callable[[int], dict[str, Any]], Any]] = {
    "numbers": (lambda count: {"x": _noise(count, 64), "y": _classes(count)}, "classification"),
    "images": (lambda count: {"x": _noise(count, 3, 16, 16), "y": _classes(count)}, "classification"),
    "tokens": (lambda count: {"x": _classes(count * 32, 97).astype("<i4").reshape(count, 32)}, "sequences"),
}
"""Rows that benchmarks train on, and what they are for."""
