"""When an exported file counts as the model that was trained: pure rules over the figures of a comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping

ROWS = 64
"""Rows that a comparison needs at least."""

BATCHES = (1, 2, 7, 32)
"""Batch sizes that an exported file must answer at."""

_ABSOLUTE = 1e-4
_SQNR = {"": 80.0, "fp16": 50.0}
_SQNR_WANTED_OF_INT8 = 25.0
_LOST_ACCURACY = 0.01
_LOST_ROWS = 2


def objection(form: str, quantize: str, figures: Mapping[str, float], rows: int) -> str:
    """Why the figures do not prove the file, or nothing.

    Weights must give the very same numbers. Other full-precision files may differ by rounding, judged against the
    size of the answers and never by relative errors alone, because answers cross zero. Integers are judged by the task.
    """
    if not all(math.isfinite(figures[name]) for name in ("max_abs", "reference_max")):
        return "the answers are not finite numbers"
    if form == "safetensors":
        return "" if figures["max_abs"] == 0 else f"answers differ by up to {figures['max_abs']:.3g}"
    if quantize == "int8":
        return _of_integers(figures, rows)
    most = _ABSOLUTE * max(1.0, figures["reference_max"])
    if not quantize and figures["max_abs"] > most:
        return f"answers differ by up to {figures['max_abs']:.3g}, and {most:.3g} is allowed"
    return _too_noisy(figures, _SQNR[quantize])


def warning(quantize: str, figures: Mapping[str, float]) -> str:
    """What should be known about a file that passed."""
    if quantize == "int8" and figures["sqnr_db"] < _SQNR_WANTED_OF_INT8:
        return f"the signal-to-noise ratio is only {figures['sqnr_db']:.1f} dB; judge it by your own task's metric"
    return ""


def _too_noisy(figures: Mapping[str, float], least: float) -> str:
    found = figures["sqnr_db"]
    return "" if found >= least else f"the signal-to-noise ratio is {found:.1f} dB, and {least:.0f} dB are needed"


def _of_integers(figures: Mapping[str, float], rows: int) -> str:
    if "accuracy" not in figures:
        return _too_noisy(figures, _SQNR_WANTED_OF_INT8)
    lost = figures["reference_accuracy"] - figures["accuracy"]
    # On few rows a point of accuracy is less than one row.
    most = max(_LOST_ACCURACY, _LOST_ROWS / rows)
    return f"accuracy falls by {100 * lost:.2f} points, and {100 * most:.2f} are allowed" if lost > most else ""
