"""Weights that a session begins with: brought into the store once, by name, and read from there ever after."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bus.blobs import DirectoryBlobs, digest_of
from contracts.errors import InvalidRequest, Problem
from runtime.home.allowed import RequestPath
from runtime.jobs.profiles import torch_profile
from runtime.jobs.room import refuse_beyond
from runtime.log import retention

if TYPE_CHECKING:
    from torch import Tensor

    from runtime.jobs.children import Children
    from runtime.jobs.job import Job

WHERE = "model.init"
INSTEAD = "Save the tensors alone: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')."


async def bring(
    request: Mapping[str, Any], roots: Sequence[Path], blobs: DirectoryBlobs, session: str, children: Children
) -> str | None:
    """Have a child keep what a request's `model.init` names, for a session; the blob's digest, None when it has none.

    `InvalidRequest` when requests may not read the file, or it holds no tensors.
    """
    path = request["model"].get("init")
    if path is None:
        return None
    args = {"path": path, "roots": [str(one) for one in roots], "blobs": str(blobs.root), "session": session}
    async with children.job("runtime.replay.initial:main", args, profile=torch_profile(), purpose="prepare") as child:
        return str((await child.wait())["digest"])


def main(job: Job) -> dict[str, Any]:
    """The job: the digest of the blob in which the bytes of the file are kept from now on."""
    roots, blobs = [Path(one) for one in job.args["roots"]], DirectoryBlobs(Path(job.args["blobs"]))
    path = job.args["path"]
    with RequestPath(path, WHERE, INSTEAD).opened(roots) as file:
        size = os.fstat(file.fileno()).st_size
        refuse_beyond(f"the file {path!r}", WHERE, blobs.root, disk=size, held=size)
        data = file.read()
    _refuse_unless_tensors(data, path)
    # Marked as used first: a session that deletes the same bytes then leaves them in place.
    retention.hold_blob(blobs.root, digest_of(data), job.args["session"])
    return {"digest": blobs.put(data)}


def tensors(args: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """In a job that is told `blobs` and `initial`: these tensors, verified; None where a session draws its own."""
    if args["initial"] is None:
        return None
    import safetensors.torch

    data = DirectoryBlobs(Path(args["blobs"])).get(args["initial"])
    # In memory of their own: safetensors gives them out unaligned, and bits may depend on that.
    return {name: one.clone() for name, one in safetensors.torch.load(data).items()}


def _refuse_unless_tensors(data: bytes, path: str) -> None:
    import safetensors.torch
    from safetensors import SafetensorError

    try:
        safetensors.torch.load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise InvalidRequest([Problem(WHERE, f"{path!r} is no safetensors file ({error})", INSTEAD)]) from None
