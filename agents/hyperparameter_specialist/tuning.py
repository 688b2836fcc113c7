"""One search: begins the trials that may begin, tells those that have ended, and concludes. Restarted, it goes on."""

from __future__ import annotations

from typing import Any

from agents.hyperparameter_specialist.bench import SearchContext
from agents.hyperparameter_specialist.progress import SearchProgress, base_parameters, finished, sampler_of, value_at
from contracts.errors import InvalidRequest
from contracts.hyperparameter_specialist import SearchCancelled, TrialFinished, TrialStarted
from contracts.request import read_request
from contracts.request.search import Search
from runtime.jobs.profiles import Profile
from runtime.log.session_log import SessionLog
from runtime.node.agent_context import first_done

PLAIN = Profile(torch=False, modules=("optuna", "optuna.samplers"))
WITH_TORCH = Profile(modules=("optuna", "optuna.samplers", "scipy.optimize", "scipy.special"))
"""Where the next trial is chosen: a Gaussian process needs torch and scipy, which the host does without."""


class Tuning:
    """Runs one search by trials; everything that it must know after a crash is in its session."""

    def __init__(self, search: Search, bench: SearchContext) -> None:
        self._search = search
        self._bench = bench
        self._trials: dict[int, SessionLog] = {}

    async def run(self) -> None:
        """Start and follow trials until the search has an outcome."""
        bench = self._bench
        while bench.now.outcome is None:
            progress = SearchProgress.of(bench.now, self._search)
            watched = [bench.own, *(self._trial(number, one.session) for number, one in progress.running.items())]
            sizes = [one.size for one in watched]
            ended = [number for number in progress.running if self._trials[number].state.sealed]
            if bench.cancelled:
                await self._cancel(progress)
            elif ended:
                await bench.say(*(self._finished(number) for number in ended))
            elif progress.complete:
                await bench.say(progress.conclusion())
            elif (number := progress.next_number()) is not None:
                await self._begin(progress, number)
            else:
                await first_done(*(one.grown(size) for one, size in zip(watched, sizes, strict=True)))

    def _trial(self, number: int, session: str) -> SessionLog:
        if number not in self._trials:
            self._trials[number] = self._bench.ground.history(session)
        return self._trials[number]

    def _finished(self, number: int) -> TrialFinished:
        return finished(number, self._trials[number].state, self._search.metric)

    async def _begin(self, progress: SearchProgress, number: int) -> None:
        name, bench = f"trial-{number}", self._bench
        parameters = self._submitted(name) or await self._chosen(progress, number)
        try:
            request = read_request(self._search.trial(number, parameters)).resolved()
        except InvalidRequest:
            # Each value was allowed, and not all of them together: a trial like any other, with nothing to show.
            await bench.say(
                TrialStarted(number=number, session="", parameters=parameters),
                TrialFinished(number=number, session="", state="refused"),
            )
            return
        session = await bench.submit(request, name)
        await bench.say(TrialStarted(number=number, session=session, parameters=parameters))

    def _submitted(self, name: str) -> dict[str, Any] | None:
        """The parameters of a trial that was requested before a crash and has not been told since."""
        trial = self._bench.submitted(name)
        return {path: value_at(trial.request, path) for path in self._search.space} if trial else None

    async def _chosen(self, progress: SearchProgress, number: int) -> dict[str, Any]:
        search, sampler = self._search, sampler_of(self._search)
        if sampler == "grid":
            return search.combination(number)
        if number == 0 and (base := base_parameters(search)) is not None:
            return base
        args = {
            "search": search.resolved(),
            "sampler": sampler,
            "number": number,
            "past": [one.as_json() for one in progress.before(number)],
        }
        profile = WITH_TORCH if sampler == "gp" else PLAIN
        answer = await self._bench.ask("agents.hyperparameter_specialist.jobs.ask:main", args, profile)
        chosen: dict[str, Any] = answer["parameters"]
        return chosen

    async def _cancel(self, progress: SearchProgress) -> None:
        for trial in progress.running.values():
            await self._bench.ground.cancel(trial.session, "its search was cancelled")
        best = progress.best()
        await self._bench.say(
            SearchCancelled(
                reason=self._bench.cancelled,
                trials=len(progress.finished),
                best_session=best.session if best else None,
            )
        )
