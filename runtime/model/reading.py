"""Jobs that read one checkpoint in a child: what is inside it, and what its model answers. They change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from blake3 import blake3
from torch import Tensor

from contracts.errors import InvalidInput, NotFound
from contracts.request import Request
from contracts.request.data import ImageFolder
from runtime.engine import checkpoint
from runtime.jobs.job import Job
from runtime.model import rows, trained
from runtime.model.images import BrokenImage, decoded, is_image, pixels


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
    order, name = job.args["order"], job.args["name"]
    model = trained.load(order)
    content = Path(job.args["data"]).read_bytes()
    given = pixels_of(content, name, order) if is_image(name, content) else _rows(content, name, job.args["form"])
    columns = rows.columns_of(given, model.facts, model.inputs)
    found = model.predictions(columns)
    Path(job.args["answers"]).write_bytes(orjson.dumps(found))
    return {"step": model.step, "weights_digest": model.weights_digest, "task": model.facts.task, "rows": len(found)}


def _rows(content: bytes, name: str, form: str) -> Any:
    return rows.parse(rows.text_of(content, name), form)


def pixels_of(content: bytes, name: str, order: Mapping[str, Any]) -> list[np.ndarray]:
    """An image as the one row that the model is asked about, made as those that it was trained with."""
    data = Request.model_validate(order["request"]).data
    if not isinstance(data, ImageFolder):
        message = f"{name} is an image, and this session was trained with rows of {data.source!r}."
        raise InvalidInput(message, cure="Give the rows as numbers: CSV, JSON or JSON Lines.")
    try:
        return [pixels(decoded(content), data)]
    except BrokenImage as broken:
        raise InvalidInput(f"{name} cannot be read as an image: {broken}.", cure="Save it again.") from None
    except ModuleNotFoundError:
        cure = "Install it: pip install 'stigmergy-swarm[data]'"
        raise InvalidInput("reading images needs the package 'PIL', which is not here.", cure=cure) from None


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
