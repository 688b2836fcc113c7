"""Built-in model, task, losses and metrics in the form of a workload. The parts themselves are under `parts/`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from contracts.errors import InvalidRequest, Problem, UserCodeFailed
from contracts.request import Request
from contracts.request.loss import Aimed, AutoLoss, MultiTask
from contracts.request.model import BuiltIn
from contracts.request.request import task_of
from contracts.request.section import Section, Task
from runtime.engine import kinds
from runtime.engine.facts import Facts
from runtime.engine.kinds import Batch, Loss
from runtime.engine.workload import Workload


class Blend(nn.Module):
    """One number from losses by name; `balance` is what an adaptive one learns, and is state.

    With uncertainty u = exp(balance) a term counts weight / u * loss + balance: to call a loss uncertain has its price.
    """

    def __init__(self, options: MultiTask) -> None:
        super().__init__()
        self._weights = {term.name: term.weight for term in options.terms}
        self.balance = nn.Parameter(torch.zeros(len(options.terms))) if options.adaptive else None

    def forward(self, losses: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to go down, and what is recorded: each term, and its weight where that changes."""
        terms = self._terms(losses)
        told = {name: loss.detach() for name, loss in losses.items() if name != "loss"}
        if self.balance is None:
            return torch.stack([weight * loss for weight, loss in terms.values()]).sum(), told
        trust = (-self.balance).exp()
        blended = [trust[at] * weight * loss + self.balance[at] for at, (weight, loss) in enumerate(terms.values())]
        told |= {
            f"weight_{name}": (trust[at] * weight).detach() for at, (name, (weight, _)) in enumerate(terms.items())
        }
        return torch.stack(blended).sum(), told

    def fixed(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The loss with weights as written, by which models are compared."""
        return torch.stack([weight * loss for weight, loss in self._terms(losses).values()]).sum()

    def tensors(self) -> dict[str, Tensor]:
        """What is learned about the losses, as part of the state by name."""
        return {f"loss.{name}": parameter for name, parameter in self.named_parameters()}

    def _terms(self, losses: Mapping[str, Tensor]) -> dict[str, tuple[float, Tensor]]:
        if missing := [name for name in self._weights if name not in losses]:
            cure = f"Return it beside {', '.join(map(repr, losses))}, or leave the term out."
            raise UserCodeFailed(f"the workload returned no loss {missing[0]!r}", cure=cure)
        return {name: (weight, losses[name]) for name, weight in self._weights.items()}


Losses = Tensor | Mapping[str, Tensor]


class BuiltinWorkload(Workload):
    """What a request without code trains; raises `InvalidRequest` when model, loss and data do not fit."""

    ours: ClassVar[bool] = True

    def __init__(self, request: Request, facts: Facts) -> None:
        self.task = _task(request, facts)
        self._training_task = kinds.tasks.of(self.task)(facts, request.loss)
        self._losses = {name: self._made(one) for name, one in _chosen(request.loss, self._training_task).items()}
        self._loss = self._each if isinstance(request.loss, MultiTask) else self._losses[""]

    def build(self, o: Any, facts: Facts) -> nn.Module:
        return kinds.models.of(o)(o, self._training_task.facts)

    def loss(self, model: nn.Module, batch: Batch) -> Losses:
        return self._loss(*self._training_task.loss_inputs(model(batch["x"]), batch))

    def judged(self, model: nn.Module, batch: Batch) -> tuple[Losses, Tensor]:
        """The loss, and what metrics need of the answers, from one pass."""
        answers = model(batch["x"])
        return self._loss(*self._training_task.loss_inputs(answers, batch)), self._training_task.metric_inputs(
            answers, batch
        )

    def _made(self, option: Section) -> Loss:
        return kinds.losses.of(option)(option, self._training_task.facts)

    def _each(self, answers: Tensor, batch: Batch) -> Losses:
        return {name: loss(answers, batch) for name, loss in self._losses.items()}


def _chosen(loss: Aimed, of: kinds.TrainingTask) -> Mapping[str, Section]:
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
