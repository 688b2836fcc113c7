"""The sixteen classes of faults, as requests: what each does to a healthy request, and which findings name it.

A class gives for each case several candidates, from mild to severe. The bench takes the first whose score on clean
rows falls below its healthy twin's by more than the twin's noise, so that a case is a fault by its outcome and by
nobody's opinion. What is held out is fixed here, and was before any rule was made with what was held out before;
seven classes are planted otherwise there than in any case that rules were made with.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.faults_cases.tasks import (
    CLASSES,
    HELD_TASKS,
    ONCE_HELD_TASKS,
    TABLES,
    TASKS,
    TUNING_TASKS,
    VOCABULARY,
    Rows,
    form,
)

Request = dict[str, Any]

EVERY_TASK = (*TASKS, *HELD_TASKS)

PER_CLASS = 5
"""Cases of each class in each part."""

WORKLOAD = "fault_bench"
"""The workload of `benchmarks/faults_cases/workload.py`, as requests name it."""


@dataclass(frozen=True)
class Start:
    """What is done to the weights that a session begins with: all alike, or drawn and then made so much larger."""

    alike: float | None = None
    times: float = 1.0


@dataclass(frozen=True)
class Asked:
    """One request with its rows: everything that decides the bits of a session."""

    rows: Rows
    request: Request
    start: Start | None = None
    data: Request = field(default_factory=dict)
    """Members of the section `data` that are not as the rows have them."""

    def having(self, *, rows: Rows | None = None, start: Start | None = None, **sections: Any) -> Asked:
        """The same with some members of sections replaced; a section that names its kind is replaced as a whole."""
        request = deepcopy(self.request)
        for name, section in sections.items():
            whole = any(key in section for key in ("type", "architecture"))
            request[name] = section if whole else {**request.get(name, {}), **section}
        return replace(self, rows=rows or self.rows, request=request, start=start or self.start)


@dataclass(frozen=True)
class Candidate:
    """A fault of one severity, and the healthy twin that it is measured against."""

    faulty: Asked
    twin: Asked


@dataclass(frozen=True)
class Fault:
    """One class: which findings name it, the tasks it is possible in, and its candidates for a healthy request.

    By `measure` a model is judged on clean rows: the task's score, or for what a score hides the skill of its loss.
    """

    name: str
    named_by: frozenset[str]
    tasks: tuple[str, ...]
    candidates: Callable[[Asked, int, random.Random], list[Candidate]]
    measure: str = "score"


@dataclass(frozen=True)
class Case:
    """One faulty case; its id and the list below say everything about it."""

    fault: Fault
    task: str
    number: int

    @property
    def id(self) -> str:
        """Class, task and number."""
        return f"{self.fault.name}/{self.task}/{self.number}"

    @property
    def held(self) -> bool:
        """Whether it may not be run before the rules are final."""
        return self.task in HELD_TASKS

    def candidates(self) -> list[Candidate]:
        """From mild to severe."""
        chance = random.Random(f"fault {self.id}")
        return self.fault.candidates(base(self.task, self.number, 100 + self.number), self.number, chance)


FAULTS: dict[str, Fault] = {}


def fault(
    name: str, *also: str, tasks: tuple[str, ...] = EVERY_TASK, measure: str = "score"
) -> Callable[[Callable[[Asked, int, random.Random], list[Candidate]]], None]:
    """Decorator: a class of faults, which findings of its name or of these others name."""

    def register(candidates: Callable[[Asked, int, random.Random], list[Candidate]]) -> None:
        FAULTS[name] = Fault(name, frozenset((name, *also)), tasks, candidates, measure)

    return register


def cases() -> list[Case]:
    """Of each class five on each part of the tasks: 160 that rules may be made with, and 80 that are held out."""
    found = []
    for one in FAULTS.values():
        for part, begins in ((TUNING_TASKS, 0), (ONCE_HELD_TASKS, 0), (HELD_TASKS, 10)):
            tasks = [task for task in part if task in one.tasks]
            found += [Case(one, tasks[n % len(tasks)], begins + n) for n in range(PER_CLASS)]
    return found


# Healthy requests


EPOCHS = {"digits": 16, "diabetes": 30, "tokens": 30, "breast_cancer": 24, "images": 24, "blobs": 22}
EPOCHS |= {"wine": 40, "spirals": 30, "waves": 40, "shapes": 20, "phrases": 24}
BATCH = {"digits": 32, "diabetes": 16, "tokens": 32, "breast_cancer": 16, "images": 32, "blobs": 32}
BATCH |= {"wine": 8, "spirals": 32, "waves": 16, "shapes": 32, "phrases": 24}
SIZE = {"diabetes": 0.25, "tokens": 2.0, "phrases": 2.0}
"""Times the rate of other tasks at which these train well."""

METRICS = {"diabetes": ("rmse", "mae", "r2"), "tokens": ("perplexity", "next_token_accuracy")}
"""What a request without user code would evaluate anyway."""


def base(task: str, variant: int, seed: int) -> Asked:
    """A request that trains well; the variant chooses among three ways of moving, and repeats."""
    model: Request = {"architecture": "mlp", "hidden": [48, 48]}
    if form(task) == "images":
        model = {"architecture": "cnn", "channels": [8, 16], "dropout": 0.0}
    if form(task) == "tokens":
        model = {"architecture": "transformer", "width": 32, "heads": 2, "layers": 1, "dropout": 0.0}
    if task == "diabetes":
        model = {"architecture": "mlp", "hidden": [24]}
    optimizer = (
        {"type": "adamw", "learning_rate": 0.002},
        {"type": "sgd", "learning_rate": 0.05, "momentum": 0.9},
        {"type": "adam", "learning_rate": 0.002},
    )[variant % 3]
    size = SIZE.get(task, 1.0)
    optimizer = {**optimizer, "learning_rate": optimizer["learning_rate"] * size}
    request: Request = {
        "model": model,
        "optimizer": optimizer,
        "schedule": {"type": "cosine", "floor": 0.05},
        "training": {"epochs": EPOCHS[task], "batch_size": BATCH[task], "threads": 1, "device": "cpu"},
        "early_stopping": {"patience": 8},
        "validation": {"metrics": list(METRICS.get(form(task), ("accuracy", "f1_macro")))},
        "reproducibility": {"seed": seed},
    }
    if task == "blobs":
        request["loss"] = {"type": "cross_entropy", "class_weights": "balanced"}
    return Asked(Rows(task), request)


def with_seed(asked: Asked, seed: int) -> Asked:
    """The same with other weights to begin with and another order of rows."""
    return asked.having(reproducibility={"seed": seed})


def healthy(number: int) -> tuple[str, list[Asked]]:
    """One of the 300: its task, and requests of which the first counts that ends as well as its task allows."""
    tasks = HELD_TASKS if held_healthy(number) else TASKS
    task = tasks[number % len(tasks)]
    return task, [_varied(task, number, attempt) for attempt in range(6)]


HEALTHY = 300
TUNING_HEALTHY = 200


def held_healthy(number: int) -> bool:
    """Whether a healthy run is held out."""
    return number >= TUNING_HEALTHY


def _varied(task: str, number: int, attempt: int) -> Asked:
    """A request as a careful person might write it."""
    chance = random.Random(f"healthy {task} {number} {attempt}")
    asked = base(task, 0, chance.randrange(10_000))
    model = dict(asked.request["model"])
    if model["architecture"] == "mlp":
        widths = [16, 24, 32, 48, 64] if task != "diabetes" else [8, 16, 24, 32]
        depth = chance.choice([1, 1, 2, 2, 3]) if task != "diabetes" else chance.choice([1, 1, 2])
        model["hidden"] = [chance.choice(widths) for _ in range(depth)]
        model["activation"] = chance.choice(["relu", "relu", "gelu", "tanh", "silu"])
        model["dropout"] = chance.choice([0.0, 0.0, 0.1, 0.2])
    elif model["architecture"] == "cnn":
        model["channels"] = chance.choice([[8, 16], [6, 12], [12, 24], [16]])
        model["dropout"] = chance.choice([0.0, 0.1])
    else:
        model |= {"width": chance.choice([24, 32, 48]), "layers": chance.choice([1, 1, 2])}
        model["dropout"] = chance.choice([0.0, 0.1])
    size = SIZE.get(task, 1.0)
    optimizer = chance.choice(
        [
            {"type": "adamw", "learning_rate": size * chance.choice([1e-3, 2e-3, 3e-3, 5e-3])},
            {"type": "adam", "learning_rate": size * chance.choice([1e-3, 2e-3, 3e-3])},
            {"type": "sgd", "learning_rate": size * chance.choice([0.02, 0.05, 0.1]), "momentum": 0.9},
            {"type": "sgd", "learning_rate": size * chance.choice([0.1, 0.2])},
            {"type": "lion", "learning_rate": size * chance.choice([2e-4, 4e-4])},
            {"type": "adafactor", "learning_rate": size * chance.choice([0.01, 0.02])},
        ]
    )
    schedule = chance.choice(
        [
            {"type": "constant"},
            {"type": "constant", "warmup_steps": 30},
            {"type": "cosine"},
            {"type": "linear", "floor": 0.1},
            {"type": "one_cycle"},
            {"type": "step", "every_steps": 200, "factor": 0.5},
            {"type": "plateau", "factor": 0.5, "patience": 3},
        ]
    )
    batch = chance.choice([BATCH[task] // 2, BATCH[task], BATCH[task], 2 * BATCH[task]])
    varied = replace(asked, rows=replace(asked.rows, seed=chance.choice([0, 0, 1]), scaled=chance.random() < 0.2))
    if form(task) == "tokens":
        varied = replace(varied, rows=replace(varied.rows, scaled=False))
    if varied.rows.scaled:
        model["standardize"] = False
    varied = varied.having(
        model=model,
        optimizer=optimizer,
        schedule=schedule,
        training={"batch_size": batch},
        early_stopping={"patience": 6},
    )
    if task in CLASSES and form(task) != "images" and chance.random() < 0.15:
        # Code of the user's is not a fault by itself.
        hidden = model.get("hidden", [32])
        varied = varied.having(model=workload(hidden=hidden))
        varied.request.pop("loss", None)
    return varied


def workload(**options: Any) -> Request:
    """The model section of a request that trains user code."""
    return {"architecture": "workload", "workload": WORKLOAD, "options": options}


# The classes. Each is handed a healthy request, the number of the case in its half, and chance of its own.


def _mlp(asked: Asked, **options: Any) -> Asked:
    """The same with fully connected layers, where the task has another model."""
    hidden = [48, 48] if asked.request["model"]["architecture"] != "mlp" else asked.request["model"]["hidden"]
    return asked.having(model={"architecture": "mlp", "hidden": hidden, **options})


def _pairs(twin: Asked, *faulty: Asked) -> list[Candidate]:
    return [Candidate(one, twin) for one in faulty]


def _rated(asked: Asked, times: float) -> dict[str, float]:
    return {**asked.request["optimizer"], "learning_rate": asked.request["optimizer"]["learning_rate"] * times}


NO_TOKENS = tuple(task for task in EVERY_TASK if form(task) != "tokens")
LABELLED = tuple(CLASSES)


@fault("rate_too_high", "oscillation", "exploding", "spike")
def _rate_too_high(asked: Asked, number: int, chance: random.Random) -> list[Candidate]:
    """Steps so large that the loss swings."""
    steps = (15, 40, 100, 300, 1000) if number % 3 == 1 else (20, 50, 120, 300, 1000)
    times = [round(chance.uniform(0.8, 1.2) * one, 2) for one in steps]
    return _pairs(asked, *(asked.having(optimizer=_rated(asked, one)) for one in times))


@fault("rate_too_low", "creeping")
def _rate_too_low(asked: Asked, number: int, chance: random.Random) -> list[Candidate]:
    """Steps so small that nothing comes of them, from the beginning or because the schedule ends too soon."""
    if number % 5 == 3:
        early = [{"type": "step", "every_steps": every, "factor": 0.03} for every in (20, 10, 4)]
        return _pairs(asked, *(asked.having(schedule=one) for one in early))
    if asked.rows.task in HELD_TASKS and number % 2:
        late = [{"type": "constant", "warmup_steps": steps} for steps in (100_000, 1_000_000, 10_000_000)]
        return _pairs(asked, *(asked.having(schedule=one) for one in late))
    return _pairs(asked, *(asked.having(optimizer=_rated(asked, one)) for one in (3e-3, 1e-3, 1e-4, 1e-5)))


@fault("exploding", "non_finite", "rate_too_high", "spike")
def _exploding(asked: Asked, number: int, chance: random.Random) -> list[Candidate]:
    """Plain steps, no clipping, and a rate at which the loss leaves its range."""
    twin = asked.having(optimizer={"type": "sgd", "learning_rate": 0.02, "momentum": 0.9})
    rates = [min(1000.0, chance.uniform(0.8, 1.2) * one) for one in (3, 30, 300, 900)]
    wild = [{"type": "sgd", "learning_rate": rate, "momentum": 0.9} for rate in rates]
    return _pairs(twin, *(twin.having(optimizer=one, training={"grad_clip": None}) for one in wild))


@fault("vanishing", tasks=NO_TOKENS)
def _vanishing(asked: Asked, number: int, chance: random.Random) -> list[Candidate]:
    """Many saturating layers without normalisation, moved by plain gradient descent."""
    plain = {"type": "sgd", "learning_rate": 0.1 if form(asked.rows.task) != "diabetes" else 0.02}
    twin = _mlp(asked, activation="tanh").having(optimizer=plain)
    width = chance.choice([12, 16, 24])
    deep = [{"architecture": "mlp", "hidden": [width] * depth, "activation": "tanh"} for depth in (12, 16, 24, 32)]
    return _pairs(twin, *(twin.having(model=one) for one in deep))


@fault("dead_units", "dead_layer", tasks=NO_TOKENS)
def _dead_units(asked: Asked, number: int, chance: random.Random) -> list[Candidate]:
    """A burst of huge steps, at the very beginning or later, after which rectified units answer nothing."""
    twin = _mlp(asked, activation="relu").having(optimizer={"type": "adamw", "learning_rate": 0.001})
    share = chance.choice([0.02, 0.03, 0.05])
    bursts = [
        {"type": "composite", "phases": [{"share": share, "level": level}, {"share": 1 - share, "level": 1.0}]}
        for level in (300.0, 1000.0, 3000.0, 10000.0)
    ]
    if asked.rows.task in HELD_TASKS:
        before = {"share": 0.35, "level": 1.0}
        bursts = [
            {**one, "phases": [before, one["phases"][0], {"share": 0.65 - share, "level": 1.0}]} for one in bursts
        ]
    return _pairs(twin, *(twin.having(schedule=one, training={"grad_clip": None}) for one in bursts))


@fault("missing_normalisation", tasks=NO_TOKENS)
def _missing_normalisation(asked: Asked, number: int, chance: random.Random) -> list[Candidate]:
    """Features in units that differ by orders of magnitude, fed as they are."""
    twins = [
        replace(_mlp(asked), rows=replace(asked.rows, units=units)) for units in (300.0, 3000.0, 30_000.0, 1_000_000.0)
    ]
    return [Candidate(twin.having(model={**twin.request["model"], "standardize": False}), twin) for twin in twins]


@fault("bad_initialisation")
def _bad_initialisation(asked: Asked, number: int, chance: random.Random) -> list[Candidate]:
    """Weights to begin with that are all alike, or far too large."""
    starts = [Start(times=one) for one in (30.0, 100.0, 300.0)]
    if number % 2:
        starts = [Start(alike=0.02), Start(alike=0.0), Start(alike=1.0)]
    return _pairs(asked, *(asked.having(start=one) for one in starts))


@fault("wrong_loss")
def _wrong_loss(asked: Asked, number: int, chance: random.Random) -> list[Candidate]:
    """A loss whose smallest value is not where answers are right."""
    task, numbers, held = asked.rows.task, form(asked.rows.task) == "diabetes", asked.rows.task in HELD_TASKS
    if form(task) == "tokens" or (task in CLASSES and number % 2 and not held):
        count = CLASSES.get(task) or VOCABULARY[task]
        lopsided = []
        for share in (0.34, 0.5, 0.7):
            ignored = set(chance.sample(range(count), max(1, min(count - 1, round(share * count)))))
            lopsided.append([0.0 if label in ignored else 1.0 for label in range(count)])
        losses = [{"type": "cross_entropy", "class_weights": weights} for weights in lopsided]
        return _pairs(asked, *(asked.having(loss=one) for one in losses))
    hidden = [24] if numbers else [48, 48]
    kinds = ("raw_target", "cubed", "log_ratio") if numbers else ("index", "shifted", "negative")
    turned = [kinds[(number // 2 + at) % len(kinds)] for at in range(len(kinds))]
    if held:
        turned.insert(0, "mean" if numbers else "entropy")
    twin = asked.having(model=workload(hidden=hidden))
    twin.request.pop("loss", None)
    return _pairs(twin, *(twin.having(model=workload(hidden=hidden, loss=kind)) for kind in turned))


@fault("activation_twice", "double_activation", tasks=NO_TOKENS)
def _activation_twice(asked: Asked, number: int, chance: random.Random) -> list[Candidate]:
    """Answers that the loss squashes are squashed before already; numbers are cut off at zero."""
    hidden = [24] if form(asked.rows.task) == "diabetes" else [48, 48]
    plain = {"type": "sgd", "learning_rate": 0.05}
    by = {"by": "sigmoid"} if asked.rows.task in HELD_TASKS else {}
    twin = asked.having(model=workload(hidden=hidden), optimizer=plain)
    twin.request.pop("loss", None)
    twice = [workload(hidden=hidden, twice=times, **by) for times in (1, 2, 3)]
    return _pairs(twin, *(twin.having(model=one) for one in twice))


@fault("label_noise")
def _label_noise(asked: Asked, number: int, chance: random.Random) -> list[Candidate]:
    """A share of the answers is wrong."""
    shares = (0.6, 0.75, 0.85) if form(asked.rows.task) == "tokens" else (0.3, 0.45, 0.6, 0.75)
    otherwise = asked.rows.task in HELD_TASKS
    noisy = [replace(asked.rows, noise=share, otherwise=otherwise) for share in shares]
    return _pairs(asked, *(replace(asked, rows=one) for one in noisy))


@fault("leakage", tasks=NO_TOKENS)
def _leakage(asked: Asked, number: int, chance: random.Random) -> list[Candidate]:
    """A feature tells the answer, and will not where the model is used."""
    otherwise = asked.rows.task in HELD_TASKS
    told = [replace(asked.rows, leak=one, otherwise=otherwise) for one in (1.0, 3.0, 10.0)]
    return _pairs(asked, *(replace(asked, rows=one) for one in told))


@fault("class_never_predicted", "missing_class", "never_predicted", tasks=LABELLED)
def _class_never_predicted(asked: Asked, number: int, chance: random.Random) -> list[Candidate]:
    """Classes so rare that always answering the others is nearly as good."""
    task, found = asked.rows.task, []
    count = {"digits": 3, "images": 2, "shapes": 2}.get(task, 1)
    for rare, epochs in ((14, 0.6), (10, 0.5), (7, 0.4), (5, 0.3)):
        rows = replace(asked.rows, rare=rare, rare_classes=count)
        plain = replace(asked, rows=rows).having(
            training={"epochs": max(4, round(epochs * EPOCHS[task]))},
            model={"architecture": "mlp", "hidden": [32]},
            loss={"type": "cross_entropy"},
        )
        twin = plain.having(loss={"type": "cross_entropy", "class_weights": "balanced"})
        found.append(Candidate(plain, twin))
    return found


@fault("overfitting", measure="skill")
def _overfitting(asked: Asked, number: int, chance: random.Random) -> list[Candidate]:
    """Few rows, a model far too large for them, and no end in sight."""
    found = []
    wide: Request = {"architecture": "mlp", "hidden": [256, 256]}
    if form(asked.rows.task) == "tokens":
        wide = {"architecture": "transformer", "width": 64, "heads": 4, "layers": 2, "dropout": 0.0}
    for few, epochs in ((120, 6), (80, 10), (50, 16)):
        twin = replace(asked, rows=replace(asked.rows, few=few, val=0.4)).having(
            model=wide,
            schedule={"type": "constant"},
            early_stopping={"patience": 2},
            training={"epochs": epochs * EPOCHS[asked.rows.task] // 2, "batch_size": 16},
            optimizer={"type": "adamw", "learning_rate": 0.002, "weight_decay": 0.0},
        )
        found.append(Candidate(twin.having(early_stopping={"enabled": False}), twin))
    return found


@fault("underfitting")
def _underfitting(asked: Asked, number: int, chance: random.Random) -> list[Candidate]:
    """A model that cannot hold what there is to learn, or is not let to."""
    task = asked.rows.task
    small: list[Request] = [{"architecture": "mlp", "hidden": [width]} for width in (2, 1)]
    if form(task) == "tokens":
        narrow = {"architecture": "transformer", "heads": 1, "layers": 1, "dropout": 0.0}
        small = [{**narrow, "width": width} for width in (4, 2, 1)]
    if form(task) == "images":
        small = [{"architecture": "cnn", "channels": [one], "dropout": 0.0} for one in (2, 1)]
    held = asked.having(optimizer={"type": "adamw", "learning_rate": 0.01, "weight_decay": 10.0})
    if task in ("spirals", "waves"):
        small.insert(0, {"architecture": "linear"})
    if task in ("diabetes", "breast_cancer", "blobs", "wine"):
        twin = asked.having(optimizer={"type": "adamw", "learning_rate": 0.002})
        dropped = twin.having(model={"architecture": "mlp", "hidden": [24, 24], "dropout": 0.95})
        return [Candidate(one, twin) for one in ((dropped, held) if number % 2 else (held, dropped))]
    return _pairs(asked, *(asked.having(model=one) for one in small), held)


@fault("poisoned_rows", "non_finite", "non_finite_input", tasks=NO_TOKENS)
def _poisoned_rows(asked: Asked, number: int, chance: random.Random) -> list[Candidate]:
    """Rows with numbers that overflow, in a file that is finite to the letter."""
    clean = replace(_mlp(asked, standardize=False), rows=replace(asked.rows, scaled=True))
    twin = clean.having(optimizer={"type": "adamw", "learning_rate": 0.002})
    return _pairs(twin, *(replace(twin, rows=replace(twin.rows, poison=count)) for count in (1 + number % 3, 4, 8)))


@fault("noisy_validation")
def _noisy_validation(asked: Asked, number: int, chance: random.Random) -> list[Candidate]:
    """A handful of rows says when to stop."""
    found = []
    for times in (0.3, 1.0, 3.0):
        twin = asked.having(schedule={"type": "constant"}, optimizer=_rated(asked, times))
        for val, patience in ((0.02, 2), (0.012, 1), (0.008, 1)):
            rows = replace(twin.rows, val=val)
            found.append(Candidate(replace(twin, rows=rows).having(early_stopping={"patience": patience}), twin))
    return found


assert len(FAULTS) == 16
assert all(task in EVERY_TASK for one in FAULTS.values() for task in one.tasks)
assert set(TABLES) < set(EVERY_TASK)
