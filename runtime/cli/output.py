"""Text that commands print: harmless on a terminal, styled, as tables, and the page about a session.

What others wrote is made harmless here, and only our own styles pass.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from runtime.views.formatting import one_line, printable

if TYPE_CHECKING:
    from runtime.home.silent_bugs import CodeFinding

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
    click.echo(render(text), err=err, color=color)


def render(text: str) -> str:
    """What `say` writes."""
    return _each(text, printable).replace(_ESCAPE, "\x1b")


def _each(text: str, make: Callable[[str], str]) -> str:
    """The parts between our styles, made harmless one by one."""
    parts = re.split(_STYLE, text)
    return "".join(f"{_ESCAPE}{part}" if at % 2 else make(part) for at, part in enumerate(parts))


COLOURS = {"completed": "green", "failed": "red", "cancelled": "yellow", "training": "cyan", "paused": "yellow"}


def state_text(name: str) -> str:
    """The name of a session's state, coloured on a terminal."""
    return style(name, fg=COLOURS.get(name), bold=True)


def pairs(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values below each other; empty values are left out."""
    kept = [(name, value) for name, value in rows if value]
    width = max((len(name) for name, _ in kept), default=0)
    return "\n".join(f"{style(name.ljust(width), dim=True)}  {cell(value)}" for name, value in kept)


def code_lines(findings: Sequence[CodeFinding]) -> str:
    """What was found in a workload's code, each finding with its place and its cure; every line begins with a break."""
    colours = {"note": "cyan", "warning": "yellow", "critical": "red"}
    lines = []
    for one in findings:
        label = style(f"{one.severity}:", fg=colours[one.severity], bold=True)
        lines.append(f"{label} {cell(one.where)} {one.name}: {cell(one.message)}")
        lines.append(f"  {style('hint:', fg='cyan')} {one.cure}")
    return "".join(f"\n{line}" for line in lines)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned columns under their names, each as wide as its widest cell."""
    rows = [[cell(text) for text in row] for row in rows]
    widths = [max(len(plain(row[i])) for row in (head, *rows)) for i in range(len(head))]

    def drawn(row: Sequence[str]) -> str:
        padded = (cell + " " * (width - len(plain(cell))) for cell, width in zip(row, widths, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join([style(drawn(head), dim=True), *map(drawn, rows)])
