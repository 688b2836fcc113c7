"""One learning-rate range test: finds prepared data or has them prepared, sweeps in a child, reads the curve."""

from __future__ import annotations

from typing import Any

from agents.hyperparameter_specialist import curve
from agents.hyperparameter_specialist.bench import Sayings, SearchContext
from contracts.data_manager import DatasetRejected
from contracts.hyperparameter_specialist import (
    LearningRateSuggested,
    SearchCancelled,
    SearchCompleted,
    SearchFailed,
    TrialStarted,
)
from contracts.request import read_request
from contracts.request.search import RangeTest
from contracts.session import SessionState
from runtime.home import allowed
from runtime.home.workloads import Workloads
from runtime.jobs.profiles import torch_profile
from runtime.node.agent_context import first_done
from runtime.replay import initial_state

JOB = "agents.hyperparameter_specialist.jobs.range_test:main"


async def test_range(test: RangeTest, bench: SearchContext) -> None:
    """Until the suggestion, or why there is none, has been said."""
    request = read_request(test.base).resolved()
    source = _with_dataset(request, bench) or await _prepared(request, bench)
    dataset = source.dataset
    if bench.cancelled:
        await bench.say(SearchCancelled(reason=bench.cancelled, trials=0))
        return
    if dataset is None:
        await bench.say(_no_data(source))
        return
    ground = bench.ground
    roots = allowed.roots(ground.home, ground.settings, bench.own.id)
    device = "cuda" if request["training"]["device"] == "cuda" else "cpu"
    args = {
        "request": request,
        "dataset": str(ground.blobs.root / "datasets" / dataset.root),
        "blobs": str(ground.blobs.root),
        "initial": await initial_state.bring_weights(request, roots, ground.blobs, bench.own.id, ground.children),
        "low": test.low,
        "high": test.high,
        "steps": test.steps,
        "workloads": [one.as_json() for one in Workloads(ground.home.root).needed(request)],
        "seal": {"profile": "exact", "threads": 1},
    }
    answer = await bench.ask(JOB, args, torch_profile(1, device))
    tried = [float.fromhex(one) for one in answer["rates"]]
    losses = [float.fromhex(one) for one in answer["losses"]]
    await bench.say(*_suggested(tried, losses, len(bench.now.trials)))


def _with_dataset(request: dict[str, Any], bench: SearchContext) -> SessionState | None:
    """A session whose data are those of the request and are in the store of this machine."""
    place = bench.ground.blobs.root / "datasets"
    for history in reversed(bench.ground.tail.histories.values()):
        seen = history.state
        if seen.dataset and seen.request.get("data") == request["data"] and (place / seen.dataset.root).is_dir():
            return seen
    return None


async def _prepared(request: dict[str, Any], bench: SearchContext) -> SessionState:
    """Have the data prepared by a trial of one epoch, and wait for no more than that."""
    short = {**request, "name": "data for a range test", "export": {}, "training": {**request["training"], "epochs": 1}}
    session = await bench.submit(read_request(short).resolved(), "data")
    if not bench.now.trials:
        await bench.say(TrialStarted(number=0, session=session, parameters={}))
    trial = bench.ground.history(session)
    while not (trial.state.dataset or trial.state.outcome or bench.cancelled):
        await first_done(trial.grown(trial.size), bench.own.grown(bench.own.size))
    if trial.state.outcome is None:
        await bench.ground.cancel(session, "its data are prepared, which was all that was wanted")
    return trial.state


def _no_data(source: SessionState) -> SearchFailed:
    problems = source.outcome.problems if isinstance(source.outcome, DatasetRejected) else []
    why = "; ".join(one.get("message", "") for one in problems) or f"{source.id} has ended"
    cure = problems[0].get("cure", "") if problems else f"See: swarm show {source.id}"
    return SearchFailed(message=f"the data could not be prepared: {why}.", cure=cure)


def _suggested(tried: list[float], losses: list[float], trials: int) -> tuple[Sayings, ...]:
    found = curve.read(tried, losses)
    if found.suggestion is None or found.steepest is None:
        message = f"the loss falls at no learning rate between {tried[0]:g} and {tried[-1]:g}."
        return (SearchFailed(message=message, cure="Try a wider range, or look at the data and the loss."),)
    suggested = LearningRateSuggested(
        rates=tried,
        losses=losses,
        suggestion=found.suggestion,
        steepest=found.steepest,
        diverged_at=found.diverged_at,
    )
    done = SearchCompleted(
        trials=trials,
        best_number=None,
        best_session=None,
        best_value=None,
        best_parameters={"optimizer.learning_rate": found.suggestion},
    )
    return suggested, done
