"""Repeats, in a process that has seen nothing of a training, a stretch of it, and tells what that gave.

It is not told what the training had given: that is compared by its trainer, who runs no code of the user's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runtime.engine import birth, checkpoint, seal
from runtime.engine.dataset import Dataset
from runtime.engine.loop import Run
from runtime.engine.plan import Plan
from runtime.engine.report import Control
from runtime.home.workloads import enlist
from runtime.jobs.job import Job


def main(job: Job) -> dict[str, Any]:
    """{"stretch": what the steps up to `last` gave}."""
    seal.apply(**job.args["seal"])
    enlist(job.args["workloads"])
    again = birth.repeated(_restored(job), job.args["last"])
    seal.recheck(**job.args["seal"])
    return {"stretch": again.as_json()}


def _restored(job: Job) -> Run:
    plan = Plan.from_json(job.args["plan"])
    dataset = Dataset.open(Path(job.args["dataset"]), verify=False)
    kept = checkpoint.unpack(Path(job.args["staged"]).read_bytes())
    seen = [(step, float.fromhex(value)) for step, value in job.args["evaluations"]]
    control = Control.of(plan.request.early_stopping).after_all(seen)
    return Run.resume(plan, dataset, kept.tensors, kept.step, control=control)
