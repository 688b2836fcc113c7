"""Numbers, sizes, changes and text of strangers as people read them.

Strangers choose names of files, errors and subjects. A terminal would obey some of the characters in them: nothing in
printable text moves the cursor, sets colours, hides or turns letters.
"""

from __future__ import annotations

import base64
import math
import re
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from contracts.errors import count_of

if TYPE_CHECKING:
    from contracts.replies import ParentReply

_STEERING = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and line feed, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of writing
    "\u2028\u2029\ud800-\udfff\ufeff"  # separators that are not seen, halves of letters
)
# Compiled when first used, which no help page does.
_STEERS = f"[{_STEERING}]"
_BREAKS = "[ \t]*[\n\r\x0b\x0c\x85\u2028\u2029]+[ \t]*"


def printable(text: str) -> str:
    """The text with a replacement character for each that would steer a terminal; lines and tabs stay."""
    return re.sub(_STEERS, "\N{REPLACEMENT CHARACTER}", text)


def one_line(text: str) -> str:
    """The same on one line: a line break becomes a space, so that no stranger writes a line that looks like ours."""
    return printable(re.sub(_BREAKS, " ", text).replace("\t", " "))


def printable_json(text: str) -> str:
    """JSON of the same value in which what would steer a terminal is escaped."""
    return re.sub(_STEERS, lambda found: f"\\u{ord(found[0]):04x}", text)


def number(value: Any) -> float:
    """A figure of an event's data, whether it was written as a number or as exact hex text."""
    return float.fromhex(value) if isinstance(value, str) else float(value)


def short(value: Any) -> str:
    """A figure with four significant digits."""
    return f"{number(value):.4g}"


def last_loss(losses: str) -> float | None:
    """The loss of a window's last step, of its packed losses."""
    raw = base64.b64decode(losses)
    return float(struct.unpack("<f", raw[-4:])[0]) if len(raw) >= 4 else None


def finite(value: float) -> float:
    """The number as one that can be drawn and divided; a whole number that is too large for that is infinite.

    A log may come from strangers, and its whole numbers have no end.
    """
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def size(count: float) -> str:
    """A number of bytes as people read it."""
    count = finite(count)
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """A time as people read it, at least a second."""
    if seconds < 120:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def figures(values: Mapping[str, Any]) -> str:
    """Named figures as one text: `name=value`, with spaces between."""
    return " ".join(f"{name}={short(value)}" for name, value in values.items())


def fork_of(fork: ParentReply | None) -> str:
    """In whose bits a session began, and what it changes; nothing for one that is no fork."""
    if not fork:
        return ""
    changes = [f"{path}={value}" for path, value in fork["set"].items()]
    changes += [f"without {count_of(fork['rows_without'], 'row')}"] if fork["rows_without"] else []
    return f"{fork['session']} at step {fork['step']}, {', '.join(changes) or 'nothing changed'}"


def suggestion(rate: float, steepest: float, diverged_at: float | None) -> str:
    """What a range test points to: a learning rate, and where it came from."""
    broke = f", training broke at {short(diverged_at)}" if diverged_at is not None else ""
    return f"{short(rate)} (the loss fell fastest at {short(steepest)}{broke})"


def in_words(changes: Mapping[str, Any]) -> str:
    """Changes of a plan, or parameters, in a row; of a whole section its kind stands first, and what else it says."""
    shown: dict[str, object] = {}
    for key, value in changes.items():
        inner = value if isinstance(value, Mapping) else {"": value}
        kind = next((name for name in ("architecture", "type", "source") if name in inner), "")
        said = {name: f"{each:.4g}" if isinstance(each, float) else each for name, each in inner.items()}
        rest = ", ".join(f"{name} {each}".strip() for name, each in said.items() if name != kind or not kind)
        shown[key] = f"{said[kind]} ({rest})".removesuffix(" ()") if kind else rest
    return ", ".join(f"{key} {value}" for key, value in shown.items()) or "no change"


def levers_in_words(changes: Mapping[str, Any]) -> str:
    """The changes of an intervention as a person reads them; a lever that this version has not is shown as recorded."""
    # Late, because pages of help load no schemas.
    from contracts.errors import SwarmError
    from runtime.engine.plain_kinds import read_levers

    try:
        return " and ".join(lever.sentence() for lever in read_levers(changes)) or "no change"
    except SwarmError:
        return in_words(changes)
