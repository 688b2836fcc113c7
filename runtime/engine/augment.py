"""Rows changed by chance: what a request names, carried out on whole batches, or a workload's way, row by row.

Every draw is keyed by seed, row and which coming of the row it is, never by batch or worker: the same row is changed
in the same way wherever it comes to stand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from contracts.errors import InvalidRequest, Problem
from contracts.request.sampler import OF_IMAGES, Augment
from runtime.engine import kinds
from runtime.engine.chance import Draw, Stream, extended, mix
from runtime.engine.draws import Draws
from runtime.engine.facts import Facts
from runtime.engine.kinds import Spread
from runtime.engine.ragged import Ragged, apart, together
from runtime.engine.standard import per_feature

Columns = dict[str, Tensor]
ByRow = Callable[[dict[str, np.ndarray], Draw], dict[str, np.ndarray]]
"""How a workload changes one row."""


class AugmentationChain:
    """The parts that a request names, one after another."""

    def __init__(self, options: Sequence[Augment], facts: Facts, seed: int) -> None:
        self._changes = [(kinds.augmentations.of(one), one) for one in options]
        self._key = np.array([mix(seed, Stream.CHANGE)], np.uint64)
        self._usual = Spread(per_feature(facts.mean, facts), per_feature(facts.scale, facts))

    def __call__(self, columns: Columns, turns: np.ndarray, rows: Tensor) -> Columns:
        """The columns with `x` changed, as numbers of 32 bits."""
        keys = extended(extended(self._key, turns), rows.cpu().numpy())
        x = columns["x"].float()
        self._usual = Spread(*(one.to(x.device) for one in self._usual))
        for position, (change, options) in enumerate(self._changes):
            x = change(options, x, Draws(extended(keys, position), x.device), self._usual)
        return {**columns, "x": x}


class RowByRow:
    """A workload's `augment`, which is handed one row and one `Draw` at a time."""

    def __init__(self, augment: ByRow, seed: int) -> None:
        self._augment, self._seed = augment, seed

    def __call__(self, columns: Columns, turns: np.ndarray, rows: Tensor) -> Columns:
        """The columns with every row changed; their types stay."""
        device = next(iter(columns.values())).device
        fixed, ragged = together({name: one.cpu().numpy() for name, one in columns.items()})
        samples = [
            {name: column[at] for name, column in fixed.items()} | {name: one.row(at) for name, one in ragged.items()}
            for at in range(len(rows))
        ]
        drawn = zip(turns.tolist(), rows.tolist(), samples, strict=True)
        changed = [self._augment(sample, Draw(self._seed, turn, row)) for turn, row, sample in drawn]
        types = {name: column.dtype for name, column in fixed.items()}
        types |= {name: column.values.dtype for name, column in ragged.items()}
        joined = {
            name: Ragged.of([one[name] for one in changed])
            if name in ragged
            else np.stack([one[name] for one in changed])
            for name in changed[0]
        }
        return {
            name: torch.from_numpy(column.astype(types.get(name, column.dtype))).to(device)
            for name, column in apart(joined).items()
        }


def check_augment(options: Sequence[Augment], facts: Facts) -> None:
    """Raises `InvalidRequest` when rows of this shape cannot be changed so."""
    if not options:
        return
    x = facts.columns.get("x")
    if x is None or -1 in x.shape or facts.task == "sequences":
        message = "there is no column `x` of numbers, equally many in every row"
        raise InvalidRequest([Problem("augment", message, "Leave `augment` out, or let a workload change rows.")])
    problems = [
        Problem(f"augment.{at}.type", f"{one.type} needs images, and a row has the shape {list(x.shape)}", _CURE)
        for at, one in enumerate(options)
        if isinstance(one, OF_IMAGES) and len(x.shape) != 3
    ]
    if problems:
        raise InvalidRequest(problems)


_CURE = "Choose noise, drop or jitter."
