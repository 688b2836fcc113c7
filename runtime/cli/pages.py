"""Pages that commands answer with: printed as wide as the terminal is, or written to a file as its ending says."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from contracts.errors import InvalidInput
from runtime.api.evidence import output_path
from runtime.cli.call import Call
from runtime.cli.output import style

if TYPE_CHECKING:
    from runtime.views.blocks import Page, Tone

ENDINGS = (".html", ".md", ".txt")

page_option = click.option(
    "-o",
    "--out",
    "--output",
    "out",
    metavar="FILE",
    callback=lambda ctx, param, value: None if value is None else page_path(value),
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


def page_path(name: str) -> Path:
    """Where a page is to be written, if its ending names a form and a file can be written there."""
    if Path(name).suffix.lower() not in ENDINGS:
        cure = f"Let its name end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}."
        raise InvalidInput(f"{name!r} has no ending of a page.", cure=cure, path="--out")
    return output_path(name)


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


def write_page(page: Page, path: Path) -> None:
    """Write a page in the form that the ending of the path names; nothing is there until all of it is."""
    from bus.disk import fresh_name
    from runtime.views import html, markdown, terminal

    match path.suffix.lower():
        case ".html":
            text = html.render(page)
        case ".md":
            text = markdown.render(page)
        case _:
            text = terminal.render(page, title=True)
    with fresh_name(path) as fresh:
        fresh.write_text(text if text.endswith("\n") else f"{text}\n", encoding="utf-8")
        fresh.replace(path)
