"""Rows of a batch two by two, as losses of embeddings compare them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Pairs(NamedTuple):
    """For each row and each other: the cosine between their answers, whether they are fellows, whether it is itself."""

    alike: Tensor
    fellows: Tensor
    itself: Tensor


def pairs(answers: Tensor, classes: Tensor) -> Pairs:
    """Fellows are other rows of the same class."""
    directions = functional.normalize(answers.float(), dim=1)
    itself = torch.eye(len(answers), dtype=torch.bool, device=answers.device)
    fellows = (classes[:, None] == classes[None, :]) & ~itself
    return Pairs(directions @ directions.T, fellows, itself)
