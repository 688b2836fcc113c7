"""What a page says, apart from how it looks: frozen blocks, which `terminal`, `markdown` and `html` draw, each whole.

Blocks hold text as it was recorded: a renderer makes it harmless for its own medium. What is too long for a page is
cut by the functions at the end of this module, in every medium at the same place, and each cut is told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from runtime.views.formatting import size

Tone = Literal["", "good", "bad", "warn", "note", "strong", "faint"]
"""What a text means to its reader; a medium with colours shows it in one."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """A text with a tone; `code` marks what is copied rather than read: ids, digests, commands."""

    text: str
    tone: Tone = ""
    code: bool = False


Content = str | int | float | None | Phrase
"""What a cell or a key figure holds; None is nothing."""

Kind = Literal["text", "code", "number", "count", "bytes", "seconds", "share", "change"]
_RIGHT = frozenset({"number", "count", "bytes", "seconds", "share", "change"})


@dataclass(frozen=True, slots=True)
class PageColumn:
    """A column of a table: its name, what its cells are, and the unit that all of them have."""

    name: str
    kind: Kind = "text"
    unit: str = ""

    @property
    def title(self) -> str:
        """The name with the unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    @property
    def right(self) -> bool:
        """Whether its cells are set at the right, as figures are."""
        return self.kind in _RIGHT


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph, or lines of code that are shown as they are."""

    text: str
    tone: Tone = ""
    code: bool = False


@dataclass(frozen=True, slots=True)
class PageTable:
    """Rows under typed columns; each row has a cell for each column. `left_out` says what is not among the rows."""

    columns: tuple[PageColumn, ...]
    rows: tuple[tuple[Content, ...], ...]
    left_out: str = ""


@dataclass(frozen=True, slots=True)
class KeyFigure:
    """One named value, its unit and what it needs beside it."""

    name: str
    value: Content
    unit: str = ""
    note: str = ""
    kind: Kind = "text"


@dataclass(frozen=True, slots=True)
class KeyFigures:
    """Named values; `large` ones are what a reader is to see first."""

    figures: tuple[KeyFigure, ...]
    large: bool = False


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one curve in the order of `x`; a value that is not finite is a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True, slots=True)
class Mark:
    """A place on the axis at which something happened."""

    x: float
    label: str
    tone: Tone = "note"


@dataclass(frozen=True, slots=True)
class Curves:
    """Curves over one axis, with what happened on the way. `file` names the picture that a report writes of it.

    `y_scale` "auto" is logarithmic where every value is positive and the largest is many times the smallest. `cut`
    bounds the axis as `bounds` says: what breaks at its end would else hide everything before.
    """

    title: str
    series: tuple[Series, ...]
    x_name: str = "step"
    marks: tuple[Mark, ...] = ()
    y_scale: Literal["linear", "log", "auto"] = "auto"
    x_scale: Literal["linear", "log"] = "linear"
    cut: bool = False
    file: str = ""


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Values in rows and columns; None and what is not finite is an empty cell."""

    title: str
    row_names: tuple[str, ...]
    column_names: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    rows_are: str = ""
    columns_are: str = ""
    left_out: str = ""
    logarithmic: bool = False


