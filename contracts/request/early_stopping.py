"""When training ends before its last step, judged by the control metric alone."""

from __future__ import annotations

from pydantic import Field, field_validator

from contracts.request.section import Real, Section, Whole, refused


class EarlyStopping(Section):
    """Stop after `patience` evaluations in which `metric` did not get better by more than `min_delta`."""

    enabled: bool = True
    patience: Whole = Field(10, ge=1, le=1_000_000)
    metric: str = Field("val_loss", max_length=64)
    min_delta: Real = Field(0.0, ge=0, le=1e9)

    @field_validator("metric")
    @classmethod
    def _is_control_metric(cls, metric: str) -> str:
        if not metric.startswith("val_") or not metric[4:].isidentifier():
            cure = f"Write 'val_{metric}'." if metric.isidentifier() else "Write val_loss, or val_ and a metric's name."
            raise refused(f"{metric!r} is not a control metric", cure)
        return metric
