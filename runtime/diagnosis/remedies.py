"""The remedies for each problem, in the order in which they are tried: its ladder. Pure functions of what is known.

Every remedy is rated from 1 to 3. Impact: 1 it helps at times, 2 it makes the problem smaller, 3 it takes the reason
away. Effort: 1 the running plan changes, 2 steps are trained again, 3 it takes another training. Risk, for a training
that was sound after all: 1 it ends as it would have, 2 it may end somewhat worse, 3 it may be spoiled. A ladder is in
the order of effort + risk - impact, the smallest first, so what is likely to help and costs little is tried first. A
remedy of risk 3, and one that takes another training, waits for a person; nothing else does in the mode `fix`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import JsonValue

from contracts.request.optimizer import Optimizer, OptimizerSection
from runtime.diagnosis.evidence import Evidence, RuleFinding
from runtime.engine.parts.levers import BalanceClasses, CutBatch, DropoutShare, SkipRows, WeightDecay

Changes = Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Trouble:
    """A problem for which a remedy is looked for; `rows` are those that were named for it, from 1."""

    finding: RuleFinding
    seen: Evidence
    rows: tuple[int, ...] = ()
    clip: float | None = None
    """At what norm gradients are clipped by now."""
    factor: float = 1.0
    """By what decisions have multiplied the learning rate by now."""

    @property
    def began_sound(self) -> bool:
        """Whether anything was sound before the problem: no rate helps a training whose first loss is no number."""
        return self.finding.rule not in NEEDS_ROWS or self.finding.remedy is not None

    @property
    def rate(self) -> float:
        """The learning rate by now, before its schedule."""
        return float(self.asked("optimizer").get("learning_rate") or math.nan) * self.factor

    @property
    def usual_rate(self) -> float:
        """The learning rate of the optimizer where none is asked for; less with momentum, which adds steps up."""
        optimizer = self.asked("optimizer")
        section = _OPTIMIZERS.get(str(optimizer.get("type")))
        usual = section.model_fields["learning_rate"].default if section else math.nan
        return float(usual) * (1 - float(optimizer.get("momentum") or 0.0))

    def asked(self, section: str) -> Mapping[str, Any]:
        """A section of the request."""
        given = self.seen.request.get(section)
        return given if isinstance(given, Mapping) else {}


_OPTIMIZERS: Mapping[str, type[OptimizerSection]] = {
    get_args(section.model_fields["type"].annotation)[0]: section for section in get_args(get_args(Optimizer)[0])
}

Pull = Callable[[Trouble], Changes | None]
"""What a remedy changes for a problem; None when it has nothing to change there."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One remedy: what it is called, how it is rated, how often a problem may have it, and what it changes.

    It changes one lever of the running plan, from a step before the problem unless it `begins` where training is; or,
    as `another` training, values of the request.
    """

    name: str
    words: str
    impact: int
    effort: int
    risk: int
    pull: Pull
    times: int = 1
    another: bool = False
    begins: bool = False

    @property
    def automatic(self) -> bool:
        """Whether it needs no person in the mode `fix`."""
        return self.risk < 3 and not self.another

    @property
    def order(self) -> int:
        """Its place in a ladder."""
        return self.effort + self.risk - self.impact


def _skip_rows(trouble: Trouble) -> Changes | None:
    seen_by_sensors = [int(row) for name, row in trouble.finding.figures.items() if name.startswith("row:")]
    rows = trouble.rows or seen_by_sensors
    return {"skip_rows": SkipRows.of(rows).recorded} if rows else None


def _halve_batch(trouble: Trouble) -> Changes | None:
    rows, evaluated = (int(trouble.finding.figures.get(name, 0)) for name in ("batch", "evaluated"))
    cut = CutBatch.below(trouble.seen.request, rows, evaluated) if rows > 0 else None
    return None if cut is None else {cut.name: cut.value}


FAR_OFF, GENTLER = 0.01, 0.1
MOST_USUAL, MOST_BROKEN = 10.0, 3.0
"""What a rate is lowered by, and how many times the usual rate of its optimizer it then is at most."""


def _lower(trouble: Trouble) -> Changes | None:
    if _burst(trouble):
        return None
    # A training that breaks in its first window is off by more than one that broke later.
    broke_at_once = trouble.finding.severity == "critical" and trouble.finding.first <= trouble.seen.origin
    most = (MOST_BROKEN if broke_at_once else MOST_USUAL) * trouble.usual_rate / trouble.rate
    if math.isnan(most):
        return {"learning_rate": FAR_OFF if broke_at_once else GENTLER}
    return {"learning_rate": min(GENTLER, float(f"{most:.1g}"))}


def _burst(trouble: Trouble) -> bool:
    """Whether the schedule multiplies the learning rate that was asked for."""
    phases = trouble.asked("schedule").get("phases") or ()
    return any(isinstance(phase, Mapping) and (phase.get("level") or 0.0) > 1 for phase in phases)


def _clip(trouble: Trouble) -> Changes | None:
    return {"grad_clip": 1.0} if trouble.clip is None or trouble.clip > 1.0 else None


def _warm_up(trouble: Trouble) -> Changes | None:
    total = trouble.seen.total
    return {"warmup": max(2, total // 10)} if total else None


USUAL_RATIO, LEAST_FACTOR, MOST_FACTOR = 3e-3, 10.0, 1e4
"""By how much of their size weights usually move in a step, and bounds of what a rate is raised by."""


def _raise_to_ratio(trouble: Trouble) -> Changes | None:
    ratio, usual = trouble.finding.figures.get("update_ratio", math.nan), trouble.usual_rate / trouble.rate
    falls = trouble.asked("schedule").get("type") in ("step", "exponential", "plateau", "composite")
    if not 0 < ratio < USUAL_RATIO or (falls and usual < LEAST_FACTOR):
        return None
    factor = 10.0 ** round(math.log10(max(USUAL_RATIO / ratio, usual if usual > 0 else 0.0)))
    return {"learning_rate": min(MOST_FACTOR, max(LEAST_FACTOR, factor))}


def _raise_tenfold(trouble: Trouble) -> Changes | None:
    return {"learning_rate": 10.0}


def _balance(trouble: Trouble) -> Changes | None:
    task, request = trouble.seen.task, trouble.seen.request
    counted = len(task.counts) == task.classes > 0
    done = trouble.asked("loss").get("class_weights") == "balanced"
    return None if done or BalanceClasses().misfit(request, counted=counted) else {"class_weights": "balanced"}


def _decay(trouble: Trouble) -> Changes | None:
    now, least = trouble.asked("optimizer").get("weight_decay") or 0.0, 0.1
    if trouble.asked("optimizer").get("type") in ("sgd", "adam"):
        least = 0.01  # It is part of the gradient there, and momentum adds it up.
    more = min(10 * least, max(least, 10 * float(now)))
    return None if WeightDecay(more).misfit(trouble.seen.request) or more <= now else {"weight_decay": more}


def _drop_more(trouble: Trouble) -> Changes | None:
    now = float(trouble.asked("model").get("dropout") or 0.0)
    return None if DropoutShare(0.5).misfit(trouble.seen.request) or now >= 0.5 else {"dropout": min(0.5, 2 * now)}


def _stop(trouble: Trouble) -> Changes | None:
    return {"stop": True}


def _with_dropout(trouble: Trouble) -> Changes | None:
    return {"model.dropout": 0.3} if trouble.asked("model").get("dropout") == 0 else None


def _new_seed(trouble: Trouble) -> Changes | None:
    seed = trouble.asked("reproducibility").get("seed")
    return {"reproducibility.seed": (seed + 1) % 2**63} if isinstance(seed, int) else None


USUAL_WIDTH = 64
"""A narrower model is widened to this at once."""


def _more_capacity(trouble: Trouble) -> Changes | None:
    model = trouble.asked("model")
    match model.get("architecture"):
        case "linear":
            return {"model.architecture": "mlp"}
        case "mlp":
            return {"model.hidden": [min(4096, max(USUAL_WIDTH, 2 * width)) for width in model["hidden"]]}
        case "cnn":
            return {"model.channels": [min(1024, max(USUAL_WIDTH // 2, 2 * width)) for width in model["channels"]]}
        case "resnet" | "transformer":
            return {"model.width": min(4096, 2 * model["width"])}
    return None


def _activation(trouble: Trouble) -> Changes | None:
    """One through which gradients pass, in place of one that saturates or dies."""
    now = trouble.asked("model").get("activation")
    return {"model.activation": "gelu"} if now in ("tanh", "relu") else None


def _shallower(trouble: Trouble) -> Changes | None:
    """Few layers, through which gradients come."""
    hidden = trouble.asked("model").get("hidden") or ()
    deep = trouble.asked("model").get("architecture") == "mlp" and len(hidden) > 3
    wide = [max(USUAL_WIDTH, width) for width in hidden[:2]]
    return {"model.hidden": wide, "model.activation": "gelu"} if deep else None


def _usual_regularisation(trouble: Trouble) -> Changes | None:
    """Decay and dropout as they usually are, where they keep a model from learning."""
    strong = {
        "optimizer.weight_decay": (float(trouble.asked("optimizer").get("weight_decay") or 0.0), 0.1, 0.01),
        "model.dropout": (float(trouble.asked("model").get("dropout") or 0.0), 0.5, 0.1),
    }
    return {path: usual for path, (now, most, usual) in strong.items() if now > most} or None


def _constant_schedule(trouble: Trouble) -> Changes | None:
    """The rate as it was asked for to the end, where a schedule has taken it away or multiplied it."""
    kept = trouble.asked("schedule").get("type") in ("constant", None)
    slow = trouble.finding.rule in ("creeping", "no_learning")
    return {"schedule": {"type": "constant"}} if not kept and (slow or _burst(trouble)) else None


def _stop_early(trouble: Trouble) -> Changes | None:
    asked = trouble.asked("early_stopping")
    patient = asked.get("enabled") is True and (asked.get("patience") or 0) <= 2
    return None if patient else {"early_stopping.enabled": True, "early_stopping.patience": 2}


def _more_validation(trouble: Trouble) -> Changes | None:
    """A fifth of the rows to judge by, where there are few."""
    split = trouble.asked("data").get("split")
    if not isinstance(split, Mapping) or split.get("folds") or not 0 < float(split.get("val") or 0.0) < 0.1:
        return None
    return {"data.split": {**split, "train": 1 - FIFTH - float(split.get("test") or 0.0), "val": FIFTH}}


FIFTH, PATIENT = 0.2, 10


def _more_patience(trouble: Trouble) -> Changes | None:
    patience = trouble.asked("early_stopping").get("patience")
    return {"early_stopping.patience": PATIENT} if isinstance(patience, int) and patience < PATIENT else None


def _standardize(trouble: Trouble) -> Changes | None:
    return {"model.standardize": True} if trouble.asked("model").get("standardize") is False else None


def _ignore_telling(trouble: Trouble) -> Changes | None:
    """Leaves out the columns that give the answer away, which tables alone name."""
    data = trouble.asked("data")
    told = [name.strip("'\"") for name in trouble.seen.task.telling]
    return {"data.ignore": [*data["ignore"], *told]} if told and "ignore" in data else None


def _usual_loss(trouble: Trouble) -> Changes | None:
    usual = trouble.asked("loss").get("type") in ("auto", None)
    return None if usual or trouble.asked("model").get("architecture") == "workload" else {"loss": {"type": "auto"}}


def _usual_options(trouble: Trouble) -> Changes | None:
    """The options of a workload as its author has them."""
    model = trouble.asked("model")
    return {"model.options": {}} if model.get("architecture") == "workload" and model.get("options") else None


def _usual_weights(trouble: Trouble) -> Changes | None:
    return {"model.init": None, "model.fresh": []} if trouble.asked("model").get("init") else None


def _smooth(trouble: Trouble) -> Changes | None:
    """As much smoothing as labels seem to be wrong, within bounds."""
    loss = trouble.asked("loss").get("type")
    if trouble.asked("model").get("architecture") == "workload":
        return None
    wrong = trouble.seen.task.doubtful / max(1, sum(trouble.seen.task.rows.values()))
    share = min(0.4, max(0.1, round(wrong, 1)))
    if loss == "auto" and trouble.seen.task.kind == "classification":
        return {"loss": {"type": "cross_entropy", "label_smoothing": share}}
    return {"loss.label_smoothing": share} if loss == "cross_entropy" else None


def _longer(trouble: Trouble) -> Changes | None:
    epochs = trouble.asked("training").get("epochs")
    return {"training.epochs": min(1_000_000, 2 * epochs)} if isinstance(epochs, int) else None


RUNGS: Mapping[str, Rung] = {
    rung.name: rung
    for rung in (
        Rung("skip_rows", "the named rows are left out", 3, 2, 1, _skip_rows, times=3),
        Rung("halve_batch", "the rows of a step in smaller parts", 3, 2, 1, _halve_batch, times=13),
        Rung("lower_rate", "a lower learning rate", 3, 2, 2, _lower, times=2),
        Rung("clip", "gradients are clipped", 2, 2, 1, _clip),
        Rung("warm_up", "the learning rate is warmed up again", 1, 2, 1, _warm_up),
        Rung("raise_rate", "the learning rate at which weights usually move", 3, 2, 2, _raise_to_ratio, times=2),
        Rung("raise_tenfold", "ten times the learning rate", 2, 2, 3, _raise_tenfold),
        Rung("balance_classes", "rare classes weigh as much as common ones", 2, 2, 2, _balance),
        Rung("weight_decay", "more weight decay", 2, 2, 2, _decay),
        Rung("more_dropout", "more dropout", 2, 2, 2, _drop_more),
        Rung("stop", "the training ends early", 1, 1, 3, _stop, begins=True),
        Rung("standardize", "inputs are scaled", 3, 3, 1, _standardize, another=True),
        Rung("ignore_columns", "no column that gives the answer away", 3, 3, 1, _ignore_telling, another=True),
        Rung("usual_loss", "the loss of the task", 3, 3, 1, _usual_loss, another=True),
        Rung("usual_options", "the options that the workload's author gave", 3, 3, 2, _usual_options, another=True),
        Rung("usual_weights", "weights as they are usually drawn", 3, 3, 1, _usual_weights, another=True),
        Rung("stop_early", "the training ends when validation stops improving", 3, 3, 1, _stop_early, another=True),
        Rung("constant_schedule", "a constant learning rate", 3, 3, 1, _constant_schedule, another=True),
        Rung("usual_regularisation", "usual decay and dropout", 3, 3, 1, _usual_regularisation, another=True),
        Rung("shallower", "fewer layers", 3, 3, 1, _shallower, another=True),
        Rung("more_validation", "a fifth of the rows to judge by", 3, 3, 1, _more_validation, another=True),
        Rung("more_patience", "more evaluations before the end", 2, 3, 1, _more_patience, another=True),
        Rung("activation", "another activation", 2, 3, 1, _activation, another=True),
        Rung("with_dropout", "a model with dropout", 2, 3, 2, _with_dropout, another=True),
        Rung("smooth_labels", "labels are believed less", 2, 3, 2, _smooth, another=True),
        Rung("more_capacity", "a larger model", 2, 3, 2, _more_capacity, another=True),
        Rung("longer", "twice the epochs", 1, 3, 1, _longer, another=True),
        Rung("new_seed", "another seed", 1, 3, 3, _new_seed, another=True),
    )
}

_CHOSEN: Mapping[str, tuple[str, ...]] = {
    "non_finite_input": ("skip_rows",),
    "non_finite": ("skip_rows", "constant_schedule", "lower_rate", "clip", "warm_up"),
    "exploding": ("constant_schedule", "lower_rate", "clip", "warm_up"),
    "spike": ("constant_schedule", "clip", "lower_rate"),
    "oscillation": ("constant_schedule", "lower_rate", "warm_up"),
    "dead_layer": ("constant_schedule", "lower_rate", "warm_up", "activation", "new_seed"),
    "dead_units": ("constant_schedule", "lower_rate", "activation"),
    "saturation": ("lower_rate", "activation"),
    "vanishing": ("shallower", "activation", "raise_tenfold"),
    "creeping": ("raise_rate", "constant_schedule", "raise_tenfold"),
    "no_learning": (
        "usual_regularisation",
        "raise_rate",
        "constant_schedule",
        "raise_tenfold",
        "more_capacity",
        "new_seed",
    ),
    "underfitting": ("usual_regularisation", "more_capacity", "longer", "raise_tenfold"),
    "missing_class": ("balance_classes", "longer"),
    "label_noise": ("stop_early", "smooth_labels", "with_dropout", "stop"),
    "overfitting": ("stop_early", "weight_decay", "more_dropout", "with_dropout", "stop"),
    "noisy_validation": ("more_validation", "more_patience"),
    "leakage": ("ignore_columns",),
    "wrong_loss": ("usual_loss", "usual_options"),
    "double_activation": ("usual_options", "raise_tenfold"),
    "missing_normalisation": ("standardize",),
    "bad_initialisation": ("usual_weights", "usual_options", "new_seed"),
    "out_of_memory": ("halve_batch",),
}

LADDERS: Mapping[str, tuple[Rung, ...]] = {
    rule: tuple(sorted((RUNGS[name] for name in names), key=lambda rung: rung.order)) for rule, names in _CHOSEN.items()
}
"""By problem, its remedies in the order in which they are tried. Other problems are told, and have none."""

NEEDS_ROWS = frozenset(rule for rule, rungs in LADDERS.items() if RUNGS["skip_rows"] in rungs)
"""Problems of windows for which rows are looked for before a remedy is chosen."""


def next_rung(trouble: Trouble, tried: tuple[tuple[str, str], ...]) -> tuple[Rung, Changes] | None:
    """The first remedy of the problem's ladder that may be tried (again) and has something to change."""
    for rung in LADDERS.get(trouble.finding.rule, ()):
        if not trouble.began_sound and rung.name != "skip_rows":
            continue
        if tried.count((trouble.finding.rule, rung.name)) < rung.times:
            changes = rung.pull(trouble)
            if changes is not None:
                return rung, changes
    return None