@dataclass(frozen=True, slots=True)
class Pictures:
    """Small pictures beside each other."""

    pictures: tuple[HeatMap, ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """What lasted from `begins` to `ends`, in seconds, in one line of a timeline."""

    line: str
    begins: float
    ends: float
    label: str = ""
    tone: Tone = ""


@dataclass(frozen=True, slots=True)
class Timeline:
    """What happened when, in seconds after the beginning: bars in lines, and moments."""

    title: str
    bars: tuple[Bar, ...]
    marks: tuple[Mark, ...] = ()
    left_out: str = ""


@dataclass(frozen=True, slots=True)
class PageSection:
    """Blocks under a title; `folded` ones a medium may hide until they are asked for."""

    title: str
    blocks: tuple[Block, ...]
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """A whole page. `lead` says in a line what it is about."""

    title: str
    lead: str = ""
    blocks: tuple[Block, ...] = field(default=())


Block = Text | PageTable | KeyFigures | Curves | Pictures | Timeline | PageSection

MOST_ROWS = 400
"""Rows of a table that are shown: as many of the first as of the last."""
MOST_FIGURES = 200
MOST_SERIES = 12
MOST_MARKS = 60
MOST_BARS = 300
LONGEST = 4000
"""Characters of one text that are shown, or of all lines of code."""
LONGEST_CELL = 500
"""Characters of one cell of a table that are shown."""


def key_figures(*rows: tuple[str, Content], large: bool = False) -> KeyFigures:
    """Names with values; those without a value are left out."""
    return KeyFigures(tuple(KeyFigure(name, value) for name, value in rows if not is_empty(value)), large)


def is_empty(content: Content) -> bool:
    """Whether there is nothing to show."""
    return content is None or (content.text if isinstance(content, Phrase) else content) == ""


_WRITTEN: dict[Kind, Callable[[float], str]] = {
    "bytes": size,
    "seconds": "{:.2f} s".format,
    "share": "{:.0%}".format,
    "change": "{:+.4g}".format,
}


def shown(content: Content, kind: Kind = "text") -> str:
    """A cell as text, as its kind is written; the text itself is neither cut nor made harmless."""
    if isinstance(content, Phrase):
        return content.text
    if content is None or isinstance(content, str):
        return content or ""
    if kind in _WRITTEN:
        return _WRITTEN[kind](content)
    return str(content) if isinstance(content, int) else f"{content:.6g}"


def shortened(text: str, most: int = LONGEST) -> str:
    """The text, or its beginning and how much is left out."""
    return text if len(text) <= most else f"{text[:most]} … ({len(text) - most:,} more characters)"


def pieces(table: PageTable) -> tuple[Sequence[tuple[Content, ...]], str, Sequence[tuple[Content, ...]]]:
    """The rows to show: all, or the first and the last, and between them what says how many are not there."""
    rows = table.rows
    if len(rows) <= MOST_ROWS:
        return rows, "", ()
    half = MOST_ROWS // 2
    return rows[:half], f"{len(rows) - 2 * half:,} of {len(rows):,} rows are left out here", rows[-half:]


@dataclass(frozen=True, slots=True)
class PlotLine:
    """The points of a series that are drawn, and of how many points each two are the lowest and the highest."""

    name: str
    points: tuple[tuple[float, float], ...]
    total: int
    per: int = 1

    def told(self) -> str:
        """How the points were chosen; nothing where all are drawn."""
        return f"the lowest and the highest of every {self.per:,} of {self.total:,} points" if self.per > 1 else ""


def thinned(series: Series, most: int) -> PlotLine:
    """At most so many points: all, or the lowest and highest of equally many each, so that no peak is lost.

    A gap between finite points is kept as one point that is not finite, as far as every point of a group is none.
    """
    count = min(len(series.x), len(series.y))
    per = max(1, math.ceil(count / max(1, most // 2))) if count > most else 1
    points: list[tuple[float, float]] = []
    for at in range(0, count, per):
        group = [
            (y, x) for x, y in zip(series.x[at : at + per], series.y[at : at + per], strict=False) if _drawable(x, y)
        ]
        if not group:
            points.append((float(series.x[at]), math.nan))
        elif per == 1:
            points.append((float(group[0][1]), float(group[0][0])))
        else:
            chosen = {min(group)[::-1], max(group)[::-1]}
            points += sorted((float(x), float(y)) for x, y in chosen)
    return PlotLine(series.name, tuple(points), count, per)


def _drawable(x: float, y: float) -> bool:
    return math.isfinite(x) and math.isfinite(y)


def outlook(series: Series) -> tuple[float, float, float, float] | None:
    """First, lowest, highest and last of the finite values; None when there are none."""
    finite = [float(y) for y in series.y if math.isfinite(y)]
    return (finite[0], min(finite), max(finite), finite[-1]) if finite else None


def bounds(values: Sequence[float]) -> tuple[float, float]:
    """Between which values a curve is drawn: as far above the first as the lowest lies below it, and no higher.

    A loss that explodes at its end would else hide everything before.
    """
    low, high = min(values, default=0.0), max(values, default=0.0)
    return low, (min(high, 2 * values[0] - low) if values and values[0] > low else high)


@dataclass(frozen=True, slots=True)
class Scale:
    """One axis: between which values, and whether equal distances are equal ratios."""

    low: float
    high: float
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Where a value lies between both ends, from 0 to 1; what lies outside is at the end."""
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, at = math.log10(low), math.log10(high), math.log10(at)
        # Halved, because the difference of two numbers may be too large for a number.
        return (at / 2 - low / 2) / (high / 2 - low / 2) if high > low else 0.5

    def ticks(self, most: int = 5) -> list[float]:
        """Round values between both ends, at most about so many."""
        if self.logarithmic:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            if last - first > 2:
                every = max(1, math.ceil((last - first) / most))
                return [10.0**power for power in range(first, last + 1, every)]
            between = [factor * 10.0**power for power in range(first - 1, last + 1) for factor in (1, 2, 5)]
            if len(near := [value for value in between if self.low <= value <= self.high]) > 1:
                return near
        step = _round_step(self.high / most - self.low / most)
        if step == 0 or not math.isfinite(step):
            return [self.low]
        first = math.ceil(self.low / step - 1e-9)
        return [at * step for at in range(first, first + 2 * most + 2) if at * step <= self.high + step * 1e-9]


def _round_step(rough: float) -> float:
    if rough <= 0 or not math.isfinite(rough) or rough < 1e-300:
        return 0.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


MANY = 50
"""How many times the smallest value the largest one is where a scale that is chosen for itself is logarithmic."""


@dataclass(frozen=True, slots=True)
class Plot:
    """What is drawn of curves: their points, both axes, and in words all that is not drawn as it was recorded."""

    drawn: tuple[PlotLine, ...]
    across: Scale
    up: Scale
    notes: tuple[str, ...]

    @classmethod
    def of(cls, curves: Curves, most: int) -> Plot:
        """The curves with at most so many points each."""
        drawn = tuple(thinned(each, most) for each in curves.series[:MOST_SERIES])
        places = [x for each in drawn for x, _ in each.points if math.isfinite(x)]
        values = [y for each in drawn for _, y in each.points if math.isfinite(y)]
        left, right = min(places, default=0.0), max(places, default=0.0)
        # What happened before the first point belongs to the picture; what lies far from all points does not.
        near = [mark.x for mark in curves.marks[:MOST_MARKS] if 2 * left - right <= mark.x <= 2 * right - left]
        left, right = min([left, *near]), max([right, *near])
        low, high = bounds(values) if curves.cut else (min(values, default=0.0), max(values, default=0.0))
        ratios = curves.y_scale == "log" or (curves.y_scale == "auto" and low > 0 and high / low >= MANY)
        across = Scale(left, right, curves.x_scale == "log" and 0 < left < right)
        up = Scale(low, high, ratios and 0 < low < high)
        told = dict.fromkeys(f"{each.told()} of {each.name}" for each in drawn if each.told())
        above = sum(1 for y in values if y > high)
        notes = (
            f"Drawn: {'; '.join(told)}." if told else "",
            f"{above} points above {high:.4g} are drawn there." if above else "",
            left_out(len(curves.series), MOST_SERIES, "curves"),
            left_out(len(curves.marks), MOST_MARKS, "marks"),
        )
        return cls(drawn, across, up, tuple(note for note in notes if note))


def left_out(count: int, most: int, what: str) -> str:
    """How many are not shown; empty where all are."""
    return f"{count - most:,} more {what} are left out here." if count > most else ""


BLOCKS = "▁▂▃▄▅▆▇█"


def sketch(values: Sequence[float | None], width: int = 50) -> str:
    """Values as a row of blocks, several in one where there are many; what is not finite is a gap."""
    per = max(1, math.ceil(len(values) / width))
    groups = (values[at : at + per] for at in range(0, len(values), per))
    finite_groups = (sorted(x for x in group if x is not None and math.isfinite(x)) for group in groups)
    points = [group[len(group) // 2] if group else None for group in finite_groups]
    finite = [point for point in points if point is not None]
    if not finite:
        return ""
    scale = Scale(*bounds(finite))
    return "".join(
        " " if point is None else BLOCKS[round(scale.share(point) * (len(BLOCKS) - 1)) if scale.high > scale.low else 0]
        for point in points
    )


def sketch_told(count: int, width: int = 50) -> str:
    """Of how many points each block of a sketch is the middle one; empty where each has a block of its own."""
    per = max(1, math.ceil(count / width))
    return f"each block is the middle one of {per:,} of {count:,} points" if per > 1 else ""


SHADES = " ░▒▓█"


def shades(heat: HeatMap) -> list[list[float]]:
    """Each value as a share of the way from the lowest to the highest; nothing is 0."""
    finite = [value for row in heat.values for value in row if value is not None and math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    if heat.logarithmic:
        low = min((value for value in finite if value > 0), default=0.0)
    scale = Scale(low, high, heat.logarithmic and 0 < low < high)
    columns = max((len(row) for row in heat.values), default=0)
    filled = ([*row, *[None] * (columns - len(row))] for row in heat.values)

    def share(value: float | None) -> float:
        if value is None or not math.isfinite(value) or (scale.logarithmic and value <= 0):
            return 0.0
        # What is more than nothing can be told from nothing.
        return 0.15 + 0.85 * scale.share(value) if scale.logarithmic else scale.share(value)

    return [[share(value) for value in row] for row in filled]


def heat_table(heat: HeatMap) -> PageTable:
    """The values of a heat map under the names of its columns."""
    columns = max((len(row) for row in heat.values), default=0)
    names = [heat.column_names[at] if at < len(heat.column_names) else str(at) for at in range(columns)]
    rows = tuple(
        (heat.row_names[at] if at < len(heat.row_names) else str(at), *row, *[None] * (columns - len(row)))
        for at, row in enumerate(heat.values)
    )
    corner = " / ".join(part for part in (heat.rows_are, heat.columns_are) if part)
    return PageTable((PageColumn(corner), *(PageColumn(name, "number") for name in names)), rows, heat.left_out)


def walk(blocks: Sequence[Block]) -> Iterator[Block]:
    """Every block, those within sections behind their section."""
    for block in blocks:
        yield block
        if isinstance(block, PageSection):
            yield from walk(block.blocks)
