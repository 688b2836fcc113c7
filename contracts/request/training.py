"""How long, how large and on what training runs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contracts.request.section import AutoWhole, Real, Section, Whole

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["fp32", "bf16", "fp16"]


class Ema(Section):
    """A running average of the weights, which keeps `decay` of itself at each step; 0 means none.

    While training is young it keeps less. With `use`, evaluations, loaded and exported models have the average.
    """

    decay: Real = Field(0.0, ge=0, lt=1)
    use: bool = True


class Training(Section):
    """A step is one update over `batch_size` x `accumulate` rows; `grad_clip: null` leaves gradients as they are.

    `recompute` keeps little of each forward pass and computes the rest again: less memory, more time, the same bits.
    """

    epochs: Whole = Field(20, ge=1, le=1_000_000)
    batch_size: Whole = Field(64, ge=1, le=1_000_000)
    accumulate: Whole = Field(1, ge=1, le=10_000)
    device: Device = "auto"
    precision: Precision = "fp32"
    grad_clip: Real | None = Field(1.0, gt=0, le=1e9)
    threads: AutoWhole = "auto"
    ema: Ema = Ema()
    recompute: bool = False
