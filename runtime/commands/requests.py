"""Answers to wishes for sessions about another session: searches, forks, proofs and audits.

`runtime.commands.commands` imports it at the first such wish, in a thread: what these need takes a while to import.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from bus.blobs import DirectoryBlobs
from contracts import operator
from contracts.errors import InvalidInput, NotFound, Refused
from contracts.ledger import SessionSealed
from contracts.request.search import read_search
from contracts.session import SessionState
from contracts.trainer import InterventionApplied, Mode
from runtime.commands.verbs import Body, read_checked
from runtime.fork.genesis import ForkRequest, Runs, fork_genesis, training_rows
from runtime.log.row_names import RowNames
from runtime.log.session_log import newest_root
from runtime.model.checkpoints import code_of
from runtime.replay.audit_subject import machine_of

if TYPE_CHECKING:
    from runtime.commands.commands import Commands


STEP = "Give the grid step at which it begins."
MODES: tuple[str, ...] = get_args(Mode)
LARGEST = 2**53
"""Numbers up to here are the same in every language's JSON."""


async def search(commands: Commands, body: Body, folder: Path | None = None) -> Body:
    """Begin a search whose trials are sessions of their own."""
    resolved, asked_by, request_id = await asyncio.to_thread(read_checked, body, read_search)
    session = await commands.submit(resolved, "search", asked_by=asked_by, request_id=request_id, folder=folder)
    return {"session": session}


async def fork(commands: Commands, body: Body) -> Body:
    """Begin a session in the bits of another; `under` names a proof that goes on, whose trial it then is."""
    parent, blobs = await commands.history(body), commands.node.ground.blobs
    under = await commands.history({"session": body["under"]}) if body.get("under") else None
    if under is not None and (under.state.kind != "proof" or under.state.outcome is not None):
        raise Refused(f"{under.id} is no proof that goes on.", cure="Only a proof has forks of its own: swarm prove")
    code_of(parent.state, commands.node.home)
    made = fork_genesis(parent, await asyncio.to_thread(read_fork, body, parent.state, blobs), blobs)
    kind: operator.Kind = "training" if under is None else "trial"
    session = await commands.submit(
        made.request,
        kind,
        asked_by=str(body.get("asked_by") or "client"),
        parent=parent.id if under is None else under.id,
        request_id=_text(body, "request_id"),
        fork=made.fork,
    )
    return {"session": session, "rows_without": made.fork.rows_without, "seq": commands.node.tail.seq}


def read_fork(body: Mapping[str, Any], parent: SessionState, blobs: DirectoryBlobs) -> ForkRequest:
    """`step`, `segment`, `set` and `without`; `InvalidInput` names the first of these that cannot be meant."""
    step, segment, changes = body.get("step"), body.get("segment"), body.get("set") or {}
    for name, value in (("step", step), ("segment", 1 if segment is None else segment)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise InvalidInput(f"{name} is {value!r}, not a whole number.", cure=STEP, path=name)
    if not isinstance(changes, Mapping):
        raise InvalidInput(f"set is {changes!r}, not values by path.", cure='Send {"set": {"a.b": 1}}.', path="set")
    return ForkRequest(int(step or 0), segment, dict(changes), _without(body.get("without") or (), parent, blobs))


def _without(named: Any, parent: SessionState, blobs: DirectoryBlobs) -> Runs:
    if isinstance(named, Mapping):
        named = [one for one in blobs.get(str(named.get("blob"))).decode().splitlines() if one.strip()]
    if not named or parent.dataset is None:
        return ()
    if isinstance(named, str) or not all(isinstance(one, str) for one in named):
        message = "without is neither the names of rows nor a blob that lists them."
        raise InvalidInput(message, cure='Send {"without": ["train:3", "17-20"]}.', path="without")
    return training_rows(named, RowNames(parent.dataset, blobs), parent.dataset.splits["train"])


async def prove(commands: Commands, body: Body) -> Body:
    """Begin the proof of an intervention, named by its event's id or its number from 1; else of the last one."""
    parent = await commands.history(body)
    id, applied = _intervention(parent.state, body.get("intervention"))
    request = {
        "name": f"proof of {parent.state.request.get('name', parent.id)}",
        "session": parent.id,
        "intervention": id,
        "step": applied.step,
        "changes": applied.changes,
    }
    asked_by, request_id = str(body.get("asked_by") or "client"), f"{parent.id}-proof-{id}"
    session = await commands.submit(request, "proof", asked_by=asked_by, parent=parent.id, request_id=request_id)
    return {"session": session, "seq": commands.node.tail.seq}


async def audit(commands: Commands, body: Body) -> Body:
    """Begin an audit of a session: it cites the size and root that the ledger signed last, and the claimed machine."""
    history = await commands.history(body)
    mode = body.get("mode", "full")
    if mode not in MODES:
        raise InvalidInput(f"{mode!r} is no mode of an audit.", cure=f"Choose from {', '.join(MODES)}.", path="mode")
    segments, seed = _whole(body, "segments", 5, least=1), _whole(body, "seed", secrets.randbits(32), least=0)
    signed = newest_root(history)
    request = {
        "name": str(history.state.request.get("name", "")),
        "session": history.id,
        "mode": mode,
        "segments": segments,
        "seed": seed,
        "size": signed.size,
        "root": signed.root,
        "sealed": isinstance(signed, SessionSealed),
        "machine": machine_of(history.state),
    }
    asked_by = str(body.get("asked_by") or "client")
    session = await commands.submit(request, "audit", asked_by=asked_by, parent=history.id)
    return {"session": session, "of": history.id, "seed": seed}


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


def _whole(body: Mapping[str, Any], name: str, default: int, *, least: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= LARGEST:
        raise InvalidInput(f"{name} is {value!r}.", cure=f"Give a whole number from {least}.", path=name)
    return value


ANSWERS: Mapping[str, Callable[..., Awaitable[Body]]] = {"search": search, "fork": fork, "prove": prove, "audit": audit}
"""By the name of the command; a search may also be given the folder of its request."""
