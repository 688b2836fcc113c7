"""What JetStream answers, as our errors; it asks nothing itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from bus.frames import WireMessage
from bus.link import Link
from bus.rights import api as prefix
from contracts.errors import (
    Conflict,
    Failed,
    Full,
    InvalidInput,
    NotFound,
    Refused,
    SwarmError,
    TooLarge,
    Unreachable,
)

_MEANINGS: tuple[tuple[frozenset[int], type[SwarmError], str], ...] = (
    (frozenset({10071, 10164}), Conflict, "Read the lane again."),
    (frozenset({10054, 10199}), TooLarge, "Split it, or put the bulk into a blob."),
    (frozenset({10023, 10028, 10047, 10122}), Full, "Free disk space, or raise the store's limit."),
    # Busy, leaderless, too many readers at once, or a batch cut short: surely not stored.
    (frozenset({10008, 10009, 10026, 10163, 10167, 10176, 10210, 10211}), Unreachable, "Try again."),
    (frozenset({10014, 10059}), NotFound, "Has the bus been provisioned?"),
    (frozenset({10174}), Refused, "Let the admin identity provision the streams."),
)
_NO_MESSAGE, _STORE_FAILED, _UNAVAILABLE = 10037, 10077, 503
_NO_ROOM = ("maximum bytes", "maximum messages", "no space", "resource")


class NoMessage(NotFound):
    """The stream is there and holds nothing under that filter."""


def refusal(error: Mapping[str, Any]) -> SwarmError:
    """The error object of an API or publish answer, as what it means to us."""
    number, said = error.get("err_code", 0), error.get("description", "no reason given")
    message = f"JetStream says: {said} ({number})."
    if number == _NO_MESSAGE:
        return NoMessage(message)
    if number == _STORE_FAILED and any(sign in said for sign in _NO_ROOM):
        return Full(message, cure="Free disk space, or raise the store's limit.")
    for numbers, meaning, cure in _MEANINGS:
        if number in numbers:
            return meaning(message, cure=cure)
    if error.get("code") == _UNAVAILABLE:
        return Unreachable(message, cure="Try again.")
    return Failed(message, cure="See the server's log.")


def parse(frame: WireMessage) -> dict[str, Any]:
    """The JSON of an answer; raises what its error means."""
    try:
        answer: dict[str, Any] = orjson.loads(frame.body)
    except orjson.JSONDecodeError:
        raise InvalidInput(f"JetStream answered with what is no JSON: {frame.body[:80]!r}.") from None
    if "error" in answer:
        raise refusal(answer["error"])
    return answer


async def api(link: Link, verb: str, asked: Mapping[str, Any] | None = None, patience: float = 5.0) -> dict[str, Any]:
    """One request of the JetStream API, such as `STREAM.INFO.EV_00`."""
    await link.connected()
    body = orjson.dumps(asked) if asked else b""
    return parse(await link.ask(f"{prefix(link.identity)}.{verb}", body, patience=patience))
