"""Pages that commands answer with: printed as wide as the terminal is, or written to a file as its ending says."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtime.api.evidence import page_path, write_page
from runtime.cli.call import Call
from runtime.cli.output import style

if TYPE_CHECKING:
    from runtime.views.blocks import Page, Tone


def page_file(ctx: click.Context, param: click.Parameter, value: str | None) -> Path | None:
    """The file of a page that an option names."""
    return None if value is None else page_path(value)


page_option = click.option(
    "-o",
    "--out",
    "--output",
    "out",
    metavar="FILE",
    callback=page_file,
    help="Write the page to FILE, as its ending says: .html, .md or .txt.",
)

STYLES: dict[str, dict[str, Any]] = {
    "good": {"fg": "green", "bold": True},
    "bad": {"fg": "red", "bold": True},
    "warn": {"fg": "yellow", "bold": True},
    "note": {"fg": "cyan"},
    "strong": {"bold": True},
    "faint": {"dim": True},
}


def answer_page(
    call: Call, value: Mapping[str, object], make: Callable[[], Page], out: Path | None = None, **how: bool
) -> None:
    """The answer of a command: JSON if that is wanted, else its page; the page goes to a file if one was named."""
    if out is not None:
        write_page(make(), out)
        call.note(f"Wrote {out}")
    if call.json or out is None:
        call.result(value, lambda: page_text(make(), **how))


def page_text(page: Page, *, title: bool = False) -> str:
    """A page as text for `say`, in our colours."""
    from runtime.views import terminal

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    return terminal.render(page, width, _paint, title=title)


def _paint(text: str, tone: Tone) -> str:
    return style(text, **STYLES[tone]) if tone and text else text
