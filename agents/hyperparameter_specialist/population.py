"""Population-based training: which members copy whom at the end of each generation, and the sessions that this takes.

What is decided follows from what the search's log tells of its members, and what is drawn from the seed, the member and
the generation: a restart, or other trainers, change neither.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from agents.hyperparameter_specialist.progress import without_value
from agents.hyperparameter_specialist.search_context import Sayings, SearchContext
from contracts.data_manager import DatasetRejected
from contracts.errors import InvalidRequest
from contracts.hyperparameter_specialist import (
    GenerationDecided,
    LineageStage,
    LineageTraced,
    MemberCopy,
    SearchCompleted,
    SearchFailed,
    SearchState,
    TrialFinished,
    TrialPaused,
    TrialStarted,
)
from contracts.operator import ResumeRequested
from contracts.request import read_request
from contracts.request.population import Population
from contracts.request.space import Choice, Domain, Interval, Wholes, inside, value_at
from contracts.session import SessionState
from runtime.log.session_log import SessionLog
from runtime.node.agent import Say
from runtime.node.agent_context import Wakeup, first_done, wish_to_cancel
from runtime.node.child_sessions import TRY_AGAIN

TRIES = 64
"""How often values are drawn before some are taken that another member has; the second half are all drawn anew."""


def chance(*key: object) -> float:
    """A number from 0 to below 1 that follows from a key alone."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return (int.from_bytes(digest[:8]) >> 11) / 2**53


def drawn(domain: Domain, share: float) -> object:
    """The value at a share from 0 to below 1 of a domain."""
    if isinstance(domain, Interval):
        low, high = (math.log(end) if domain.log else end for end in (domain.low, domain.high))
        value = low + share * (high - low)
        return _bounded(domain, math.exp(value) if domain.log else value)
    if isinstance(domain, Choice) or not domain.log:
        return domain.value(int(share * domain.count))
    return _bounded(domain, math.exp(math.log(domain.low) + share * math.log((domain.high + 1) / domain.low)))


def nudged(domain: Domain, value: Any, factor: float) -> object:
    """A number multiplied by a factor, within its bounds; any other value as it is."""
    return value if isinstance(domain, Choice) else _bounded(domain, value * factor)


def _bounded(domain: Interval | Wholes, value: float) -> float | int:
    if isinstance(domain, Interval):
        # Six digits: libraries of other machines round the last ones otherwise, and people have to write them.
        return min(max(float(f"{value:.6g}"), domain.low), domain.high)
    return domain.value(min(max(round((value - domain.low) / domain.step), 0), domain.count - 1))


def founders(population: Population) -> list[dict[str, Any]]:
    """The values with which each member begins, no two alike: the first is the base where the space holds it."""
    found: list[dict[str, Any]] = []
    base = read_request(population.trial(0, {})).resolved()
    own = {path: value_at(base, path) for path in population.space}
    if all(inside(domain, own[path]) for path, domain in population.space.items()):
        found.append(own)
    while len(found) < population.size:
        found.append(_explored(population, len(found), 0, None, found))
    return found


def _explored(
    population: Population, member: int, generation: int, donor: Mapping[str, Any] | None, taken: list[dict[str, Any]]
) -> dict[str, Any]:
    """Values near a donor's, or without one any, that are not taken."""
    values: dict[str, Any] = {}
    for attempt in range(TRIES):
        anew = 1.0 if donor is None or attempt >= TRIES // 2 else population.resample
        for path, domain in population.space.items():
            key = (population.seed, member, generation, attempt, path)
            if donor is None or chance(*key, "anew") < anew:
                values[path] = drawn(domain, chance(*key, "value"))
            else:
                factor = population.factors[int(chance(*key, "factor") * len(population.factors))]
                values[path] = nudged(domain, donor[path], factor)
        if values not in taken:
            break
    return values


