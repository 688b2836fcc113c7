"""What sections must agree on with each other. What one section can judge alone is in its own file."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from contracts.errors import Problem
from contracts.request.loss import AutoLoss
from contracts.request.model import BuiltIn, WorkloadModel
from contracts.request.optimizer import OwnOptimizer
from contracts.request.request import Request
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
    task = request.data.known_task
    if isinstance(request.model, WorkloadModel):
        if not isinstance(request.loss, AutoLoss):
            yield Problem("loss.type", "a workload brings its own loss", "Leave the section `loss` out.")
    elif task and request.loss.task and request.loss.task != task:
        cure = "cross_entropy" if task == "classification" else "mse or huber"
        message = f"{request.loss.type!r} is a loss for {request.loss.task}, and {request.data.source!r} is {task}"
        yield Problem("loss.type", message, f"Choose {cure}, or leave the section `loss` out.")


def _optimizer(request: Request) -> Iterator[Problem]:
    if isinstance(request.optimizer, OwnOptimizer) and not isinstance(request.model, WorkloadModel):
        yield Problem("optimizer.type", "only a workload brings an optimizer of its own", "Choose adamw or another.")


def _metrics(request: Request) -> Iterator[Problem]:
    task = request.data.known_task
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
    model, data = request.model, request.data
    if isinstance(model, BuiltIn) and model.needs_images and data.known_task and not data.images:
        yield Problem(
            "model.architecture",
            f"{model.architecture!r} needs images, and {data.source!r} has plain features",
            "Choose `architecture: mlp`, or a source of images such as digits.",
        )


def _quantization(request: Request) -> Iterator[Problem]:
    if request.export.quantize and "onnx" not in request.export.formats:
        yield Problem("export.quantize", "only the format onnx can be quantised", "Add onnx to `export.formats`.")
