"""What a fork may change of a request, and the rows it may leave out: state, other rows and grid stay. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from contracts.errors import InvalidInput, NotFound, Problem, Refused
from contracts.request import Request
from contracts.request.loss import Embedding, MultiTask
from contracts.request.optimizer import Sgd
from runtime.engine.sampling import SPLIT
from runtime.log.row_names import RowNames, RowPlace
from runtime.replay.comparison import flat

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


def refused_changes(before: Request, after: Request) -> Iterator[Problem]:
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


Runs = tuple[tuple[int, int], ...]
_RANGE = re.compile(r"(?:(train):)?(\d+)-(\d+)")


def training_rows(named: Iterable[str], names: RowNames, rows: int) -> Runs:
    """The places in the training split, from 1, as runs in order; at least one row must be left.

    `NotFound` for a name that no row has, `InvalidInput` for one that is not trained on.
    """
    found = joined_runs(run for name in named for run in _runs(name.strip(), names))
    if sum(last - first + 1 for first, last in found) >= rows:
        raise Refused("no row is left to train on.", cure="Leave out fewer rows.", path="--without")
    return found


def joined_runs(runs: Iterable[tuple[int, int]]) -> Runs:
    """The same rows as runs in order, none of which touch."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(runs):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return tuple(found)


def _runs(name: str, names: RowNames) -> Iterator[tuple[int, int]]:
    span = _RANGE.fullmatch(name)
    if span is None:
        yield _one(name, names)
        return
    first, last = int(span[2]), int(span[3])
    if span[1]:
        begin, end = (names.find(f"{SPLIT}:{row}").row for row in (first, last))
        run: tuple[int, int] | None = (begin, end) if begin <= end else None
    else:
        run = names.between(SPLIT, first, last)
    if run is None:
        message = f"no row of the training split lies in {name!r}."
        raise NotFound(message, cure="See where a row is: swarm trace S --row ID", path="--without")
    yield run


def _one(name: str, names: RowNames) -> tuple[int, int]:
    try:
        place: RowPlace = names.find(name)
    except NotFound:
        aside = names.aside(name)
        if aside is None:
            raise
        message = f"{aside['where']}: it was set aside as {aside['kind']} and is in no split."
        raise InvalidInput(message, cure="Leave it out of this list.", path="--without") from None
    if place.split != SPLIT:
        message = f"{name!r} is {place}, which is never trained on."
        raise InvalidInput(message, cure="Leave it out of this list: only training rows can be.", path="--without")
    return place.row, place.row
