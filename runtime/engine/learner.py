"""What a request trains, as one workload: the user's own, or built-in parts in the same form. It does not train."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from contracts.errors import InvalidRequest, Problem, UserCodeFailed
from contracts.request import Request
from contracts.request.loss import AutoLoss, CrossEntropy, Mse
from contracts.request.model import WorkloadModel
from contracts.request.optimizer import OwnOptimizer
from contracts.request.validation import TASK_OF
from runtime.engine import chance, kinds
from runtime.engine.chance import Stream
from runtime.engine.dataset import Dataset
from runtime.engine.facts import Facts
from runtime.engine.feed import AugmentedFeed, Feed
from runtime.engine.grouping import grouped
from runtime.engine.kinds import Batch, Mover
from runtime.engine.workload import Group, Metric, Workload, find, options_of


class Standard(Workload):
    """Built-in model, loss and metrics as a workload."""

    ours: ClassVar[bool] = True

    def __init__(self, request: Request, facts: Facts) -> None:
        self._loss = kinds.losses.of(_loss_option(request, facts))(_loss_option(request, facts), facts)

    def build(self, o: Any, facts: Facts) -> nn.Module:
        return kinds.models.of(o)(o, facts)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return self._loss(model(batch["x"]), batch)

    def judged(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss and answers from one pass."""
        answers = model(batch["x"])
        return self._loss(answers, batch), answers


class Learner:
    """A workload with its options, facts and metrics: all that differs between one training and another."""

    def __init__(self, request: Request, facts: Facts) -> None:
        self.request, self.facts = request, facts
        self.workload: Workload
        if isinstance(request.model, WorkloadModel):
            self.workload = find(request.model.workload)()
            self._options: Any = options_of(type(self.workload), request.model.options)
        else:
            self.workload = Standard(request, facts)
            self._options = request.model
        self.metrics = _metrics(request, facts, self.workload)
        self.foreign = not self.workload.ours

    def reseed(self, seed: int) -> None:
        """Set the generators that this learner's code may draw from."""
        (chance.reseed_all if self.foreign else chance.reseed)(seed)

    def build(self) -> nn.Module:
        """The initial model, a function of request and facts; built-in weights come from exact integer draws."""
        seed = self.request.reproducibility.seed
        self.reseed(chance.mix(seed, Stream.BUILD) >> 1)
        model = self.workload.build(self._options, self.facts)
        if not self.foreign:
            initialise(model, seed)
        return model

    def mover(self) -> Mover:
        """The optimizer asked for; raises `InvalidRequest` when it is the workload's own and there is none."""
        chosen = self.request.optimizer
        mover = (
            self.workload.optimizer(self._options) if isinstance(chosen, OwnOptimizer) else kinds.optimizers.of(chosen)
        )
        if mover is None:
            message = f"{type(self.workload).__name__} has no optimizer of its own"
            raise InvalidRequest([Problem("optimizer.type", message, "Choose adamw or another.")])
        return mover

    def groups(self, model: nn.Module) -> Sequence[Group]:
        """Which parameters move alike: as the workload says, then as the request does."""
        return grouped(self.workload.param_groups(model), self.request.optimizer.groups, model)

    def training_feed(self, dataset: Dataset, device: str) -> Feed:
        """The training split as batches; changed row by row where the workload says how."""
        if type(self.workload).augment is Workload.augment:
            return Feed(dataset, "train", device)
        seed = self.request.reproducibility.seed
        return AugmentedFeed(dataset, "train", device, self.workload.augment, seed)

    def objective(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss to go down, and scalars to record."""
        found = self.workload.loss(model, batch)
        if isinstance(found, Tensor):
            return found, {}
        if "loss" not in found:
            raise UserCodeFailed(f"the loss is missing among {sorted(found)!r}", cure="Return it as `loss`.")
        return found["loss"], {name: value.detach() for name, value in found.items() if name != "loss"}

    def judged(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Loss and, when there are metrics, the answers they judge by."""
        if isinstance(self.workload, Standard):
            return self.workload.judged(model, batch)
        loss, _ = self.objective(model, batch)
        return loss, self.workload.predict(model, batch) if self.metrics else None


def initialise(model: nn.Module, seed: int) -> None:
    """Uniform weights of torch's usual width, drawn by integers and scaled exactly: the same on every machine."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            bound = 1 / math.sqrt(module.weight[0].numel())
            for part, tensor in module.named_parameters(recurse=False):
                key = chance.mix(seed, Stream.WEIGHTS, *f"{name}.{part}".encode())
                draws = torch.from_numpy(chance.uniform(key, tensor.numel())).reshape(tensor.shape)
                with torch.no_grad():
                    tensor.copy_((draws * 2 - 1) * bound)


def _loss_option(request: Request, facts: Facts) -> Any:
    """The loss asked for, or the task's own; raises `InvalidRequest` when it does not fit the task."""
    if facts.task == "other" or not {"x", "y"} <= set(facts.columns):
        message = "built-in models need a column `x`, and a target `y` of classes or of numbers"
        raise InvalidRequest([Problem("model.architecture", message, "Train this data with a workload.")])
    if isinstance(request.loss, AutoLoss):
        return CrossEntropy(type="cross_entropy") if facts.task == "classification" else Mse(type="mse")
    if request.loss.task != facts.task:
        message = f"{request.loss.type!r} is a loss for {request.loss.task}, and the target is for {facts.task}"
        raise InvalidRequest([Problem("loss.type", message, "Leave the section `loss` out.")])
    return request.loss


def _metrics(request: Request, facts: Facts, workload: Workload) -> dict[str, Metric]:
    """The metrics of every evaluation: those asked for (or the task's), the control metric's, the workload's own."""
    own = dict(workload.metrics())
    fitting = [name for name, task in TASK_OF.items() if task == facts.task]
    asked = request.validation.metrics
    names = [] if asked == "auto" and (own or not workload.ours) else fitting if asked == "auto" else list(asked)
    control = request.early_stopping.metric.removeprefix("val_")
    names += [control] if control not in ("loss", *own, *names) else []
    for name in names:
        if name not in fitting:
            path = "early_stopping.metric" if name == control else "validation.metrics"
            cure = f"Choose from {', '.join(('loss', *own, *fitting))}."
            raise InvalidRequest([Problem(path, f"{name!r} cannot judge this data", cure)])
    return {**{name: kinds.metrics.of(name) for name in names}, **own}
