"""What passes between the host, its zygotes and their jobs: length-prefixed JSON frames, and exceptions as their data.

A frame is a 4-byte big-endian length and a JSON object `{"kind": ..., "data": {...}}`; large data go as files. What
frames mean is not known here. An exception is told with the last line of the user's own code on the way to it.
"""

import linecache
import math
import struct
import sysconfig
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import orjson

from contracts.errors import Failed, InvalidInput, OutOfMemory, SwarmError, UserCodeFailed, kind_of, of_system

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


_ROOT = Path(__file__).resolve().parents[2]
_OURS = tuple(f"{_ROOT / room}/" for room in ("contracts", "bus", "runtime", "agents"))
_INSTALLED = tuple({f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_TEXT = 4_000
_TAIL = 30
_LESS_MEMORY = (
    "Free memory, or ask for less: a smaller model or training.batch_size (training.accumulate makes"
    " up for it; `swarm check` finds a batch that fits)."
)


def error_data(error: BaseException) -> dict[str, Any]:
    """The members of a `raised` frame: type, message, frame, traceback, and `error` for one of our own errors.

    What the system refused about a file is one of ours too, unless the user's code had asked.
    """
    try:
        kind = type(error)
        module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        return {
            "type": f"{module}{kind.__qualname__}",
            "message": _message(error),
            "frame": _user_frame(error),
            "traceback": "".join(traceback.format_exception(error)).splitlines()[-_TAIL:],
            "error": ours.as_json() if (ours := _ours(error)) is not None else None,
        }
    except Exception:  # noqa: BLE001 - an error that cannot even be shown (no memory, a broken __str__) is told by its name
        return {"type": type(error).__name__, "message": "", "frame": None, "traceback": [], "error": None}


def print_foreign(error: BaseException) -> None:
    """Print the whole traceback of an error that is none of ours where the job prints, which is its log."""
    with suppress(Exception):  # an error that cannot even be shown must still be told
        if _ours(error) is None:
            traceback.print_exception(error)


def _ours(error: BaseException) -> SwarmError | None:
    if isinstance(error, OSError) and not any(_is_users(frame.f_code.co_filename) for frame, _ in _steps(error)):
        return of_system(error)
    return error if isinstance(error, SwarmError) else None


def _message(error: BaseException) -> str:
    match error:
        case SystemExit():
            return f"the job's code called exit({error.code!r})"
        case MemoryError() if not error.args:
            return "no memory was left"
    return str(error)[:_TEXT]


def _user_frame(error: BaseException) -> dict[str, Any] | None:
    """The last frame that is neither ours nor installed; without one, the last of all."""
    steps = list(_steps(error))
    users = [step for step in steps if _is_users(step[0].f_code.co_filename)]
    if not steps:
        return None
    frame, line = (users or steps)[-1]
    code = frame.f_code
    return {
        "file": code.co_filename,
        "line": line,
        "function": code.co_qualname,
        "source": linecache.getline(code.co_filename, line, frame.f_globals).strip()[:_TEXT],
    }


def _steps(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    step = error.__traceback__
    while step is not None:
        yield step.tb_frame, step.tb_lineno
        step = step.tb_next


def _is_users(file: str) -> bool:
    return not file.startswith(("<frozen", *_OURS, *_INSTALLED))


def error_from_data(raised: dict[str, Any], log: str = "") -> SwarmError:
    """The error that a `raised` frame describes: our own come back as they were, all others are the user's code's.

    `log` is the file in the session's folder that has the whole traceback, if there is one.
    """
    if (ours := raised.get("error")) is not None:
        kind = kind_of(ours["code"])
        # The nearest class above it that is built from a message alone.
        while vars(kind).get("__init__", SwarmError.__init__) is not SwarmError.__init__:
            kind = kind.__mro__[1]
        return kind(ours["message"], cure=ours["cure"], path=ours["path"])
    said = f"{raised['type']}: {raised['message']}" if raised["message"] else str(raised["type"])
    place = raised["frame"]
    # Python, numpy, torch on a processor or torch on a GPU says that no memory is left.
    if raised["type"].endswith("MemoryError") or "can't allocate memory" in raised["message"]:
        where = f"{place['file']}:{place['line']}" if place else ""
        return OutOfMemory(f"there is not enough memory: {said}", cure=_LESS_MEMORY, path=where)
    if place is None:
        return UserCodeFailed(said, cure="See the job's log.")
    where = f"{place['file']}:{place['line']}"
    return UserCodeFailed(
        f"{said}\n  at {where} in {place['function']}: {place['source']}\n",
        cure="Correct it there; `swarm run REQUEST --here` stops at breakpoints." + _whole(log),
        path=where,
    )


def _whole(log: str) -> str:
    return f" The whole traceback is in the session's {log}." if log else ""
