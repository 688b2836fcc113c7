"""The real training job as benchmarks run it: over rows they made up, killed and resumed where they say."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bus.blobs import DirectoryBlobs
from contracts.errors import ChildDied
from contracts.request import read_request
from runtime.jobs.children import Children
from runtime.jobs.job import Job
from runtime.jobs.profiles import torch_profile

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

    async def ask(self, function: str, *, purpose: str = "probe", **args: Any) -> dict[str, Any]:
        """Run one job to its end."""
        profile = torch_profile(1, self.device)
        async with self.children.job(
            function, args, profile=profile, purpose=purpose, log=self.folder / "jobs.log"
        ) as child:
            return await child.wait()

    async def plan(self, request: Mapping[str, Any], rows: Mapping[str, Any]) -> Plan:
        """The plan of a request over made-up rows, which are written if they are not there."""
        args = {"request": dict(request), "rows": dict(rows), "place": str(self.rows(rows)), "device": self.device}
        plan: Plan = (await self.ask("benchmarks.trained:prepare", purpose="prepare", **args))["plan"]
        return plan

    def rows(self, rows: Mapping[str, Any]) -> Path:
        """Where such rows lie."""
        return self.folder / "rows" / "-".join(map(str, rows.values()))

    async def train(
        self, plan: Plan, rows: Mapping[str, Any], name: str, *, after: Told | None = None, until: int | None = None
    ) -> Told:
        """Train with blobs under `name`: from the last checkpoint of `after`; SIGKILL at the window of step `until`."""
        args = {
            "plan": plan,
            "seal": {"threads": 1, "profile": "exact"},
            "dataset": str(self.rows(rows)),
            "verify": False,
            "blobs": str(self.folder / name),
            "resume": None,
            "initial": None,
            "evaluations": [],
            "every_seconds": None,
            "workloads": [],
        }
        told = Told()
        job, log = "agents.trainer.jobs.train:main", self.folder / "jobs.log"
        profile = torch_profile(1, self.device)
        async with self.children.job(
            job, args | self._resuming(after, name), profile=profile, purpose="train", log=log
        ) as child:
            try:
                async for frame in child:
                    if frame.kind == "finished":
                        await child.order("leave", keep=False)
                        continue
                    told.at.append(time.perf_counter())
                    told.frames.append((frame.kind, frame.data.get("data", frame.data)))
                    if until is not None and frame.kind == "window.recorded" and frame.data["data"]["last"] >= until:
                        child.kill()
            except ChildDied:
                if until is None:
                    raise
                told.killed = True
        return told

    def _resuming(self, after: Told | None, name: str) -> dict[str, Any]:
        if after is None:
            return {}
        kept = after.of("checkpoint.written")[-1]
        place = DirectoryBlobs(self.folder / name).check(kept["blob"])
        seen = [one for one in after.of("control.evaluated") if one["step"] <= kept["step"]]
        return {
            "resume": {"path": str(place), "state_root": kept["state_root"]},
            "evaluations": [[one["step"], one["values"][one["metric"]]] for one in seen],
        }


def _step(data: Mapping[str, Any]) -> int:
    return int(data["last"] if "last" in data else data["step"])


def prepare(job: Job) -> dict[str, Any]:
    """In a job: rows of noise as a canonical dataset, and the plan that trains on them."""
    from runtime.engine import dataset
    from runtime.engine.dataset import Dataset
    from runtime.engine.facts import describe
    from runtime.engine.plan import Plan
    from runtime.engine.resolve import resolve

    place, rows = Path(job.args["place"]), dict(job.args["rows"])
    if not place.exists():
        make, task = KINDS[rows["kind"]]
        splits = {name: make(count) for name, count in (("train", rows["count"]), ("val", rows.get("val", 1000)))}
        dataset.write(place, splits, describe(splits, task))
    facts = Dataset.open(place, verify=False).facts
    asked = read_request(job.args["request"])
    return {"plan": Plan(asked, resolve(asked, facts, cores=1, cuda=job.args["device"] == "cuda")).as_json()}


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
