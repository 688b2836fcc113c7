"""The front desk's answers to wishes for forks and proofs. The rest of the desk is in `runtime.commands.commands`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from contracts import operator
from contracts.errors import InvalidInput, NotFound, Refused
from contracts.fork import Fork
from contracts.session import SessionState
from contracts.trainer import InterventionApplied
from runtime.model.checkpoints import code_of

if TYPE_CHECKING:
    from bus.blobs import DirectoryBlobs
    from runtime.commands.commands import Commands
    from runtime.fork.genesis import ForkGenesis, ForkRequest
    from runtime.log.session_log import SessionLog

Body = dict[str, Any]

RECORDED = {"root": None, "size": 0, "sealed": False, "state_root": None, "blob": None}
"""What a parent may have recorded between two wishes for the same fork."""


async def fork(desk: Commands, body: Body) -> Body:
    """Begin a session in the bits of another; `under` names a proof that goes on, whose trial it then is."""
    parent, blobs = await desk.history(body), desk.crew.ground.blobs
    under = await desk.history({"session": body["under"]}) if body.get("under") else None
    if under is not None and (under.state.kind != "proof" or under.state.outcome is not None):
        raise Refused(f"{under.id} is no proof that goes on.", cure="Only a proof has forks of its own: swarm prove")
    code_of(parent.state, desk.crew.home)
    fork_genesis, read_fork = await asyncio.to_thread(_makers)
    made = fork_genesis(parent, await asyncio.to_thread(read_fork, body, parent.state, blobs), blobs)
    kind: operator.Kind = "training" if under is None else "trial"
    session = await desk.submit(
        made.request,
        kind,
        asked_by=str(body.get("asked_by") or "client"),
        parent=parent.id if under is None else under.id,
        request_id=_text(body, "request_id"),
        fork=made.fork,
    )
    return {"session": session, "rows_without": made.fork.rows_without, "seq": desk.crew.tail.seq}


def _makers() -> tuple[
    Callable[[SessionLog, ForkRequest, DirectoryBlobs], ForkGenesis], Callable[[Body, SessionState, Any], ForkRequest]
]:
    """Import what forks need at the first such request: it takes a while, and a host without forks does not need it."""
    from runtime.commands.asking import read_fork
    from runtime.fork.genesis import fork_genesis

    return fork_genesis, read_fork


async def prove(desk: Commands, body: Body) -> Body:
    """Begin the proof of an intervention, named by its event's id or its number from 1; else of the last one."""
    parent = await desk.history(body)
    id, applied = _intervention(parent.state, body.get("intervention"))
    request = {
        "name": f"proof of {parent.state.request.get('name', parent.id)}",
        "session": parent.id,
        "intervention": id,
        "step": applied.step,
        "changes": applied.changes,
    }
    asked_by, request_id = str(body.get("asked_by") or "client"), f"{parent.id}-proof-{id}"
    session = await desk.submit(request, "proof", asked_by=asked_by, parent=parent.id, request_id=request_id)
    return {"session": session, "seq": desk.crew.tail.seq}


def same_fork(one: Fork | None, other: Fork | None) -> bool:
    """Whether both begin in the same bits with the same change."""
    return (one and one.model_copy(update=RECORDED)) == (other and other.model_copy(update=RECORDED))


def _intervention(state: SessionState, which: Any) -> tuple[str, InterventionApplied]:
    applied = state.applied
    if not applied:
        raise Refused(f"no intervention took effect in {state.id}.", cure=f"See: swarm show {state.id}")
    if which is None:
        return applied[-1]
    if isinstance(which, int) and 1 <= which <= len(applied):
        return applied[which - 1]
    found = next((one for one in applied if one[0] == which), None)
    if found is None:
        message = f"{state.id} has no intervention {which!r}; {len(applied)} took effect."
        raise NotFound(message, cure=f"Choose from 1 to {len(applied)}.", path="--intervention")
    return found


def _text(body: Body, name: str) -> str | None:
    value = body.get(name)
    if value is not None and (not isinstance(value, str) or not 0 < len(value) <= 200):
        raise InvalidInput(f"{name} is {value!r}.", cure="Give text of 1 to 200 characters.", path=name)
    return value
