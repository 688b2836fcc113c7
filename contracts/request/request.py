"""A training request as one frozen value, and what its sections must agree on. It carries no code."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Literal, get_args

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from contracts.errors import Problem
from contracts.request.data import Data
from contracts.request.loss import LOSSES, AutoLoss, Loss, MultiTask
from contracts.request.model import BUILT_IN, BuiltIn, Model, WorkloadModel
from contracts.request.optimizer import AdamW, Constant, Gradient, Optimizer, OwnOptimizer, Schedule
from contracts.request.sampler import Augment, Sampler, Uniform
from contracts.request.section import Label, Name, Section, Task, with_default_kind
from contracts.request.training import (
    Checkpoints,
    Diagnosis,
    EarlyStopping,
    Export,
    Limits,
    Reproducibility,
    Training,
    Validation,
    metric_tasks,
)

MODES: Mapping[str, Mapping[str, Mapping[str, object]]] = {
    "baseline": {"training": {"epochs": 20}, "early_stopping": {"patience": 10}},
    "optimization": {"training": {"epochs": 50}},
    "production": {"training": {"epochs": 100}, "validation": {"test_set": True}},
}
"""What a mode means: defaults for other sections. What a request says itself wins."""


class Request(Section):
    """One training session as asked for; `resolved()` is its JSON form with every default written out."""

    name: Name = "training"
    request_id: str | None = Field(None, min_length=1, max_length=200)
    mode: Literal["baseline", "optimization", "production"] = "baseline"
    data: Data
    model: Model
    loss: Loss = AutoLoss()
    optimizer: Optimizer = AdamW()
    schedule: Schedule = Constant()
    gradients: tuple[Gradient, ...] = Field((), max_length=16)
    sampler: Sampler = Uniform()
    augment: tuple[Augment, ...] = Field((), max_length=16)
    training: Training = Training()
    early_stopping: EarlyStopping = EarlyStopping()
    reproducibility: Reproducibility = Reproducibility()
    checkpoints: Checkpoints = Checkpoints()
    validation: Validation = Validation()
    diagnosis: Diagnosis = Diagnosis()
    export: Export = Export()
    limits: Limits = Limits()
    notify: tuple[Label, ...] = Field((), max_length=8)
    """Who is told of alerts about resources: labels of receivers in the settings of the home."""

    @model_serializer(mode="wrap")
    def _without_what_is_not_wanted(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        """The genesis does not say what no session had before, so that of a request without it is the same bytes."""
        values: dict[str, object] = write(self)
        values["limits"] = {name: limit for name, limit in dict(self.limits).items() if limit is not None}
        return {name: value for name, value in values.items() if value or name not in ("limits", "notify")}

    @model_validator(mode="before")
    @classmethod
    def _mode_fills_gaps(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        filled = dict(raw)
        for section, defaults in MODES.get(str(raw.get("mode", "baseline")), {}).items():
            given = raw.get(section, {})
            if isinstance(given, Mapping):
                filled[section] = {**defaults, **given}
        return filled

    @field_validator("loss", "optimizer", "schedule", "sampler", mode="before")
    @classmethod
    def _kind_may_be_left_out(cls, given: Any, info: ValidationInfo) -> Any:
        return with_default_kind(given, cls.model_fields[str(info.field_name)])

    def resolved(self) -> dict[str, object]:
        """The JSON form with defaults written out and every `auto` kept; reading it gives this request again."""
        return self.model_dump(mode="json")


def task_of(model: Model, loss: Loss, data: Task | None) -> Task | None:
    """The task of a session on data of a kind; None where only the rows can tell."""
    return model.learns or loss.learns or data


def disagreements(request: Request) -> Iterator[Problem]:
    """Every contradiction between sections that shows without looking at data or machine."""
    if request.training.precision == "fp16" and request.training.device == "cpu":
        yield Problem(
            "training.precision",
            "fp16 needs a CUDA device, on a CPU it is many times slower than fp32",
            "Write `precision: bf16`, or `device: cuda`.",
        )
    if request.training.recheck and not request.reproducibility.deterministic:
        yield Problem(
            "training.recheck",
            "what is computed again is compared bit by bit, and `deterministic: false` promises no bits",
            "Leave it out, or write `deterministic: true`.",
        )
    yield from _loss(request)
    if isinstance(request.optimizer, OwnOptimizer) and not isinstance(request.model, WorkloadModel):
        yield Problem("optimizer.type", "only a workload brings an optimizer of its own", "Choose adamw or another.")
    yield from _metrics(request)
    yield from _shape(request)
    if request.export.quantize and "onnx" not in request.export.formats:
        yield Problem("export.quantize", "only the format onnx can be quantised", "Add onnx to `export.formats`.")


def _loss(request: Request) -> Iterator[Problem]:
    loss, task = request.loss, _task(request)
    terms = loss.terms if isinstance(loss, MultiTask) else ()
    if isinstance(request.model, WorkloadModel):
        if not isinstance(loss, AutoLoss) and not (terms and all(term.loss is None for term in terms)):
            cure = "Leave the section `loss` out; of `multi_task` only names and weights are used."
            yield Problem("loss.type", "a workload brings its own losses", cure)
        return
    for index, term in enumerate(terms):
        if term.loss is None:
            yield Problem(f"loss.terms.{index}.loss", "is required", "Only a workload returns losses by name.")
    data = request.data.known_task
    if loss.learns and data and data != "classification":
        message = f"{loss.type!r} needs classes, and {request.data.source!r} is {data}"
        yield Problem("loss.type", message, "Leave the section `loss` out.")
    elif task and not loss.suits(task):
        message = f"{loss.type!r} does not suit {task}, which is what this data and model are for"
        suiting = ", ".join(_tag(kind, "type") for kind in LOSSES if task in kind.fits)
        yield Problem("loss.type", message, f"Choose {suiting}, or leave the section `loss` out.")


def _task(request: Request) -> Task | None:
    return task_of(request.model, request.loss, request.data.known_task)


def _tag(kind: type[Section], field: str) -> str:
    """The word by which a request chooses this kind of section."""
    return str(get_args(kind.model_fields[field].annotation)[0])


def _metrics(request: Request) -> Iterator[Problem]:
    task = _task(request)
    named = [] if request.validation.metrics == "auto" else list(request.validation.metrics)
    control = request.early_stopping.metric.removeprefix("val_")
    checked = control != "loss" and not isinstance(request.model, WorkloadModel)
    if not named and not checked:
        return
    tasks = metric_tasks()
    for index, metric in enumerate(named):
        if task and tasks[metric] != task:
            yield Problem(f"validation.metrics.{index}", f"{metric!r} judges {tasks[metric]}", _fitting(task))
    if not checked:
        return
    if control not in tasks:
        near = get_close_matches(control, ["loss", *tasks], 1)
        cure = f"Did you mean 'val_{near[0]}'?" if near else "Write val_loss, or val_ and a metric's name."
        yield Problem("early_stopping.metric", f"no metric is called {request.early_stopping.metric!r}", cure)
    elif task and tasks[control] != task:
        yield Problem("early_stopping.metric", f"{control!r} judges {tasks[control]}", _fitting(task))


def _fitting(task: str) -> str:
    return "Choose from " + ", ".join(name for name, of in metric_tasks().items() if of == task) + "."


def _shape(request: Request) -> Iterator[Problem]:
    model, data, task = request.model, request.data, _task(request)
    if not isinstance(model, BuiltIn):
        return
    if model.needs_images and data.known_task and not data.images:
        yield Problem(
            "model.architecture",
            f"{model.architecture!r} needs images, and {data.source!r} has plain features",
            "Choose `architecture: mlp`, or a source of images such as digits.",
        )
    elif task and task not in model.does:
        able = " or ".join(_tag(kind, "architecture") for kind in BUILT_IN if task in kind.does)
        message = f"{model.architecture!r} does not do {task}, which is what this data and loss are for"
        yield Problem("model.architecture", message, f"Choose `architecture: {able}`.")
