"""The hyperparameter specialist: carries searches and range tests through. What it knows is in their sessions.

Restarted, a search goes on where its log ends: trials are sessions of their own, and their ids follow from its own.
"""

import asyncio
import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agents.hyperparameter_specialist import curve
from agents.hyperparameter_specialist.jobs import (
    RangeCurve,
    RangeSweep,
    TrialQuestion,
    choose_parameters,
    sweep_rates,
)
from agents.hyperparameter_specialist.measuring import measure_trial
from agents.hyperparameter_specialist.outcomes import finished_with_seeds, paused, paused_with_seeds
from agents.hyperparameter_specialist.population import PopulationRun
from agents.hyperparameter_specialist.progress import (
    SearchProgress,
    base_parameters,
    sampler_of,
)
from agents.hyperparameter_specialist.search_context import Sayings, SearchContext
from contracts import hyperparameter_specialist as events
from contracts.data_manager import DatasetRejected
from contracts.errors import InvalidRequest
from contracts.operator import ResumeRequested, SessionRequested
from contracts.request import read_request
from contracts.request.population import Population
from contracts.request.search import RangeTest, Search, read_search
from contracts.session import SessionState
from runtime.home import allowed
from runtime.home.workloads import Workloads
from runtime.log.session_log import SessionLog
from runtime.node.agent import Agent, Say, on
from runtime.node.agent_context import Wakeup, first_done, wish_to_cancel
from runtime.node.child_sessions import TRY_AGAIN
from runtime.replay import initial_state


class HyperparameterSpecialist(Agent):
    """Chooses trials in children and has them trained as sessions of their own."""

    @on
    async def seek(self, asked: SessionRequested, wakeup: Wakeup, say: Say[Sayings]) -> None:
        """Carry out a search to its end; after a restart, continue where its log ends."""
        if wakeup.session.kind is not events.SEARCH or wakeup.now.outcome is not None:
            return
        wanted = read_search(asked.request)
        if isinstance(wanted, RangeTest):
            await RangeTestRun(self.role, wakeup, say).run(wanted)
        elif isinstance(wanted, Population):
            await PopulationRun(self.role, wakeup, say, wanted).run()
        else:
            await SearchRun(self.role, wakeup, say, wanted).run()


