"""Jobs about one model in a child: what is in its checkpoint, what it answers, and what training it would take.

They change nothing.
"""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

import orjson
import torch
from blake3 import blake3
from torch import Tensor

from contracts.errors import NotFound
from runtime.engine import checkpoint, seal
from runtime.engine.dataset import Dataset
from runtime.engine.loop import Run
from runtime.engine.plan import Plan
from runtime.home.workloads import enlist
from runtime.jobs import process
from runtime.jobs.job import Job
from runtime.model import images, rows, trained
from runtime.replay import initial_state

TRIES = 5


def inspect(job: Job) -> dict[str, Any]:
    """Every tensor of a checkpoint file with its norm, once its digest and its roots have been recomputed."""
    path = Path(job.args["path"])
    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        message = f"there is no checkpoint {str(path)!r}."
        raise NotFound(message, cure="See: swarm checkpoints S", path=str(path)) from None
    content = checkpoint.unpack(data, state_root=job.args["state_root"])
    tensors = [_described(name, content.tensors[name]) for name in sorted(content.tensors)]
    return {
        "path": str(path),
        "blob": blake3(data).hexdigest(),
        "bytes": len(data),
        "step": content.step,
        "state_root": content.state_root,
        "weights_digest": content.weights_digest,
        "aliases": dict(content.aliases),
        "parameters": sum(each["elements"] for each in tensors if each["name"].startswith("model.")),
        "finite": all(each["finite"] for each in tensors),
        "tensors": tensors,
    }


def predict(job: Job) -> dict[str, Any]:
    """The answers for the rows in a file, written to another as one JSON array."""
    order, name = job.args["order"], job.args["name"]
    model = trained.load(order)
    content = Path(job.args["data"]).read_bytes()
    if images.is_image(name, content):
        given: Any = images.row_of(content, name, order)
    else:
        given = rows.parse(rows.text_of(content, name), job.args["form"])
    answers = model.predictions(rows.columns_of(given, model.facts, model.inputs))
    Path(job.args["answers"]).write_bytes(orjson.dumps(answers))
    return {"step": model.step, "weights_digest": model.weights_digest, "task": model.facts.task, "rows": len(answers)}


def _described(name: str, tensor: Tensor) -> dict[str, Any]:
    values = tensor.double() if tensor.is_floating_point() else tensor.to(torch.float64)
    finite = bool(torch.isfinite(values).all())
    return {
        "name": name,
        "shape": list(tensor.shape),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "elements": tensor.numel(),
        "bytes": tensor.numel() * tensor.element_size(),
        "norm": float(values.norm()) if finite else None,
        "finite": finite,
    }


def probe(job: Job) -> dict[str, Any]:
    """The job behind `swarm check`: a real batch forward and backward, in the process that training would run in.

    The first batch's loss, the seconds one attempt took, and the memory at the peak.
    """
    seal.apply(**job.args["seal"])
    enlist(job.args["workloads"])
    plan = Plan.from_json(job.args["plan"])
    dataset = Dataset.open(Path(job.args["dataset"]), verify=False)
    before = peak_bytes()
    run = Run.start(plan, dataset, initial=initial_state.initial_tensors(job.args))
    state = sum(tensor.numel() * tensor.element_size() for tensor in run.tensors().values())
    loss = run.rehearse()
    seconds = []
    for _ in range(TRIES):
        begun = time.perf_counter()
        run.rehearse()
        seconds.append(time.perf_counter() - begun)
    return {
        "loss": loss.hex(),
        "step_seconds": min(seconds),
        "memory_bytes": peak_bytes(),
        "memory_before_bytes": before,
        "state_bytes": state,
    }


def peak_bytes() -> int:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * process.RSS_UNIT
