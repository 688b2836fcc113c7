"""A session's checkpoints for their users: which one a name means, and what it takes to load it.

Pure but for the digests of the user's files; it reads no checkpoint and needs no torch.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bus.blobs import DirectoryBlobs
from contracts.errors import InvalidInput, NotFound, NotVerified
from contracts.session import Checkpoint, SessionState
from runtime.home.home import Home
from runtime.home.workloads import WorkloadEntry, Workloads
from runtime.log import retention

_DIGEST = re.compile(r"[0-9a-f]{64}")


def checkpoint_name(which: str | int) -> str:
    """A name that a checkpoint can have: best, last, final, or a step."""
    text = str(which)
    if text not in retention.NAMES and not text.isdecimal():
        raise InvalidInput(f"{text!r} names no checkpoint.", cure="Write best, last, or a step.")
    return text


def find_checkpoint(session: SessionState, which: str | int) -> Checkpoint:
    """The usable checkpoint called best, last or final, or that of a step; `NotFound` says which there are."""
    text = checkpoint_name(which)
    kept = retention.named(session, text)
    if kept is None:
        steps = ", ".join(str(each.written.step) for each in session.training.path_checkpoints() if each.usable)
        raise NotFound(f"{session.id} keeps no checkpoint {text!r}.", cure=f"Kept steps: {steps or 'none'}.")
    return kept


@dataclass(frozen=True)
class ModelOrder:
    """What it takes to rebuild the model of a checkpoint: its blob and root, and what it was trained on and with."""

    session: str
    request: Mapping[str, object]
    facts: Mapping[str, Any]
    blobs: Path
    blob: str
    state_root: str
    step: int
    workloads: Sequence[WorkloadEntry]


def order(session: SessionState, which: str | int, home: Home) -> ModelOrder:
    """What it takes to rebuild the model of a checkpoint."""
    kept = find_checkpoint(session, which)
    if session.training.dataset is None:
        raise NotFound(f"{session.id} has no dataset yet.", cure=f"Wait for it: swarm wait {session.id}")
    return ModelOrder(
        session=session.id,
        request=session.request,
        facts=session.training.dataset.facts.model_dump(mode="json"),
        blobs=home.blobs,
        blob=kept.written.blob,
        state_root=kept.written.state_root,
        step=kept.written.step,
        workloads=code_of(session, home),
    )


def blob_of(name: str, home: Home) -> Path | None:
    """The file that a digest, or a unique beginning of one, names in the home; None when it looks like neither."""
    if not re.fullmatch(r"[0-9a-f]{6,64}", name):
        return None
    blobs = DirectoryBlobs(home.blobs)
    if _DIGEST.fullmatch(name):
        return blobs.path(name)
    files = [file for file in (home.blobs / name[:2] / name[2:4]).glob(f"{name}*") if _DIGEST.fullmatch(file.name)]
    if len(files) > 1:
        raise InvalidInput(f"{name!r} fits {len(files)} blobs.", cure="Give more of the digest.")
    return files[0] if files else None


def code_of(session: SessionState, home: Home) -> Sequence[WorkloadEntry]:
    """The user's code that the request names; weights without the code that trained them mean nothing."""
    needed = Workloads(home.root).needed(session.request)
    claimed = session.training.claim.sources if session.training.claim else {}
    for workload in needed:
        wanted = claimed.get(workload.name, workload.digest)
        if wanted != workload.digest:
            message = f"the workload {workload.name!r} is {workload.digest} now; the session trained with {wanted}."
            cure = "Add the file it was trained with: swarm workload add FILE"
            raise NotVerified(message, cure=cure, path=workload.path)
    return needed
