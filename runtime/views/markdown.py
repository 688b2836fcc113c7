"""A page as Markdown: headings, tables and lists of figures; curves as rows of blocks, and as pictures where there are.

What others wrote stays text: it makes no markup, no link and no picture, and stays in its cell and on its line.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from runtime.views import blocks
from runtime.views.formatting import one_line
from runtime.views.plot import SHADES, Plot, heat_table, outlook, shades, sketch, sketch_told

WIDTH = 40
"""Blocks in the row that shows a curve."""
WIDEST = 14
"""Columns of a heat map up to which its values are a table; a wider one is shown in shades."""
MOST_NOTE = 16_000
"""Characters of what is marked in a picture."""
MOST_SHADES = 100
"""Rows and columns of a heat map in shades that are shown."""


def render(page: blocks.Page, pictures: Mapping[str, str] | None = None) -> str:
    """The whole text. `pictures` says where the pictures of curves are, by their files' names."""
    parts = [f"# {safe(page.title, 200)}", _paragraph(page.lead) if page.lead else ""]
    parts += _blocks(page.blocks, 2, pictures or {})
    return "\n\n".join(part for part in parts if part) + "\n"


def safe(text: str, most: int = blocks.LONGEST) -> str:
    """A stranger's text as text: on one line, in one cell, without links, pictures and markup."""
    flat = "".join(letter if letter.isprintable() else "\ufffd" for letter in one_line(blocks.shortened(text, most)))
    flat = re.sub(r"([\\`*|])", r"\\\1", flat).replace("<", "&lt;")
    return re.sub(r"\](?=[(\[:])", r"\\]", flat)


def _paragraph(text: str) -> str:
    """The same as a paragraph: no heading, list, quote or fence begins with it."""
    return re.sub(r"^(\s*\d*)([#+>~=.)-])", r"\1\\\2", safe(text))


def _blocks(parts: Sequence[blocks.Block], level: int, pictures: Mapping[str, str]) -> Iterator[str]:
    for block in parts:
        match block:
            case blocks.Text():
                yield _code(block.text) if block.code else _paragraph(block.text)
            case blocks.KeyFigures():
                yield _figures(block)
            case blocks.PageTable():
                yield _table(block)
            case blocks.Curves():
                yield from _curves(block, pictures)
            case blocks.Timeline():
                yield from _timeline(block)
            case blocks.Pictures():
                for heat in block.pictures:
                    yield f"**{safe(heat.title, 200)}**"
                    yield from _heat(heat)
            case blocks.PageSection():
                yield f"{'#' * level} {safe(block.title, 200)}"
                yield from _blocks(block.blocks, min(level + 1, 6), pictures)


def _code(text: str) -> str:
    """Lines as they are, indented, so that none of them can end the block."""
    return "\n".join(f"    {one_line(line)}" for line in blocks.shortened(text).split("\n"))


def _figures(figures: blocks.KeyFigures) -> str:
    noted = any(each.note for each in figures.figures)
    rows = []
    for each in figures.figures[: blocks.MOST_FIGURES]:
        unit = f" {safe(each.unit, 40)}" if each.unit else ""
        note = f" {safe(each.note, 400)} |" if noted else ""
        rows.append(f"| {safe(each.name, 100)} | {_content(each.value, each.kind)}{unit} |{note}")
    more = blocks.left_out(len(figures.figures), blocks.MOST_FIGURES, "figures")
    head = ["|  |  |" + ("  |" if noted else ""), "| --- | --- |" + (" --- |" if noted else "")]
    return "\n".join([*head, *rows]) + (f"\n\n{more}" if more else "")


def _content(content: blocks.Content, kind: blocks.Kind, most: int = blocks.LONGEST) -> str:
    text = safe(blocks.shown(content, kind), most)
    is_code = kind == "code" or (isinstance(content, blocks.Phrase) and content.code)
    # Escapes mean nothing within code: what would need one stays plain text.
    return f"`{text}`" if text and is_code and not re.search(r"[\\`&]", text) else text


