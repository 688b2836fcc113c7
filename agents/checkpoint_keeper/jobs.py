"""The job that reads one checkpoint back: its bytes, its roots, its step; sound, it is held for its session."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bus.blobs import DirectoryBlobs
from contracts.errors import NotVerified
from runtime.engine import checkpoint
from runtime.jobs.job import Job
from runtime.log import retention


def verify(job: Job) -> dict[str, Any]:
    """The size of the blob; raises `NotFound` or `NotVerified` with what is wrong with it."""
    blobs, blob = DirectoryBlobs(Path(job.args["blobs"])), job.args["blob"]
    # Marked as used first: a session that deletes the same bytes then leaves them in place.
    retention.hold_blob(blobs.root, blob, job.args["session"])
    try:
        return {"bytes": _read_back(blobs, job.args)}
    except BaseException:
        retention.release_blob(blobs.root, blob, job.args["session"])
        raise


def _read_back(blobs: DirectoryBlobs, wanted: Mapping[str, Any]) -> int:
    data = blobs.get(wanted["blob"])
    content = checkpoint.unpack(data, state_root=wanted["state_root"])
    for name, value in (("step", content.step), ("weights_digest", content.weights_digest)):
        if value != wanted[name]:
            message = f"the checkpoint has the {name} {value!r}, the log {wanted[name]!r}"
            raise NotVerified(message, cure="Use an earlier checkpoint.")
    return len(data)
