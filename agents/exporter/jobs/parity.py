"""How far two ways of computing the same answers are apart, and when that is near enough for a file to count. Pure."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from runtime.engine.ragged import Ragged, apart, some

Columns = Mapping[str, np.ndarray]
Ask = Callable[[Columns], np.ndarray]
"""Asks a file or a model: columns in, answers out."""

ROWS = 64
"""Rows that a comparison needs at least."""

BATCHES = (1, 2, 7, 32)
"""Batch sizes that an exported file must answer at."""

_ABSOLUTE = 1e-4
_SQNR = {"": 80.0, "fp16": 50.0, "int8": 25.0}
"""Decibels that are needed; of integers only where the task has no accuracy to judge them by."""

_LOST_ACCURACY = 0.01
_LOST_ROWS = 2


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
        if self.noise == 0:
            ratio = math.inf
        elif self.signal > 0:
            ratio = 10 * math.log10(self.signal / self.noise)
        else:
            ratio = math.nan if math.isnan(self.signal) else -math.inf
        figures = {
            "max_abs": self.max_abs,
            "max_rel": self.max_rel,
            "reference_max": self.reference_max,
            "sqnr_db": ratio,
        }
        return figures | ({"argmax_agreement": self.agreed / self.decided} if self.decided else {})


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


def exact(figures: Mapping[str, float]) -> dict[str, str]:
    """Figures as hex text, which says infinities too."""
    return {name: value.hex() if math.isfinite(value) else str(value) for name, value in figures.items()}


def _greatest(values: np.ndarray) -> float:
    """The largest; NaN when one is among them."""
    return float(values.max()) if values.size else 0.0


def objection(form: str, quantize: str, figures: Mapping[str, float], rows: int) -> str:
    """Why the figures do not prove the file, or nothing.

    Weights must give the very same numbers. Other full-precision files may differ by rounding, judged against the
    size of the answers and never by relative errors alone, because answers cross zero. Integers are judged by the task.
    """
    largest, ratio = figures["max_abs"], figures["sqnr_db"]
    if not all(math.isfinite(figures[name]) for name in ("max_abs", "reference_max")):
        return "the answers are not finite numbers"
    if form == "safetensors":
        return "" if largest == 0 else f"answers differ by up to {largest:.3g}"
    if quantize == "int8" and "accuracy" in figures:
        lost = figures["reference_accuracy"] - figures["accuracy"]
        # On few rows a point of accuracy is less than one row.
        most = max(_LOST_ACCURACY, _LOST_ROWS / rows)
        return f"accuracy falls by {100 * lost:.2f} points, and {100 * most:.2f} are allowed" if lost > most else ""
    most = _ABSOLUTE * max(1.0, figures["reference_max"])
    if not quantize and largest > most:
        return f"answers differ by up to {largest:.3g}, and {most:.3g} is allowed"
    least = _SQNR[quantize]
    return "" if ratio >= least else f"the signal-to-noise ratio is {ratio:.1f} dB, and {least:.0f} dB are needed"


def warning(quantize: str, figures: Mapping[str, float]) -> str:
    """What should be known about a file that passed."""
    if quantize == "int8" and figures["sqnr_db"] < _SQNR["int8"]:
        return f"the signal-to-noise ratio is only {figures['sqnr_db']:.1f} dB; judge it by your own task's metric"
    return ""
