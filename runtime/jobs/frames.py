"""Length-prefixed JSON frames between the host, its zygotes and their jobs; this file does not know what they mean.

A frame is a 4-byte big-endian length and a JSON object `{"kind": ..., "data": {...}}`; large data go as files.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from contracts.errors import Failed, InvalidInput

LIMIT = 16 * 1024 * 1024
_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Frame:
    """One message between two processes: a kind and plain data."""

    kind: str
    data: dict[str, Any]


def encode(kind: str, data: Mapping[str, Any]) -> bytes:
    """The bytes of one frame; refuses what would not arrive as it was sent."""
    try:
        body = orjson.dumps({"kind": kind, "data": data})
    except orjson.JSONEncodeError as error:
        raise InvalidInput(
            f"The frame {kind!r} holds a value that JSON cannot carry: {error}.",
            cure="Send plain strings, numbers, lists and objects, and large data as a file.",
        ) from error
    # orjson writes a NaN as null without a word; only a body with a null can hide one.
    if b"null" in body and _holds_no_number(data):
        raise InvalidInput(
            f"The frame {kind!r} holds a float that is not finite, which JSON would turn into null.",
            cure="Send floats as hex strings (float.hex) or packed bytes.",
        )
    if len(body) > LIMIT:
        raise InvalidInput(
            f"The frame {kind!r} has {len(body)} bytes; the limit is {LIMIT}.",
            cure="Write the data to a file and send its path.",
        )
    return _LENGTH.pack(len(body)) + body


def _holds_no_number(value: object) -> bool:
    """Whether a float in here is NaN or infinite."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Mapping):
        return any(_holds_no_number(item) for item in value.values())
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        return any(_holds_no_number(item) for item in value)
    return False


class Decoder:
    """Turns a stream of bytes, cut anywhere, back into frames."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Every frame that is complete now; raises `Failed` for what cannot be a frame."""
        self._bytes += data
        frames = []
        start = 0
        while len(self._bytes) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._bytes, start)
            if length > LIMIT:
                raise _garbage(f"one of {length} bytes is announced, above the limit of {LIMIT}")
            end = start + _LENGTH.size + length
            if len(self._bytes) < end:
                break
            body = bytes(self._bytes[start + _LENGTH.size : end])
            try:
                value = orjson.loads(body)
            except orjson.JSONDecodeError as error:
                raise _garbage(f"{body[:40]!r} is not JSON ({error})") from error
            match value:
                case {"kind": str(kind), "data": dict(content)} if len(value) == 2:
                    frames.append(Frame(kind, content))
                case _:
                    raise _garbage(f"{body[:40]!r} has not the two members kind and data")
            start = end
        del self._bytes[:start]
        return frames


def _garbage(reason: str) -> Failed:
    return Failed(
        f"What arrived between two processes is no frame: {reason}.",
        cure="Only Job.tell and Child.order may write there: look for code that writes to descriptors it did not open.",
    )
