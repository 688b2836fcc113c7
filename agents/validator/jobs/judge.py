"""The job that judges one checkpoint on one split, with the engine's own evaluation.

It may run code of the user's, so it is not told what was recorded: the validator compares.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from agents.validator import report
from bus.blobs import DirectoryBlobs
from contracts.request import Request
from runtime.engine import checkpoint, seal
from runtime.engine.dataset import Dataset
from runtime.engine.evaluate import Judge
from runtime.engine.fingerprint import present
from runtime.engine.learner import Learner
from runtime.engine.plan import ResolvedValues
from runtime.home.workloads import enlist
from runtime.jobs.job import Job


def main(job: Job) -> dict[str, Any]:
    """How many rows there were, the `values` of the metrics as hex, and `details` about the answers."""
    args = job.args
    resolved = _here(ResolvedValues(**args["claim"]["resolved"]))
    seal.apply(threads=resolved.threads, profile=resolved.profile)
    enlist(args["workloads"])
    blobs, request = DirectoryBlobs(Path(args["blobs"])), Request.model_validate(args["request"])
    dataset = Dataset.open(blobs.root / "datasets" / args["dataset"], verify=False)
    tensors = checkpoint.unpack(blobs.get(args["blob"]), state_root=args["state_root"]).tensors
    model = checkpoint.load_model(request, dataset.facts, tensors).to(resolved.device)
    learner = Learner(request, dataset.facts)
    judge = Judge(learner, resolved, dataset, args["split"])
    values = {name: value.hex() for name, value in judge.values(model).items()}
    details = _details(judge, model, learner, dataset, args["split"])
    return {"rows": dataset.facts.rows[args["split"]], "values": values, "details": details}


def _here(claimed: ResolvedValues) -> ResolvedValues:
    """The claim's numbers; where its device is absent the CPU judges, which is worth knowing and not comparable."""
    return claimed if present(claimed.device) else replace(claimed, device="cpu")


def _details(judge: Judge, model: Any, learner: Learner, dataset: Dataset, split: str) -> dict[str, Any]:
    """More than the metrics say, for targets of a known kind whose answers are at hand."""
    # What is learned is not always what the rows are for: digits can be rebuilt instead of classified.
    if not learner.metrics or learner.task not in ("classification", "regression"):
        return {}
    answers, truth = judge.answers(model).numpy(), dataset.columns(split)["y"]
    if learner.task == "classification" and answers.ndim == 2:
        return report.of_classes(answers, truth, dataset.facts.labels)
    if learner.task == "regression" and answers.size == truth.size:
        return report.of_numbers(answers, truth)
    return {}