@dataclass(frozen=True)
class PopulationProgress:
    """The members of a population as of one moment of its session."""

    population: Population
    state: SearchState

    @cached_property
    def generation(self) -> int:
        """The generation that they train, from 0."""
        return len(self.state.generations)

    @cached_property
    def members(self) -> tuple[int, ...]:
        """The trial that each member is now."""
        trials = list(range(self.population.size))
        for decided in self.state.generations:
            for copy in decided.copies:
                trials[copy.member] = copy.number
        return tuple(trials)

    @cached_property
    def started(self) -> Mapping[int, TrialStarted]:
        """By number, every trial that has begun."""
        return {trial.number: trial for trial in self.state.trials}

    @cached_property
    def finished(self) -> Mapping[int, TrialFinished]:
        """By number, every trial that has ended."""
        return {trial.number: trial for trial in self.state.finished}

    @cached_property
    def waiting(self) -> Mapping[int, TrialPaused]:
        """By number, the trials that have come to the end of this generation and go on from there."""
        seen = {pause.number: pause for pause in self.state.paused if pause.rung == self.generation}
        return {number: pause for number, pause in seen.items() if number not in self.finished}

    @property
    def running(self) -> list[int]:
        """Trials that have begun and not ended."""
        return [number for number in self.started if number not in self.finished]

    @property
    def training(self) -> list[int]:
        """The trials that train or are to, in the order in which they may: copies first, since whom they copy waits."""
        last = self.state.generations[-1] if self.state.generations else None
        order = [*(copy.number for copy in last.copies), *last.kept] if last else self.members
        if any(trial.state == "rejected" for trial in self.state.finished):
            order = [number for number in order if number in self.started]
        return [number for number in order if number not in self.waiting and number not in self.finished]

    @property
    def complete(self) -> bool:
        """Whether no member goes on, nor any trial that was left."""
        return not self.running and not self.training

    def decision(self, trials: Mapping[int, SessionState]) -> GenerationDecided | None:
        """Who copies whom, once nobody trains and somebody waits; `trials` are the sessions of those that wait."""
        if self.training or not self.waiting:
            return None
        population, sign = self.population, 1 if self.population.minimizes else -1
        cost: dict[int, float] = {}
        for member, number in enumerate(self.members):
            told = self.waiting.get(number) or self.finished[number]
            known = told.value is not None and math.isfinite(told.value)
            cost[member] = sign * (told.value or 0.0) if known else math.inf
        ranked = sorted(cost, key=lambda member: (cost[member], member))
        donors = [member for member in ranked if self.members[member] in self.waiting and cost[member] < math.inf]
        donors = donors[: population.copying]
        worst = [member for member in ranked if member in ranked[-population.copying :] or cost[member] == math.inf]
        copies: list[MemberCopy] = []
        for member in sorted(worst):
            if not donors or member in donors:
                continue
            donor = donors[int(chance(population.seed, member, self.generation, "donor") * len(donors))]
            if cost[donor] >= cost[member]:
                continue
            trial = self.members[donor]
            own = dict(self.started[trial].parameters)
            taken = [own, *(copy.parameters for copy in copies if copy.trial == trial)]
            copies.append(
                MemberCopy(
                    member=member,
                    number=population.size + sum(len(each.copies) for each in self.state.generations) + len(copies),
                    trial=trial,
                    session=self.started[trial].session,
                    step=trials[trial].training.paused_by_plan,
                    parameters=_explored(population, member, self.generation + 1, own, taken),
                )
            )
        left = {self.members[copy.member] for copy in copies}
        return GenerationDecided(
            generation=self.generation,
            epochs=population.generations[self.generation],
            kept=[n for n in (self.members[member] for member in ranked) if n in self.waiting and n not in left],
            stopped=[number for number in self.members if number in self.waiting and number in left],
            copies=copies,
        )

    def copy(self, number: int) -> MemberCopy | None:
        """Whom a trial begins as a copy of; None for one of the first generation."""
        copies = (copy for decided in self.state.generations for copy in decided.copies)
        return next((copy for copy in copies if copy.number == number), None)

    def best(self) -> TrialFinished | None:
        """The member with the best value at the end, the first of equals."""
        sign = 1 if self.population.minimizes else -1
        ended = [self.finished[number] for number in self.members if number in self.finished]
        valued = [trial for trial in ended if trial.value is not None]
        return min(valued, key=lambda trial: sign * (trial.value or 0.0), default=None)

    def conclusion(self) -> tuple[LineageTraced, SearchCompleted] | tuple[SearchFailed]:
        """The events that end the search."""
        best = self.best()
        if best is None:
            return (without_value(self.finished.values()),)
        stages: list[LineageStage] = []
        number: int | None = best.number
        while number is not None:
            trial, copy = self.started[number], self.copy(number)
            at = copy.step if copy else 0
            stages.insert(0, LineageStage(number=number, session=trial.session, step=at, parameters=trial.parameters))
            number = copy.trial if copy else None
        return (
            LineageTraced(stages=stages),
            SearchCompleted(
                trials=len(self.finished),
                best_number=best.number,
                best_session=best.session,
                best_value=best.value,
                best_parameters=dict(self.started[best.number].parameters),
            ),
        )

    def told(self, trials: Mapping[int, SessionState]) -> Iterator[TrialFinished | TrialPaused]:
        """What has become of trials and is not told yet."""
        stopped = {number for decided in self.state.generations for number in decided.stopped}
        for number in self.running:
            session = trials[number]
            training, seen = session.training, session.training.evaluations
            if session.outcome is not None:
                rejected = isinstance(session.outcome, DatasetRejected)
                state: str = "rejected" if rejected else session.kind.state_at_end(session)
                state = "stopped" if state == "cancelled" and number in stopped else state
                value = seen[-1].values.get(self.population.metric) if seen and state == "completed" else None
                value = value if value is not None and math.isfinite(value) else None
                epochs = seen[-1].epoch if seen else 0
                yield TrialFinished(number=number, session=session.id, state=state, value=value, epochs=epochs)
            elif number in self.training and training.claim and training.pause and training.pause.by == "plan":
                if self.generation == len(self.population.generations):
                    continue  # it is to go on to its end
                resolved, after = training.claim.resolved, self.population.generations[self.generation]
                if training.pause.step * resolved["batch"] * resolved["accumulate"] < after * resolved["rows"]:
                    continue  # it waits at the end of the generation before
                value = seen[-1].values.get(self.population.metric) if seen else None
                yield TrialPaused(number=number, rung=self.generation, epochs=after, value=value)


