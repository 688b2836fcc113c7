"""What the hyperparameter specialist runs in children: choosing the next trial, and the learning-rate range test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agents.hyperparameter_specialist.progress import Past
from runtime.home.workloads import WorkloadEntry
from runtime.jobs.job import Profile, Seal, job, torch_profile

_PLAIN = Profile(torch=False, modules=("numpy.random", "optuna", "optuna.samplers"))
_WITH_TORCH = Profile(modules=("optuna", "optuna.samplers", "scipy.optimize", "scipy.special", "scipy.stats.qmc"))
"""Where the next trial is chosen: a Gaussian process needs torch and scipy, which the host does without. What it would
import late, and each fork for itself, takes as long as the choice."""


@dataclass(frozen=True)
class TrialQuestion:
    """What a sampler is asked: the parameters of the trial `number` of a search, after those that were `past`."""

    search: Mapping[str, object]
    sampler: str
    number: int
    past: Sequence[Past]


@job(
    purpose="probe",
    profile=lambda asked: _WITH_TORCH if asked.sampler == "gp" else _PLAIN,
    ahead=("agents.hyperparameter_specialist.jobs.ask",),
)
def choose_parameters(asked: TrialQuestion) -> Mapping[str, object]:
    """The parameters of a trial, by path."""
    from agents.hyperparameter_specialist.jobs.ask import ask
    from contracts.request.search import Search

    return ask(Search.model_validate(asked.search), asked.sampler, asked.number, asked.past)


@dataclass(frozen=True)
class RangeSweep:
    """A request with its dataset, and the rates between which a few steps sweep."""

    request: Mapping[str, object]
    dataset: Path
    blobs: Path
    initial: str | None
    low: float
    high: float
    steps: int
    device: str
    workloads: Sequence[WorkloadEntry]
    seal: Seal = field(default_factory=lambda: Seal(1))


@dataclass(frozen=True)
class RangeCurve:
    """The rates that were tried and the loss at each, up to the last step or to where training broke."""

    rates: Sequence[float]
    losses: Sequence[float]


@job(purpose="probe", profile=lambda asked: torch_profile(1, asked.device))
def sweep_rates(asked: RangeSweep) -> RangeCurve:
    """Train for a few steps while the learning rate rises geometrically."""
    from agents.hyperparameter_specialist.jobs import range_test

    return range_test.run(asked)
