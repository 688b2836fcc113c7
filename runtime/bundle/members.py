"""What belongs to a session and is no event, as its seal says it. Pure: the blobs themselves are not read."""

from __future__ import annotations

from collections.abc import Mapping

from bus import notes
from contracts.ids import sha256
from contracts.ledger import SessionSealed
from contracts.session import SessionState

SCHEMAS, VERIFIER = "schemas.json", "verify_bundle.py"
FURNITURE = (SCHEMAS, VERIFIER)
"""Members that every session has and no event names: the seal alone says which they were."""


def of(session: SessionState) -> dict[str, str]:
    """The digest of every member that the session's own events name."""
    found = {"inherited": session.fork.more} if session.fork and session.fork.more else {}
    if session.dataset:
        found["dataset"] = session.dataset.root
        found |= {f"rows/{split}": digest for split, digest in origins(session).items()}
    if session.claim:
        found |= {f"source/{name}": digest for name, digest in session.claim.sources.items()}
        found |= {"initial": session.claim.initial} if session.claim.initial else {}
    for number, (_, made) in enumerate(session.exports, 1):
        found[f"export/{number}/{made.filename}"] = made.blob
    for kept in session.checkpoints:
        if kept.usable:
            found[f"checkpoint/{kept.written.segment}/{kept.written.step}"] = kept.written.blob
    return found


def origins(session: SessionState) -> Mapping[str, str]:
    """The blobs with what the source calls the rows of each split; none for datasets that were prepared before."""
    named = session.dataset.origins if session.dataset else None
    return named.blobs if named else {}


def digest(members: Mapping[str, str]) -> str:
    """One digest over all members: SHA-256 of a title and a line each, sorted."""
    lines = "".join(f"{name} {members[name]}\n" for name in sorted(members))
    return sha256(f"stigmergy/members/1\n{lines}".encode())


def checkpoint_of(session: str, seal: SessionSealed) -> notes.SignedTreeHead:
    """What the note of a seal says: beside the tree it pins the keyring and the members, and so the whole bundle."""
    extensions = (
        f"last-seq {seal.last_seq}",
        f"keyring {seal.keyring_size} {seal.keyring_root}",
        f"members {digest(seal.members)}",
    )
    return notes.SignedTreeHead(notes.origin(session), seal.size, bytes.fromhex(seal.root), extensions)
