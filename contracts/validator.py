"""What the validator says: how good a checkpoint is, judged apart from the training."""

from __future__ import annotations

from typing import Any, Literal

from contracts.event import VALIDATOR, Event, Exact, Hex64


class CheckpointValidated(Event, lane=VALIDATOR, wire="checkpoint.validated"):
    """A checkpoint was judged in a child of its own; `control` says whether the control metric came out the same."""

    segment: int
    step: int
    blob: Hex64
    split: str
    rows: int
    metrics: dict[str, Exact]
    control: Literal["reproduced", "differs", "not-comparable"]
    details: dict[str, Any]


class ValidationFailed(Event, lane=VALIDATOR, wire="validation.failed"):
    """A checkpoint could not be judged."""

    segment: int
    step: int
    blob: Hex64
    code: str
    message: str
