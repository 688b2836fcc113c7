"""What is drawn of a search says what its trials say."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from itertools import chain
from typing import Any

import pytest

from contracts.event import Event
from contracts.hyperparameter_specialist import TrialFinished, TrialStarted
from contracts.request.search import read_search
from contracts.session import SessionState
from runtime.views import html, markdown, terminal
from runtime.views.blocks import Block, Curves, Page, PageTable, Text
from runtime.views.plot import Plot
from runtime.views.search_page import importance, search_blocks
from runtime.views.trials import TrialRow, TrialTable, trials_answer
from tests.contracts.told import requested
from tests.runtime.searched_home import BASE, HIDDEN, MOMENTUM, RATE, SPACE, halved, trials

BATCH = "training.batch_size"


def drawn(events: Iterable[Event], **changes: Any) -> tuple[list[Block], TrialTable]:
    table = TrialTable()
    request = read_search({"base": BASE, "space": SPACE, "trials": 200} | changes).resolved()
    for event in (requested(request, "search"), *events):
        table.take(event, "2026-01-02T03:04:05Z")
    return search_blocks(table, trials_answer(table, SessionState("s"))), table


def curves(blocks: list[Block]) -> dict[str, Curves]:
    return {block.title: block for block in blocks if isinstance(block, Curves)}


def tables(blocks: list[Block]) -> dict[str, PageTable]:
    return {block.columns[0].name: block for block in blocks if isinstance(block, PageTable)}


def test_the_parameter_that_decides_is_told_as_important_and_one_that_does_nothing_is_not() -> None:
    blocks, table = drawn(chain.from_iterable(trials(60)))
    told = {row[0]: row[1] for row in tables(blocks)["parameter"].rows}
    assert next(iter(told)) == RATE
    shares = {path: share for path, share in told.items() if isinstance(share, float)}
    assert shares[RATE] > 0.5 > 0.2 > shares[BATCH]
    rows = [table.rows[number] for number in sorted(table.rows) if table.rows[number]["value"] is not None]
    assert importance(rows[:9], RATE) is None


def test_importance_of_what_does_nothing_is_nothing_on_average() -> None:
    chance = random.Random(5)

    def row(number: int) -> TrialRow:
        table = TrialTable()
        table.take(TrialStarted(number=number, session="s", parameters={"a": chance.random(), "b": number % 2}), "")
        value = chance.random()
        table.take(TrialFinished(number=number, session="s", state="completed", value=value), "")
        return table.rows[number]

    for path, sizes in (("a", 40), ("b", 40)):
        told = [importance([row(number) for number in range(sizes)], path) or 0.0 for _ in range(100)]
        assert sum(told) / len(told) < 0.05


def test_history_keeps_the_best_so_far_and_leaves_out_what_has_no_value() -> None:
    blocks, table = drawn(chain.from_iterable(trials(30)))
    value, best = curves(blocks)["Value of each trial"].series
    assert len(value.x) == 27
    assert 9.0 not in value.x
    assert list(best.y) == [min(value.y[: at + 1]) for at in range(27)]
    assert best.y[-1] == table.rows[table.best or 0]["value"]
    assert not value.joined


def test_slices_show_a_number_as_points_and_options_as_lines_of_a_table() -> None:
    blocks, _ = drawn(chain.from_iterable(trials(60)))
    rate = curves(blocks)[f"Value over {RATE}"]
    assert rate.x_scale == "log"
    assert len(rate.series[0].x) == 54
    momentum = curves(blocks)[f"Value over {MOMENTUM}"]
    assert len(momentum.series[0].x) < 54
    options = tables(blocks)[HIDDEN]
    assert {str(row[0]) for row in options.rows} == {"[8]", "[16]", "[8, 8]"}
    assert sum(int(str(row[1])) for row in options.rows) == 54


def test_parallel_coordinates_run_from_axis_to_axis_to_the_value() -> None:
    blocks, table = drawn(chain.from_iterable(trials(60)))
    others, best = curves(blocks)["Parallel coordinates, each from its lowest (0) to its highest (1)"].series
    note = next(block.text for block in blocks if isinstance(block, Text))
    assert note.endswith("4 the value. Drawn: the best 4 of 54 trials, and 17 of the others.")
    assert {name in note for name in (RATE, BATCH, MOMENTUM)} == {True}
    assert HIDDEN not in note
    ends = [[y for x, y in zip(each.x, each.y, strict=True) if x == 4 and y == y] for each in (others, best)]
    assert [len(end) for end in ends] == [17, 4]
    values = sorted(row["value"] for row in table.rows.values() if row["value"] is not None)
    assert ends[1] == pytest.approx([(value - values[0]) / (values[-1] - values[0]) for value in values[:4]])
    assert min(ends[0]) > max(ends[1])
    # A trial without momentum has a gap there.
    assert any(math.isnan(y) for x, y in zip(others.x, others.y, strict=True) if x < 4)


def test_rungs_show_who_went_on_and_who_was_stopped() -> None:
    blocks, _ = drawn((event for event, _ in halved()), halving={"first_epochs": 4, "factor": 4})
    on, stopped = curves(blocks)["Values at rungs"].series
    assert (on.name, [*on.x[:2]], [*on.y[:2]]) == ("went on", [4.0, 16.0], [1.0, 0.5])
    assert [y for y in stopped.y if math.isfinite(y)] == [2.0, 3.0, 4.0]


def test_a_front_is_drawn_among_the_trials() -> None:
    objectives = [{"metric": "val_loss"}, {"metric": "val_accuracy", "direction": "maximize"}]
    told: list[Event] = []
    for number, values in enumerate([(0.5, 0.9), (0.4, 0.8), (0.6, 0.7), (0.3, 0.6)]):
        told.append(TrialStarted(number=number, session=f"00-{number}", parameters={RATE: 0.1}))
        known = dict(zip(("val_loss", "val_accuracy"), values, strict=True))
        told.append(
            TrialFinished(number=number, session=f"00-{number}", state="completed", value=values[0], values=known)
        )
    blocks, table = drawn(told, objectives=objectives)
    every, front = curves(blocks)["Front: val_accuracy over val_loss"].series
    assert table.front == [0, 1, 3]
    assert (list(front.x), list(front.y)) == ([0.3, 0.4, 0.5], [0.6, 0.8, 0.9])
    assert len(every.x) == 4
    assert front.joined
    assert not every.joined


def test_points_that_are_not_joined_are_drawn_alone_and_counted_once() -> None:
    blocks, _ = drawn(chain.from_iterable(trials(30)))
    plot = Plot.of(curves(blocks)["Value of each trial"], 200)
    assert plot.drawn[0].total == 27
    assert [math.isfinite(y) for _, y in plot.drawn[0].points] == [True, False] * 27


@pytest.mark.parametrize("render", [terminal.render, markdown.render, html.render])
def test_pages_of_many_trials_are_drawn_in_every_medium(render: Any) -> None:
    blocks, _ = drawn(chain.from_iterable(trials(1000)))
    assert len(render(Page("a search", "", tuple(blocks)))) < 600_000
