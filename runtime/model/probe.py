"""The job behind `swarm check`: a real batch forward and backward, timed, in the process that training would run in."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

from runtime.engine import seal
from runtime.engine.dataset import Dataset
from runtime.engine.loop import Run
from runtime.engine.plan import Plan
from runtime.home.workloads import enlist
from runtime.jobs import process
from runtime.jobs.job import Job
from runtime.replay import initial_state

TRIES = 5


def main(job: Job) -> dict[str, Any]:
    """The first batch's loss, the seconds one attempt took, and the memory at the peak."""
    seal.apply(**job.args["seal"])
    enlist(job.args["workloads"])
    plan = Plan.from_json(job.args["plan"])
    dataset = Dataset.open(Path(job.args["dataset"]), verify=False)
    before = peak_bytes()
    run = Run.start(plan, dataset, initial=initial_state.initial_tensors(job.args))
    state = sum(tensor.numel() * tensor.element_size() for tensor in run.tensors().values())
    loss = run.rehearse()
    seconds = min(_timed(run) for _ in range(TRIES))
    return {
        "loss": loss.hex(),
        "step_seconds": seconds,
        "memory_bytes": peak_bytes(),
        "memory_before_bytes": before,
        "state_bytes": state,
    }


def peak_bytes() -> int:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * process.RSS_UNIT


def _timed(run: Run) -> float:
    begun = time.perf_counter()
    run.rehearse()
    return time.perf_counter() - begun
