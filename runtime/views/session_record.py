"""What a page about a session needs beside its state, gathered in one pass over its facts and bounded.

Windows of a long session are read from its file each time that somebody looks at them, so they are looked at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from contracts.envelope import Fact
from contracts.session import SessionState
from contracts.trainer import (
    AttemptEnded,
    InterventionApplied,
    TrainingClaimed,
    TrainingPaused,
    TrainingResumed,
    WindowRecorded,
)
from runtime.views.blocks import Bar, Mark, Timeline, Tone
from runtime.views.curves import FigureTable, Row, add_seconds, rows_per_second
from runtime.views.sentences import sentence
from runtime.views.trials import TrialTable
from runtime.views.view import moment

DECISIONS = frozenset(
    {
        "advisor.answered",
        "intervention.proposed",
        "proposal.approved",
        "proposal.rejected",
        "intervention.applied",
        "intervention.declined",
        "outcome.judged",
        "judgement.waived",
        "pause.requested",
        "training.paused",
        "training.resumed",
        "cancel.requested",
        "learning_rate.suggested",
    }
)
TROUBLE = frozenset(
    {
        "training.failed",
        "training.cancelled",
        "dataset.rejected",
        "child.ended",
        "handler.failed",
        "divergence.found",
        "checkpoint.refused",
        "checkpoint.corrupt",
        "validation.failed",
        "export.refused",
        "resources.alerted",
        "duty.waived",
        "search.cancelled",
        "search.failed",
    }
)

MOST_TOLD = 200
"""Events of one kind that are told in sentences."""
MOST_PIECES = 300
"""Attempts, pauses and segments of which a timeline tells."""
COLUMNS = 60
"""Windows whose layers are looked at, evenly chosen."""
MOST_LAYERS = 40


@dataclass(frozen=True, slots=True)
class EventSentence:
    """One event in a sentence: the time of day, who said it, and what."""

    clock: str
    lane: str
    text: str


@dataclass(frozen=True, slots=True)
class LayerWindow:
    """The norms of the layers' gradients at the last step of a window."""

    step: int
    gradients: dict[str, float]


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """The table of figures, where time went, and what is told of what happened; with how much is not told."""

    rows: tuple[Row, ...] = ()
    seconds: tuple[tuple[str, float], ...] = ()
    rows_per_second: float = 0.0
    """0 while no attempt has told of its time."""
    decisions: tuple[EventSentence, ...] = ()
    decisions_total: int = 0
    trouble: tuple[EventSentence, ...] = ()
    trouble_total: int = 0
    restarts: tuple[tuple[int, int], ...] = ()
    """Claims after the first: their numbers, and the steps from which they went on."""
    layers: tuple[LayerWindow, ...] = ()
    every: int = 1
    """Of so many windows each, one is among `layers`."""
    timeline: Timeline | None = None
    trials: TrialTable = field(default_factory=TrialTable)

    @classmethod
    def of(cls, session: SessionState, facts: Iterable[Fact]) -> SessionRecord:
        """Everything at once, from facts that are looked at in their order."""
        table, seconds, times = FigureTable(session), dict[str, float](), _Times(session)
        decisions, trouble, trials = _Sentences(DECISIONS), _Sentences(TROUBLE), TrialTable()
        layers, attempts = list[LayerWindow](), list[AttemptEnded]()
        every, windows = max(1, math.ceil(session.training.windows / COLUMNS)), 0
        for fact in facts:
            event = fact.event
            table.take(event)
            times.take(fact)
            if isinstance(event, WindowRecorded):
                wanted = windows % every == 0 and len(layers) < 4 * COLUMNS
                if wanted and session.training.on_path(event.segment, event.last):
                    gradients = {layer.name: layer.gradient for layer in event.layers[:MOST_LAYERS]}
                    layers.append(LayerWindow(event.last, gradients))
                windows += 1
                continue
            if isinstance(event, AttemptEnded):
                add_seconds(seconds, event)
                attempts.append(event)
            decisions.take(fact)
            trouble.take(fact)
            trials.take(event, fact.envelope.time)
        return cls(
            rows=tuple(table.rows()),
            seconds=tuple(sorted(seconds.items(), key=lambda part: (-part[1], part[0]))),
            rows_per_second=rows_per_second(session, attempts),
            decisions=tuple(decisions.told),
            decisions_total=decisions.total,
            trouble=tuple(trouble.told),
            trouble_total=trouble.total,
            restarts=tuple(times.restarts),
            layers=tuple(sorted(layers, key=lambda each: each.step)),
            every=every,
            timeline=times.timeline(),
            trials=trials,
        )


