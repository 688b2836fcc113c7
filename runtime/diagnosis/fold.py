"""The fold behind every answer of the diagnostician: what is to be said because of one fact of the trainer's lane.

It follows that lane, one fact after the other, so what is said because of a fact does not depend on batches, arrival
or restarts. Of its own lane it takes one thing: the identity of a proposal, which the trainer's answer names. That is
read from the log and never computed here, because how identities are made is the writer's to change.

The first rule with a remedy to fire in a segment makes its only automatic proposal; what the trainer records between
that and the next segment will be superseded, and is passed over. An intervention that took effect is watched until it
can be said whether the problem stayed away, and what the loss did.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Self, TypeVar

from contracts import trainer
from contracts.data_manager import DatasetPrepared
from contracts.diagnostician import DiagnosisReached, InterventionProposed, OutcomeJudged, ProblemDiagnosed
from contracts.envelope import Fact
from contracts.operator import SessionRequested
from contracts.resource_monitor import ResourcesMeasured
from runtime.diagnosis.evidence import Evidence, RuleFinding, asked

ROLE = "diagnostician"
MOST_REWINDS = 3
"""Automatic rewinds of one session; what still diverges after that needs a person."""

Said = ProblemDiagnosed | InterventionProposed | DiagnosisReached
End = trainer.TrainingCompleted | trainer.TrainingFailed | trainer.TrainingCancelled
D = TypeVar("D", bound="DiagnosisState")


@dataclass(frozen=True, slots=True)
class Pending:
    """An automatic proposal that the trainer has neither applied nor declined.

    `cause` is the fact because of which it is made; `id` is its event's, empty until the log shows it.
    """

    cause: str
    finding: RuleFinding
    id: str = ""

    def answered_by(self, answer: trainer.InterventionApplied | trainer.InterventionDeclined) -> bool:
        """Whether the trainer's answer is about this proposal."""
        return bool(self.id) and answer.proposal == self.id


@dataclass(frozen=True, slots=True)
class InterventionWatch:
    """An intervention that has not been judged; `until` is the step at which it can be."""

    id: str
    rule: str
    """The rule whose problem it was to cure; empty when no rule proposed it."""
    segment: int
    begins: int
    until: int
    loss: float

    def verdict(self, seen: Evidence, problem: str) -> OutcomeJudged | None:
        """What can be said at the newest fact: a grave problem again, or the steps that showed it were passed."""
        if problem and self.rule:
            what = "came back" if problem == self.rule else f"was followed by {problem}"
            return self._said(seen, helped=False, message=f"{self.rule} {what} in segment {seen.segment}.")
        if seen.newest != "window" or seen.step < self.until:
            return None
        return self._by_figures(seen)

    def _by_figures(self, seen: Evidence) -> OutcomeJudged:
        now = _loss(seen)
        if self.rule:
            message = f"{self.rule} stayed away: the loss is {now:.4g} at step {seen.step}."
            return self._said(seen, helped=math.isfinite(now), message=message)
        better = now < self.loss
        words = "better" if better else "no better"
        message = f"The training loss is {words}: {self.loss:.4g} before, {now:.4g} at step {seen.step}."
        return self._said(seen, helped=better, message=message)

    def at_end(self, seen: Evidence, end: End) -> OutcomeJudged:
        """The last word: the session is over."""
        if isinstance(end, trainer.TrainingCompleted) and seen.step > self.begins:
            return self._by_figures(seen)
        ended = "was cancelled" if isinstance(end, trainer.TrainingCancelled) else "ended"
        message = f"The session {ended} at step {end.step} before it showed."
        if isinstance(end, trainer.TrainingFailed):
            message = f"The session failed at step {end.step}: {end.message}"[:500]
        return self._said(seen, helped=False, message=message)

    def _said(self, seen: Evidence, *, helped: bool, message: str) -> OutcomeJudged:
        figures = {"loss_before": self.loss, "loss_after": _loss(seen), "step": float(seen.step)}
        return OutcomeJudged(proposal=self.id, helped=helped, message=message, figures=figures, prove=seen.prove)


def watch(
    id: str, applied: trainer.InterventionApplied, seen: Evidence, finding: RuleFinding | None
) -> InterventionWatch:
    """What is to be watched from now on; `seen` is the evidence as of the beginning of the new segment."""
    window = seen.grid.window if seen.grid else 1
    shown = finding.last + 2 * window if finding else applied.step + 4 * window
    total = seen.total or shown
    return InterventionWatch(
        id, finding.rule if finding else "", applied.segment, applied.step, min(shown, total), _loss(seen)
    )


def _loss(seen: Evidence) -> float:
    if seen.latest is not None:
        return seen.latest.median
    return math.nan if seen.initial is None else seen.initial


