"""Built-in model, task, loss and metrics in the form of a workload. The parts themselves are under `parts/`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from contracts.errors import InvalidRequest, Problem
from contracts.request import Request
from contracts.request.loss import Aimed, AutoLoss, MultiTask
from contracts.request.model import BuiltIn
from contracts.request.section import Section
from contracts.request.task import Task, task_of
from runtime.engine import aim, kinds
from runtime.engine.facts import Facts
from runtime.engine.kinds import Batch, Loss
from runtime.engine.workload import Workload

Found = Tensor | Mapping[str, Tensor]


class Standard(Workload):
    """What a request without code trains; raises `InvalidRequest` when model, loss and data do not fit."""

    ours: ClassVar[bool] = True

    def __init__(self, request: Request, facts: Facts) -> None:
        self.task = _task(request, facts)
        self._aim = aim.tasks.of(self.task)(facts, request.loss)
        self._losses = {name: self._made(one) for name, one in _chosen(request.loss, self._aim).items()}
        self._loss = self._each if isinstance(request.loss, MultiTask) else self._losses[""]

    def build(self, o: Any, facts: Facts) -> nn.Module:
        return kinds.models.of(o)(o, self._aim.facts)

    def loss(self, model: nn.Module, batch: Batch) -> Found:
        return self._loss(*self._aim.held(model(batch["x"]), batch))

    def judged(self, model: nn.Module, batch: Batch) -> tuple[Found, Tensor]:
        """The loss, and what metrics need of the answers, from one pass."""
        answers = model(batch["x"])
        return self._loss(*self._aim.held(answers, batch)), self._aim.kept(answers, batch)

    def _made(self, option: Section) -> Loss:
        return kinds.losses.of(option)(option, self._aim.facts)

    def _each(self, answers: Tensor, batch: Batch) -> Found:
        return {name: loss(answers, batch) for name, loss in self._losses.items()}


def _chosen(loss: Aimed, of: aim.Aim) -> Mapping[str, Section]:
    """The loss, or several by name: each is what it is alone, the learner weighs them."""
    if isinstance(loss, MultiTask):
        return {term.name: term.loss for term in loss.terms if term.loss is not None}
    return {"": of.loss if isinstance(loss, AutoLoss) else loss}


def _task(request: Request, facts: Facts) -> Task:
    """What this request learns from this data."""
    model, loss = request.model, request.loss
    task = task_of(model, loss, None if facts.task == "other" else facts.task)
    problems = []
    if task is None:
        message = "built-in models need a column `x`, and a target `y` of classes or of numbers"
        problems.append(Problem("model.architecture", message, "Train this data with a workload."))
    elif isinstance(model, BuiltIn) and task not in model.does:
        message = f"{model.architecture!r} does not do {task}, which is what this data and loss are for"
        problems.append(Problem("model.architecture", message, "Choose another architecture, or leave `loss` out."))
    elif not loss.suits(task):
        message = f"{loss.type!r} does not suit {task}, which is what this data and model are for"
        problems.append(Problem("loss.type", message, "Leave the section `loss` out."))
    if problems or task is None:
        raise InvalidRequest(problems)
    return task
