"""What JetStream answers, as our errors; it asks nothing itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from bus.frames import Frame
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

_CONFLICTS = (10071, 10164)
_LARGE = (10054, 10199)
_FULL = (10023, 10028, 10047, 10122)
_AGAIN = (10008, 10009, 10163, 10167, 10176, 10210, 10211)
"""Busy, leaderless, or a batch cut short: surely not stored, and worth another try."""
_NO_MESSAGE = 10037
_NOT_FOUND = (10014, 10059)
_STORE_FAILED = 10077
_NO_BATCHES = 10174


class NoMessage(NotFound):
    """The stream is there and holds nothing under that filter."""


def refusal(error: Mapping[str, Any]) -> SwarmError:
    """The error object of an API or publish answer, as what it means to us."""
    number, said = error.get("err_code", 0), error.get("description", "no reason given")
    if number in _CONFLICTS:
        return Conflict(f"The lane has moved on: {said}.", cure="Read the lane again.")
    if number in _LARGE:
        return TooLarge(f"The log takes no record or batch that large: {said}.", cure="Split it, or use a blob.")
    if number in _FULL or (number == _STORE_FAILED and _is_room(said)):
        return Full(f"The store has no room: {said}.", cure="Free disk space, or raise the store's limit.")
    if number in _AGAIN:
        return Unreachable(f"The log cannot answer now: {said}.", cure="Try again.")
    if number == _NO_MESSAGE:
        return NoMessage("Nothing is stored there.", cure="Read from another place.")
    if number in _NOT_FOUND:
        return NotFound(f"JetStream says: {said}.", cure="Has the bus been provisioned?")
    if number == _NO_BATCHES:
        return Refused("The stream takes no atomic batches.", cure="Let the admin identity provision the streams.")
    if error.get("code") == 503:
        return Unreachable(f"The log cannot answer now: {said} ({number}).", cure="Try again.")
    return Failed(f"JetStream says: {said} ({number}).", cure="See the server's log.")


def parse(frame: Frame) -> dict[str, Any]:
    """The JSON of an answer; raises what its error means."""
    try:
        answer: dict[str, Any] = orjson.loads(frame.body)
    except orjson.JSONDecodeError:
        raise InvalidInput(f"JetStream answered with what is no JSON: {frame.body[:80]!r}.") from None
    if "error" in answer:
        raise refusal(answer["error"])
    return answer


async def api(link: Link, verb: str, asked: Mapping[str, Any] | None = None, timeout: float = 5.0) -> dict[str, Any]:
    """One request of the JetStream API, such as `STREAM.INFO.EV_00`."""
    await link.connected()
    body = orjson.dumps(asked) if asked else b""
    return parse(await link.ask(f"{prefix(link.identity)}.{verb}", body, timeout=timeout))


def _is_room(said: str) -> bool:
    return any(sign in said for sign in ("maximum bytes", "maximum messages", "no space", "resource"))
