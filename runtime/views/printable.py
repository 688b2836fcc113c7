"""Text of strangers as a terminal may have it: nothing in it moves the cursor, sets colours, hides or turns letters.

Strangers choose names of files, errors and subjects; a terminal would obey some of the characters in them.
"""

from __future__ import annotations

import re

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
