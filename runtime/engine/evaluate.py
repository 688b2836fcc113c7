"""What is seen of a model, changing no bit of it: metrics over a split, attributes that are no state.

The control metric in training and the validator's reproduction of it are the same code.
"""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from contracts.errors import NotFound
from runtime.engine import state
from runtime.engine.batches import Feed
from runtime.engine.dataset import Dataset
from runtime.engine.kinds import Batch
from runtime.engine.learner import Learner
from runtime.engine.passes import computing
from runtime.engine.plain_kinds import ExactSum, StreamingMetric
from runtime.engine.plan import ResolvedValues
from runtime.engine.random_keys import Stream, mix
from runtime.engine.report import GENERATOR, TENSOR


class Judge:
    """Evaluates one split in fixed batches; sums are exact, so the values depend on the model's answers alone."""

    def __init__(self, learner: Learner, resolved: ResolvedValues, dataset: Dataset, split: str = "val") -> None:
        if not dataset.facts.rows.get(split):
            raise NotFound(f"the split {split!r} has no rows", cure="Give it a share in `data.split`.")
        self._learner, self._resolved, self._split = learner, resolved, split
        self._feed = Feed(dataset, split, resolved.device)

    def values(self, model: nn.Module, size: int | None = None) -> dict[str, float]:
        """`SPLIT_loss` and every metric of the learner; the model's mode is left as it was.

        Batches, of `size` rows or as resolved, come in the order of the rows. Answers are kept only for a workload's
        metrics that are functions of all.
        """
        metrics = self._learner.metrics
        streamed = {name: metric for name, metric in metrics.items() if isinstance(metric, StreamingMetric)}
        seen: dict[str, object] = {name: metric.begin() for name, metric in streamed.items()}
        kept: list[Tensor] = []
        losses = LossMean()
        size = size or self._resolved.evaluation_batch
        for loss, answer, batch in self._passes(model, size):
            losses.take(loss, min(size, self._feed.rows - losses.rows))
            if answer is None:
                continue
            columns = HostColumns(batch)
            for name, metric in streamed.items():
                seen[name] = metric.take(seen[name], answer, columns)
            if len(streamed) < len(metrics):
                kept.append(answer)
        values = {"loss": losses.value}
        everything = (torch.cat(kept), self._feed.all_columns()) if kept else None
        for name, judge in metrics.items():
            if isinstance(judge, StreamingMetric):
                values[name] = float(judge.value(seen[name]))
            elif everything is not None:
                values[name] = float(judge(*everything))
        return {f"{self._split}_{name}": value for name, value in values.items()}

    def answers(self, model: nn.Module) -> Tensor:
        """The model's answers for every row, in order, as float32 on the CPU."""
        found = [answer for _, answer, _ in self._passes(model, self._resolved.evaluation_batch) if answer is not None]
        return torch.cat(found)

    def _passes(self, model: nn.Module, size: int) -> Iterator[tuple[Tensor, Tensor | None, Batch]]:
        """The loss, the answers and the columns of each batch, in the order of the rows."""
        resolved = self._resolved
        with judging(model), torch.no_grad(), computing(resolved.precision, resolved.device):
            for first in range(0, self._feed.rows, size):
                self._learner.reseed(mix(resolved.seed, Stream.EVALUATE, first) >> 1)
                batch = self._feed.slice(first, first + size)
                loss, answer = self._learner.judged(model, batch)
                yield loss.float(), None if answer is None else answer.float().cpu(), batch


class HostColumns(Mapping[str, Tensor]):
    """The columns of a batch on the CPU; each is brought there when it is first asked for, which most never are."""

    def __init__(self, batch: Batch) -> None:
        self._batch, self._here = batch, dict[str, Tensor]()

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._here:
            self._here[name] = self._batch[name].cpu()
        return self._here[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._batch)

    def __len__(self) -> int:
        return len(self._batch)


WAITING = 1024
"""Losses that stay where they were computed, so that a device is waited for once in so many batches."""


class LossMean:
    """The mean over rows of the losses of batches, each the mean of its own rows; the sum is exact."""

    def __init__(self) -> None:
        self.rows = 0
        self._sum, self._waiting = ExactSum(), list[tuple[Tensor, int]]()

    def take(self, loss: Tensor, rows: int) -> None:
        """Count one more batch."""
        self.rows += rows
        self._waiting.append((loss, rows))
        if len(self._waiting) == WAITING:
            self._fold()

    @property
    def value(self) -> float:
        """The mean over all rows that were counted."""
        self._fold()
        return self._sum.value / self.rows

    def _fold(self) -> None:
        if self._waiting:
            losses, sizes = zip(*self._waiting, strict=True)
            means = torch.stack(losses).double().tolist()
            self._sum = self._sum.plus(mean * size for mean, size in zip(means, sizes, strict=True))
            self._waiting = []


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
