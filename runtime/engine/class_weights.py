"""How much each class counts in a loss: as the request says, or by how rare it is. On average over rows it is 1."""

from __future__ import annotations

import torch
from torch import Tensor

from contracts.errors import InvalidRequest, Problem
from contracts.request.loss import ClassWeights
from runtime.engine.facts import Facts
from runtime.engine.placed import DeviceConstant

PLACE = "loss.class_weights"


def class_weights(chosen: ClassWeights, facts: Facts) -> DeviceConstant | None:
    """One weight per class; None when all are equal. Raises `InvalidRequest` when there are too few or too many."""
    if chosen == "equal":
        return None
    if chosen == "balanced":
        return DeviceConstant(_balanced(facts))
    if len(chosen) != facts.outputs:
        message = f"there are {len(chosen)} weights, and {facts.outputs} classes"
        raise InvalidRequest([Problem(PLACE, message, "Give one weight per class, or `balanced`.")])
    return DeviceConstant(torch.tensor(chosen, dtype=torch.float32))


def _balanced(facts: Facts) -> Tensor:
    """Rows over classes over rows of the class; a class without rows counts nothing."""
    if len(facts.counts) != facts.outputs:
        message = "how often each class occurs was not counted when this data was prepared"
        raise InvalidRequest([Problem(PLACE, message, "Give the weights as a list.")])
    present = sum(count > 0 for count in facts.counts)
    total = sum(facts.counts)
    return torch.tensor([total / (present * count) if count else 0.0 for count in facts.counts], dtype=torch.float32)
