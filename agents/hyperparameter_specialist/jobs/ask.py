"""Chooses the parameters of one trial: a fresh study is filled with the earlier trials and asked once.

Nothing is kept between two questions, so the answer is a function of its arguments; the log is the storage.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from agents.hyperparameter_specialist.progress import Past
from contracts.request.search import Search
from contracts.request.space import Choice, Interval, Wholes

SPREAD, AROUND, KEPT = 1024, 160, 8
"""Points at which a Gaussian process is asked first, then in each round, and the best ones around which those lie."""

WIDTHS = np.geomspace(0.3, 0.001, 12)
"""How far from these the points of each round lie, as a share of each parameter's range."""

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


class BatchedGP(optuna.samplers.GPSampler):
    """Asks a Gaussian process in few and large batches: steps along its gradients take five times as long."""

    def _optimize_acqf(self, acqf: Any, best_params: Any) -> Any:
        """The most promising of points that are spread evenly, and then of points ever closer to the best so far."""
        chance, space = self._rng.rng, acqf.search_space
        choices = dict(zip(space.discrete_indices, space.get_choices_of_discrete_params(), strict=True))
        known = [] if best_params is None else [best_params]
        points = np.vstack([space.sample_normalized_params(SPREAD, chance), *known])
        values = acqf.eval_acqf_no_grad(points)
        for width in WIDTHS:
            best = np.argsort(-values, kind="stable")[:KEPT]
            near = np.repeat(points[best], AROUND // KEPT, axis=0)
            moves = chance.random_sample(near.shape) < 0.5
            near = np.where(moves, np.clip(near + width * chance.standard_normal(near.shape), 0.0, 1.0), near)
            for place, allowed in choices.items():
                if space.is_categorical[place]:
                    drawn = chance.choice(allowed, len(near))
                    near[:, place] = np.where(moves[:, place], drawn, np.repeat(points[best, place], AROUND // KEPT))
                else:
                    above = np.clip(np.searchsorted(allowed, near[:, place]), 1, len(allowed) - 1)
                    lower = near[:, place] - allowed[above - 1] < allowed[above] - near[:, place]
                    near[:, place] = allowed[above - lower]
            points, values = np.vstack([points[best], near]), np.append(values[best], acqf.eval_acqf_no_grad(near))
        return points[np.argmax(values)]


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
            return BatchedGP(seed=seed, n_startup_trials=first, deterministic_objective=True)
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
