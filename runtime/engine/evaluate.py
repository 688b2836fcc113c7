"""What is seen of a model, changing no bit of it: metrics over a split, norms per layer, dead units, hidden attributes.

The control metric in training and the validator's reproduction of it are the same code.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from contracts.errors import NotFound
from runtime.engine import state
from runtime.engine.batches import Feed
from runtime.engine.dataset import Dataset
from runtime.engine.learner import Learner
from runtime.engine.parts.gradients import norms as norms_of
from runtime.engine.parts.metrics import total
from runtime.engine.passes import computing, second_pass
from runtime.engine.plan import ResolvedValues
from runtime.engine.random_keys import Stream, mix
from runtime.engine.report import GENERATOR, TENSOR, LayerEvidence
from runtime.engine.step import StepResult
from runtime.engine.update import OptimizerState


class Judge:
    """Evaluates one split in fixed batches; sums are exact, so the values depend on the model's answers alone."""

    def __init__(self, learner: Learner, resolved: ResolvedValues, dataset: Dataset, split: str = "val") -> None:
        if not dataset.facts.rows.get(split):
            raise NotFound(f"the split {split!r} has no rows", cure="Give it a share in `data.split`.")
        self._learner, self._resolved, self._split = learner, resolved, split
        self._feed = Feed(dataset, split, resolved.device)

    def values(self, model: nn.Module) -> dict[str, float]:
        """`SPLIT_loss` and every metric of the learner; the model's mode is left as it was."""
        losses, sizes, answers = [], [], []
        for loss, answer, size in self._passes(model):
            losses.append(loss)
            sizes.append(size)
            answers += [] if answer is None else [answer]
        means = torch.stack(losses).double().tolist()
        weighted = [mean * size for mean, size in zip(means, sizes, strict=True)]
        found = {"loss": total(weighted) / sum(sizes)}
        if answers:
            said, truth = torch.cat(answers), self._feed.all_columns()
            found |= {name: float(metric(said, truth)) for name, metric in self._learner.metrics.items()}
        return {f"{self._split}_{name}": value for name, value in found.items()}

    def answers(self, model: nn.Module) -> Tensor:
        """The model's answers for every row, in order, as float32 on the CPU."""
        found = [answer for _, answer, _ in self._passes(model) if answer is not None]
        return torch.cat(found)

    def _passes(self, model: nn.Module) -> Iterator[tuple[Tensor, Tensor | None, int]]:
        size, resolved = self._resolved.evaluation_batch, self._resolved
        with judging(model), torch.no_grad(), computing(resolved.precision, resolved.device):
            for first in range(0, self._feed.rows, size):
                self._learner.reseed(mix(resolved.seed, Stream.EVALUATE, first) >> 1)
                batch = self._feed.slice(first, first + size)
                loss, answer = self._learner.judged(model, batch)
                said = None if answer is None else answer.float().cpu()
                yield loss.float(), said, min(size, self._feed.rows - first)


@contextmanager
def judging(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every module is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


CAN_DIE = (nn.ReLU, nn.ReLU6)


class LayerWatch:
    """A context around one attempt; `layers` says afterwards what was seen."""

    def __init__(self, model: nn.Module, movement: OptimizerState) -> None:
        self._movement = movement
        self._before = [one.detach().clone() for one in movement.parameters]
        self._dead: dict[str, float] = {}
        self._latest = ""
        self._named = list(model.named_modules())

    def __enter__(self) -> Self:
        self._hooks = [
            module.register_forward_hook(self._unit_hook if isinstance(module, CAN_DIE) else self._layer_hook(name))
            for name, module in self._named
            if isinstance(module, CAN_DIE) or any(parameter.dim() > 1 for parameter in module.parameters(recurse=False))
        ]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for hook in self._hooks:
            hook.remove()

    def _layer_hook(self, name: str) -> Callable[..., None]:
        def remember(*_: Any) -> None:
            self._latest = name

        return remember

    def _unit_hook(self, module: nn.Module, inputs: Any, answer: Tensor) -> None:
        if second_pass.get():
            return
        # Units are channels of images, and the last dimension of sequences.
        unit = 2 if answer.dim() == 3 else min(1, answer.dim() - 1)
        by_unit = answer.detach().transpose(0, unit).flatten(1) if answer.dim() > 1 else answer.detach()[None]
        self._dead[self._latest] = float((by_unit.amax(1) <= 0).float().mean())

    def layers(self, felt: StepResult) -> tuple[LayerEvidence, ...]:
        """Evidence per layer, a layer being a module with trained parameters of its own; 0 where no gradient came."""
        after = [one.detach() for one in self._movement.parameters]
        if felt.norms is None:
            return ()
        found: dict[str, list[int]] = {}
        for index, name in enumerate(self._movement.names):
            found.setdefault(name.rpartition(".")[0], []).append(index)
        weight = norms_of(after).double().tolist()
        update = norms_of([new - old for new, old in zip(after, self._before, strict=True)]).double().tolist()
        gradient = [0.0] * len(after)
        for place, norm in zip(felt.held, felt.norms.double().tolist(), strict=True):
            gradient[place] = norm
        return tuple(
            LayerEvidence(name, _joined(gradient, at), _joined(weight, at), _joined(update, at), self._dead.get(name))
            for name, at in found.items()
        )


def _joined(norms: Sequence[float], at: Sequence[int]) -> float:
    return math.sqrt(total(norms[index] ** 2 for index in at))


SIMPLE = (bool, int, float, complex, str, bytes, type(None))
GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
USUAL = frozenset(vars(nn.Module()))
LONGEST = 80


def hidden(workload: object, model: nn.Module) -> dict[str, str]:
    """Attributes that a restart does not bring back, by path; the same value is the same words in every process."""
    owners = {"workload": workload} | {f"model.{name}".rstrip("."): module for name, module in model.named_modules()}
    return {
        f"{path}.{name}": said
        for path, owner in owners.items()
        for name, value in vars(owner).items()
        if name not in USUAL and (said := _said(value))
    }


def _said(value: Any) -> str:
    if isinstance(value, GENERATORS):
        return GENERATOR
    if isinstance(value, Tensor):
        return f"{TENSOR}: {state.leaf('', value).hex()[:16]}"
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return f"an array {state.digest(np.ascontiguousarray(value).tobytes())[:16]}"
    return repr(value)[:LONGEST] if _is_simple(value) else ""


def _is_simple(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_simple(key) and _is_simple(one) for key, one in value.items())
    if isinstance(value, list | tuple):
        return all(_is_simple(one) for one in value)
    return isinstance(value, SIMPLE)
