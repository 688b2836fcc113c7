"""Turns the engine's reports into the events that are recorded: the same code for training and for audits."""

from __future__ import annotations

from typing import Literal

from contracts.event import pack
from contracts.trainer import CheckpointWritten, ControlEvaluated, Layer, WindowRecorded, evidence
from runtime.engine.checkpoint import CheckpointContent
from runtime.engine.report import Evaluation, Window

Reason = Literal["planned", "best", "final", "drain", "timed"]


def window(seen: Window) -> WindowRecorded:
    """The event `window.recorded` for a window that the engine reports."""
    layers = [Layer(one.name, one.gradient, one.weight, one.update, one.dead) for one in seen.layers]
    return WindowRecorded(
        segment=seen.segment,
        first=seen.first,
        last=seen.last,
        losses=pack(seen.losses),
        gradient_norm=seen.grad_norm,
        learning_rate=seen.learning_rate,
        index_digest=seen.index_digest,
        weights_digest=seen.weights_digest,
        finite=seen.finite,
        **evidence(layers),
        scalars={name: pack(values) for name, values in seen.scalars.items()},
    )


def evaluation(seen: Evaluation) -> ControlEvaluated:
    """The event `control.evaluated` for an evaluation that the engine reports."""
    return ControlEvaluated(
        segment=seen.segment,
        step=seen.step,
        epoch=seen.epoch,
        values=dict(seen.values),
        metric=seen.metric,
        improved=seen.improved,
        best=seen.best,
        best_step=seen.best_step,
        patience_left=seen.patience_left,
        stop=seen.stop,
    )


def written(sealed: CheckpointContent, segment: int, reason: Reason, *, blob: str, size: int) -> CheckpointWritten:
    """The event `checkpoint.written` for state that was kept as a blob."""
    return CheckpointWritten(
        segment=segment,
        step=sealed.step,
        reason=reason,
        state_root=sealed.state_root,
        weights_digest=sealed.weights_digest,
        blob=blob,
        bytes=size,
    )
