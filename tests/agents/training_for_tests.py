"""A job that trains a request to its end with the engine alone and gives what a trainer would have said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bus.blobs import DirectoryBlobs
from contracts.request import Request
from runtime.engine import checkpoint, seal
from runtime.engine.dataset import Dataset
from runtime.engine.fingerprint import fingerprint
from runtime.engine.loop import ENGINE_BITS, Run
from runtime.engine.plan import Plan
from runtime.engine.report import Evaluation
from runtime.engine.resolve import resolve
from runtime.home.workloads import WorkloadEntry, enlist
from runtime.jobs.job import job


@dataclass(frozen=True)
class TrainedOrder:
    """A request and its dataset in a store."""

    request: Mapping[str, object]
    dataset: str
    blobs: Path
    workloads: Sequence[WorkloadEntry]


@job(purpose="train")
def train_to_its_end(order: TrainedOrder) -> Mapping[str, Any]:
    """The claim's figures, every evaluation and every checkpoint, in order."""
    enlist(order.workloads)
    request = Request.model_validate(order.request)
    blobs = DirectoryBlobs(order.blobs)
    dataset = Dataset.open(blobs.root / "datasets" / order.dataset)
    resolved = resolve(request, dataset.facts, cores=1)
    seal.apply(threads=resolved.threads, profile=resolved.profile)
    here = fingerprint()
    run = Run.start(Plan(request, resolved), dataset)
    evaluations: list[dict[str, Any]] = []
    written = [_kept(run, blobs, "planned")]
    while not run.finished:
        report = run.advance()
        evaluations += [_seen(report.evaluation)] if report.evaluation else []
        written += [_kept(run, blobs, report.checkpoint)] if report.checkpoint else []
    claim = {"resolved": resolved.as_json(), "fingerprint": here.digest, "families": dict(here.families)}
    return {"claim": claim | {"engine_bits": ENGINE_BITS}, "evaluations": evaluations, "written": written}


def _seen(seen: Evaluation) -> dict[str, Any]:
    values = {name: value.hex() for name, value in seen.values.items()}
    about = {"segment": 1, "step": seen.step, "epoch": seen.epoch, "values": values, "metric": seen.metric}
    best = None if seen.best is None else seen.best.hex()
    rest = {"improved": seen.improved, "best": best, "best_step": seen.best_step, "stop": seen.stop}
    return about | rest | {"patience_left": seen.patience_left}


def _kept(run: Run, blobs: DirectoryBlobs, reason: str) -> dict[str, Any]:
    sealed = checkpoint.seal(run.tensors(), run.step, run.aliases)
    data = checkpoint.pack(sealed)
    about = {"segment": 1, "step": run.step, "reason": reason, "blob": blobs.put(data), "bytes": len(data)}
    return about | {"state_root": sealed.state_root, "weights_digest": sealed.weights_digest}