@dataclass(frozen=True, slots=True)
class DiagnosisState:
    """Everything found so far; `said` and `verdicts` are the answer to the fact `at`."""

    evidence: Evidence = field(default_factory=Evidence)
    at: str = ""
    said: tuple[Said, ...] = ()
    verdicts: tuple[OutcomeJudged, ...] = ()
    fired: frozenset[tuple[str, int]] = frozenset()
    pending: Pending | None = None
    proposed: bool = False
    rewinds: int = 0
    ended: int | None = None
    """The step at which this segment's plan ends, once that has been reached."""
    watched: tuple[InterventionWatch, ...] = ()

    def advance(self, fact: Fact) -> Self:
        """The diagnosis after one more fact; of other lanes only the genesis and its own proposals change anything."""
        if isinstance(fact.event, ResourcesMeasured):
            return _advised(self, fact)
        if fact.lane != "trainer" and not isinstance(fact.event, SessionRequested | DatasetPrepared):
            return _named(self, fact)
        state = replace(self, at=fact.id, said=(), verdicts=())
        match fact.event:
            case trainer.WindowRecorded() if self.pending:
                pass
            case trainer.ControlEvaluated() as seen if self.pending:
                # Only the end of the plan is noticed, in case that the trainer declines what is pending.
                if seen.segment == self.evidence.segment and (seen.stop or seen.step == self.evidence.total):
                    state = replace(state, ended=seen.step)
            case trainer.InterventionApplied() as applied:
                state = _applied(state, applied, fact)
            case trainer.InterventionDeclined() as declined:
                if self.pending is not None and self.pending.answered_by(declined):
                    state = _reached(replace(state, pending=None))
            case trainer.TrainingCompleted() | trainer.TrainingFailed() | trainer.TrainingCancelled() as end:
                verdicts = tuple(watched.at_end(self.evidence, end) for watched in self.watched)
                state = replace(state, verdicts=verdicts, watched=())
            case _:
                state = replace(state, evidence=self.evidence.advance(fact))
                state = _examined(state, fact) if state.evidence.newest else state
        return state

    @property
    def may_fix(self) -> bool:
        """Whether this segment may still be given its automatic proposal."""
        return self.evidence.auto_fix and not self.proposed and self.rewinds < MOST_REWINDS


def _advised(state: D, fact: Fact) -> D:
    """The state after the rules about the machine: they advise, whatever is pending, and nothing is decided by them."""
    evidence, segment = state.evidence.advance(fact), state.evidence.segment
    findings = [finding for rule in asked(evidence) if (finding := rule.look(evidence))]
    fresh = [finding for finding in findings if (finding.rule, segment) not in state.fired]
    return replace(
        state,
        evidence=evidence,
        at=fact.id,
        said=tuple(finding.diagnosed(segment) for finding in fresh),
        verdicts=(),
        fired=state.fired | {(finding.rule, segment) for finding in fresh},
    )


def _examined(state: D, fact: Fact) -> D:
    """The state after the rules have seen one more window or evaluation."""
    evidence, segment = state.evidence, state.evidence.segment
    rules = [rule for rule in asked(evidence) if (rule.name, segment) not in state.fired]
    findings = [finding for rule in rules if (finding := rule.look(evidence))]
    curable = next((finding for finding in findings if finding.remedy), None)
    said: list[Said] = [finding.diagnosed(segment) for finding in findings]
    if curable is not None and state.rewinds >= MOST_REWINDS:
        advice = f"{MOST_REWINDS} automatic rewinds did not help: look at the data and the model."
        told = [replace(each, cure=f"{advice} {each.cure}") if each.remedy else each for each in findings]
        said = [finding.diagnosed(segment) for finding in told]
    pending = None
    if curable is not None and state.may_fix and (proposal := curable.proposed(segment)) is not None:
        pending = Pending(fact.id, curable)
        said.append(proposal)
    judged = [(watched, watched.verdict(evidence, curable.rule if curable else "")) for watched in state.watched]
    state = replace(
        state,
        said=tuple(said),
        verdicts=tuple(verdict for _, verdict in judged if verdict is not None),
        fired=state.fired | {(finding.rule, segment) for finding in findings},
        pending=pending,
        proposed=state.proposed or pending is not None,
        watched=tuple(watched for watched, verdict in judged if verdict is None),
    )
    last = evidence.evaluations[-1] if evidence.evaluations else None
    ends = last is not None and last.step == evidence.step and (last.stop or last.step == evidence.total)
    if last is None or not ends or state.ended == last.step:
        return state
    # The last window and its evaluation are both in, so every rule has seen the segment.
    state = replace(state, ended=last.step)
    return state if pending else _reached(state)


def _reached(state: D) -> D:
    if state.ended is None:
        return state
    return replace(state, said=(*state.said, DiagnosisReached(segment=state.evidence.segment, step=state.ended)))


def _named(state: D, fact: Fact) -> D:
    """What is pending has been said, and is known from now on by its event's identity."""
    pending, event = state.pending, fact.event
    if pending is None or fact.lane != ROLE or not isinstance(event, InterventionProposed):
        return state
    if (fact.envelope.causationid, event.rule) != (pending.cause, pending.finding.rule):
        return state
    return replace(state, pending=replace(pending, id=fact.id))


def _applied(state: D, applied: trainer.InterventionApplied, fact: Fact) -> D:
    evidence = state.evidence.advance(fact)
    if evidence.segment == state.evidence.segment:
        return state
    finding = state.pending.finding if state.pending and state.pending.answered_by(applied) else None
    begun = replace(
        state,
        evidence=evidence,
        pending=None,
        proposed=False,
        rewinds=state.rewinds + (finding is not None),
        watched=(*state.watched, watch(fact.id, applied, evidence, finding)),
        ended=state.ended if state.ended == applied.step else None,
    )
    return _reached(begun)
