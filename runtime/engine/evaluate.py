"""Judges a model over a split, bit for bit: the control metric in training, and the validator's reproduction of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from contracts.errors import NotFound
from runtime.engine.batches import Feed
from runtime.engine.dataset import Dataset
from runtime.engine.learner import Learner
from runtime.engine.parts.metrics import total
from runtime.engine.passes import computing
from runtime.engine.plan import ResolvedValues
from runtime.engine.random_keys import Stream, mix


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
