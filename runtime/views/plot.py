"""What is drawn of curves and heat maps, in any medium: which points, on which axes, and in words what is left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.views import blocks


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


def thinned(series: blocks.Series, most: int) -> PlotLine:
    """At most so many points: all, or the lowest and highest of equally many each, so that no peak is lost.

    A gap between finite points is kept as one point that is not finite, as far as every point of a group is none.
    """
    count = min(len(series.x), len(series.y))
    per = max(1, math.ceil(count / max(1, most // 2))) if count > most else 1
    points: list[tuple[float, float]] = []
    for at in range(0, count, per):
        group = [
            (y, x)
            for x, y in zip(series.x[at : at + per], series.y[at : at + per], strict=False)
            if math.isfinite(x) and math.isfinite(y)
        ]
        if not group:
            points.append((float(series.x[at]), math.nan))
        elif per == 1:
            points.append((float(group[0][1]), float(group[0][0])))
        else:
            chosen = {min(group)[::-1], max(group)[::-1]}
            points += sorted((float(x), float(y)) for x, y in chosen)
    if not series.joined:
        points = [each for x, y in points for each in ((x, y), (x, math.nan))]
    return PlotLine(series.name, tuple(points), count, per)


def outlook(series: blocks.Series) -> tuple[float, float, float, float] | None:
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
    def of(cls, curves: blocks.Curves, most: int) -> Plot:
        """The curves with at most so many points each."""
        drawn = tuple(thinned(each, most) for each in curves.series[: blocks.MOST_SERIES])
        places = [x for each in drawn for x, _ in each.points if math.isfinite(x)]
        values = [y for each in drawn for _, y in each.points if math.isfinite(y)]
        left, right = min(places, default=0.0), max(places, default=0.0)
        # What happened before the first point belongs to the picture; what lies far from all points does not.
        near = [mark.x for mark in curves.marks[: blocks.MOST_MARKS] if 2 * left - right <= mark.x <= 2 * right - left]
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
            blocks.left_out(len(curves.series), blocks.MOST_SERIES, "curves"),
            blocks.left_out(len(curves.marks), blocks.MOST_MARKS, "marks"),
        )
        return cls(drawn, across, up, tuple(note for note in notes if note))


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


def shades(heat: blocks.HeatMap) -> list[list[float]]:
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


def heat_table(heat: blocks.HeatMap) -> blocks.PageTable:
    """The values of a heat map under the names of its columns."""
    columns = max((len(row) for row in heat.values), default=0)
    names = [heat.column_names[at] if at < len(heat.column_names) else str(at) for at in range(columns)]
    rows = tuple(
        (heat.row_names[at] if at < len(heat.row_names) else str(at), *row, *[None] * (columns - len(row)))
        for at, row in enumerate(heat.values)
    )
    corner = " / ".join(part for part in (heat.rows_are, heat.columns_are) if part)
    return blocks.PageTable(
        (blocks.PageColumn(corner), *(blocks.PageColumn(name, "number") for name in names)), rows, heat.left_out
    )
