"""How long and on what training runs, by what it is judged and ended, and what is kept of it."""

import importlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    Tag,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from contracts.request.section import AutoWhole, Real, Section, Task, Whole, refused

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["fp32", "bf16", "fp16"]


class Ema(Section):
    """A running average of the weights, which keeps `decay` of itself at each step; 0 means none.

    While training is young it keeps less. With `use`, evaluations, loaded and exported models have the average.
    """

    decay: Real = Field(0.0, ge=0, lt=1)
    use: bool = True


class Needs(Section):
    """What a session has to itself while it trains: memory of the machine, and accelerators. 0 says nothing of it.

    It waits until a trainer has so much left beside what others said that they need.
    """

    memory_bytes: Whole = Field(0, ge=0, le=2**50)
    devices: Whole = Field(0, ge=0, le=1024)


class Limits(Section):
    """Budgets: a training ends once it has had so many steps, epochs or seconds, whichever comes first.

    Schedules go on as `training.epochs` has them. Steps and epochs are part of the plan. Seconds are those in which a
    trainer trains, not those in which the session waits, dead trainers' included; where they are spent is recorded at
    the next window's end, so that a session that is computed again or forked ends at the same step.
    """

    steps: Whole | None = Field(None, ge=1, le=10**12)
    epochs: Whole | None = Field(None, ge=1, le=1_000_000)
    seconds: Real | None = Field(None, gt=0, le=1e9)

    def last_step(self, planned: int, rows: int, taken: int) -> int:
        """The step at which the plan ends that has so many, of `taken` rows each."""
        by_epochs = planned if self.epochs is None else -(-self.epochs * rows // taken)
        return min(planned, by_epochs, planned if self.steps is None else self.steps)


MOST_URGENT = 9
"""The highest priority."""


class Training(Section):
    """A step is one update over `batch_size` x `accumulate` rows; `grad_clip: null` leaves gradients as they are.

    `recompute` keeps little of each forward pass and computes the rest again: less memory, more time, the same bits.
    `world_size` is how many processes train the session together; this version trains with one. With `profile` the log
    tells where the time of so many steps (and at most 2000 batches) went, by operators of torch; those take longer.
    With `recheck: n` a second process computes every n-th window again while the session trains; 0 means none. A
    difference that a third process confirms ends the session. After each of the epochs in `pauses` training waits, its
    state kept and its slot given back, until it is resumed. Of sessions that wait for a slot those of a higher
    `priority` go first; whoever is not the owner of the home may ask for no more than its setting `most_priority`.
    """

    epochs: Whole = Field(20, ge=1, le=1_000_000)
    batch_size: Whole = Field(64, ge=1, le=1_000_000)
    accumulate: Whole = Field(1, ge=1, le=10_000)
    device: Device = "auto"
    precision: Precision = "fp32"
    grad_clip: Real | None = Field(1.0, gt=0, le=1e9)
    threads: AutoWhole = "auto"
    ema: Ema = Ema()
    recompute: bool = False
    profile: Whole = Field(0, ge=0, le=500)
    recheck: Whole = Field(0, ge=0, le=1_000_000)
    pauses: tuple[Annotated[Whole, Field(ge=1, le=1_000_000)], ...] = Field((), max_length=64)
    priority: Whole = Field(0, ge=-MOST_URGENT, le=MOST_URGENT)
    needs: Needs = Needs()
    # The genesis does not say what every session has, so that of old and new requests it is the same bytes.
    world_size: Literal[1] = Field(1, exclude=True)

    @model_serializer(mode="wrap")
    def _without_what_is_not_wanted(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        values: dict[str, object] = write(self)
        values["needs"] = {name: needed for name, needed in dict(self.needs).items() if needed}
        later = ("profile", "recheck", "pauses", "priority", "needs")
        return {name: value for name, value in values.items() if value or name not in later}

    @field_validator("world_size", mode="before")
    @classmethod
    def _is_trained_by_one(cls, size: Any) -> Any:
        if isinstance(size, bool) or size not in (1, "1"):
            message = f"{size!r:.40} processes cannot train a session together: this version trains with one"
            raise refused(message, "Write 1, or leave `world_size` out.")
        return 1


def is_rechecked(every: int, window: int, first: int) -> bool:
    """Whether a second process computes the window behind step `first` again.

    A plan has a stretch of `window` steps behind every multiple of it; of every so many stretches the last one is.
    """
    return every > 0 and (first // window + 1) % every == 0


class Reproducibility(Section):
    """`deterministic: false` chooses the profile `fast`, of which audits say not-comparable."""

    seed: Whole = Field(42, ge=0, lt=2**63)
    deterministic: bool = True


LESS_IS_BETTER = ("loss", "rmse", "mae", "perplexity", "error")


def less_is_better(metric: str) -> bool:
    """Whether a metric is a loss or an error, and not a score: it shows in how its name ends, also of a workload's."""
    return metric.endswith(LESS_IS_BETTER)


def is_minimized(metric: str, direction: str) -> bool:
    """Whether a smaller value of a metric is a better one, where `auto` leaves it to the metric."""
    return less_is_better(metric) if direction == "auto" else direction == "minimize"


def _control_metric(metric: str) -> str:
    if not metric.startswith("val_") or not metric[4:].isidentifier():
        raise refused(f"{metric!r} is not a control metric", "Write val_loss, or val_ and a metric's name.")
    return metric


ControlMetric = Annotated[str, Field(max_length=64), AfterValidator(_control_metric)]
"""A metric by which trials are judged."""


def metric_tasks() -> Mapping[str, Task]:
    """The task that each built-in metric judges, by the metric's name: what parts the engine has."""
    kind = importlib.import_module("runtime.engine.plain_kinds")
    return {name: part.task for name, part in kind.metrics.all.items()}


class MetricName:
    """A schema for the names of built-in metrics, which are asked for when one is judged or the schema is shown."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """See pydantic."""
        return core_schema.no_info_plain_validator_function(cls._known)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """See pydantic."""
        return {"enum": list(metric_tasks()), "type": "string"}

    @staticmethod
    def _known(name: object) -> str:
        if not isinstance(name, str) or name not in metric_tasks():
            raise PydanticKnownError("literal_error", {"expected": ", ".join(map(repr, metric_tasks()))})
        return name


Metric = Annotated[str, MetricName]

Metrics = Annotated[
    Annotated[tuple[Metric, ...], Field(min_length=1, max_length=32), Tag("given")]
    | Annotated[Literal["auto"], Tag("auto")],
    Discriminator(lambda value: "auto" if value == "auto" else "given"),
]


class Validation(Section):
    """`auto` metrics are those of the task; `test_set` also judges the best checkpoint on the test split."""

    every_epochs: Whole = Field(1, ge=1, le=1_000_000)
    metrics: Metrics = "auto"
    test_set: bool = False


class EarlyStopping(Section):
    """Stop after `patience` evaluations in which `metric` did not get better by more than `min_delta`."""

    enabled: bool = True
    patience: Whole = Field(10, ge=1, le=1_000_000)
    metric: str = Field("val_loss", max_length=64)
    min_delta: Real = Field(0.0, ge=0, le=1e9)

    @field_validator("metric")
    @classmethod
    def _is_control_metric(cls, metric: str) -> str:
        if not metric.startswith("val_") or not metric[4:].isidentifier():
            cure = f"Write 'val_{metric}'." if metric.isidentifier() else "Write val_loss, or val_ and a metric's name."
            raise refused(f"{metric!r} is not a control metric", cure)
        return metric


class Checkpoints(Section):
    """`every_steps` rounds up to the window grid; `auto` aims at spans of about a minute.

    With `every_seconds` state is also kept at the next grid step after so long: a place to resume from, nothing more.
    Within `budget_bytes` the best and the last come first, and there are as many anchors as fit beside them.
    """

    every_steps: AutoWhole = "auto"
    every_seconds: Real | None = Field(None, gt=0)
    keep_last: Whole = Field(2, ge=1, le=1000)
    keep_best: Whole = Field(1, ge=1, le=1000)
    anchors: Whole = Field(16, ge=1, le=1000)
    budget_bytes: Whole | None = Field(None, ge=1)


DiagnosisMode = Literal["off", "observe", "propose", "fix"]


class Diagnosis(Section):
    """Who decides about what the rules find.

    `off` asks no rule. `observe` tells what is wrong. With `propose` each remedy waits until a person approves or
    rejects it, for `wait` seconds at most; training goes on meanwhile. With `fix` remedies that are automatic take
    effect, each at a step that follows from its evidence, and the others wait for a person. `auto_fix` is the older
    spelling: true is `fix`, false is `observe`.

    With `prove` every intervention is tried against going on without it, by two forks from the same bits.
    """

    # YAML 1.1 reads `off` as false.
    mode: Annotated[DiagnosisMode, BeforeValidator(lambda given: "off" if given is False else given)] = "fix"
    auto_fix: bool = True
    prove: bool = False
    wait: Real = Field(600.0, ge=0, le=604_800)

    @model_validator(mode="after")
    def _has_one_mode(self) -> Self:
        means: DiagnosisMode = "fix" if self.auto_fix else "observe"
        if "auto_fix" not in self.model_fields_set:
            self.__dict__["auto_fix"] = self.mode == "fix"
        elif "mode" not in self.model_fields_set:
            self.__dict__["mode"] = means
        elif self.mode != means:
            message = f"auto_fix: {str(self.auto_fix).lower()} means mode: {means}, and mode is {self.mode!r}"
            raise refused(message, "Leave `auto_fix` out.")
        return self

    @model_serializer(mode="wrap")
    def _as_recorded(self, written: SerializerFunctionWrapHandler) -> dict[str, object]:
        # What older requests could say too is written as they wrote it, so that it is the same bytes.
        left_out = {"mode" if self.mode in ("fix", "observe") else "auto_fix"}
        left_out |= {"wait"} if self.wait == Diagnosis.model_fields["wait"].default else set()
        return {name: value for name, value in written(self).items() if name not in left_out}


def diagnosis_of(request: Mapping[str, Any]) -> Diagnosis:
    """How a recorded request wants its problems handled; the oldest ones have no such section and observe."""
    return Diagnosis.model_validate(request.get("diagnosis") or {"mode": "observe"})


Format = Literal["onnx", "safetensors", "pt2", "torchscript"]
Quantization = Literal["int8", "fp16"]
FORMATS: tuple[str, ...] = get_args(Format)
QUANTIZATIONS: tuple[str, ...] = get_args(Quantization)


class Export(Section):
    """Each format is exported once, and once more for each quantisation that it allows."""

    formats: tuple[Format, ...] = Field((), max_length=8)
    quantize: tuple[Quantization, ...] = Field((), max_length=8)
