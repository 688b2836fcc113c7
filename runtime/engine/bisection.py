"""Which rows made an attempt's loss or gradient something other than finite numbers: by halves, with the same weights.

Everything here is a function of the state that a run is in and of its plan. Nothing is moved but by `unsound_attempt`,
which trains; user code that keeps something outside buffers is seen as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from runtime.engine.batches import BatchRows
from runtime.engine.parts.gradients import norms_of
from runtime.engine.plan import StepSettings
from runtime.engine.step import Part, TrainingSetup, attempt, descend

MOST_PASSES = 4096
"""Forward and backward passes of one search; beyond them it has found nothing."""

MOST_SHARE = 0.25
"""Of the rows of an attempt: when more are named the weights are at fault, and no row is."""


def unsound_attempt(
    setup: TrainingSetup, parts: Sequence[Sequence[Part]], course: Callable[[int], StepSettings], first: int
) -> int | None:
    """How many of these attempts after `first` finished ones are sound before the first that is not; None when all are.

    An attempt is sound when its loss is finite, and its gradient is, unless the number format skips such an update.
    """
    for at, micro in enumerate(parts):
        felt = attempt(setup, course(first + at), micro, look=True)
        skips = bool(setup.number_format.tensors())
        if not bool(torch.isfinite(felt.loss)) or not (skips or felt.norm is None or bool(torch.isfinite(felt.norm))):
            return at
    return None


class RowSearch:
    """Looks for the rows without which attempts are sound, all under the weights that the setup has now."""

    def __init__(self, setup: TrainingSetup) -> None:
        self._setup = setup
        self._buffers = [(buffer, buffer.detach().clone()) for buffer in setup.model.buffers()]
        self._left = MOST_PASSES
        self.looked = 0

    def named(self, parts: Sequence[Part]) -> tuple[int, ...]:
        """The rows of an attempt, from 0, without which it is sound; none when no few rows are the reason."""
        self.looked += sum(len(rows.rows) for _, rows in parts)
        parts = [(seed, rows) for seed, rows in parts if len(rows.rows)]
        found = {row for seed, rows in parts for row in self._halved(seed, _SomeRows.of(rows))}
        most = max(1, int(MOST_SHARE * sum(len(rows.rows) for _, rows in parts)))
        if not found or len(found) > most or self._left <= 0:
            return ()
        rest = [(seed, _SomeRows.of(rows).without(found)) for seed, rows in parts]
        # Rows that are fine one by one may not be fine together.
        return tuple(sorted(found)) if all(self._is_sound(seed, rows) for seed, rows in rest if rows.places) else ()

    def _halved(self, seed: int, rows: _SomeRows) -> list[int]:
        if self._is_sound(seed, rows):
            return []
        if len(rows.places) == 1:
            return rows.numbers()
        middle = len(rows.places) // 2
        halves = _SomeRows(rows.whole, rows.places[:middle]), _SomeRows(rows.whole, rows.places[middle:])
        return [row for half in halves for row in self._halved(seed, half)]

    def _is_sound(self, seed: int, rows: _SomeRows) -> bool:
        """Whether loss and gradient over these rows alone are finite; when passes have run out, all seems sound."""
        if self._left <= 0:
            return True
        self._left -= 1
        loss, _ = descend(self._setup, [(seed, rows.batch())])
        _, gradients = self._setup.movement.gradients()
        sound = bool(torch.isfinite(loss)) and (not gradients or bool(torch.isfinite(norms_of(gradients)[1])))
        for parameter in self._setup.movement.parameters:
            parameter.grad = None
        with torch.no_grad():
            for buffer, before in self._buffers:
                buffer.copy_(before)
        return sound


class _SomeRows:
    """Some rows of a batch, by where they stand in it."""

    def __init__(self, whole: BatchRows, places: Sequence[int]) -> None:
        self.whole, self.places = whole, places

    @classmethod
    def of(cls, whole: BatchRows) -> _SomeRows:
        return cls(whole, range(len(whole.rows)))

    def numbers(self) -> list[int]:
        """Their numbers in the split, from 0."""
        return [int(self.whole.rows[place]) for place in self.places]

    def without(self, numbers: set[int]) -> _SomeRows:
        pairs = zip(self.places, self.numbers(), strict=True)
        return _SomeRows(self.whole, [place for place, number in pairs if number not in numbers])

    def batch(self) -> BatchRows:
        """They as a batch; one row comes twice, because statistics over a batch need two."""
        places = list(self.places) * (2 if len(self.places) == 1 else 1)
        at = torch.tensor(places, device=self.whole.rows.device)
        stand = np.asarray(places) if self.whole.stand is None else self.whole.stand[places]
        return BatchRows(self.whole.rows[at], self.whole.position, stand)
