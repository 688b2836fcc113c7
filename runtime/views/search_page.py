"""What a report draws of a search: values by trial, by parameter and by rung, and which parameters mattered.

Importance is the share of the differences between trials that a parameter accounts for by itself: the ranks of their
values are grouped by it (numbers into quarters), and what such groups explain by chance is taken off.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from statistics import fmean, median
from typing import Literal

from contracts.request.space import Interval, Wholes
from runtime.views.blocks import Block, Curves, PageColumn, PageTable, Series, Text
from runtime.views.formatting import finite, in_words
from runtime.views.trials import TrialRow, TrialsAnswer, TrialTable, best_figures

LEAST = 10
"""Trials with a value from which on importance is told; of fewer, chance explains most."""
MOST_SLICES = 8
"""Parameters whose slices are drawn, the most important first."""
MOST_LINES = 24
"""Lines of parallel coordinates, evenly from the best trial to the worst: of more none could be followed."""
GROUPS = 4
"""Groups into which numbers are put; so many trials that a group has two at least."""


def search_blocks(table: TrialTable, answer: TrialsAnswer) -> list[Block]:
    """The best trial, and every drawing that the trials give."""
    rows = [row for row in answer["trials"] if row["value"] is not None]
    paths = list(dict.fromkeys(path for row in rows for path in row["parameters"]))
    mattered = {path: importance(rows, path) for path in paths}
    order = sorted(paths, key=lambda path: -(mattered[path] or 0.0))
    blocks = [best_figures(answer), *history(table, answer), *front(table, rows), *rungs(answer)]
    if any(mattered.values()):
        columns = (PageColumn("parameter"), PageColumn("importance", "share"), PageColumn("trials", "count"))
        told = ((path, mattered[path], sum(path in row["parameters"] for row in rows)) for path in order)
        blocks.append(PageTable(columns, tuple(told)))
    return [*blocks, *parallel(table, rows, order), *slices(table, rows, order)]


def history(table: TrialTable, answer: TrialsAnswer) -> list[Block]:
    """The value of each trial, and the best so far, by number."""
    valued = [row for row in answer["trials"] if row["value"] is not None]
    if len(valued) < 2:
        return []
    numbers, values = [finite(row["number"]) for row in valued], [row["value"] or 0.0 for row in valued]
    best, so_far = math.inf, list[float]()
    for row in valued:
        best = best if row["broken"] else min(best, table.place(row)[1])
        so_far.append(best if table.search is None or table.search.minimizes else -best)
    lines = (Series("value", numbers, values, joined=False), Series("best so far", numbers, so_far))
    return [Curves("Value of each trial", lines, x_name="trial", file="trials")]


def front(table: TrialTable, rows: Sequence[TrialRow]) -> list[Block]:
    """The first two objectives of every trial, and the front among them."""
    if len(table.objectives) < 2:
        return []
    across, up = (objective.metric for objective in table.objectives[:2])
    points = sorted((row["values"][across], row["values"][up], row["number"]) for row in rows if _has(row, across, up))
    ahead = [point for point in points if point[2] in set(table.front)]
    series = [
        Series(name, [x for x, _, _ in these], [y for _, y, _ in these], joined=name == "front")
        for name, these in (("trials", points), ("front", ahead))
    ]
    return [Curves(f"Front: {up} over {across}", tuple(series), x_name=across, file="front")] if points else []


def _has(row: TrialRow, *metrics: str) -> bool:
    return all(math.isfinite(row["values"].get(metric, math.nan)) for metric in metrics)


def rungs(answer: TrialsAnswer) -> list[Block]:
    """The values of trials rung by rung: of those that went on from each, and of those that were stopped."""
    lines: dict[str, list[list[tuple[float, float]]]] = {"went on": [], "stopped": []}
    for row in answer["trials"]:
        points = [(finite(at["epochs"]), math.nan if at["value"] is None else at["value"]) for at in row["rungs"]]
        if points:
            stopped = any(at["goes_on"] is False for at in row["rungs"])
            ended = [] if stopped or row["value"] is None else [(finite(row["epochs"]), row["value"])]
            lines["stopped" if stopped else "went on"].append([*points, *ended])
    series = tuple(_broken(name, these) for name, these in lines.items() if these)
    return [Curves("Values at rungs", series, x_name="epochs", file="rungs")] if series else []


def _broken(name: str, lines: Sequence[Sequence[tuple[float, float]]]) -> Series:
    """Several lines as one curve, with a gap after each."""
    points = [point for line in lines for point in (*line, (line[-1][0], math.nan))]
    return Series(name, [x for x, _ in points], [y for _, y in points])


def importance(rows: Sequence[TrialRow], path: str) -> float | None:
    """The share of differences for which a parameter accounts; None where trials are too few, or all have one value."""
    given = [(row["parameters"][path], row["value"] or 0.0) for row in rows if path in row["parameters"]]
    groups = _groups([value for value, _ in given])
    if len(given) < LEAST or len(set(groups)) < 2:
        return None
    ranks = _ranks([value for _, value in given])
    by_group = defaultdict[Hashable, list[float]](list)
    for group, rank in zip(groups, ranks, strict=True):
        by_group[group].append(rank)
    whole, free = fmean(ranks), len(given) - len(by_group)
    total = sum((rank - whole) ** 2 for rank in ranks)
    within = sum((rank - fmean(group)) ** 2 for group in by_group.values() for rank in group)
    if total == 0 or free < 1:
        return None
    by_chance = (len(by_group) - 1) * within / free
    return max(0.0, (total - within - by_chance) / total)


def _groups(values: Sequence[object]) -> list[Hashable]:
    """To which group each value belongs: numbers by quarters, anything else by itself."""
    numbers = [number for value in values if (number := _number(value)) is not None]
    distinct = sorted(set(numbers))
    if len(numbers) < len(values) or len(distinct) <= GROUPS:
        return [json.dumps(value, sort_keys=True) for value in values]
    edges = [sorted(numbers)[len(numbers) * at // GROUPS] for at in range(1, GROUPS)]
    return [sum(number >= edge for edge in edges) for number in numbers]


def _ranks(values: Sequence[float]) -> list[float]:
    """The place of each value, equal ones at the middle of theirs."""
    places = defaultdict[float, list[int]](list)
    for place, value in enumerate(sorted(values)):
        places[value].append(place)
    return [fmean(places[value]) for value in values]


def parallel(table: TrialTable, rows: Sequence[TrialRow], paths: Sequence[str]) -> list[Block]:
    """A line for each of some trials across all its numbers to its value, the best ones apart from the others."""
    axes = [path for path in paths if all(_number(row["parameters"].get(path, 0.0)) is not None for row in rows)]
    if len(axes) < 2 or len(rows) < 2:
        return []
    ranked = sorted(rows, key=lambda row: (bool(row["broken"]), *table.place(row)))
    best = max(1, min(len(rows), MOST_LINES) // 5)
    others = ranked[best :: max(1, math.ceil((len(rows) - best) / (MOST_LINES - best)))]
    scales = {
        path: _shares([_number(row["parameters"].get(path)) for row in rows], logarithmic=_log(table, path))
        for path in axes
    }
    scales["the value"] = _shares([row["value"] for row in rows])
    place = {row["number"]: at for at, row in enumerate(rows)}
    lines = [
        [(finite(axis), scale[place[row["number"]]]) for axis, scale in enumerate(scales.values(), 1)]
        for row in (*ranked[:best], *others)
    ]
    series = (_broken("others", lines[best:]), _broken(f"best {best}", lines[:best]))
    title = "Parallel coordinates, each from its lowest (0) to its highest (1)"
    named = ", ".join(f"{at} {name}" for at, name in enumerate(scales, 1))
    told = f"Axes: {named}. Drawn: the best {best} of {len(rows)} trials, and {len(others)} of the others."
    return [Curves(title, series, x_name="axis", y_scale="linear", file="parallel"), Text(told, "note")]


def _number(value: object) -> float | None:
    return finite(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _log(table: TrialTable, path: str) -> bool:
    domain = table.search.space.get(path) if table.search else None
    return isinstance(domain, Interval | Wholes) and domain.log


def _shares(values: Sequence[float | None], *, logarithmic: bool = False) -> list[float]:
    """Where each value lies between the lowest and the highest; a gap where there is none."""
    placed = [None if value is None else math.log(value) if logarithmic and value > 0 else value for value in values]
    known = [value for value in placed if value is not None and math.isfinite(value)]
    low, high = min(known, default=0.0), max(known, default=0.0)
    return [math.nan if value is None else (value - low) / (high - low) if high > low else 0.5 for value in placed]


def slices(table: TrialTable, rows: Sequence[TrialRow], paths: Sequence[str]) -> list[Block]:
    """The values over each parameter by itself: points over a number, a line of a table for each option."""
    found: list[Block] = []
    for path in paths[:MOST_SLICES]:
        having = [row for row in rows if path in row["parameters"]]
        numbers = [_number(row["parameters"][path]) for row in having]
        values = [row["value"] or 0.0 for row in having]
        if len(having) < 2:
            continue
        if all(number is not None for number in numbers) and len(set(numbers)) > GROUPS:
            places = [finite(number or 0.0) for number in numbers]
            series = (Series("value", places, values, joined=False),)
            scale: Literal["log", "linear"] = "log" if _log(table, path) else "linear"
            found.append(Curves(f"Value over {path}", series, x_name=path, x_scale=scale))
        else:
            found.append(_options(table, path, having))
    return found


def _options(table: TrialTable, path: str, rows: Sequence[TrialRow]) -> PageTable:
    by_option = defaultdict[str, list[float]](list)
    for row in rows:
        by_option[in_words({"": row["parameters"][path]}).strip()].append(row["value"] or 0.0)
    sign = 1 if table.search is None or table.search.minimizes else -1
    lines = sorted(by_option.items(), key=lambda item: sign * median(item[1]))
    columns = (
        PageColumn(path),
        PageColumn("trials", "count"),
        PageColumn("best", "number"),
        PageColumn("median", "number"),
    )
    told = ((name, len(given), sign * min(sign * value for value in given), median(given)) for name, given in lines)
    return PageTable(columns, tuple(told))
