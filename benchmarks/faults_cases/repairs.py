"""Whether faults are put right: by the ladder of the problem that was found, and by as many draws from all ladders.

A try is a remedy that took effect by itself, a proposal that a person approved, or the next request of a session. The
person of this bench approves what waits for one as soon as it is said, if it is for the first finding by priority up to
then, and submits the request that `swarm diagnose -o` writes when a session has ended short of its twin.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Protocol

from benchmarks.faults_cases.classes import Asked
from benchmarks.faults_cases.kept import evidence_at
from benchmarks.faults_cases.trial import Forced
from runtime.diagnosis.evidence import RuleFinding
from runtime.diagnosis.remedies import RUNGS, Trouble

MOST_TRIES = 3


class Holding(Protocol):
    """Where sessions are held."""

    async def held(
        self, asked: Asked, *, mode: str = "observe", approved: int = 0, forced: Sequence[Forced] = ()
    ) -> dict[str, Any]:
        """The session of a request."""
        ...


@dataclass(frozen=True)
class Try:
    """One remedy for a problem, and what it changed."""

    rule: str
    remedy: str
    changes: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.remedy or 'again'}: {dict(self.changes)}"


@dataclass(frozen=True)
class Repair:
    """What was tried, in its order; whether the score came within the twin's noise within so many tries."""

    tried: tuple[Try, ...]
    reached: bool


@dataclass(frozen=True)
class Goal:
    """What a session's measure has to reach."""

    measure: str
    least: float

    def reached(self, session: Mapping[str, Any]) -> bool:
        """Whether a session reached it."""
        return bool(session[self.measure] >= self.least)


async def by_ladder(bench: Holding, asked: Asked, goal: Goal) -> Repair:
    """Let the rules act, approve what waits, submit what is proposed."""
    tried: list[Try] = []
    while True:
        session = await bench.held(asked, mode="fix", approved=MOST_TRIES - len(tried))
        tried += (Try(one["rule"], one["remedy"], one["set"]) for one in session["applied"])
        if len(tried) <= MOST_TRIES and goal.reached(session):
            return Repair(tuple(tried), reached=True)
        following = session["following"]
        if len(tried) >= MOST_TRIES or following is None:
            return Repair(tuple(tried), reached=False)
        tried.append(Try(following["rule"], following["remedy"], following["set"]))
        asked = asked_again(asked, following["set"])


Counts = Mapping[str, Mapping[str, Sequence[int]]]
"""By problem and remedy, in how many trainings it was the last and reached the twin, and in how many tried."""


def counted_tries(repairs: Iterable[Repair]) -> Counts:
    """What came of each remedy; one that was tried twice in a training is counted once, and by its last try."""
    each: list[Counts] = []
    for repair in repairs:
        last = len(repair.tried) if repair.reached else 0
        by = {(one.rule, one.remedy): int(number == last) for number, one in enumerate(repair.tried, 1) if one.remedy}
        each += ({rule: {remedy: (reached, 1)}} for (rule, remedy), reached in by.items())
    return added(each)


def added(several: Iterable[Counts]) -> Counts:
    """Counts added up, in the order of their names."""
    found: dict[str, dict[str, list[int]]] = {}
    for counts in several:
        for rule, remedies in counts.items():
            for remedy, (reached, tried) in remedies.items():
                count = found.setdefault(rule, {}).setdefault(remedy, [0, 0])
                count[0] += reached
                count[1] += tried
    return {rule: dict(sorted(remedies.items())) for rule, remedies in sorted(found.items())}


async def by_chance(bench: Holding, asked: Asked, session: Mapping[str, Any], name: str, goal: Goal) -> Repair:
    """Draw as many remedies from all ladders, each possible one as likely, at the step at which something was found."""
    chance, tried, forced = random.Random(f"chance {name}"), list[Try](), list[Forced]()
    steps = [one["last"] for one in session["found"] if one["severity"] != "note"]
    seen, moment = evidence_at(session["bodies"], min(steps, default=session["steps"] // 2))
    nothing = RuleFinding("chance", "warning", moment, moment, "", "", (), {"update_ratio": 1e-5})
    trouble = Trouble(nothing, seen, (), asked.request["training"].get("grad_clip", 1.0))
    for _ in range(MOST_TRIES):
        possible = [(rung, changes) for rung in RUNGS.values() if (changes := rung.pull(trouble)) is not None]
        rung, changes = chance.choice(possible)
        tried.append(Try("chance", rung.name, changes))
        if rung.another:
            asked = asked_again(asked, changes)
        else:
            back = None if rung.begins else seen.planned(moment)
            forced.append(Forced(moment, back, dict(changes)))
        if goal.reached(await bench.held(asked, mode="off", forced=forced)):
            return Repair(tuple(tried), reached=True)
    return Repair(tuple(tried), reached=False)


def asked_again(asked: Asked, values: Mapping[str, Any]) -> Asked:
    """A request with values set by dotted path."""
    request, start, data = deepcopy(asked.request), asked.start, dict(asked.data)
    for path, value in values.items():
        section, _, name = path.partition(".")
        if path == "model.init":
            start = None
        elif section == "data":
            data[name] = value
        elif not name:
            request[section] = value
        elif name == "architecture":
            request[section] = {name: value}
        else:
            request[section] = {**request.get(section, {}), name: value}
    return replace(asked, request=request, start=start, data=data)
