"""Who may say what is written where an event is, not where its file lies."""

from __future__ import annotations

from pathlib import Path

import pytest

import contracts
from bus.decode import lane_may_say
from contracts.event import Event, events
from contracts.keyring import KeyAdmitted
from contracts.roles import ANYBODY, DESK, ROLES, ROOT, TRAINER
from contracts.trainer import TrainingPaused


class StormForecast(Event, wire="storm.forecast"):
    """What a guest says."""


LANES = {lane for role in ROLES for lane in role.lanes}


@pytest.mark.parametrize("event", events().values(), ids=events().keys())
def test_every_event_of_ours_names_lanes_that_there_are(event: type[Event]) -> None:
    assert event.said_in
    assert set(event.said_in) <= LANES | {ANYBODY}


def test_an_event_without_a_lane_may_be_said_by_guests_only() -> None:
    assert [lane for lane in sorted(LANES) if StormForecast.may_be_said_in(lane)] == []
    assert StormForecast.may_be_said_in("guest_weather")
    assert not lane_may_say(StormForecast(), TRAINER)


def test_an_event_with_lanes_may_be_said_in_no_other() -> None:
    assert [lane for lane in sorted(LANES) if TrainingPaused.may_be_said_in(lane)] == [TRAINER]
    assert [lane for lane in sorted(LANES) if KeyAdmitted.may_be_said_in(lane)] == [DESK, ROOT]
    assert not TrainingPaused.may_be_said_in("guest_trainer")


READS_MODULES = {
    "contracts/event.py": "two classes may not have one wire name",
    "runtime/node/roster.py": "the agent of a module is the one that is defined in it",
    "runtime/jobs/job.py": "a child finds its job by the module that declares it, in the same software",
    "runtime/jobs/messages.py": "an exception is told with its module",
    "runtime/engine/wrappers.py": "a class of a model has a stored name in files of exported models",
}


def test_where_the_file_of_an_event_lies_decides_nothing() -> None:
    """A file that moves would make events void."""
    root = Path(contracts.__path__[0]).parent
    files = [path for room in ("agents", "bus", "contracts", "runtime") for path in (root / room).rglob("*.py")]
    readers = {path.relative_to(root).as_posix() for path in files if "__module__" in path.read_text(encoding="utf-8")}
    assert readers == set(READS_MODULES)
