"""What an ended session owes, as pure tables: what was said, and who still has to answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from contracts.kind import owed
from tests.contracts.told import Told


def duties(told: Told) -> set[tuple[str, str]]:
    """Who owes what, but for the monitor, which owes its summary to everything that ended."""
    return {(one.what, one.cause) for one in owed(told.now) if one.role != "resource_monitor"}


def test_nothing_is_owed_while_a_session_runs() -> None:
    told = Told()
    told.written(10)
    assert not owed(told.now)


def test_best_and_last_are_to_be_judged_and_others_are_not() -> None:
    told = Told()
    stored = {step: _kept(told, step, improved=step < 30) for step in (10, 20, 30)}
    end = told.completed(30)
    assert duties(told) == {("validate", stored[20]), ("validate", stored[30])}
    told.validated(20, stored[20])
    assert duties(told) == {("validate", stored[30])}
    told.failed("exporter", "exporter", stored[30])
    assert duties(told) == {("validate", stored[30])}
    told.failed("validator", "validator", stored[30])
    assert not duties(told)
    assert [(one.role, one.cause) for one in owed(told.now)] == [("resource_monitor", end)]


@pytest.mark.parametrize(
    ("after", "owes"),
    [(lambda told: None, True), (lambda told: told.stored(10), False), (lambda told: told.corrupt(10), False)],
    ids=["written", "stored", "corrupt"],
)
def test_what_is_written_is_to_be_stored_unless_it_is_gone(after: Callable[[Told], object], owes: bool) -> None:
    told = Told()
    written = told.written(10)
    after(told)
    told.completed(10)
    assert (("store", written) in duties(told)) is owes


def test_an_intervention_is_to_be_judged() -> None:
    told = Told()
    applied = told.applied(0, 2)
    told.completed(10)
    assert duties(told) == {("judge", applied)}


def _kept(told: Told, step: int, *, improved: bool) -> str:
    told.evaluated(step, improved=improved)
    told.written(step)
    return told.stored(step)
