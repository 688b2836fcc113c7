"""The one way from a command to a terminal: what others wrote is made harmless here, and only our own styles pass."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

import click

from runtime.views.printable import one_line, printable

_ESCAPE = f"\x1b{os.urandom(8).hex()}"
"""How our own styles are marked until they are written: no text from elsewhere can hold a mark of this process."""

_STYLE = rf"{_ESCAPE}(\[[0-9;]*m)"


def style(text: str, **how: Any) -> str:
    """As `click.style`, for text that `say` writes; the text itself is kept to one harmless line."""
    return click.style(cell(text), **how).replace("\x1b[", f"{_ESCAPE}[")


def plain(text: str) -> str:
    """The text without our styles."""
    return re.sub(_STYLE, "", text)


def cell(text: str) -> str:
    """The text on one harmless line, as in a row of a table; our styles stay."""
    return _each(text, one_line)


def say(text: str, *, err: bool = False) -> None:
    """Write text and a line break to stdout, or stderr. Without colours where NO_COLOR or no terminal is."""
    # A command's context may be gone by now, so what NO_COLOR decided for it is decided again.
    color = False if os.environ.get("NO_COLOR") else None
    click.echo(shown(text), err=err, color=color)


def shown(text: str) -> str:
    """What `say` writes."""
    return _each(text, printable).replace(_ESCAPE, "\x1b")


def _each(text: str, make: Callable[[str], str]) -> str:
    """The parts between our styles, made harmless one by one."""
    parts = re.split(_STYLE, text)
    return "".join(f"{_ESCAPE}{part}" if at % 2 else make(part) for at, part in enumerate(parts))