class PopulationRun(SearchContext):
    """One population: begins its members, tells what they came to, has them copy each other, and concludes."""

    def __init__(self, role: str, wakeup: Wakeup, say: Say[Sayings], population: Population) -> None:
        super().__init__(role, wakeup, say)
        self._population = population
        self._founders = founders(population)
        self._trials: dict[int, SessionLog] = {}

    async def run(self) -> None:
        """Start and follow members until the search has an outcome."""
        while self.now.outcome is None:
            progress = PopulationProgress(self._population, SearchState.of(self.now))
            for number in progress.running:
                if number not in self._trials:
                    self._trials[number] = self.ground.history(progress.started[number].session)
            # A trial counts from its outcome on; what else is to be said of it, the end of the search waits for.
            unsealed = self.trials.unsealed() if progress.complete else []
            watched = [self.own, *(self._trials[number] for number in progress.running), *unsealed]
            sizes = [history.size for history in watched]
            states = {number: self._trials[number].state for number in progress.running}
            news = list(progress.told(states))
            if self.cancelled:
                await self.cancel(len(progress.finished), progress.best())
            elif news:
                await self.say(*news)
            elif progress.complete and not unsealed:
                await self.say(*progress.conclusion())
            elif (decision := progress.decision(states)) is not None:
                await self.say(decision)
            elif not await self._begin(progress):
                again = await self._carry_out(progress, states)
                until_grown = [log.grown(size) for log, size in zip(watched, sizes, strict=True)]
                with suppress(TimeoutError):
                    async with asyncio.timeout(TRY_AGAIN if again else None):
                        await first_done(*until_grown)

    async def _begin(self, progress: PopulationProgress) -> bool:
        """Begin the first trial that may train and has not begun; whether there was one."""
        may = progress.training[: self._population.parallel]
        number = next((each for each in may if each not in progress.started), None)
        if number is None:
            return False
        copy, name = progress.copy(number), f"trial-{number}"
        parameters = copy.parameters if copy else self._founders[number]
        try:
            request = read_request(self._population.trial(number, parameters)).resolved()
            if copy is None:
                session = await self.trials.train(name, request)
            else:
                before = progress.started[copy.trial].parameters
                change = {path: value for path, value in parameters.items() if value != before[path]}
                change = {"name": self._population.trial_name(number), **change}
                session = await self.trials.fork(name, {"session": copy.session, "step": copy.step, "set": change})
        except InvalidRequest:
            # Each value was allowed, and not all of them together: a trial like any other, with nothing to show.
            await self.say(
                TrialStarted(number=number, session="", parameters=parameters),
                TrialFinished(number=number, session="", state="refused"),
            )
        else:
            await self.say(TrialStarted(number=number, session=session, parameters=parameters))
        return True

    async def _carry_out(self, progress: PopulationProgress, trials: Mapping[int, SessionState]) -> bool:
        """Ask for the end of trials that were left, and that others go on, as many at once as may train."""
        asked, last = False, progress.state.generations[-1:]
        for number in (number for decided in last for number in decided.stopped):
            if number in trials and trials[number].outcome is None and wish_to_cancel(trials[number]) is None:
                reason = f"the member that was trial {number} goes on as another one"
                await self.ground.cancel(self.role, trials[number].id, reason)
                asked = True
        for number in progress.training[: self._population.parallel]:
            state = trials[number]
            resumes = any(isinstance(wish, ResumeRequested) for _, wish in state.wishes)
            if state.training.pause is not None and state.training.pause.by == "plan" and not resumes:
                await self.trials.resume(state.id)
                asked = True
        return asked
