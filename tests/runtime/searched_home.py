"""A home with a search in it, told trial by trial: no training, the events alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain
from math import log10
from typing import Any

from contracts import ids
from contracts.event import Event
from contracts.hyperparameter_specialist import (
    RungDecided,
    SearchCompleted,
    TrialFinished,
    TrialPaused,
    TrialStarted,
)
from contracts.operator import RULES, SessionRequested
from contracts.request.search import read_search
from tests.runtime.recorded_home import RecordedHome

RATE, HIDDEN, MOMENTUM = "optimizer.learning_rate", "model.hidden", "optimizer.momentum"
BASE = {"data": {"source": "iris"}, "model": {"architecture": "mlp", "hidden": [8]}, "training": {"epochs": 16}}
SPACE = {
    RATE: {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
    HIDDEN: [[8], [16], [8, 8]],
    "training.batch_size": {"type": "int", "low": 8, "high": 64},
    "optimizer.type": ["adam", "sgd"],
    MOMENTUM: {"type": "float", "low": 0.0, "high": 0.99, "when": {"optimizer.type": "sgd"}},
}
HYPER = "hyperparameter_specialist"


def clock(second: float) -> str:
    """The time of so many seconds after the request."""
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC) + timedelta(seconds=second)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def searched(recorded: RecordedHome, **changes: Any) -> str:
    """A search that was requested and has no trials yet."""
    session = ids.session_id(ids.new_uuid())
    request = read_search({"name": "a search", "base": BASE, "space": SPACE} | changes).resolved()
    ring = recorded.admission.keyring().head
    genesis = SessionRequested(kind="search", request=request, keyring=ring, asked_by="test", rules=RULES)
    recorded.say(session, "operator", genesis, time=clock(0))
    return session


def parameters(chance: random.Random) -> dict[str, Any]:
    """Some parameters of the space."""
    drawn: dict[str, Any] = {
        RATE: 10 ** chance.uniform(-4, 0),
        HIDDEN: chance.choice(SPACE[HIDDEN]),
        "training.batch_size": chance.randint(8, 64),
        "optimizer.type": chance.choice(SPACE["optimizer.type"]),
    }
    return drawn | ({MOMENTUM: chance.uniform(0, 0.99)} if drawn["optimizer.type"] == "sgd" else {})


def worth(chosen: dict[str, Any]) -> float:
    """Best at a rate of 0.01; the layers matter a little, and the batch not at all."""
    return (log10(chosen[RATE]) + 2) ** 2 + 0.3 * SPACE[HIDDEN].index(chosen[HIDDEN])


def trials(count: int, seed: int = 0, failing: int = 10) -> Iterator[tuple[TrialStarted, TrialFinished]]:
    """So many trials, one after the other; one in `failing` fails."""
    chance = random.Random(seed)
    for number in range(count):
        chosen, session = parameters(chance), f"00-{number:026d}"
        failed = number % failing == failing - 1
        yield (
            TrialStarted(number=number, session=session, parameters=chosen),
            TrialFinished(
                number=number,
                session=session,
                state="failed" if failed else "completed",
                value=None if failed else worth(chosen),
                epochs=3 if failed else 16,
            ),
        )


def finished_search(recorded: RecordedHome, count: int, **changes: Any) -> str:
    """A search with so many trials, at its end; many are said at once, because each append waits for the disk."""
    session, told = searched(recorded, trials=count, **changes), list(trials(count))
    for begin in range(0, count, 100):
        recorded.say(session, HYPER, *chain.from_iterable(told[begin : begin + 100]), time=clock(begin + 1))
    best = min((ended for _, ended in told if ended.value is not None), key=lambda ended: ended.value)
    completed = SearchCompleted(
        trials=count,
        best_number=best.number,
        best_session=best.session,
        best_value=best.value,
        best_parameters=told[best.number][0].parameters,
    )
    recorded.say(session, HYPER, completed, time=clock(3 * count + 1))
    return session


def halved(count: int = 4) -> Iterator[tuple[Event, float]]:
    """Trials that wait at a rung of four epochs, of which one goes on; each event with its second."""
    for number in range(count):
        yield TrialStarted(number=number, session=f"00-{number}", parameters={RATE: 0.1 / (number + 1)}), number
        yield TrialPaused(number=number, rung=0, epochs=4, value=1.0 + number, earlier=2.0 + number), number + 0.5
    yield RungDecided(rung=0, epochs=4, kept=[0], stopped=[*range(1, count)]), 10.0
    for number in range(1, count):
        yield TrialFinished(number=number, session=f"00-{number}", state="stopped", epochs=4), 11.0
    yield TrialFinished(number=0, session="00-0", state="completed", value=0.5, epochs=16), 14.0
