"""Jobs that read one checkpoint in a child: what is inside it, and what its model answers. They change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import torch
from blake3 import blake3
from torch import Tensor

from contracts.errors import NotFound
from runtime import rows, trained
from runtime.engine import checkpoint
from runtime.processes.job import Job


def inspect(job: Job) -> dict[str, Any]:
    """Every tensor of a checkpoint file with its norm, once its digest and its roots have been recomputed."""
    path = Path(job.args["path"])
    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise NotFound(
            f"there is no checkpoint {str(path)!r}.", cure="See: swarm checkpoints S", path=str(path)
        ) from None
    found = checkpoint.unpack(data, state_root=job.args["state_root"])
    tensors = [_described(name, found.tensors[name]) for name in sorted(found.tensors)]
    return {
        "path": str(path),
        "blob": blake3(data).hexdigest(),
        "bytes": len(data),
        "step": found.step,
        "state_root": found.state_root,
        "weights_digest": found.weights_digest,
        "aliases": dict(found.aliases),
        "parameters": sum(one["elements"] for one in tensors if one["name"].startswith("model.")),
        "finite": all(one["finite"] for one in tensors),
        "tensors": tensors,
    }


def predict(job: Job) -> dict[str, Any]:
    """The answers for the rows in a file, written to another as one JSON array."""
    model = trained.load(job.args["order"])
    text = Path(job.args["data"]).read_text(encoding="utf-8-sig")
    columns = rows.columns_of(rows.parse(text, job.args["form"]), model.facts, model.inputs)
    found = model.predictions(columns)
    Path(job.args["answers"]).write_bytes(orjson.dumps(found))
    return {"step": model.step, "weights_digest": model.weights_digest, "task": model.facts.task, "rows": len(found)}


def _described(name: str, tensor: Tensor) -> dict[str, Any]:
    values = tensor.double() if tensor.is_floating_point() else tensor.to(torch.float64)
    finite = bool(torch.isfinite(values).all())
    return {
        "name": name,
        "shape": list(tensor.shape),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "elements": tensor.numel(),
        "norm": float(values.norm()) if finite else None,
        "finite": finite,
    }
