"""Whether faults are put right: by the ladder of the problem that was found, and by as many draws from all ladders.

A try is a remedy that took effect by itself, a proposal that a person approved, or the next request that was proposed
and submitted. The person of this bench approves what waits for one as soon as it is said, if it is for the first
finding by priority up to then, and submits the first proposed request when a session has ended short of its twin.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
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
class Repair:
    """What was tried, in its order; whether the score came within the twin's noise within so many tries."""

    tried: tuple[str, ...]
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
    tried: list[str] = []
    while True:
        session = await bench.held(asked, mode="fix", approved=MOST_TRIES - len(tried))
        tried += session["applied"]
        if len(tried) <= MOST_TRIES and goal.reached(session):
            return Repair(tuple(tried), reached=True)
        if len(tried) >= MOST_TRIES or not session["another"]:
            return Repair(tuple(tried), reached=False)
        proposed = session["another"][0]
        tried.append(f"{proposed['remedy']}: {proposed['set']}")
        asked = asked_again(asked, proposed["set"])


async def by_chance(bench: Holding, asked: Asked, session: Mapping[str, Any], name: str, goal: Goal) -> Repair:
    """Draw as many remedies from all ladders, each possible one as likely, at the step at which something was found."""
    chance, tried, forced = random.Random(f"chance {name}"), list[str](), list[Forced]()
    steps = [one["last"] for one in session["found"] if one["severity"] != "note"]
    seen, moment = evidence_at(session["bodies"], min(steps, default=session["steps"] // 2))
    nothing = RuleFinding("chance", "warning", moment, moment, "", "", (), {"update_ratio": 1e-5})
    trouble = Trouble(nothing, seen, (), asked.request["training"].get("grad_clip", 1.0))
    for _ in range(MOST_TRIES):
        possible = [(rung, changes) for rung in RUNGS.values() if (changes := rung.pull(trouble)) is not None]
        rung, changes = chance.choice(possible)
        tried.append(f"{rung.name}: {dict(changes)}")
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
