"""What a report draws of a search: values trial by trial."""

from __future__ import annotations

import math

from runtime.views.blocks import Block, Curves, Series
from runtime.views.formatting import finite
from runtime.views.trials import TrialsAnswer, TrialTable, best_figures


def search_blocks(table: TrialTable, answer: TrialsAnswer) -> list[Block]:
    """The best trial, and every drawing that the trials give."""
    return [best_figures(answer), *history(table, answer)]


def history(table: TrialTable, answer: TrialsAnswer) -> list[Block]:
    """The value of each trial, and the best so far, by number."""
    valued = [row for row in answer["trials"] if row["value"] is not None]
    if len(valued) < 2:
        return []
    numbers, values = [finite(row["number"]) for row in valued], [row["value"] or 0.0 for row in valued]
    best, so_far = math.inf, list[float]()
    for row in valued:
        best = min(best, table.place(row)[1])
        so_far.append(best if table.search is None or table.search.minimizes else -best)
    lines = (Series("value", numbers, values), Series("best so far", numbers, so_far))
    return [Curves("Value of each trial", lines, x_name="trial", file="trials")]
