"""Who may say what is written where an event is, not where its file lies."""

from __future__ import annotations

from pathlib import Path

import pytest

import contracts
from bus.decode import lane_may_say
from contracts import event as lanes
from contracts.event import Event
from contracts.keyring import KeyAdmitted
from contracts.trainer import TrainingPaused


class StormForecast(Event, wire="storm.forecast"):
    """What a guest says."""


LANES = {one for name, one in vars(lanes).items() if name.isupper() and isinstance(one, str)} - {
    lanes.GUEST,
    lanes.ANYBODY,
}


@pytest.mark.parametrize("event", lanes.events().values(), ids=lanes.events().keys())
def test_every_event_of_ours_names_lanes_that_there_are(event: type[Event]) -> None:
    assert event.said_in
    assert set(event.said_in) <= LANES | {lanes.ANYBODY}


def test_an_event_without_a_lane_may_be_said_by_guests_only() -> None:
    assert [lane for lane in sorted(LANES) if StormForecast.may_be_said_in(lane)] == []
    assert StormForecast.may_be_said_in("guest_weather")
    assert not lane_may_say(StormForecast(), lanes.TRAINER)


def test_an_event_with_lanes_may_be_said_in_no_other() -> None:
    assert [lane for lane in sorted(LANES) if TrainingPaused.may_be_said_in(lane)] == [lanes.TRAINER]
    assert [lane for lane in sorted(LANES) if KeyAdmitted.may_be_said_in(lane)] == [lanes.DESK, lanes.ROOT]
    assert not TrainingPaused.may_be_said_in("guest_trainer")


READS_MODULES = {
    "contracts/event.py": "two classes may not have one wire name",
    "runtime/node/roster.py": "the agent of a module is the one that is defined in it",
    "runtime/jobs/messages.py": "an exception is told with its module",
    "runtime/engine/wrappers.py": "a class of a model has a stored name in files of exported models",
}


def test_where_the_file_of_an_event_lies_decides_nothing() -> None:
    """A file that moves would make events void."""
    root = Path(contracts.__path__[0]).parent
    files = [path for room in ("agents", "bus", "contracts", "runtime") for path in (root / room).rglob("*.py")]
    readers = {path.relative_to(root).as_posix() for path in files if "__module__" in path.read_text(encoding="utf-8")}
    assert readers == set(READS_MODULES)
