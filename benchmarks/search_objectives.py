"""How good the fronts are that a search of two objectives finds, beside optuna's samplers in the same run.

    front            the hypervolume of what 30 trials found, over that of the true front, in percent: the mean over
                     three functions in closed form (ZDT1 to ZDT3 of six parameters, worst corner 1.1 and 10) and seeds
    front_tpe, front_nsga, front_random    the same of optuna's samplers with their defaults
    suggestion       seconds of a processor in which the 30th trial of two objectives is chosen: the median
                     (`suggestion_three`: of three objectives)
    n                studies of each sampler

`--seeds N` takes so many studies of each function; `--quick` takes two.
"""

from __future__ import annotations

import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, median

sys.path.insert(0, str(Path(__file__).parents[1]))

import optuna
import torch

from agents.hyperparameter_specialist.jobs.ask import ask
from agents.hyperparameter_specialist.progress import Past, sampler_of
from benchmarks.report import parser, report
from contracts.request.search import Search

TRIALS, PARAMETERS = 30, 6
CORNER = (1.1, 10.0)
Values = tuple[float, ...]
Study = Callable[[Callable[[float, float], float], int], list[Values]]
"""The values of the trials of one study, by how the second objective follows from the first, and a seed."""

SHAPES: dict[str, Callable[[float, float], float]] = {
    "zdt1": lambda first, g: g * (1 - math.sqrt(first / g)),
    "zdt2": lambda first, g: g * (1 - (first / g) ** 2),
    "zdt3": lambda first, g: g * (1 - math.sqrt(first / g) - first / g * math.sin(10 * math.pi * first)),
}


def main() -> None:
    """Every sampler on every function."""
    asks = parser(__doc__ or "")
    asks.add_argument("--seeds", type=int, default=5, help="studies of each function")
    asked = asks.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)
    seconds: list[float] = []
    studies: dict[str, Study] = {"": lambda shape, seed: ours(shape, seed, seconds)}
    kinds = {"tpe": optuna.samplers.TPESampler, "nsga": optuna.samplers.NSGAIISampler}
    for name, kind in {**kinds, "random": optuna.samplers.RandomSampler}.items():
        studies[f"_{name}"] = lambda shape, seed, kind=kind: of_optuna(kind(seed=seed), shape)  # type: ignore[misc]
    shares: defaultdict[str, list[float]] = defaultdict(list)
    for shape in SHAPES.values():
        whole = hypervolume([(share, shape(share, 1.0)) for share in (place / 2000 for place in range(2001))])
        for seed in range(1, 3 if asked.quick else asked.seeds + 1):
            for name, study in studies.items():
                shares[name].append(100 * hypervolume(study(shape, seed)) / whole)
    figures = {f"front{name}": fmean(values) for name, values in shares.items()}
    figures |= {"suggestion": median(seconds), "suggestion_three": median(three() for _ in range(5))}
    report(asked, figures | {"n": len(shares[""])})


def values_of(parameters: Sequence[float], shape: Callable[[float, float], float]) -> Values:
    """Both objectives; less is better."""
    g = 1 + 9 * fmean(parameters[1:])
    return parameters[0], shape(parameters[0], g)


def hypervolume(points: Sequence[Values]) -> float:
    """The area that some points dominate, up to the corner."""
    area, height = 0.0, CORNER[1]
    for first, second in sorted(points):
        if first < CORNER[0] and second < height:
            area += (CORNER[0] - first) * (height - second)
            height = second
    return area


def search(objectives: int, seed: int) -> Search:
    """A search of the product with that many objectives."""
    names = ("val_loss", "val_error", "parameters")[:objectives]
    space = {f"x.{place}": {"type": "float", "low": 0.0, "high": 1.0} for place in range(PARAMETERS)}
    wanted = [{"metric": name} for name in names]
    return Search.model_validate(
        {"base": {}, "space": space, "trials": TRIALS, "seed": seed, "objectives": wanted, "metric": "val_loss"}
    )


def ours(shape: Callable[[float, float], float], seed: int, seconds: list[float]) -> list[Values]:
    """What the product chooses; how long the last choice took goes to `seconds`."""
    wanted, past, took = search(2, seed), list[Past](), 0.0
    while len(past) < TRIALS:
        begun = time.process_time()
        chosen = ask(wanted, sampler_of(wanted), len(past), past)
        took = time.process_time() - begun
        values = values_of([float(str(value)) for value in chosen.values()], shape)
        past.append(Past(chosen, "complete", values=values))
    seconds.append(took)
    return [tuple(trial.values) for trial in past]


def of_optuna(sampler: optuna.samplers.BaseSampler, shape: Callable[[float, float], float]) -> list[Values]:
    """The same by a sampler of optuna with its defaults."""
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    study.optimize(
        lambda trial: values_of([trial.suggest_float(f"x{place}", 0, 1) for place in range(PARAMETERS)], shape),
        n_trials=TRIALS,
    )
    return [tuple(trial.values) for trial in study.trials]


def three() -> float:
    """Seconds of a processor in which the last trial of three objectives is chosen."""
    wanted, past = search(3, 1), list[Past]()
    for number in range(TRIALS - 1):
        chosen = ask(wanted, "random", number, past)
        first = [float(str(value)) for value in chosen.values()]
        past.append(Past(chosen, "complete", values=(*values_of(first, SHAPES["zdt1"]), first[5])))
    begun = time.process_time()
    ask(wanted, sampler_of(wanted), len(past), past)
    return time.process_time() - begun


if __name__ == "__main__":
    main()
