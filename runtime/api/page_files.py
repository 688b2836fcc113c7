"""Pages as files: in which form one is written is what the ending of its name says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from contracts.errors import InvalidInput
from runtime.api.evidence import output_path

if TYPE_CHECKING:
    from runtime.views.blocks import Page

ENDINGS = (".html", ".md", ".txt")


def page_path(name: str | Path) -> Path:
    """Where a page is to be written, if its ending names a form and a file can be written there."""
    if Path(name).suffix.lower() not in ENDINGS:
        cure = f"Let its name end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}."
        raise InvalidInput(f"{str(name)!r} has no ending of a page.", cure=cure, path="--out")
    return output_path(name)


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
