"""A training request: everything a session is asked to do, as one frozen value. It carries no code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from contracts.request.augment import Augment
from contracts.request.checkpoints import Checkpoints
from contracts.request.data import Data
from contracts.request.diagnosis import Diagnosis
from contracts.request.early_stopping import EarlyStopping
from contracts.request.export import Export
from contracts.request.gradients import Gradient
from contracts.request.loss import AutoLoss, Loss
from contracts.request.model import Model
from contracts.request.optimizer import AdamW, Optimizer
from contracts.request.reproducibility import Reproducibility
from contracts.request.sampler import Sampler, Uniform
from contracts.request.schedule import Constant, Schedule
from contracts.request.section import Name, Section, with_default_kind
from contracts.request.training import Training
from contracts.request.validation import Validation

MODES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "baseline": {"training": {"epochs": 20}, "early_stopping": {"patience": 10}},
    "optimization": {"training": {"epochs": 50}},
    "production": {"training": {"epochs": 100}, "validation": {"test_set": True}},
}
"""What a mode means: defaults for other sections. What a request says itself wins."""


class Request(Section):
    """One training session as asked for; `resolved()` is its JSON form with every default written out."""

    name: Name = "training"
    request_id: str | None = Field(None, min_length=1, max_length=200)
    mode: Literal["baseline", "optimization", "production"] = "baseline"
    data: Data
    model: Model
    loss: Loss = AutoLoss()
    optimizer: Optimizer = AdamW()
    schedule: Schedule = Constant()
    gradients: tuple[Gradient, ...] = Field((), max_length=16)
    sampler: Sampler = Uniform()
    augment: tuple[Augment, ...] = Field((), max_length=16)
    training: Training = Training()
    early_stopping: EarlyStopping = EarlyStopping()
    reproducibility: Reproducibility = Reproducibility()
    checkpoints: Checkpoints = Checkpoints()
    validation: Validation = Validation()
    diagnosis: Diagnosis = Diagnosis()
    export: Export = Export()

    @model_validator(mode="before")
    @classmethod
    def _mode_fills_gaps(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        filled = dict(raw)
        for section, defaults in MODES.get(str(raw.get("mode", "baseline")), {}).items():
            given = raw.get(section, {})
            if isinstance(given, Mapping):
                filled[section] = {**defaults, **given}
        return filled

    @field_validator("loss", "optimizer", "schedule", "sampler", mode="before")
    @classmethod
    def _kind_may_be_left_out(cls, given: Any, info: ValidationInfo) -> Any:
        return with_default_kind(given, cls.model_fields[str(info.field_name)])

    def resolved(self) -> dict[str, Any]:
        """The JSON form with defaults written out and every `auto` kept; reading it gives this request again."""
        return self.model_dump(mode="json")
