"""The mean over classes of the harmonic mean of precision and recall."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from runtime.engine.kinds import Batch, metrics


@metrics.part("f1_macro")
def f1_macro(answers: Tensor, batch: Batch) -> float:
    """Classes that neither occur nor are answered do not count; from whole counts, exact."""
    classes = answers.shape[1]
    truth, said = batch["y"], answers.argmax(1)
    hits = torch.bincount(truth[truth == said], minlength=classes).tolist()
    sizes = (torch.bincount(truth, minlength=classes) + torch.bincount(said, minlength=classes)).tolist()
    scores = [2 * hit / size for hit, size in zip(hits, sizes, strict=True) if size]
    return math.fsum(scores) / len(scores)
