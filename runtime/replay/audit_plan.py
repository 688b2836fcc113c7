"""What an audit has to do, laid out from a session's log, and what that log shows to be wrong by itself. Pure.

Nothing is computed here: the rules name events that do not follow from others, and every audit begins with them.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from contracts import trainer
from contracts.diagnostician import InterventionProposed
from contracts.envelope import Fact
from contracts.findings import Mode, SpanPlanned
from contracts.session import SessionState
from contracts.validator import CheckpointValidated
from runtime.replay.audit_subject import AuditSubject
from runtime.replay.spans import SessionSpans, Span, claims, session_spans
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


def lay_out(
    subject: AuditSubject, asked: AuditOptions, resolved: Mapping[str, object] | None, has: Callable[[str], bool]
) -> tuple[AuditPlan, dict[int, Span]]:
    """The plan of an audit, and its spans by number; a span may begin at any blob that `has` is true of."""
    facts, session = subject.kept.history.facts, subject.session
    found = session_spans(facts, session, has)
    spans = {one.number: one for one in found.spans}
    chosen = draw_spans(found.spans, asked.segments, asked.seed, session.id) if asked.mode == "spot" else found.spans
    if asked.mode == "log":
        chosen = ()
    broken = (*strays(found), *broken_rules(facts, session, resolved))
    plan = AuditPlan(
        asked.mode,
        asked.seed,
        tuple(plan_span(one) for one in found.spans),
        tuple(one.number for one in chosen),
        broken,
        session.outcome is not None,
        max((one.ends for one in found.spans), default=0),
        session.events,
    )
    return plan, spans


def plan_span(span: Span) -> SpanPlanned:
    """A span without its records."""
    return SpanPlanned(number=span.number, segments=span.segments, begins=span.begins, ends=span.ends)


def draw_spans(spans: Sequence[T], count: int, seed: int, session: str) -> tuple[T, ...]:
    """So many spans, by a rule that can be checked: those with the lowest SHA-256 of `seed/session/number`."""

    def lot(span: T) -> bytes:
        return hashlib.sha256(f"{seed}/{session}/{span.number}".encode()).digest()

    return tuple(sorted(sorted(spans, key=lot)[:count], key=lambda one: one.number))


def broken_rules(
    facts: Iterable[Fact], session: SessionState, resolved: Mapping[str, object] | None = None
) -> Iterator[Divergence]:
    """Everything in a session that does not follow from what others said in it, or from itself.

    Claims are held against the first of them, or against what the request was `resolved` to by who computes.
    """
    told = list(facts)
    broken = [*_claims(told, session, resolved), *_steps(told, session)]
    first = next((one for one in told if isinstance(one.event, trainer.TrainingClaimed | trainer.Computed)), None)
    if first is not None and isinstance(first.event, trainer.Computed):
        # The log does not say with which plan.
        broken.insert(0, (first, "it was recorded before anybody claimed the session"))
    for fact in told:
        if isinstance(fact.event, CheckpointValidated) and fact.event.control == "differs":
            about = fact.event.details.control.model_dump()
            message = f"the validator computed another control metric at step {fact.event.step}: {about}"
            yield Divergence(fact.position, fact.seq, fact.name, message[:500])
    yield from (Divergence(fact.position, fact.seq, fact.name, message) for fact, message in broken)


def _claims(
    facts: Iterable[Fact], session: SessionState, resolved: Mapping[str, object] | None
) -> Iterator[tuple[Fact, str]]:
    known = claims(facts)
    for fact, claim in known:
        if session.training.dataset and claim.dataset != session.training.dataset.root:
            yield fact, f"it claims dataset {claim.dataset}, and {session.training.dataset.root} was prepared"
        if claim.initial != known[0][1].initial:
            yield fact, f"it begins with blob {claim.initial}, and the first claim with {known[0][1].initial}"
        wanted, said = known[0][1].resolved if resolved is None else resolved, claim.resolved
        wrong = sorted(name for name in wanted.keys() | said.keys() if wanted.get(name) != said.get(name))
        if wrong:
            name = wrong[0]
            yield fact, f"{name} is {said.get(name)!r}, and the request resolves to {wanted.get(name)!r}"


def _steps(facts: Iterable[Fact], session: SessionState) -> Iterator[tuple[Fact, str]]:
    """A fork's start, interventions and completion beside what was named, proposed and evaluated before."""
    proposals, number, fork = dict(session.training.proposals), session.training.segments[0].number, session.fork
    last = session.training.evaluations[-1].values if session.training.evaluations else {}
    unsound: dict[int, tuple[int, int]] = {}
    for fact in facts:
        event = fact.event
        if isinstance(event, trainer.WindowRecorded) and not event.finite:
            unsound.setdefault(event.segment, (event.first, event.last))
        if isinstance(event, trainer.AttemptBisected) and unsound.get(event.segment) != (event.first, event.last):
            yield fact, f"steps {event.first}..{event.last} are not the first unsound window of segment {event.segment}"
        if isinstance(event, trainer.CheckpointWritten) and fork and event.step == fork.step:
            named = {"weights_digest": fork.weights_digest, "state_root": fork.state_root, "blob": fork.blob}
            wrong = [name for name, wanted in named.items() if wanted not in (None, getattr(event, name))]
            for name in wrong[:1]:
                yield fact, f"it begins with {name} {getattr(event, name)}, and its genesis names {named[name]}"
        if isinstance(event, trainer.InterventionApplied):
            number += 1
            if against := unasked(event, proposals, session, number):
                yield fact, against
        elif isinstance(event, trainer.TrainingCompleted) and _bits(event.values) != _bits(last):
            yield fact, "its values are not those of the last evaluation"


def off_the_paths(facts: Iterable[Fact], session: SessionState) -> Iterator[Divergence]:
    """What was recorded of steps that no path of the session had: nothing could have computed it."""
    if len(session.training.segments) > 1:
        yield from strays(session_spans(facts, session, lambda _: False))


def strays(found: SessionSpans) -> Iterator[Divergence]:
    """As `off_the_paths`, of a session whose spans are known."""
    for one in found.strays:
        message = f"steps {one.first}..{one.last} of segment {one.event.segment} lie on no path that there was"
        yield Divergence(one.position, one.seq, one.event.wire, message)


def _bits(values: Mapping[str, float]) -> dict[str, str]:
    """Values by their bits: one that is no number is the same as itself."""
    return {name: value.hex() for name, value in values.items()}


def unasked(
    event: trainer.InterventionApplied,
    proposals: Mapping[str, InterventionProposed],
    session: SessionState,
    number: int,
) -> str:
    """Why a decision was not to be taken; empty when nothing speaks against it."""
    asked = proposals.get(event.proposal)
    changes, back = (asked.changes, asked.rewind_to) if asked else (None, None)
    if event.by == trainer.SPENT:
        limits = session.request.get("limits")
        allowed = limits.get("seconds") if isinstance(limits, Mapping) else None
        if not isinstance(allowed, int | float) or event.seconds is None or not event.seconds >= allowed:
            return f"{event.seconds} seconds end it, and its request allows {allowed}"
        changes = {"stop": True}
    if changes is None:
        return f"nobody proposed it: {event.proposal!r} is no proposal"
    if changes != event.changes:
        return f"it applies {event.changes}, and {changes} was proposed"
    if back is not None and back != event.step:
        return f"it goes back to step {event.step}, and {back} was proposed"
    return "" if event.segment == number else f"it begins segment {event.segment}, and the next one is {number}"
