"""What a fork may change of a request: all that leaves the shape of the state, the rows and the grid alone. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from contracts.errors import Problem
from contracts.request import Request
from contracts.request.loss import Embedding, MultiTask
from contracts.request.optimizer import Sgd
from contracts.request.reading import flat

ROWS, STATE, GRID, WORDS = (
    "the rows are those of the parent",
    "the state has the shape that it was trained in",
    "steps are cut as the parent's are",
    "the parent's request has everything written out",
)
FIXED: Mapping[str, str] = {
    "data": ROWS,
    "model": STATE,
    "training.batch_size": GRID,
    "training.accumulate": GRID,
    "training.device": GRID,
    "training.threads": GRID,
    "training.precision": STATE,
    "checkpoints.every_steps": GRID,
    "validation.every_epochs": GRID,
    "reproducibility.deterministic": GRID,
    "mode": WORDS,
    "request_id": WORDS,
}
"""What never changes, by path, with the reason."""

MAY = (
    "A fork may change the learning rate and the optimizer's other numbers, schedule, sampler, augmentation, "
    "loss weights, epochs, clipping, early stopping, seed, metrics, what is kept, diagnosed and exported."
)


def refused(before: Request, after: Request) -> Iterator[Problem]:
    """Every change that a fork cannot make, each with the reason."""
    old, new = flat(before.resolved()), flat(after.resolved())
    changed = [path for path in dict.fromkeys([*old, *new]) if old.get(path) != new.get(path)]
    told: dict[str, str] = {}
    for path in changed:
        fixed = next((one for one in FIXED if path == one or path.startswith(f"{one}.")), None)
        if fixed is not None:
            told[path] = FIXED[fixed]
    shapes = shape(before), shape(after)
    told |= {path: STATE for path in shapes[0] | shapes[1] if shapes[0].get(path) != shapes[1].get(path)}
    for path, reason in told.items():
        yield Problem(path, f"a fork cannot change it: {reason}", MAY)


def shape(request: Request) -> dict[str, Any]:
    """What the names and shapes of the state's tensors follow from, besides data and model."""
    optimizer, loss = request.optimizer, request.loss
    return {
        "optimizer.type": optimizer.type,
        "optimizer.groups": [one.parameters for one in optimizer.groups],
        "optimizer.momentum": isinstance(optimizer, Sgd) and optimizer.momentum > 0,
        "gradients": [one.type for one in request.gradients],
        "training.ema.decay": request.training.ema.decay > 0,
        "loss.type": loss.learns,
        "loss.width": loss.width if isinstance(loss, Embedding) else None,
        "loss.terms": len(loss.terms) if isinstance(loss, MultiTask) and loss.adaptive else None,
    }
