"""What a training that is under way may change of its request: all that leaves state, rows and grid alone."""

from collections.abc import Iterator, Mapping

from contracts.errors import Problem
from contracts.request.loss import Embedding, MultiTask
from contracts.request.optimizer import Sgd
from contracts.request.reading import flat
from contracts.request.request import Request

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

DROPOUT = "model.dropout"
"""The one number of a model that no tensor's name or shape follows from, as long as there is any dropout."""

MAY = (
    "A fork may change the learning rate and the optimizer's other numbers, dropout, schedule, sampler, augmentation, "
    "loss weights, epochs, clipping, early stopping, seed, metrics, what is kept, diagnosed and exported."
)


def refused_changes(before: Request, after: Request) -> Iterator[Problem]:
    """Every change that a fork cannot make, each with the reason."""
    old, new = flat(before.resolved()), flat(after.resolved())
    changed = [path for path in dict.fromkeys([*old, *new]) if old.get(path) != new.get(path)]
    told: dict[str, str] = {}
    for path in changed:
        fixed = next((one for one in FIXED if path == one or path.startswith(f"{one}.")), None)
        if fixed is not None and path != DROPOUT:
            told[path] = FIXED[fixed]
    shapes = shape(before), shape(after)
    told |= {path: STATE for path in shapes[0] | shapes[1] if shapes[0].get(path) != shapes[1].get(path)}
    for path, reason in told.items():
        yield Problem(path, f"a fork cannot change it: {reason}", MAY)


def shape(request: Request) -> dict[str, object]:
    """What the names and shapes of the state's tensors follow from, besides data and the rest of the model."""
    optimizer, loss = request.optimizer, request.loss
    return {
        DROPOUT: getattr(request.model, "dropout", 0) > 0,
        "optimizer.type": optimizer.type,
        "optimizer.groups": [one.parameters for one in optimizer.groups],
        "optimizer.momentum": isinstance(optimizer, Sgd) and optimizer.momentum > 0,
        "gradients": [one.type for one in request.gradients],
        "training.ema.decay": request.training.ema.decay > 0,
        "loss.type": loss.learns,
        "loss.width": loss.width if isinstance(loss, Embedding) else None,
        "loss.terms": len(loss.terms) if isinstance(loss, MultiTask) and loss.adaptive else None,
    }
