"""Chooses the parameters of one trial: a fresh study is filled with the earlier trials and asked once.

Nothing is kept between two questions, so the answer is a function of its arguments; the log is the storage.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from agents.hyperparameter_specialist.progress import Past
from contracts.request.search import Search
from contracts.request.space import Choice, Interval, Wholes

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
    # The one number that is made of objectives with weights is better where it is less.
    less = [True] if search.weights else [objective.minimizes for objective in search.judged_by]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            sampler=_sampler(sampler, search.seed + number, len(space), groups=search.conditional),
            directions=["minimize" if each else "maximize" for each in less],
        )
        study.add_trials([_trial(search, space, trial) for trial in past])
        if not search.conditional:
            params = study.ask(space).params
            return {path: _value(search.space[path], params[path]) for path in search.space}
        # A parameter that depends on others is asked for once those have values.
        trial, values = study.ask(), dict[str, object]()
        for path in search.order:
            if search.applies(path, values):
                values[path] = _value(search.space[path], _asked(trial, path, space[path]))
    return {path: values[path] for path in search.space if path in values}


def _value(domain: Interval | Wholes | Choice, param: Any) -> object:
    return domain.options[param] if isinstance(domain, Choice) else param


def _asked(trial: optuna.Trial, path: str, of: BaseDistribution) -> object:
    if isinstance(of, FloatDistribution):
        return trial.suggest_float(path, of.low, of.high, log=of.log)
    if isinstance(of, IntDistribution):
        return trial.suggest_int(path, of.low, of.high, step=of.step, log=of.log)
    assert isinstance(of, CategoricalDistribution)  # noqa: S101 - there are three kinds
    return trial.suggest_categorical(path, of.choices)


def _sampler(name: str, seed: int, parameters: int, *, groups: bool) -> BaseSampler:
    first = max(5, parameters)
    match name:
        case "gp":
            # Equal settings give equal values here, because a trial's seed is part of its request.
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=first, deterministic_objective=True)
        case "tpe":
            # In groups, parameters that occur together are drawn together.
            return optuna.samplers.TPESampler(seed=seed, n_startup_trials=first, group=groups)
    return optuna.samplers.RandomSampler(seed=seed)


def _trial(search: Search, space: dict[str, BaseDistribution], past: Past) -> FrozenTrial:
    params = {
        path: domain.place(value) if isinstance(domain := search.space[path], Choice) else value
        for path, value in past.parameters.items()
    }
    known = {path: space[path] for path in params}
    values = past.values or (() if past.value is None else (past.value,))
    constraints = {str(place): excess for place, excess in enumerate(past.excesses)}
    return create_trial(
        state=STATES[past.state],
        values=values or None,
        params=params,
        distributions=known,
        constraints=constraints or None,
    )
