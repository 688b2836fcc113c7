"""A session's checkpoints for their users: which there are, which one a name means, what it takes to load one.

Pure but for the digests of the user's files; it reads no checkpoint and needs no torch.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from bus.blobs import DirectoryBlobs
from contracts.errors import InvalidInput, NotFound, NotVerified
from contracts.session import Checkpoint, SessionState
from runtime.home.home import Home
from runtime.home.workloads import Workloads
from runtime.log import retention

_DIGEST = re.compile(r"[0-9a-f]{64}")


def listed(session: SessionState, blobs: Path) -> list[dict[str, Any]]:
    """Every checkpoint ever written, in the order of steps, with what became of it."""
    roles = retention.roles(session)
    kept = sorted(session.checkpoints, key=lambda one: (one.written.step, one.written.segment))
    return [_line(one, session, list(roles.get(retention.place(one), [])), blobs) for one in kept]


def chosen(which: str | int) -> str:
    """A name that a checkpoint can have: best, last, final, or a step."""
    text = str(which)
    if text not in retention.NAMES and not text.isdecimal():
        raise InvalidInput(f"{text!r} names no checkpoint.", cure="Write best, last, or a step.")
    return text


def named(session: SessionState, which: str | int) -> Checkpoint:
    """The usable checkpoint called best, last or final, or that of a step; `NotFound` says which there are."""
    text = chosen(which)
    found = retention.named(session, text)
    if found is None:
        steps = ", ".join(str(one.written.step) for one in session.path_checkpoints() if one.usable)
        raise NotFound(f"{session.id} keeps no checkpoint {text!r}.", cure=f"Kept steps: {steps or 'none'}.")
    return found


def order(session: SessionState, which: str | int, home: Home) -> dict[str, Any]:
    """What a child needs to rebuild the model of a checkpoint, as plain data."""
    kept = named(session, which)
    if session.dataset is None:
        raise NotFound(f"{session.id} has no dataset yet.", cure=f"Wait for it: swarm wait {session.id}")
    return {
        "session": session.id,
        "request": session.request,
        "facts": session.dataset.facts,
        "blobs": str(home.blobs),
        "blob": kept.written.blob,
        "state_root": kept.written.state_root,
        "step": kept.written.step,
        "workloads": code_of(session, home),
    }


def blob_of(name: str, home: Home) -> Path | None:
    """The file that a digest, or a unique beginning of one, names in the home; None when it looks like neither."""
    if not re.fullmatch(r"[0-9a-f]{6,64}", name):
        return None
    blobs = DirectoryBlobs(home.blobs)
    if _DIGEST.fullmatch(name):
        return blobs.path(name)
    found = [one for one in (home.blobs / name[:2] / name[2:4]).glob(f"{name}*") if _DIGEST.fullmatch(one.name)]
    if len(found) > 1:
        raise InvalidInput(f"{name!r} fits {len(found)} blobs.", cure="Give more of the digest.")
    return found[0] if found else None


def totals(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """How many there are in which state, and the bytes of those kept, each blob counted once."""
    kept = {one["blob"]: one["bytes"] for one in lines if one["state"] in ("kept", "written")}
    return {"states": dict(Counter(one["state"] for one in lines)), "bytes": sum(kept.values())}


def _line(one: Checkpoint, session: SessionState, roles: list[Any], blobs: Path) -> dict[str, Any]:
    written = one.written
    state = one.gone or ("kept" if one.stored else "written")
    place = DirectoryBlobs(blobs).path(written.blob)
    return {
        "step": written.step,
        "segment": written.segment,
        "reason": written.reason,
        "state": state,
        "kept_as": roles if one.usable else [],
        "on_path": session.on_path(written.segment, written.step),
        "bytes": written.bytes,
        "blob": written.blob,
        "state_root": written.state_root,
        "weights_digest": written.weights_digest,
        "path": str(place) if one.usable else None,
        "present": place.is_file(),
    }


def code_of(session: SessionState, home: Home) -> list[dict[str, str]]:
    """The user's code that the request names; weights without the code that trained them mean nothing."""
    found = [one.as_json() for one in Workloads(home.root).needed(session.request)]
    claimed = session.claim.sources if session.claim else {}
    for one in found:
        wanted = claimed.get(one["name"], one["digest"])
        if wanted != one["digest"]:
            message = f"the workload {one['name']!r} is {one['digest']} now; the session trained with {wanted}."
            raise NotVerified(
                message, cure="Add the file it was trained with: swarm workload add FILE", path=one["path"]
            )
    return found
