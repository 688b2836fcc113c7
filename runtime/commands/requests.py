"""Answers to wishes for sessions about another session: forks, proofs and audits.

`runtime.commands.commands` imports it at the first such wish, in a thread: what these need takes a while to import.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from bus.blobs import DirectoryBlobs
from contracts import operator
from contracts.commands import AuditCommand, ForkCommand, ProveCommand, RowsFile
from contracts.errors import NotFound, Refused
from contracts.ledger import SessionSealed
from contracts.replies import AuditReply, ForkReply, ReadReply
from contracts.session import SessionState
from contracts.trainer import InterventionApplied
from runtime.fork.genesis import ForkRequest, Runs, fork_genesis, training_rows
from runtime.log.row_names import RowNames
from runtime.log.session_log import newest_root
from runtime.model.checkpoints import code_of
from runtime.replay.audit_subject import machine_of

if TYPE_CHECKING:
    from runtime.commands.askers import Asker
    from runtime.commands.commands import Commands


async def fork(commands: Commands, wish: ForkCommand, by: Asker) -> ForkReply:
    """Begin a session in the bits of another; `under` names a session that goes on, whose trial it then is."""
    parent, blobs = await commands.history(wish.session), commands.node.ground.blobs
    under = await commands.open_parent(wish.under, wish.verb) if wish.under else None
    code_of(parent.state, commands.node.home)
    made = fork_genesis(parent, await asyncio.to_thread(read_fork, wish, parent.state, blobs), blobs)
    kind: operator.KindName = "training" if under is None else "trial"
    session = await commands.submit(
        made.request,
        kind,
        asked_by=by.name,
        parent=parent.id if under is None else under.id,
        request_id=wish.request_id,
        fork=made.fork,
    )
    return {"session": session, "rows_without": made.fork.rows_without, "seq": commands.node.tail.seq}


def read_fork(wish: ForkCommand, parent: SessionState, blobs: DirectoryBlobs) -> ForkRequest:
    """The rows that are left out by their places; `InvalidInput` names the first that is none."""
    named = wish.without
    if isinstance(named, RowsFile):
        named = [one for one in blobs.get(named.blob).decode(errors="replace").splitlines() if one.strip()]
    without: Runs = ()
    if named and parent.training.dataset is not None:
        without = training_rows(
            named, RowNames(parent.training.dataset, blobs), parent.training.dataset.splits["train"]
        )
    return ForkRequest(wish.step, wish.segment, wish.set, without)


async def prove(commands: Commands, wish: ProveCommand, by: Asker) -> ReadReply:
    """Begin the proof of an intervention, named by its event's id or its number from 1; else of the last one."""
    parent = await commands.history(wish.session)
    id, applied = _intervention(parent.state, wish.intervention)
    request = {
        "name": f"proof of {parent.state.request.get('name', parent.id)}",
        "session": parent.id,
        "intervention": id,
        "step": applied.step,
        "changes": applied.changes,
    }
    asked_by, request_id = by.name, f"{parent.id}-proof-{id}"
    if wish.seeds > 1:
        request, request_id = request | {"seeds": wish.seeds}, f"{request_id}-{wish.seeds}"
    session = await commands.submit(request, "proof", asked_by=asked_by, parent=parent.id, request_id=request_id)
    return {"session": session, "seq": commands.node.tail.seq}


async def audit(commands: Commands, wish: AuditCommand, by: Asker) -> AuditReply:
    """Begin an audit of a session: it cites the size and root that the ledger signed last, and the claimed machine."""
    history = await commands.history(wish.session)
    seed = secrets.randbits(32) if wish.seed is None else wish.seed
    signed = newest_root(history)
    request = {
        "name": str(history.state.request.get("name", "")),
        "session": history.id,
        "mode": wish.mode,
        "segments": wish.segments,
        "seed": seed,
        "size": signed.size,
        "root": signed.root,
        "sealed": isinstance(signed, SessionSealed),
        "machine": machine_of(history.state.training.claim).model_dump() if history.state.training.claim else {},
    }
    session = await commands.submit(request, "audit", asked_by=by.name, parent=history.id)
    return {"session": session, "of": history.id, "seed": seed}


def _intervention(state: SessionState, which: str | int | None) -> tuple[str, InterventionApplied]:
    applied = state.training.applied
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


ANSWERS: Mapping[str, Callable[..., Awaitable[Mapping[str, object]]]] = {
    "fork": fork,
    "prove": prove,
    "audit": audit,
}
"""By the name of the command."""
