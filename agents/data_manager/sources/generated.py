"""Generated sets, by keyed draws: the same arguments give the same rows on every machine."""

from __future__ import annotations

import json
import math

import numpy as np
from blake3 import blake3

from agents.data_manager.findings import Findings
from agents.data_manager.table import Table
from contracts.request.data import Blobs, Circles
from runtime.engine.chance import mix, uniform

GENERATION = 1
"""Raised when the same arguments would give other rows."""

_CENTERS, _NOISE = 1, 2
_GRID = 2.0**20


class Generated:
    """One generated set; its digest is that of its arguments."""

    def __init__(self, data: Blobs | Circles) -> None:
        self.name: str = data.source
        self._data = data
        about = data.model_dump(mode="json", exclude={"split"}) | {"generation": GENERATION}
        self.digest = str(blake3(json.dumps(about, sort_keys=True).encode()).hexdigest())

    def read(self, findings: Findings) -> Table:
        """All rows; the classes take turns."""
        data = self._data
        y = np.arange(data.rows, dtype=np.int64) % (data.classes if isinstance(data, Blobs) else 2)
        x = _blobs(data, y) if isinstance(data, Blobs) else _circles(data, y)
        return Table("classification", {"x": x.astype(np.float32), "y": y}, tuple(map(str, range(int(y.max()) + 1))))


def _blobs(data: Blobs, y: np.ndarray) -> np.ndarray:
    places = uniform(mix(data.seed, _CENTERS), data.classes * data.features).astype(np.float64)
    centers = (places * 20 - 10).reshape(data.classes, data.features)
    found: np.ndarray = centers[y] + data.spread * _normal(data.seed, (data.rows, data.features))
    return found


def _circles(data: Circles, y: np.ndarray) -> np.ndarray:
    turn = np.arange(data.rows) // 2 * (4 * math.pi / data.rows)
    # Sines differ in their last bits from machine to machine; on this grid they do not.
    ring = np.round(np.stack([np.cos(turn), np.sin(turn)], axis=1) * _GRID) / _GRID
    radius = np.where(y == 0, 1.0, data.factor)[:, None]
    found: np.ndarray = ring * radius + data.noise * _normal(data.seed, (data.rows, 2))
    return found


def _normal(seed: int, shape: tuple[int, int]) -> np.ndarray:
    """Sums of twelve uniforms: nearly normal, and exact, which logarithms and cosines are not."""
    found = np.full(math.prod(shape), -6.0)
    for part in range(12):
        found += uniform(mix(seed, _NOISE, part), found.size)
    return found.reshape(shape)
