"""The next token, at every place of a row of tokens."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from contracts.request.loss import CrossEntropy
from contracts.request.section import Section
from runtime.engine.aim import Aim, tasks
from runtime.engine.kinds import Batch


@tasks.part("sequences")
class Sequences(Aim):
    """One number per token of the vocabulary at each place; the last place has nothing to be held against."""

    loss: ClassVar[Section] = CrossEntropy(type="cross_entropy")
    needs: ClassVar[tuple[str, ...]] = ("x",)

    def held(self, answers: Tensor, batch: Batch) -> tuple[Tensor, Batch]:
        """All places of all rows, one after another."""
        return answers[:, :-1].reshape(-1, answers.shape[-1]), {"y": batch["x"][:, 1:].reshape(-1).long()}

    def kept(self, answers: Tensor, batch: Batch) -> Tensor:
        """For each row: the tokens' surprise together, how many were guessed, how many there were."""
        said, truth = answers[:, :-1].float(), batch["x"][:, 1:].long()
        surprise = functional.cross_entropy(said.flatten(0, 1), truth.reshape(-1), reduction="none").reshape(
            truth.shape
        )
        right = said.argmax(-1).eq(truth)
        return torch.stack([surprise.sum(1), right.sum(1), torch.ones_like(truth).sum(1)], dim=1)
