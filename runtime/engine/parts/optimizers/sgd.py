"""Stochastic gradient descent with momentum, by torch's fused kernel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from contracts.request.optimizer import Sgd
from runtime.engine.kinds import Memory, Mover, optimizers


def memory(options: Sgd, parameters: Sequence[Tensor]) -> Memory:
    """One velocity tensor of zeros per parameter when there is momentum, else nothing."""
    return Memory({"velocity": [torch.zeros_like(one) for one in parameters]} if options.momentum else {})


def update(options: Sgd, parameters: list[Tensor], gradients: list[Tensor], memory: Memory, rate: float) -> None:
    """The same bits as `torch.optim.SGD(fused=True)`."""
    torch._fused_sgd_(
        parameters,
        gradients,
        memory.each.get("velocity", []),
        lr=rate,
        weight_decay=options.weight_decay,
        momentum=options.momentum,
        dampening=0.0,
        nesterov=options.nesterov,
        maximize=False,
        is_first_step=False,
    )


optimizers.part(Sgd)(Mover(memory, update))
