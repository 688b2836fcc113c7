"""The events that are recorded of a computation, and the first field in which a computed one differs. Pure.

The same code makes the events of a training and of an audit. A process that computes may run code of the user's, so it
only tells; what it tells is compared in one that never does.
"""

from __future__ import annotations

import base64
from collections.abc import Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from contracts import trainer
from contracts.event import pack
from contracts.findings import SpanDivergence
from runtime.replay.spans import RecordedBisection, SpanRecord, SpanSpec

if TYPE_CHECKING:
    from runtime.engine.checkpoint import CheckpointContent
    from runtime.engine.report import Evaluation, SensorReadings, Window
    from runtime.replay.jobs import NamedRows, SpanEnd


ORDER = (
    "segment",
    "last",
    "index_digest",
    "learning_rate",
    "losses",
    "gradient_norm",
    "layer_names",
    "layer_figures",
    "scalars",
    "sensors",
    "finite",
    "values",
    "state_root",
    "weights_digest",
)
"""Causes before their effects: the first field of these that differs says most."""

ENDING = ("stopped_early", "best_step", "weights_digest", "state_root")
"""What is computed again of a session's account of its completion."""

INCIDENTAL = frozenset({"reason"})
"""Why a checkpoint was kept is no part of what was computed: a resumed run may keep the same state for another."""

_LONGEST = 200


class SpanComparison:
    """The records of a span, beside what a process tells as it computes the span again."""

    def __init__(self, span: SpanSpec) -> None:
        self._span = span
        self._records = by_place(span.records)
        self._open = set(self._records)
        self._unnamed = {one.event.last: one for one in span.bisections}
        self._ended: SpanEnd | None = None
        self._reached = span.begins

    @property
    def steps(self) -> int:
        """How many steps were computed again so far."""
        return self._reached - self._span.begins

    def computed(self, computed: trainer.Computed) -> SpanDivergence | None:
        """Where what was computed is not as recorded."""
        if isinstance(computed, trainer.WindowRecorded):
            self._reached = min(max(self._reached, computed.last), self._span.ends)
        place = trainer.place_of(computed)[:2]
        self._open.discard(place)
        records = self._records.get(place, [])
        if not records:
            return self._missing(computed)
        return next((found for one in records if (found := difference(one, computed))), None)

    def begun_window(self, seen: trainer.WindowRecorded) -> SpanDivergence | None:
        """As `computed`, of a window that is not at its end yet: its record begins with the same losses."""
        recorded = next(iter(self._records.get(trainer.place_of(seen)[:2], ())), None)
        if recorded is None:
            return None
        said = recorded.event
        at = differing_step(seen.first, said.losses, seen.losses) if isinstance(said, trainer.WindowRecorded) else -1
        return divergence_at(recorded, "losses", "", "", step=at) if 0 <= at < seen.last else None

    def ended(self, told: SpanEnd) -> None:
        """Hear where and how the computation ended."""
        self._ended = told

    def named(self, found: NamedRows) -> SpanDivergence | None:
        """Where the rows that were named are not those that the plan and the step give."""
        recorded = self._unnamed.pop(found.last, None)
        if recorded is None:
            return None
        said, rows = recorded.event, {"step": found.step, "rows": list(found.rows), "looked": found.looked}
        wrong = next((name for name, value in rows.items() if getattr(said, name) != value), None)
        return _of_rows(recorded, wrong, getattr(said, wrong), rows[wrong]) if wrong else None

    def left(self) -> SpanDivergence | None:
        """At the end of the span: what was recorded and did not come again, or another end than the session says."""
        left = [one for place in self._open for one in self._records[place] if one.last <= self._span.ends]
        if left:
            # Of steps off the grid, or beyond where the rules end the training.
            first = min(left, key=lambda one: (one.last, one.position))
            return divergence_at(first, "", "this event", "none at this place by the rules of the plan")
        for one in self._unnamed.values():
            return _of_rows(one, "rows", one.event.rows, "none")
        return self._ending()

    def _missing(self, computed: trainer.Computed) -> SpanDivergence | None:
        """What ended in mid-sentence (a crash, a rewind) may lack its last words; a line that goes on may not."""
        step = trainer.computed_at(computed)
        if step >= self._span.ends and not self._span.whole:
            return None
        if isinstance(computed, trainer.CheckpointWritten) and not self._span.whole:
            return None
        behind = min((one for one in self._span.records if one.last > step), key=lambda one: one.position, default=None)
        place, seq = (behind.position, behind.seq) if behind else self._span.after
        said = SpanRecord(computed, place, seq, self._span.segments)
        first = computed.first if isinstance(computed, trainer.WindowRecorded) else step
        return divergence_at(said, "", "nothing", "an event that the log lacks", first=first)

    def _ending(self) -> SpanDivergence | None:
        if self._span.outcome is None:
            return None
        said = self._span.outcome.event
        seen = self._ended
        step, finished = (seen.step, seen.finished) if seen else (-1, False)
        against = ending(said, step, finished=finished, found={name: getattr(seen, name, None) for name in ENDING})
        if not against:
            return None
        return SpanDivergence(
            name=said.wire,
            first=step,
            last=said.step,
            place=self._span.outcome.position,
            seq=self._span.outcome.seq,
            segment=said.segment,
            field="end",
            recorded=_short(against),
            computed="",
        )


def _of_rows(recorded: RecordedBisection, field: str, said: object, found: object) -> SpanDivergence:
    event = recorded.event
    return SpanDivergence(
        name=event.wire,
        first=event.first,
        last=event.last,
        place=recorded.position,
        seq=recorded.seq,
        segment=event.segment,
        field=field,
        recorded=_short(said),
        computed=_short(found),
    )