class _Sentences:
    """Events of some names as sentences, the first ones."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self.told: list[EventSentence] = []
        self.total = 0

    def take(self, fact: Fact) -> None:
        if fact.name not in self._names:
            return
        self.total += 1
        if len(self.told) < MOST_TOLD:
            self.told.append(EventSentence(fact.envelope.time[11:19], fact.lane, sentence(fact.event)))


class _Times:
    """When a session was prepared, trained, paused, changed and ended, in seconds after it was requested."""

    def __init__(self, session: SessionState) -> None:
        self._session = session
        self._begin = moment(session.requested_at)
        self._bars: list[Bar] = []
        self._left_out = 0
        self._marks: list[Mark] = []
        self._attempt: tuple[str, float] | None = None
        self._segment: tuple[str, float] | None = None
        self._paused: float | None = None
        self._newest = ""
        self.restarts: list[tuple[int, int]] = []

    def take(self, fact: Fact) -> None:
        event = fact.event
        if isinstance(event, TrainingClaimed):
            # An attempt that was killed ends with the last that it said.
            self._end_attempt(self._at(self._newest))
            now = self._at(fact.envelope.time)
            if event.epoch > 1 and len(self.restarts) < MOST_PIECES:
                self.restarts.append((event.epoch, event.resumed_from))
            self._attempt = f"attempt {event.epoch}", now
            self._segment = self._segment or ("segment 1", now)
        elif isinstance(event, TrainingPaused):
            self._paused = self._at(fact.envelope.time)
        elif isinstance(event, TrainingResumed) and self._paused is not None:
            self._bar("paused", self._paused, self._at(fact.envelope.time), "", "warn")
            self._paused = None
        elif isinstance(event, InterventionApplied):
            now = self._at(fact.envelope.time)
            if self._segment:
                self._bar("plan", self._segment[1], now, self._segment[0], "note")
            self._segment = f"segment {event.segment}", now
            if len(self._marks) < MOST_PIECES:
                self._marks.append(Mark(now, f"{event.by} changes the plan at step {event.step}", "warn"))
        if fact.lane == "trainer":
            self._newest = fact.envelope.time
            if fact.id == self._session.outcome_id:
                self._end_attempt(self._at(self._newest))

    def timeline(self) -> Timeline | None:
        """All of it; None where the session's own times are none, or nothing lasted."""
        session = self._session
        self._end_attempt(self._at(self._newest))
        ended = self._at(session.ended_at or session.updated_at)
        if self._segment and len(session.training.segments) > 1:
            self._bar("plan", self._segment[1], self._at(self._newest), self._segment[0], "note")
        if self._paused is not None:
            self._bar("paused", self._paused, ended, "", "warn")
        trained = [bar for bar in self._bars if bar.line == "training"]
        if trained and ended > trained[-1].ends:
            self._bar("finishing", trained[-1].ends, ended, "judged, exported, sealed", "note")
        if trained and trained[0].begins > 0:
            self._bar("preparing", 0.0, trained[0].begins, "data", "note")
        order = ("preparing", "training", "paused", "plan", "finishing")
        bars = tuple(sorted(self._bars, key=lambda bar: (order.index(bar.line), bar.begins)))
        if self._begin is None or not bars:
            return None
        left = f"{self._left_out:,} more pieces are left out here." if self._left_out else ""
        return Timeline("When it happened, after the request", bars, tuple(self._marks), left)

    def _end_attempt(self, now: float) -> None:
        if self._attempt is not None:
            label, begun = self._attempt
            self._bar("training", begun, now, label, "")
            self._attempt = None

    def _bar(self, line: str, begins: float, ends: float, label: str, tone: Tone) -> None:
        if len(self._bars) >= MOST_PIECES:
            self._left_out += 1
        else:
            self._bars.append(Bar(line, begins, max(begins, ends), label, tone))

    def _at(self, text: str) -> float:
        """Seconds after the request; 0 for a time that is none, or lies before."""
        now = moment(text)
        return max(0.0, (now - self._begin).total_seconds()) if now and self._begin else 0.0
