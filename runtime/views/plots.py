"""The plots of a report as PNG files, drawn by matplotlib without a display. Only for children: it is heavy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from runtime.views.curves import bounds, series
from runtime.views.report import PLOTS

Table = Sequence[Mapping[str, Any]]
Draw = Callable[[Axes], None]

LOSSES = ("loss", "val_loss", "test_loss")
OTHER = ("step", "epoch", "segment", "loss_last", "learning_rate", "gradient_norm")
SIZE, DPI = (7.0, 3.2), 120


def plots(
    table: Table, seconds: Mapping[str, float], begins: Sequence[int], tried: Mapping[str, Any] | None = None
) -> dict[str, Draw]:
    """What there is to draw, by the names of `PLOTS`; `begins` are the steps at which later segments begin.

    `tried` is what a range test shows (`runtime.views.view.range_test`).
    """
    drawn: dict[str, Draw] = {}
    names = list(dict.fromkeys(name for row in table for name in row))
    curves = {
        "loss": [name for name in names if name in LOSSES],
        "metrics": [name for name in names if name not in (*LOSSES, *OTHER)],
        "learning_rate": [name for name in names if name == "learning_rate"],
        "gradient_norm": [name for name in names if name == "gradient_norm"],
    }
    for plot, shown in curves.items():
        if any(_points(table, name)[0] for name in shown):
            drawn[plot] = partial(_draw_curves, table, shown, begins, logarithmic=plot == "gradient_norm")
    if tried:
        drawn["range_test"] = partial(_draw_range_test, tried)
    if sum(seconds.values()) > 0:
        drawn["time"] = partial(_draw_times, seconds)
    return drawn


def save(draw: Draw, name: str, path: Path) -> None:
    """One plot as a PNG file; the same figures give the same bytes."""
    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(PLOTS[name], loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes)
    figure.savefig(path, format="png", metadata={"Software": None})


def _draw_curves(table: Table, names: Sequence[str], begins: Sequence[int], axes: Axes, *, logarithmic: bool) -> None:
    for name in names:
        steps, values = _points(table, name)
        axes.plot(steps, values, label=name, linewidth=1.4, marker="." if len(steps) < 40 else "")
    for step in begins:
        axes.axvline(step, color="0.6", linestyle=":", linewidth=1)
    if logarithmic and all(value > 0 for name in names for value in _points(table, name)[1]):
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.grid(visible=True, alpha=0.25)
    if len(names) > 1:
        axes.legend(frameon=False)


def _draw_range_test(tried: Mapping[str, Any], axes: Axes) -> None:
    low, high = bounds([loss for loss in tried["losses"] if loss is not None])
    axes.plot(tried["rates"], [math.nan if loss is None else loss for loss in tried["losses"]], linewidth=1.4)
    axes.axvline(tried["suggestion"], color="C1", linestyle="--", label=f"suggestion {tried['suggestion']:.4g}")
    if low < high:
        # Where training breaks losses have no bounds, and would flatten everything before.
        axes.set_ylim(low - (high - low) / 20, high + (high - low) / 20)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.grid(visible=True, alpha=0.25)
    axes.legend(frameon=False)


def _draw_times(seconds: Mapping[str, float], axes: Axes) -> None:
    ranked = sorted(seconds.items(), key=lambda part: part[1])
    axes.barh([name for name, _ in ranked], [spent for _, spent in ranked])
    axes.set_xlabel("seconds")


def _points(table: Table, name: str) -> tuple[list[int], list[float]]:
    """The finite points of one column; what is not finite leaves a gap."""
    steps, values = series([dict(row) for row in table], name)
    points = [(step, value) for step, value in zip(steps, values, strict=True) if math.isfinite(value)]
    return [step for step, _ in points], [value for _, value in points]
