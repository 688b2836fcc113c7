"""Adam with decoupled weight decay, by torch's fused kernel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from contracts.request.optimizer import AdamW
from runtime.engine.kinds import Memory, Mover, optimizers


def memory(options: AdamW, parameters: Sequence[Tensor]) -> Memory:
    """Two moments per parameter and one step counter for the group."""
    moments = ("first_moment", "second_moment")
    each = {name: [torch.zeros_like(one) for one in parameters] for name in moments}
    return Memory(each, {"step": torch.zeros((), dtype=torch.float32, device=parameters[0].device)})


def update(options: AdamW, parameters: list[Tensor], gradients: list[Tensor], memory: Memory, rate: float) -> None:
    """The same bits as `torch.optim.AdamW(fused=True)`."""
    step = memory.shared["step"].add_(1)
    torch._fused_adamw_(
        parameters,
        gradients,
        memory.each["first_moment"],
        memory.each["second_moment"],
        [],
        [step] * len(parameters),
        lr=rate,
        beta1=options.betas[0],
        beta2=options.betas[1],
        weight_decay=options.weight_decay,
        eps=options.epsilon,
        amsgrad=False,
        maximize=False,
    )


optimizers.part(AdamW)(Mover(memory, update))
