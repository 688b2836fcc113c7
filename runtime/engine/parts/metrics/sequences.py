"""How well next tokens were foretold, from what the task kept of each row."""

from __future__ import annotations

import math

from torch import Tensor

from runtime.engine.exact import total
from runtime.engine.kinds import Batch, metrics

LARGEST = 700.0


@metrics.part("perplexity")
def perplexity(kept: Tensor, batch: Batch) -> float:
    """Among how many equally likely tokens the model wavered, on average."""
    surprise, _, tokens = kept.double().unbind(1)
    mean = total(surprise.tolist()) / total(tokens.tolist())
    return math.exp(mean) if mean < LARGEST else mean * math.inf


@metrics.part("next_token_accuracy")
def next_token_accuracy(kept: Tensor, batch: Batch) -> float:
    """The share of tokens that were guessed; exact."""
    _, right, tokens = kept.double().unbind(1)
    return total(right.tolist()) / total(tokens.tolist())