def difference(recorded: SpanRecord, computed: trainer.Computed) -> SpanDivergence | None:
    """Where a record is not what was computed: JSON text compares floats by their bits, NaN too."""
    said, found = recorded.event.model_dump(mode="json"), computed.model_dump(mode="json")
    field = first_field(recorded.event, computed)
    if field is None:
        return None
    ours, theirs = said.get(field), found.get(field)
    if field == "losses" and isinstance(ours, str) and isinstance(theirs, str):
        return divergence_at(recorded, field, ours, theirs, step=differing_step(recorded.first, ours, theirs))
    if field in ("values", "scalars", "sensors") and isinstance(ours, dict) and isinstance(theirs, dict):
        name = next((one for one in sorted(ours.keys() | theirs.keys()) if ours.get(one) != theirs.get(one)), "")
        return divergence_at(recorded, f"{field}.{name}", ours.get(name), theirs.get(name))
    return divergence_at(recorded, field, ours, theirs)


def first_field(said: trainer.Computed, found: trainer.Computed, besides: Container[str] = INCIDENTAL) -> str | None:
    """The first field, causes before effects, in which two events differ in their JSON form."""
    ours, theirs = said.model_dump(mode="json"), found.model_dump(mode="json")
    differing = (one for one in ours.keys() | theirs.keys() if one not in besides and ours.get(one) != theirs.get(one))
    return min(differing, key=lambda one: (ORDER.index(one) if one in ORDER else len(ORDER), one), default=None)


def divergence_at(recorded: SpanRecord, field: str, said: object, found: object, **more: int) -> SpanDivergence:
    """A divergence at the place of a record; `more` are places that only some have, as `step`, or that are others."""
    about: dict[str, Any] = {"first": recorded.first, "last": recorded.last} | more
    if isinstance(recorded.event, trainer.CheckpointWritten):
        about["blob"] = recorded.event.blob
    return SpanDivergence(
        name=recorded.event.wire,
        place=recorded.position,
        seq=recorded.seq,
        segment=recorded.event.segment,
        field=field,
        recorded=_short(said),
        computed=_short(found),
        **about,
    )


def differing_step(first: int, said: str, found: str) -> int:
    """The attempt after which step has the first loss that differs, by its bits; -1 when none does."""
    ours, theirs = base64.b64decode(found), base64.b64decode(said)
    for at in range(max(len(ours), len(theirs)) // 4):
        if ours[4 * at : 4 * at + 4] != theirs[4 * at : 4 * at + 4]:
            return first + at
    return -1


def ending(said: trainer.TrainingCompleted, step: int, *, finished: bool, found: Mapping[str, Any]) -> str:
    """What of a session's own account of its end is not so; nothing when all is."""
    if said.step != step or not finished:
        truth = f"at step {step}" if finished else f"later than at step {step}"
        return f"training was completed at step {said.step}, and by its own rules it ends {truth}"
    wrong = next((name for name, value in found.items() if getattr(said, name) != value), "")
    return f"{wrong} of the end is {getattr(said, wrong)!r}, computed {found[wrong]!r}" if wrong else ""


def by_place(records: Iterable[SpanRecord]) -> dict[tuple[str, int], list[SpanRecord]]:
    """Records by the beginning of their place (see `place_of`): their name and their first step."""
    found: dict[tuple[str, int], list[SpanRecord]] = {}
    for one in records:
        found.setdefault(trainer.place_of(one.event)[:2], []).append(one)
    return found


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


Reason = Literal["planned", "best", "final", "drain", "timed"]


def window_event(seen: Window) -> trainer.WindowRecorded:
    """The event `window.recorded` for a window that the engine reports."""
    layers = [trainer.Layer(one.name, one.gradient, one.weight, one.update, one.dead) for one in seen.layers]
    return trainer.WindowRecorded(
        segment=seen.segment,
        first=seen.first,
        last=seen.last,
        losses=pack(seen.losses),
        gradient_norm=seen.grad_norm,
        learning_rate=seen.learning_rate,
        index_digest=seen.index_digest,
        weights_digest=seen.weights_digest,
        finite=seen.finite,
        **trainer.evidence(layers),
        scalars={name: pack(values) for name, values in seen.scalars.items()},
        sensors=None if seen.sensors is None else sensors_value(seen.sensors),
    )


def sensors_value(seen: SensorReadings) -> trainer.WindowSensors:
    """Readings as an event tells them."""
    return trainer.WindowSensors(
        cosine=trainer.by_layer(seen.cosine),
        saturated=trainer.by_layer(seen.saturated),
        noise=trainer.by_layer(seen.noise),
        noise_scale=seen.noise_scale,
        rows_not_finite=list(seen.rows_not_finite),
    )


def evaluation_event(seen: Evaluation) -> trainer.ControlEvaluated:
    """The event `control.evaluated` for an evaluation that the engine reports."""
    return trainer.ControlEvaluated(
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


def checkpoint_event(
    sealed: CheckpointContent, segment: int, reason: Reason, *, blob: str, size: int
) -> trainer.CheckpointWritten:
    """The event `checkpoint.written` for state that was kept as a blob."""
    return trainer.CheckpointWritten(
        segment=segment,
        step=sealed.step,
        reason=reason,
        state_root=sealed.state_root,
        weights_digest=sealed.weights_digest,
        blob=blob,
        bytes=size,
    )
