"""What sections must agree on with each other. What one section can judge alone is in its own file."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import get_args

from contracts.errors import Problem
from contracts.request.loss import LOSSES, AutoLoss, MultiTask
from contracts.request.model import BUILT_IN, BuiltIn, WorkloadModel
from contracts.request.optimizer import OwnOptimizer
from contracts.request.request import Request
from contracts.request.task import Task, task_of
from contracts.request.validation import TASK_OF


def disagreements(request: Request) -> Iterator[Problem]:
    """Every contradiction between sections that shows without looking at data or machine."""
    yield from _precision(request)
    yield from _loss(request)
    yield from _optimizer(request)
    yield from _metrics(request)
    yield from _shape(request)
    yield from _quantization(request)


def _precision(request: Request) -> Iterator[Problem]:
    if request.training.precision == "fp16" and request.training.device == "cpu":
        yield Problem(
            "training.precision",
            "fp16 needs a CUDA device, on a CPU it is many times slower than fp32",
            "Write `precision: bf16`, or `device: cuda`.",
        )


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
        yield Problem("loss.type", message, f"Choose {_suiting(task)}, or leave the section `loss` out.")


def _task(request: Request) -> Task | None:
    return task_of(request.model, request.loss, request.data.known_task)


def _suiting(task: Task) -> str:
    return ", ".join(str(get_args(one.model_fields["type"].annotation)[0]) for one in LOSSES if task in one.fits)


def _optimizer(request: Request) -> Iterator[Problem]:
    if isinstance(request.optimizer, OwnOptimizer) and not isinstance(request.model, WorkloadModel):
        yield Problem("optimizer.type", "only a workload brings an optimizer of its own", "Choose adamw or another.")


def _metrics(request: Request) -> Iterator[Problem]:
    task = _task(request)
    named = [] if request.validation.metrics == "auto" else list(request.validation.metrics)
    for index, metric in enumerate(named):
        if task and TASK_OF[metric] != task:
            yield Problem(f"validation.metrics.{index}", f"{metric!r} judges {TASK_OF[metric]}", _fitting(task))
    control = request.early_stopping.metric.removeprefix("val_")
    if control == "loss" or isinstance(request.model, WorkloadModel):
        return
    if control not in TASK_OF:
        near = get_close_matches(control, ["loss", *TASK_OF], 1)
        cure = f"Did you mean 'val_{near[0]}'?" if near else "Write val_loss, or val_ and a metric's name."
        yield Problem("early_stopping.metric", f"no metric is called {request.early_stopping.metric!r}", cure)
    elif task and TASK_OF[control] != task:
        yield Problem("early_stopping.metric", f"{control!r} judges {TASK_OF[control]}", _fitting(task))


def _fitting(task: str) -> str:
    return "Choose from " + ", ".join(name for name, of in TASK_OF.items() if of == task) + "."


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
        able = " or ".join(str(get_args(one.model_fields["architecture"].annotation)[0]) for one in _able(task))
        message = f"{model.architecture!r} does not do {task}, which is what this data and loss are for"
        yield Problem("model.architecture", message, f"Choose `architecture: {able}`.")


def _able(task: Task) -> list[type[BuiltIn]]:
    return [one for one in BUILT_IN if task in one.does]


def _quantization(request: Request) -> Iterator[Problem]:
    if request.export.quantize and "onnx" not in request.export.formats:
        yield Problem("export.quantize", "only the format onnx can be quantised", "Add onnx to `export.formats`.")
