"""The state in which a fork begins: the parent's checkpoint, or, when its bytes are not here, computed again."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from bus.blobs import DirectoryBlobs
from contracts.errors import NotFound, NotVerified
from contracts.fork import Fork
from runtime.home.home import Home
from runtime.jobs.children import Children
from runtime.log.archive import Archive
from runtime.replay.audit_subject import AuditSubject
from runtime.replay.steps import RESTAGE, compute_at_step


class StartState(NamedTuple):
    """A state in the blob store."""

    blob: str
    state_root: str


async def found(fork: Fork, blobs: DirectoryBlobs, home: Home, children: Children) -> StartState:
    """The state that a fork's genesis names, its bytes sound; computing it compares every window on the way.

    `NotFound` without checkpoint and log of the parent, `NotVerified` when they lead to another state, `Refused` when
    this machine computes other bits than the parent's.
    """
    if fork.blob is not None and fork.state_root is not None and _is_sound(fork.blob, blobs):
        return StartState(fork.blob, fork.state_root)
    try:
        kept = Archive(home).read(fork.session)
    except NotFound:
        message = f"the state of {fork.session} at step {fork.step} is not here, and neither is its log."
        raise NotFound(message, cure="Fork in the home that holds the parent.") from None
    material = AuditSubject(kept, blobs, home.root / "work" / "audits", home.root)
    made = await restaged(material, fork, children, blobs.root)
    _compare(fork, made)
    return StartState(made["blob"], made["state_root"])


async def restaged(
    material: AuditSubject, fork: Fork, children: Children, store: Path, *, trust_code: bool = False
) -> dict[str, Any]:
    """Compute the parent's state again, and keep it in a store of blobs as the checkpoint that it would have been."""
    about = {"step": fork.step, "store": str(store)}
    return await compute_at_step(
        material, RESTAGE, about, children, step=fork.step, segment=fork.segment, trust_code=trust_code
    )


def _is_sound(blob: str, blobs: DirectoryBlobs) -> bool:
    try:
        blobs.check(blob)
    except (NotFound, NotVerified):
        return False
    return True


def _compare(fork: Fork, made: dict[str, Any]) -> None:
    for name in ("weights_digest", "state_root", "blob"):
        wanted = getattr(fork, name)
        if wanted is not None and made[name] != wanted:
            message = (
                f"the {name} of {fork.session} at step {fork.step} is {made[name]}, and the genesis names {wanted}."
            )
            raise NotVerified(message, cure=f"Find the place: swarm audit {fork.session} --mode bisect")
