"""What a page says, apart from how it looks: frozen blocks, which `terminal`, `markdown` and `html` draw, each whole.

Blocks hold text as it was recorded: a renderer makes it harmless for its own medium. What is too long for a page is
cut by the functions at the end of this module, in every medium at the same place, and each cut is told. Which points of
curves are drawn is said in `plot`.
"""

from __future__ import annotations

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
    """Points of a curve in the order of `x`; a value that is not finite is a gap. Joined by lines, or else alone."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    joined: bool = True


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


def left_out(count: int, most: int, what: str) -> str:
    """How many are not shown; empty where all are."""
    return f"{count - most:,} more {what} are left out here." if count > most else ""


def walk(blocks: Sequence[Block]) -> Iterator[Block]:
    """Every block, those within sections behind their section."""
    for block in blocks:
        yield block
        if isinstance(block, PageSection):
            yield from walk(block.blocks)
