"""What a request trains, as one workload: the user's own, or built-in parts in the same form. It does not train."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from contracts.errors import InvalidRequest, Problem, UserCodeFailed
from contracts.request import Request
from contracts.request.loss import AutoLoss, LossSection, MultiTask
from contracts.request.model import BuiltIn, WorkloadModel
from contracts.request.optimizer import OwnOptimizer
from contracts.request.request import task_of
from contracts.request.section import Section, Task
from contracts.request.training import metric_tasks
from runtime.engine import batches, draws, kinds, random_keys
from runtime.engine.batches import AugmentedSplit, Change, Feed
from runtime.engine.dataset import Dataset
from runtime.engine.draws import initialise
from runtime.engine.facts import Facts
from runtime.engine.kinds import Batch, OptimizerPart
from runtime.engine.passes import recompute
from runtime.engine.plain_kinds import metrics
from runtime.engine.random_keys import Stream
from runtime.engine.sampling import Sampler
from runtime.engine.state import freeze, load_initial
from runtime.engine.update import grouped
from runtime.engine.workload import Group, Metric, Workload, find, options_of


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
        self._losses = {
            name: kinds.losses.of(one)(one, self._training_task.facts)
            for name, one in _chosen(request.loss, self._training_task).items()
        }
        self._loss = self._each if isinstance(request.loss, MultiTask) else self._losses[""]

    def build(self, o: Any, facts: Facts) -> nn.Module:
        return kinds.models.of(o)(o, self._training_task.facts, kinds.layers.of(o.made_of))

    def loss(self, model: nn.Module, batch: Batch) -> Losses:
        return self._loss(*self._training_task.loss_inputs(model(batch["x"]), batch))

    def judged(self, model: nn.Module, batch: Batch) -> tuple[Losses, Tensor]:
        """The loss, and what metrics need of the answers, from one pass."""
        answers = model(batch["x"])
        return self._loss(*self._training_task.loss_inputs(answers, batch)), self._training_task.metric_inputs(
            answers, batch
        )

    def _each(self, answers: Tensor, batch: Batch) -> Losses:
        return {name: loss(answers, batch) for name, loss in self._losses.items()}


def _chosen(loss: LossSection, of: kinds.TrainingTask) -> Mapping[str, Section]:
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


class Learner:
    """A workload with its options, facts and metrics: all that differs between one training and another."""

    def __init__(self, request: Request, facts: Facts) -> None:
        self.request, self.facts = request, facts
        self.workload: Workload
        if isinstance(request.model, WorkloadModel):
            self.workload = find(request.model.workload)()
            self._options: Any = options_of(type(self.workload), request.model.options)
        else:
            self.workload = BuiltinWorkload(request, facts)
            self._options = request.model
        self.task: str = self.workload.task if isinstance(self.workload, BuiltinWorkload) else facts.task
        self.blend = Blend(request.loss) if isinstance(request.loss, MultiTask) else None
        self.metrics = _metrics(request, self.task, self.workload)
        self.foreign = not self.workload.ours

    def reseed(self, seed: int) -> None:
        """Set the generators that this learner's code may draw from."""
        (draws.reseed_all if self.foreign else draws.reseed)(seed)

    def build(self) -> nn.Module:
        """The initial model, a function of request and facts; built-in weights come from exact integer draws."""
        seed = self.request.reproducibility.seed
        self.reseed(random_keys.mix(seed, Stream.BUILD) >> 1)
        model = self.workload.build(self._options, self.facts)
        if not self.foreign:
            initialise(model, seed)
        return model

    def shapes(self) -> nn.Module:
        """The model without its numbers: what it would hold can be counted, and takes no memory."""
        with torch.device("meta"):
            return self.workload.build(self._options, self.facts)

    def ready(self, model: nn.Module, initial: Mapping[str, Tensor] | None = None) -> nn.Module:
        """The model in training mode as the request has it: with given weights, some frozen, in pieces."""
        model.train()
        if initial is not None:
            load_initial(model, initial, self.request.model.fresh)
        freeze(model, self.request.model.freeze)
        if self.request.training.recompute:
            recompute(model)
        return model

    def mover(self) -> OptimizerPart:
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
        """Which parameters move alike: as the workload says, then the request; what weighs losses never decays."""
        groups = grouped(self.workload.param_groups(model), self.request.optimizer.groups, model)
        if self.request.model.freeze:
            groups = [replace(one, parameters=[p for p in one.parameters if p.requires_grad]) for one in groups]
        return groups if self.blend is None else [*groups, Group(list(self.blend.parameters()), weight_decay=0.0)]

    def to(self, device: str) -> None:
        """Bring what is trained besides the model to a device."""
        if self.blend is not None:
            self.blend.to(device)

    @property
    def learned(self) -> dict[str, Tensor]:
        """What is trained besides the model, by name."""
        return {} if self.blend is None else self.blend.tensors()

    def training_feed(self, dataset: Dataset, device: str, sampler: Sampler) -> Feed:
        """The training split as batches; changed by chance as the request says, and then as the workload does."""
        seed, changes = self.request.reproducibility.seed, list[Change]()
        data = self.request.data
        if self.request.augment:
            changes.append(batches.AugmentationChain(self.request.augment, self.facts, seed))
        if type(self.workload).augment is not Workload.augment:
            changes.append(batches.RowByRow(self.workload.augment, seed))
        return (
            AugmentedSplit(dataset, "train", device, changes, sampler.turns, data.workers, pin_memory=data.pin_memory)
            if changes
            else Feed(dataset, "train", device, data.workers, pin_memory=data.pin_memory)
        )

    def objective(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss to go down, and scalars to record."""
        found = self._returned(model, batch)
        if self.blend is not None:
            loss, told = self.blend(_by_name(found))
            return loss, told
        return self._scalar(found), self._recorded(found)

    def judged(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Loss, comparable between models, and what metrics judge by; None when there are none."""
        if isinstance(self.workload, BuiltinWorkload):
            found, kept = self.workload.judged(model, batch)
            return self._comparable(found), kept
        loss = self._comparable(self._returned(model, batch))
        return loss, self.workload.predict(model, batch) if self.metrics else None

    def _comparable(self, found: Tensor | Mapping[str, Tensor]) -> Tensor:
        if self.blend is not None:
            return self.blend.fixed(_by_name(found))
        return self._scalar(found)

    def _returned(self, model: nn.Module, batch: Batch) -> Tensor | Mapping[str, Tensor]:
        """What the workload's `loss` returns; raises `UserCodeFailed` when that is neither a tensor nor a mapping."""
        found = self.workload.loss(model, batch)
        if not isinstance(found, Tensor | Mapping):
            raise self._no_tensor(repr(found))
        return found

    def _scalar(self, found: Tensor | Mapping[str, Tensor]) -> Tensor:
        """The loss among what was returned, one number; raises `UserCodeFailed` when it is none or has a shape."""
        loss = found if isinstance(found, Tensor) else _named(found)
        if not isinstance(loss, Tensor):
            raise self._no_tensor(f"{loss!r} as 'loss'")
        if loss.ndim:
            shape = list(loss.shape)
            message = f"loss of {type(self.workload).__name__} returned a tensor of the shape {shape}, not one number"
            raise UserCodeFailed(message, cure="Return the mean over the rows of the batch: loss.mean().")
        return loss

    def _recorded(self, found: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The scalars beside the loss; raises `UserCodeFailed` when one is no tensor."""
        beside = {name: value for name, value in _by_name(found).items() if name != "loss"}
        for name, value in beside.items():
            if not isinstance(value, Tensor):
                raise self._no_tensor(f"{value!r} as {name!r}")
        return {name: value.detach() for name, value in beside.items()}

    def _no_tensor(self, what: str) -> UserCodeFailed:
        message = f"loss of {type(self.workload).__name__} returned {what}, which is no tensor"
        return UserCodeFailed(message[:1000], cure='Return the loss as a tensor, or a mapping with "loss" in it.')


def _by_name(found: Tensor | Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return {"loss": found} if isinstance(found, Tensor) else found


def _named(found: Mapping[str, Tensor]) -> Tensor:
    if "loss" not in found:
        raise UserCodeFailed(f"the loss is missing among {sorted(found)!r}", cure="Return it as `loss`.")
    return found["loss"]


def _metrics(request: Request, task: str, workload: Workload) -> dict[str, Metric]:
    """The metrics of every evaluation: those asked for (or the task's), the control metric's, the workload's own."""
    own = dict(workload.metrics())
    fitting = [name for name, of in metric_tasks().items() if of == task]
    asked = request.validation.metrics
    names = [] if asked == "auto" and (own or not workload.ours) else fitting if asked == "auto" else list(asked)
    control = request.early_stopping.metric.removeprefix("val_")
    names += [control] if control not in ("loss", *own, *names) else []
    for name in names:
        if name not in fitting:
            path = "early_stopping.metric" if name == control else "validation.metrics"
            cure = f"Choose from {', '.join(('loss', *own, *fitting))}."
            raise InvalidRequest([Problem(path, f"{name!r} cannot judge this data", cure)])
    return {**{name: metrics.of(name) for name in names}, **own}
