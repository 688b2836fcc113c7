"""What can be said of an image by looking at its grey values: how sharp, how rich in contrast, how complex it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from contracts.request.data import ImageQuality


@dataclass(frozen=True)
class Looks:
    """An image's measures; the units are those of `ImageQuality`."""

    side: int
    sharpness: float
    contrast: float
    complexity: float

    @classmethod
    def of(cls, grey: np.ndarray) -> Looks:
        """The measures of grey values from 0 to 255, in exact sums until the last division."""
        values = grey.astype(np.int32)
        counts = np.bincount(grey.reshape(-1), minlength=256)
        shares = counts[counts > 0] / grey.size
        return cls(
            min(grey.shape),
            _variance(_laplacian(values)) if min(grey.shape) > 2 else 0.0,
            float(np.sqrt(_variance(values))),
            float(-(shares * np.log2(shares)).sum()),
        )

    def lacks(self, wanted: ImageQuality) -> tuple[str, str] | None:
        """The first thing that an image lacks: the kind of finding, and how much there is of it."""
        measures = (
            ("too-small", "the shorter side", self.side, wanted.min_side),
            ("blurred", "the sharpness", self.sharpness, wanted.min_sharpness),
            ("flat", "the contrast", self.contrast, wanted.min_contrast),
            ("plain", "the complexity", self.complexity, wanted.min_complexity),
        )
        for kind, what, found, least in measures:
            if found < least:
                return kind, f"{what} is {found:.4g}, wanted {least:g}"
        return None


def _laplacian(values: np.ndarray) -> np.ndarray:
    inner = values[1:-1, 1:-1]
    around = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:]
    found: np.ndarray = around - 4 * inner
    return found


def _variance(values: np.ndarray) -> float:
    total, squares = int(values.sum(dtype=np.int64)), int(np.square(values, dtype=np.int64).sum())
    return (squares * values.size - total * total) / values.size**2