def _table(table: blocks.PageTable) -> str:
    if not table.rows:
        return ""
    first, between, last = blocks.pieces(table)
    lines = [
        f"| {' | '.join(safe(column.title, 100) for column in table.columns)} |",
        f"| {' | '.join('---:' if column.right else '---' for column in table.columns)} |",
    ]
    lines += [_row(cells, table.columns) for cells in first]
    if between:
        lines.append(f"| … {between} … |{'  |' * (len(table.columns) - 1)}")
    lines += [_row(cells, table.columns) for cells in last]
    return "\n".join(lines) + (f"\n\n{safe(table.left_out)}" if table.left_out else "")


def _row(cells: Sequence[blocks.Content], columns: Sequence[blocks.PageColumn]) -> str:
    shown_cells = (
        _content(cell, column.kind, blocks.LONGEST_CELL) for cell, column in zip(cells, columns, strict=True)
    )
    return f"| {' | '.join(shown_cells)} |"


def _curves(curves: blocks.Curves, pictures: Mapping[str, str]) -> Iterator[str]:
    yield f"**{safe(curves.title, 200)}**"
    if curves.file in pictures:
        yield f"![{safe(curves.title, 200)}]({pictures[curves.file]})"
    series = curves.series[: blocks.MOST_SERIES]
    figures = (blocks.PageColumn(name, "number") for name in ("first", "lowest", "highest", "last"))
    columns = (
        blocks.PageColumn("curve"),
        blocks.PageColumn(f"by {curves.x_name}"),
        *figures,
        blocks.PageColumn("points", "count"),
    )
    rows = ((each.name, sketch(each.y, WIDTH), *(outlook(each) or (None,) * 4), len(each.y)) for each in series)
    yield _table(blocks.PageTable(columns, tuple(rows)))
    told = {f"{sketch_told(len(each.y), WIDTH)} of {each.name}" for each in series if sketch_told(len(each.y), WIDTH)}
    notes = [f"In the rows of blocks {'; '.join(sorted(told))}." if told else ""]
    if curves.file in pictures:
        from runtime.views.svg import POINTS

        notes += [f"In the picture: {note}" for note in Plot.of(curves, POINTS).notes]
    notes += [blocks.left_out(len(curves.series), blocks.MOST_SERIES, "curves")]
    marks = [
        f"{curves.x_name} {mark.x:.6g}: {blocks.shortened(mark.label, 160)}"
        for mark in curves.marks[: blocks.MOST_MARKS]
    ]
    notes += [
        f"Marked: {'; '.join(marks)}." if marks else "",
        blocks.left_out(len(curves.marks), blocks.MOST_MARKS, "marks"),
    ]
    yield " ".join(safe(note, MOST_NOTE) for note in dict.fromkeys(notes) if note)


def _timeline(timeline: blocks.Timeline) -> Iterator[str]:
    yield f"**{safe(timeline.title, 200)}**"
    columns = (
        blocks.PageColumn("what"),
        blocks.PageColumn(""),
        blocks.PageColumn("from", "seconds"),
        blocks.PageColumn("to", "seconds"),
    )
    bars = timeline.bars[: blocks.MOST_BARS]
    yield _table(blocks.PageTable(columns, tuple((bar.line, bar.label, bar.begins, bar.ends) for bar in bars)))
    moments = [f"{blocks.shortened(mark.label, 160)} at {mark.x:.1f} s" for mark in timeline.marks[: blocks.MOST_MARKS]]
    notes = [f"{'; '.join(moments)}." if moments else "", timeline.left_out]
    notes += [
        blocks.left_out(len(timeline.bars), blocks.MOST_BARS, "bars"),
        blocks.left_out(len(timeline.marks), blocks.MOST_MARKS, "moments"),
    ]
    yield " ".join(safe(note, MOST_NOTE) for note in notes if note)


def _heat(heat: blocks.HeatMap) -> Iterator[str]:
    if max((len(row) for row in heat.values), default=0) <= WIDEST:
        yield _table(heat_table(heat))
        return
    rows = shades(heat)
    lines = ["".join(SHADES[round(share * 4)] for share in row[:MOST_SHADES]) for row in rows[:MOST_SHADES]]
    names = [*heat.row_names, *map(str, range(len(heat.row_names), len(rows)))]
    yield _code("\n".join(f"{line}| {name}" for name, line in zip(names, lines, strict=False)))
    notes = [heat.left_out, blocks.left_out(len(rows), MOST_SHADES, "rows")]
    notes += [blocks.left_out(max(map(len, rows)), MOST_SHADES, "columns")]
    yield " ".join(safe(note) for note in notes if note)
