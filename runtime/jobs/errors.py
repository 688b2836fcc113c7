"""An exception on its way from a job to its host: as plain data, and as the error that the data describe."""

from __future__ import annotations

import linecache
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from contracts.errors import OutOfMemory, SwarmError, UserCodeFailed, kind_of, of_system

_ROOT = Path(__file__).resolve().parents[2]
_OURS = tuple(f"{_ROOT / room}/" for room in ("contracts", "bus", "runtime", "agents"))
_INSTALLED = tuple({f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_TEXT = 4_000
_TAIL = 30
_LESS_MEMORY = (
    "Free memory, or ask for less: a smaller model or training.batch_size (training.accumulate makes up for it)."
)


def as_data(error: BaseException) -> dict[str, Any]:
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


def from_data(raised: dict[str, Any], log: str = "") -> SwarmError:
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
