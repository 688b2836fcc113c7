"""What the engine says at each grid step. Values only; packing them into events is done elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class LayerEvidence:
    """Evidence of one layer at a window's last step: norms, and the share of its units that answered no row.

    `gradient` is before clipping; `dead` is None where units cannot be dead.
    """

    name: str
    gradient: float
    weight: float
    update: float
    dead: float | None = None


@dataclass(frozen=True)
class Window:
    """The attempts after step `first` up to step `last`; `losses` and `scalars` are packed float32, little-endian."""

    segment: int
    first: int
    last: int
    losses: bytes
    grad_norm: float
    learning_rate: float
    index_digest: str
    weights_digest: str
    layers: tuple[LayerEvidence, ...]
    finite: bool
    scalars: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """The control metric at an evaluation step, bit for bit, and what follows from it."""

    segment: int
    step: int
    epoch: int
    values: Mapping[str, float]
    metric: str
    improved: bool
    best: float | None
    best_step: int | None
    patience_left: int
    stop: bool


@dataclass(frozen=True)
class Report:
    """One stretch of training up to a grid step; `checkpoint` says whether, and why, the state is to be kept."""

    step: int
    window: Window | None
    evaluation: Evaluation | None
    checkpoint: Literal["", "planned", "best", "final"]
    finished: bool
    stopped_early: bool
