"""Chooses the parameters of one trial: a fresh study is filled with the earlier trials and asked once.

Nothing is kept between two questions, so the answer is a function of its arguments; the log is the storage.
"""

import warnings
from collections.abc import Sequence

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from agents.hyperparameter_specialist.progress import Past
from contracts.request.search import Choice, Interval, Search, Wholes

STATES = {"complete": TrialState.COMPLETE, "running": TrialState.RUNNING, "failed": TrialState.FAIL}


def ask(search: Search, sampler: str, number: int, past: Sequence[Past]) -> dict[str, object]:
    """The same question has the same answer."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space: dict[str, BaseDistribution] = {}
    for path, domain in search.space.items():
        if isinstance(domain, Interval):
            space[path] = FloatDistribution(domain.low, domain.high, log=domain.log)
        elif isinstance(domain, Wholes):
            space[path] = IntDistribution(domain.low, domain.value(domain.count - 1), log=domain.log, step=domain.step)
        else:
            # Options may be lists, which a study cannot hold, so it chooses their places.
            space[path] = CategoricalDistribution(tuple(range(len(domain.options))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            sampler=_sampler(sampler, search.seed + number, len(space)),
            direction="minimize" if search.minimizes else "maximize",
        )
        study.add_trials([_trial(search, space, trial) for trial in past])
        params = study.ask(space).params
    return {
        path: domain.options[params[path]] if isinstance(domain, Choice) else params[path]
        for path, domain in search.space.items()
    }


def _sampler(name: str, seed: int, parameters: int) -> BaseSampler:
    first = max(5, parameters)
    match name:
        case "gp":
            # Equal settings give equal values here, because a trial's seed is part of its request.
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=first, deterministic_objective=True)
        case "tpe":
            return optuna.samplers.TPESampler(seed=seed, n_startup_trials=first)
    return optuna.samplers.RandomSampler(seed=seed)


def _trial(search: Search, space: dict[str, BaseDistribution], past: Past) -> FrozenTrial:
    params = {
        path: domain.options.index(value) if isinstance(domain := search.space[path], Choice) else value
        for path, value in past.parameters.items()
    }
    return create_trial(state=STATES[past.state], value=past.value, params=params, distributions=space)
