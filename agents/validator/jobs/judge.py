"""The job that judges one checkpoint on one split, with the engine's own evaluation, and compares bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from agents.validator import report
from bus.blobs import DirectoryBlobs
from contracts.request import Request
from runtime.engine import checkpoint, seal
from runtime.engine.dataset import Dataset
from runtime.engine.evaluate import Judge
from runtime.engine.fingerprint import fingerprint, present
from runtime.engine.learner import Learner
from runtime.engine.loop import ENGINE_BITS
from runtime.engine.plan import Resolved
from runtime.processes.job import Job
from runtime.workloads import enlist


class Compared(NamedTuple):
    """Whether the control metric came out the same, and what there is to say about it."""

    control: str
    about: dict[str, Any]


def main(job: Job) -> dict[str, Any]:
    """The fields of `CheckpointValidated` that the arguments do not hold already; exact floats as hex."""
    args = job.args
    resolved = _here(Resolved(**args["claim"]["resolved"]))
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
    compared = _compared(values, args["recorded"], resolved, args["claim"])
    return {
        "rows": dataset.facts.rows[args["split"]],
        "metrics": {name.removeprefix(f"{args['split']}_"): value for name, value in values.items()},
        "control": compared.control,
        "details": details | {"control": compared.about},
    }


def _here(claimed: Resolved) -> Resolved:
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


def _compared(
    values: Mapping[str, str], recorded: Mapping[str, str], resolved: Resolved, claim: Mapping[str, Any]
) -> Compared:
    """Equal bits are proof enough; only a difference asks whether this machine could have given the same ones."""
    if not recorded:
        return Compared("not-comparable", {"reason": "no control metric was recorded for this split and step"})
    wrong = {name: [text, values.get(name, "")] for name, text in recorded.items() if values.get(name) != text}
    if not wrong:
        return Compared("reproduced", {"values": len(recorded)})
    about: dict[str, Any] = {"recorded_and_computed": wrong}
    if resolved.profile != "exact":
        return Compared("not-comparable", about | {"reason": "the session is not deterministic"})
    if claim["engine_bits"] != ENGINE_BITS:
        return Compared("not-comparable", about | {"reason": f"engine bits {claim['engine_bits']}, here {ENGINE_BITS}"})
    here = fingerprint(resolved.device, resolved.precision)
    if here.digest != claim["fingerprint"]:
        reason = "another numeric fingerprint"
        return Compared("not-comparable", about | {"reason": reason, "families": here.differing(claim["families"])})
    return Compared("differs", about)