class SearchRun(SearchContext):
    """One search by trials: begins those that may begin, tells those that have ended, and concludes."""

    def __init__(self, role: str, wakeup: Wakeup, say: Say[Sayings], search: Search) -> None:
        super().__init__(role, wakeup, say)
        self._search = search
        self._trials: dict[int, list[SessionLog]] = {}
        """By number, a log for each seed."""
        self._requests: dict[int, dict[str, object]] = {}

    async def run(self) -> None:
        """Start and follow trials until the search has an outcome."""
        while self.now.outcome is None:
            progress = SearchProgress.of(self.now, self._search)
            for started in progress.running.values():
                if started.number not in self._trials:
                    self._trials[started.number] = [self.ground.history(session) for session in started.by_seed]
            # A trial counts from its outcome on; what else is to be said of it, the end of the search waits for.
            unsealed = self.trials.unsealed() if progress.complete else []
            running = (log for number in progress.running for log in self._trials[number])
            watched = [self.own, *running, *unsealed]
            sizes = [history.size for history in watched]
            news = self._news(progress)
            if self.cancelled:
                await self.cancel(len(progress.finished), progress.best())
            elif news:
                await self.say(*await self._measured(news), *news)
            elif progress.complete and not unsealed:
                await self.say(progress.conclusion())
            elif (left := math.inf if progress.limited or progress.complete else self._seconds_left()) <= 0:
                await self.say(events.SearchLimited(seconds=self._search.seconds or 0.0))
            elif (number := progress.next_number()) is not None:
                await self._begin(progress, number)
            elif (decision := progress.rung_decision()) is not None:
                await self.say(decision)
            else:
                left = min(left, TRY_AGAIN) if await self._carry_out(progress) else left
                until_grown = [log.grown(size) for log, size in zip(watched, sizes, strict=True)]
                with suppress(TimeoutError):
                    async with asyncio.timeout(left if left < math.inf else None):
                        await first_done(*until_grown)

    async def _carry_out(self, progress: SearchProgress) -> bool:
        """Ask for what the rungs have decided: the end of trials that stop, and that others go on, as many at once as
        may train. Whether anything was asked for."""
        asked, training = False, 0
        for number in sorted(progress.stopped & progress.running.keys()):
            for state in (log.state for log in self._trials[number]):
                if state.outcome is None and wish_to_cancel(state) is None:
                    reason = f"trial {number} is not among the better ones at its rung"
                    await self.ground.cancel(self.role, state.id, reason)
                    asked = True
        for number in (number for decision in progress.decided[-1:] for number in decision.kept):
            if number not in progress.training or training >= self._search.parallel:
                continue
            training += 1
            for log in self._trials[number]:
                state = log.state
                resumes = any(isinstance(wish, ResumeRequested) for _, wish in state.wishes)
                waits = state.training.pause is not None and state.training.pause.by == "plan"
                # One seed may have come to the next rung while another is still on its way there.
                if waits and not resumes and paused(progress, number, log) is None:
                    await self.trials.resume(state.id)
                    asked = True
        return asked

    def _news(self, progress: SearchProgress) -> list[events.TrialFinished] | list[events.TrialPaused]:
        """What has become of trials and is not told yet: those that have ended, else those that wait at a rung."""
        logs = {number: self._trials[number] for number in progress.running}
        # Constraints are about what is said of a trial after its outcome: its exports and how fast they answer.
        late = self._search.constraints is not None
        over = [
            number
            for number, seeds in logs.items()
            if all((log.state.sealed if late else log.state.outcome) is not None for log in seeds)
        ]
        ended = [finished_with_seeds(progress, number, logs[number]) for number in over]
        waiting = [paused_with_seeds(progress, number, logs[number]) for number in progress.training]
        return ended or [told for told in waiting if told is not None]

    async def _measured(self, news: Iterable[events.TrialFinished | events.TrialPaused]) -> list[events.TrialMeasured]:
        """What trials that have completed come to by the constraints; it is told together with their end."""
        if (constraints := self._search.constraints) is None:
            return []
        return [
            await measure_trial(self.ground, self.own.id, told.number, self._trials[told.number], constraints)
            for told in news
            if isinstance(told, events.TrialFinished) and told.state == "completed"
        ]

    def _seconds_left(self) -> float:
        """Until no further trial may begin, by the time at which the search was requested."""
        if self._search.seconds is None:
            return math.inf
        requested = datetime.fromisoformat(self.own.facts[0].envelope.time)
        return self._search.seconds - (datetime.now(UTC) - requested).total_seconds()

    async def _begin(self, progress: SearchProgress, number: int) -> None:
        parameters = await self._parameters(progress, number)
        places = range(len(self._search.training_seeds) or 1)
        try:
            requests = [read_request(self._search.trial(number, parameters, place)).resolved() for place in places]
        except InvalidRequest:
            # Each value was allowed, and not all of them together: a trial like any other, with nothing to show.
            await self.say(
                events.TrialStarted(number=number, session="", parameters=parameters),
                events.TrialFinished(number=number, session="", state="refused"),
            )
            return
        earlier = self.same_as(progress, number, requests[0])
        if earlier is not None and self.trials.begun(f"trial-{number}") is None:
            first = progress.started[earlier]
            about: dict[str, Any] = {"number": number, "session": first.session}
            await self.say(
                events.TrialStarted(**about, parameters=parameters, same_as=earlier, sessions=first.sessions),
                events.TrialFinished(**about, state="repeated"),
            )
            return
        # The first one is what a search that dies here is known to have chosen by.
        names = (f"trial-{number}" + (f"-seed-{place}" if place else "") for place in places)
        trained = [await self.trials.train(name, request) for name, request in zip(names, requests, strict=True)]
        several = trained if len(trained) > 1 else []
        await self.say(events.TrialStarted(number=number, session=trained[0], parameters=parameters, sessions=several))

    def same_as(self, progress: SearchProgress, number: int, request: Mapping[str, object]) -> int | None:
        """The first trial that has a session and the same request but for its name, however either is spelled."""
        self._requests[number] = {**request, "name": ""}
        for earlier, started in progress.started.items():
            if earlier not in self._requests and started.session:
                # Of trials that this process has not begun itself.
                again = read_request(self._search.trial(earlier, started.parameters)).resolved()
                self._requests[earlier] = {**again, "name": ""}
            if started.session and self._requests[earlier] == self._requests[number]:
                return earlier
        return None

    async def _parameters(self, progress: SearchProgress, number: int) -> dict[str, Any]:
        """The parameters of a trial: those of its session when it was requested before a crash, else chosen now."""
        search, sampler = self._search, sampler_of(self._search)
        begun = self.trials.begun(f"trial-{number}")
        if begun is not None:
            return search.parameters(begun.state.request)
        if sampler == "grid":
            return search.combination(number)
        if number == 0 and (base := base_parameters(search)) is not None:
            return base
        question = TrialQuestion(search.resolved(), sampler, number, progress.before(number))
        return dict(await self.ask(choose_parameters, question))


