"""How far two ways of computing the same answers are apart, in figures. Whether that is near enough, gates judge."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.engine.ragged import Ragged, apart, some

Columns = Mapping[str, np.ndarray]
Ask = Callable[[Columns], np.ndarray]


@dataclass
class ParityComparison:
    """Sums over everything compared so far."""

    max_abs: float = 0.0
    max_rel: float = 0.0
    reference_max: float = 0.0
    signal: float = 0.0
    noise: float = 0.0
    agreed: int = 0
    decided: int = 0
    worst: str = ""

    def add(self, reference: np.ndarray, said: np.ndarray, where: str) -> None:
        """Take in the answers to one batch."""
        wanted, given = reference.astype(np.float64), said.astype(np.float64)
        apart = np.abs(wanted - given)
        largest = _greatest(apart)
        if not (largest <= self.max_abs or math.isnan(self.max_abs)):
            self.max_abs, self.worst = largest, where
        relative = apart[wanted != 0] / np.abs(wanted[wanted != 0])
        self.max_rel = _greatest(np.append(relative, self.max_rel))
        self.reference_max = _greatest(np.append(np.abs(wanted), self.reference_max))
        self.signal += float(np.square(wanted).sum())
        self.noise += float(np.square(apart).sum())
        if wanted.ndim > 1 and wanted.shape[1] > 1:
            same = wanted.argmax(1) == given.argmax(1)
            self.agreed += int(same.sum())
            self.decided += same.size

    def figures(self) -> dict[str, float]:
        """Everything by name; `argmax_agreement` only where answers choose between classes."""
        found = {
            "max_abs": self.max_abs,
            "max_rel": self.max_rel,
            "reference_max": self.reference_max,
            "sqnr_db": _decibels(self.signal, self.noise),
        }
        return found | ({"argmax_agreement": self.agreed / self.decided} if self.decided else {})


def compare(
    reference: Ask, said: Ask, columns: Mapping[str, np.ndarray | Ragged], rows: int, batches: Sequence[int]
) -> ParityComparison:
    """Ask both about the first `rows` rows, cut into batches of each size."""
    comparison = ParityComparison()
    for size in batches:
        for first in range(0, rows, size):
            batch = apart(some(columns, np.arange(first, min(first + size, rows))))
            wanted, given = reference(batch), said(batch)
            where = f"rows {first} to {min(first + size, rows) - 1} in batches of {size}"
            if wanted.shape != given.shape:
                comparison.max_abs, comparison.worst = math.inf, f"{where}: shape {given.shape}, not {wanted.shape}"
                return comparison
            comparison.add(wanted, given, where)
    return comparison


def accuracy(answers: np.ndarray, truth: np.ndarray) -> float:
    """The share of rows whose largest answer is the right class."""
    return float((answers.argmax(1) == truth.reshape(-1)).mean())


def exact(figures: Mapping[str, Any]) -> dict[str, str]:
    """Figures as hex text, which says infinities too."""
    return {name: value.hex() if math.isfinite(value) else str(value) for name, value in figures.items()}


def _greatest(values: np.ndarray) -> float:
    """The largest; NaN when one is among them."""
    return float(values.max()) if values.size else 0.0


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else (math.nan if math.isnan(signal) else -math.inf)
