"""What an audit has to do, laid out from a session's log before anything is computed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from contracts.session import SessionState
from contracts.trainer import Mode, SpanPlanned
from runtime.replay import rules
from runtime.replay.material import AuditSubject
from runtime.replay.spans import Span, course
from runtime.replay.verdict import Divergence

T = TypeVar("T", Span, SpanPlanned)


@dataclass(frozen=True)
class AuditOptions:
    """What is to be computed again, and how."""

    mode: Mode
    segments: int = 5
    seed: int = 0
    workers: int = 0
    """Spans at a time; 0 for as many as there are cores for."""
    trust_code: bool = False
    fresh: bool = False
    """Whether to pass over what an interrupted audit found."""


@dataclass(frozen=True)
class AuditPlan:
    """Every span of a session, the numbers of those that are to be computed, and what is wrong without computing."""

    mode: Mode
    seed: int
    spans: tuple[SpanPlanned, ...]
    chosen: tuple[int, ...]
    broken: tuple[Divergence, ...]
    ended: bool
    reached: int
    """The last step that the session has recorded."""
    events: int

    def as_json(self) -> dict[str, Any]:
        """Plain data, in the words of `contracts.trainer.AuditPlanned`."""
        return {
            "spans": [one.model_dump() for one in self.spans],
            "chosen": list(self.chosen),
            "broken": [one.as_json() for one in self.broken],
            "ended": self.ended,
            "reached": self.reached,
        }


def laid_out(
    material: AuditSubject, asked: AuditOptions, resolved: Mapping[str, Any] | None, has: Callable[[str], bool]
) -> tuple[AuditPlan, dict[int, Span]]:
    """The docket of an audit, and its spans by number; a span may begin at any blob that `has` is true of."""
    facts, session = material.kept.history.facts, material.session
    found = course(facts, session, has)
    spans = {one.number: one for one in found.spans}
    broken = (*rules.strays(found), *rules.broken_rules(facts, session, resolved))
    docket = AuditPlan(
        asked.mode,
        asked.seed,
        tuple(planned(one) for one in found.spans),
        _chosen(found.spans, asked, session),
        broken,
        session.outcome is not None,
        max((one.ends for one in found.spans), default=0),
        session.events,
    )
    return docket, spans


def planned(span: Span) -> SpanPlanned:
    """A span without its records."""
    return SpanPlanned(number=span.number, segments=span.segments, begins=span.begins, ends=span.ends)


def drawn(spans: Sequence[T], count: int, seed: int, session: str) -> tuple[T, ...]:
    """So many spans, by a rule that can be checked: those with the lowest SHA-256 of `seed/session/number`."""

    def lot(span: T) -> bytes:
        return hashlib.sha256(f"{seed}/{session}/{span.number}".encode()).digest()

    return tuple(sorted(sorted(spans, key=lot)[:count], key=lambda one: one.number))


def _chosen(spans: Sequence[Span], asked: AuditOptions, session: SessionState) -> tuple[int, ...]:
    if asked.mode == "log":
        return ()
    chosen = drawn(spans, asked.segments, asked.seed, session.id) if asked.mode == "spot" else spans
    return tuple(one.number for one in chosen)