class RangeTestRun(SearchContext):
    """One learning-rate range test: finds prepared data or has them prepared, sweeps in a child, reads the curve."""

    async def run(self, test: RangeTest) -> None:
        """Return when the suggestion, or why there is none, has been said."""
        request, datasets = read_request(test.base).resolved(), self.ground.blobs.root / "datasets"
        known = (history.state for history in reversed(self.ground.tail.histories.values()))
        same = (state for state in known if state.training.dataset and state.request.get("data") == request["data"])
        source = next(
            (state for state in same if state.training.dataset and (datasets / state.training.dataset.root).is_dir()),
            None,
        )
        source = source or await self._prepared(request)
        if self.cancelled:
            await self.say(events.SearchCancelled(reason=self.cancelled, trials=0))
        elif source.training.dataset is None:
            problems = source.outcome.problems if isinstance(source.outcome, DatasetRejected) else []
            why = "; ".join(problem.get("message", "") for problem in problems) or f"{source.id} has ended"
            cure = problems[0].get("cure", "") if problems else f"See: swarm show {source.id}"
            message = f"the data could not be prepared: {why}."
            await self.say(events.SearchFailed(message=message, cure=cure, type="resource"))
        else:
            found = await self._sweep(test, request, datasets / source.training.dataset.root)
            await self.say(*self._conclusion(list(found.rates), list(found.losses)))

    async def _prepared(self, request: dict[str, Any]) -> SessionState:
        """Have the data prepared by a trial of one epoch, and wait for no more than that."""
        training = {**request["training"], "epochs": 1}
        short = {**request, "name": "data for a range test", "export": {}, "training": training}
        session = await self.trials.train("data", read_request(short).resolved())
        if not events.SearchState.of(self.now).trials:
            await self.say(events.TrialStarted(number=0, session=session, parameters={}))
        trial = self.ground.history(session)
        while not (trial.state.training.dataset or trial.state.outcome or self.cancelled):
            await first_done(trial.grown(trial.size), self.own.grown(self.own.size))
        await self.trials.cancel("its data are prepared, which was all that was wanted")
        return trial.state

    async def _sweep(self, test: RangeTest, request: dict[str, Any], dataset: Path) -> RangeCurve:
        context, session = self.ground, self.own.id
        roots = allowed.roots(context.home, context.settings, session)
        asked = RangeSweep(
            request=request,
            dataset=dataset,
            blobs=context.blobs.root,
            initial=await initial_state.bring_weights(request, roots, context.blobs, session, context.children),
            low=test.low,
            high=test.high,
            steps=test.steps,
            device="cuda" if request["training"]["device"] == "cuda" else "cpu",
            workloads=Workloads(context.home.root).needed(request),
        )
        return await self.ask(sweep_rates, asked)

    def _conclusion(self, rates: list[float], losses: list[float]) -> tuple[Sayings, ...]:
        read = curve.read(rates, losses)
        if read.suggestion is None or read.steepest is None:
            message = f"the loss falls at no learning rate between {rates[0]:g} and {rates[-1]:g}."
            cure = "Try a wider range, or look at the data and the loss."
            return (events.SearchFailed(message=message, cure=cure, type="convergence"),)
        suggested = events.LearningRateSuggested(
            rates=rates,
            losses=losses,
            suggestion=read.suggestion,
            steepest=read.steepest,
            diverged_at=read.diverged_at,
        )
        completed = events.SearchCompleted(
            trials=len(events.SearchState.of(self.now).trials),
            best_number=None,
            best_session=None,
            best_value=None,
            best_parameters={"optimizer.learning_rate": read.suggestion},
        )
        return suggested, completed
