"""The gradients of a team, the processes that train one session together, as one gradient. Nothing is sent here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from contracts.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class RankGradients:
    """What one rank brings to a step: the gradient of the mean loss over its own rows.

    `held` are the places of the parameters that have a gradient, ascending, and `gradients` theirs. A rank without rows
    brings none.
    """

    rank: int
    rows: int
    held: Sequence[int]
    gradients: list[Tensor]


Gather = Callable[[RankGradients], Sequence[RankGradients]]
"""Takes what this rank brings and returns what all ranks bring, in any order."""


def alone(own: RankGradients) -> Sequence[RankGradients]:
    """The `Gather` of a team of one."""
    return (own,)


def reduce_gradients(brought: Sequence[RankGradients], world_size: int) -> tuple[Sequence[int], list[Tensor]]:
    """The gradient of the mean loss over the rows of all ranks, and the places of its parameters, ascending.

    Each gradient is multiplied by its rank's share of the rows, and the products are added one by one by rank, from 0,
    each with the rounding of its own type. So the bits depend neither on the order in which gradients arrive nor on the
    rank that adds them. A rank without a gradient for a parameter adds nothing to it. A team of one gets back the very
    tensors that it brought. Raises `InvalidInput` unless every rank from 0 to before `world_size` is there once.
    """
    if world_size == 1 and len(brought) == 1 and brought[0].rank == 0:
        return brought[0].held, brought[0].gradients
    ordered = sorted(brought, key=lambda one: one.rank)
    if (ranks := [one.rank for one in ordered]) != list(range(world_size)):
        message = f"a team of {world_size} cannot add up the gradients of the ranks {ranks!r}"[:200]
        raise InvalidInput(message, cure=f"Bring one of each rank from 0 to {world_size - 1}.")
    rows = sum(one.rows for one in ordered)
    total: dict[int, Tensor] = {}
    with torch.no_grad():
        for one in ordered:
            # Two operations, each rounded: a fused one would round once on some machines and twice on others.
            for place, gradient in zip(one.held, one.gradients, strict=True):
                share = gradient * (one.rows / rows)
                total[place] = total[place].add_(share) if place in total else share
    held = sorted(total)
    return held, [total[place] for place in held]
