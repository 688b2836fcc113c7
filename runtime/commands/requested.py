"""What an audit in a swarm is asked for, checked and tied to what the ledger has signed of a session. Pure."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, get_args

from contracts.errors import InvalidInput
from contracts.ledger import SessionSealed
from contracts.trainer import Mode
from runtime.log.session_log import SessionLog, newest_root
from runtime.replay.audit_subject import machine_of

MODES: tuple[str, ...] = get_args(Mode)
LARGEST = 2**53
"""Numbers up to here are the same in every language's JSON."""


def audit_request(body: Mapping[str, Any], history: SessionLog) -> dict[str, Any]:
    """The request of an audit of this session: the signed size and root that it cites, and the claimed machine."""
    mode = body.get("mode", "full")
    if mode not in MODES:
        raise InvalidInput(f"{mode!r} is no mode of an audit.", cure=f"Choose from {', '.join(MODES)}.", path="mode")
    segments, seed = _whole(body, "segments", 5, least=1), _whole(body, "seed", secrets.randbits(32), least=0)
    signed = newest_root(history)
    return {
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


def _whole(body: Mapping[str, Any], name: str, default: int, *, least: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= LARGEST:
        raise InvalidInput(f"{name} is {value!r}.", cure=f"Give a whole number from {least}.", path=name)
    return value
