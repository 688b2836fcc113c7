"""Repeats, in a process that has seen nothing of a training, a stretch of it that another process has lived."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runtime.engine import birth, checkpoint, seal
from runtime.engine.birth import Stretch
from runtime.engine.control import Control
from runtime.engine.dataset import Dataset
from runtime.engine.loop import Run
from runtime.engine.plan import Plan
from runtime.processes.job import Job
from runtime.workloads import enlist


def main(job: Job) -> dict[str, Any]:
    """{"difference": None, or where the two part as plain data, "error": that as an error's JSON form}."""
    seal.apply(**job.args["seal"])
    enlist(job.args["workloads"])
    lived = Stretch.from_json(job.args["stretch"])
    found = birth.compare(lived, birth.repeated(_restored(job), job.args["last"]))
    if found is None:
        return {"difference": None}
    return {"difference": found.as_json(), "error": found.error().as_json()}


def _restored(job: Job) -> Run:
    plan = Plan.from_json(job.args["plan"])
    dataset = Dataset.open(Path(job.args["dataset"]), verify=False)
    kept = checkpoint.unpack(Path(job.args["staged"]).read_bytes())
    seen = [(step, float.fromhex(value)) for step, value in job.args["evaluations"]]
    control = Control.of(plan.request.early_stopping).after_all(seen)
    return Run.resume(plan, dataset, kept.tensors, kept.step, control=control)
