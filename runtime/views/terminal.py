"""A page as lines for a terminal: as wide as it is, curves in braille, no character that a terminal would obey.

`paint` adds colours: it is given text that is harmless already, and its tone. Without it the lines are plain text.
Without a width nothing is wrapped, because it goes to a file or another program.
"""

import math
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from runtime.views import blocks
from runtime.views.formatting import one_line
from runtime.views.plot import SHADES, Plot, Scale, heat_table, outlook, shades

Paint = Callable[[str, blocks.Tone], str]

WIDE = 80
"""How wide drawings are where no width is known."""
ROWS = 8
"""Lines of a chart."""
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The dots of a braille letter, by row and column."""
SERIES_TONES: tuple[blocks.Tone, ...] = ("note", "warn", "good", "bad")


def render(page: blocks.Page, width: int | None = None, paint: Paint | None = None, *, title: bool = False) -> str:
    """The whole text; with its title, where the reader did not ask for just this page."""
    drawing = _Terminal(width, paint or _plain)
    head = [drawing.painted(page.title, "strong"), *([drawing.painted(page.lead, "faint")] if page.lead else []), ""]
    return "\n".join([*(head if title else []), *drawing.drawn(page.blocks)])


def _plain(text: str, tone: blocks.Tone) -> str:
    return text


def columns(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def wrapped(text: str, width: int | None) -> list[str]:
    """The text on lines of at most a width; a longer word has a line of its own, so that it can be copied whole."""
    if width is None or columns(text) <= width:
        return [text]
    lines, line = [], ""
    for word in text.split(" "):
        if line and columns(line) + 1 + columns(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


@dataclass(frozen=True, slots=True)
class _Terminal:
    width: int | None
    paint: Paint

    def painted(self, text: str, tone: blocks.Tone, most: int = blocks.LONGEST) -> str:
        """A stranger's text on one harmless line, in the colour of its tone."""
        return self.paint(one_line(blocks.shortened(text, most)), tone)

    def drawn(self, parts: Sequence[blocks.Block]) -> Iterator[str]:
        """Every block's lines, with an empty line between blocks."""
        for at, block in enumerate(parts):
            if at:
                yield ""
            yield from self._block(block)

    def _block(self, block: blocks.Block) -> Iterator[str]:
        match block:
            case blocks.Text():
                yield from self._text(block)
            case blocks.KeyFigures():
                yield from self._figures(block)
            case blocks.PageTable():
                yield from self._table(block)
            case blocks.Curves():
                yield from self._curves(block)
            case blocks.Timeline():
                yield from self._timeline(block)
            case blocks.Pictures():
                yield from chain.from_iterable(map(self._heat, block.pictures))
            case blocks.PageSection():
                yield self.painted(block.title, "strong", 200)
                yield from self.drawn(block.blocks)

    def _text(self, text: blocks.Text) -> Iterator[str]:
        if text.code:
            yield from (f"  {one_line(line)}" for line in blocks.shortened(text.text).split("\n"))
        else:
            lines = wrapped(one_line(blocks.shortened(text.text)), self.width)
            yield from (self.paint(line, text.tone) for line in lines)

    def _figures(self, figures: blocks.KeyFigures) -> Iterator[str]:
        shown_here = figures.figures[: blocks.MOST_FIGURES]
        names = [one_line(blocks.shortened(each.name, 100)) for each in shown_here]
        widest = max(map(columns, names), default=0)
        for name, each in zip(names, shown_here, strict=True):
            text = blocks.shown(each.value, each.kind) + (f" {each.unit}" if each.unit else "")
            text += f"  ({each.note})" if each.note else ""
            tone = each.value.tone if isinstance(each.value, blocks.Phrase) else ""
            lines = wrapped(one_line(blocks.shortened(text)), self.width and max(20, self.width - widest - 2))
            for at, line in enumerate(lines):
                head = (name if at == 0 else "") + " " * (widest - (columns(name) if at == 0 else 0))
                yield f"{self.paint(head, 'faint')}  {self.paint(line, tone)}"
        yield from self._notes(blocks.left_out(len(figures.figures), blocks.MOST_FIGURES, "figures"))

    def _notes(self, *notes: str) -> Iterator[str]:
        for note in notes:
            if note:
                yield from (self.paint(line, "faint") for line in wrapped(one_line(blocks.shortened(note)), self.width))

    def _table(self, table: blocks.PageTable) -> Iterator[str]:
        """Rows under their names, each column as wide as its widest cell; the last one is wrapped."""
        if not table.rows:
            return
        first, between, last = blocks.pieces(table)
        kinds = [column.kind for column in table.columns]
        head = [one_line(blocks.shortened(column.title, 100)) for column in table.columns]
        rows = [[_cell(each, kind) for each, kind in zip(row, kinds, strict=True)] for row in (*first, *last)]
        widths = [max(columns(row[at]) for row in (head, *rows)) for at in range(len(head))]
        rest = None if self.width is None else max(20, self.width - sum(widths[:-1]) - 2 * len(widths[:-1]))
        margin = " " * (sum(widths[:-1]) + 2 * len(widths[:-1]))

        def line(row: Sequence[str], tones: Sequence[blocks.Tone]) -> Iterator[str]:
            parts = []
            for text, width, column, tone in zip(row[:-1], widths, table.columns, tones, strict=False):
                space = " " * (width - columns(text))
                parts.append(space + self.paint(text, tone) if column.right else self.paint(text, tone) + space)
            ends = row[-1].rjust(widths[-1]) if table.columns[-1].right and rest is None else row[-1]
            for at, text in enumerate(wrapped(ends, rest)):
                yield ("  ".join([*parts, self.paint(text, tones[-1])]) if at == 0 else margin + text).rstrip()

        yield from line(head, ["faint"] * len(head))
        for at, (row, cells) in enumerate(zip(rows, (*first, *last), strict=True)):
            if between and at == len(first):
                yield self.paint(f"… {between} …", "faint")
            yield from line(row, [cell.tone if isinstance(cell, blocks.Phrase) else "" for cell in cells])
        yield from self._notes(table.left_out)

    def _curves(self, curves: blocks.Curves) -> Iterator[str]:
        yield self.painted(curves.title, "strong", 200)
        wide = max(20, min(self.width or WIDE, 100) - 12)
        plot = Plot.of(curves, 2 * wide)
        if any(math.isfinite(y) for each in plot.drawn for _, y in each.points):
            yield from self._chart(curves, plot, wide)
        for at, (each, series) in enumerate(zip(plot.drawn, curves.series, strict=False)):
            seen = outlook(series)
            told = (
                "first {:.6g}, lowest {:.6g}, highest {:.6g}, last {:.6g}".format(*seen) if seen else "no finite value"
            )
            name = self.painted(each.name, SERIES_TONES[at % len(SERIES_TONES)], 60)
            yield f"  ⠤ {name}  {told}, {each.total:,} points"
        marks = [
            f"{curves.x_name} {mark.x:.6g}: {blocks.shortened(mark.label, 160)}"
            for mark in curves.marks[: blocks.MOST_MARKS]
        ]
        yield from self._notes(*plot.notes, f"Marked (┊): {'; '.join(marks)}." if marks else "")

    def _chart(self, curves: blocks.Curves, plot: Plot, wide: int) -> Iterator[str]:
        cells, owner = [[0] * wide for _ in range(ROWS)], [[-1] * wide for _ in range(ROWS)]
        for at, each in enumerate(plot.drawn):
            before: tuple[int, int] | None = None
            for x, y in each.points:
                if not math.isfinite(y):
                    before = None
                    continue
                here = round(plot.across.share(x) * (2 * wide - 1)), round((1 - plot.up.share(y)) * (4 * ROWS - 1))
                for column, row in _line(before or here, here):
                    cells[row // 4][column // 2] |= _DOTS[row % 4][column % 2]
                    owner[row // 4][column // 2] = at
                before = here
        marked = {
            round(plot.across.share(mark.x) * (wide - 1))
            for mark in curves.marks[: blocks.MOST_MARKS]
            if plot.across.low <= mark.x <= plot.across.high
        }
        labels = {0: plot.up.high, ROWS - 1: plot.up.low}
        for row in range(ROWS):
            drawn = [
                self.paint(chr(0x2800 + dots), SERIES_TONES[owner[row][column] % len(SERIES_TONES)])
                if dots
                else "┊"
                if column in marked
                else " "
                for column, dots in enumerate(cells[row])
            ]
            label = f"{labels[row]:.4g}" if row in labels else ""
            yield f"{label.rjust(10)} ┤{''.join(drawn)}".rstrip()
        left, right = (
            f"{plot.across.low:.6g}",
            f"{plot.across.high:.6g} {one_line(blocks.shortened(curves.x_name, 40))}",
        )
        scale = "logarithmic scale".center(max(0, wide - len(left) - len(right))) if plot.up.logarithmic else ""
        yield " " * 12 + left + (scale or " " * max(1, wide - len(left) - len(right))) + right

    def _timeline(self, timeline: blocks.Timeline) -> Iterator[str]:
        yield self.painted(timeline.title, "strong", 200)
        bars, marks = timeline.bars[: blocks.MOST_BARS], timeline.marks[: blocks.MOST_MARKS]
        lines = list(dict.fromkeys(bar.line for bar in bars))
        names = {line: one_line(blocks.shortened(line, 20)) for line in lines}
        widest = max(map(columns, names.values()), default=0)
        wide = max(20, min(self.width or WIDE, 100) - widest - 4)
        across = Scale(0.0, max([bar.ends for bar in bars] + [mark.x for mark in marks], default=0.0))
        for line in lines:
            drawn, told = [" "] * wide, []
            for bar in (bar for bar in bars if bar.line == line):
                first, last = (round(across.share(at) * (wide - 1)) for at in (bar.begins, bar.ends))
                drawn[first : last + 1] = [self.paint("█", bar.tone)] * (last + 1 - first)
                told.append(f"{bar.label} {bar.begins:.1f}..{bar.ends:.1f} s".strip())
            yield f"{names[line]}{' ' * (widest - columns(names[line]))}  {''.join(drawn)}".rstrip()
            yield from self._notes(f"{' ' * (widest + 2)}{blocks.shortened(', '.join(told), 400)}")
        yield from self._notes(*(f"{mark.label} at {mark.x:.1f} s" for mark in marks), timeline.left_out)
        yield from self._notes(blocks.left_out(len(timeline.bars), blocks.MOST_BARS, "bars"))
        yield from self._notes(blocks.left_out(len(timeline.marks), blocks.MOST_MARKS, "moments"))

    def _heat(self, heat: blocks.HeatMap) -> Iterator[str]:
        yield self.painted(heat.title, "strong", 200)
        table = heat_table(heat)
        if len(table.columns) <= 14:
            yield from self._table(table)
            return
        wide = max(20, (self.width or WIDE) - 24)
        rows = shades(heat)
        for row, cells in zip(rows[:60], table.rows, strict=False):
            name = one_line(blocks.shortened(blocks.shown(cells[0]), 60))[-20:]
            yield f"{name.ljust(20)}  {''.join(SHADES[round(share * 4)] for share in row[:wide])}".rstrip()
        across = blocks.left_out(len(table.columns) - 1, wide, "columns")
        yield from self._notes(blocks.left_out(len(rows), 60, "rows"), across, heat.left_out)


def _cell(content: blocks.Content, kind: blocks.Kind) -> str:
    return one_line(blocks.shortened(blocks.shown(content, kind), blocks.LONGEST_CELL))


def _line(begin: tuple[int, int], end: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """The dots from one to another, both included."""
    (x, y), (to_x, to_y) = begin, end
    steps = max(abs(to_x - x), abs(to_y - y), 1)
    for at in range(steps + 1):
        yield round(x + (to_x - x) * at / steps), round(y + (to_y - y) * at / steps)
