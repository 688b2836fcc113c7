"""The fold behind every answer of the diagnostician: what is to be said because of one fact of the trainer's lane.

It follows that lane, one fact after the other, so what is said because of a fact does not depend on batches, arrival
or restarts. Of its own lane it takes one thing: the identity of a proposal, which the trainer's answer names. That is
read from the log and never computed here, because how identities are made is the writer's to change.

The first rule with a remedy to fire in a segment makes its only automatic proposal; what the trainer records between
that and the next segment will be superseded, and is passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self, TypeVar

from agents.diagnostician.evidence import Evidence
from agents.diagnostician.finding import RuleFinding
from agents.diagnostician.rules import RULES
from agents.diagnostician.watch import InterventionWatch, watch
from contracts.diagnostician import DiagnosisReached, InterventionProposed, OutcomeJudged, ProblemDiagnosed
from contracts.envelope import Fact
from contracts.operator import SessionRequested
from contracts.trainer import (
    ControlEvaluated,
    InterventionApplied,
    InterventionDeclined,
    TrainingCancelled,
    TrainingCompleted,
    TrainingFailed,
    WindowRecorded,
)

ROLE = "diagnostician"
MOST_REWINDS = 3
"""Automatic rewinds of one session; what still diverges after that needs a person."""

Said = ProblemDiagnosed | InterventionProposed | DiagnosisReached
D = TypeVar("D", bound="DiagnosisState")


@dataclass(frozen=True, slots=True)
class Pending:
    """An automatic proposal that the trainer has neither applied nor declined.

    `cause` is the fact because of which it is made; `id` is its event's, empty until the log shows it.
    """

    cause: str
    finding: RuleFinding
    id: str = ""

    def answered_by(self, answer: InterventionApplied | InterventionDeclined) -> bool:
        """Whether the trainer's answer is about this proposal."""
        return bool(self.id) and answer.proposal == self.id


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
        if fact.lane != "trainer" and not isinstance(fact.event, SessionRequested):
            return _named(self, fact)
        here = replace(self, at=fact.id, said=(), verdicts=())
        match fact.event:
            case WindowRecorded() | ControlEvaluated() as event if self.pending:
                return _passed_over(here, event)
            case InterventionApplied() as applied:
                return _applied(here, applied, fact)
            case InterventionDeclined() as declined:
                return _declined(here, declined)
            case TrainingCompleted() | TrainingFailed() | TrainingCancelled() as end:
                verdicts = tuple(one.at_end(self.evidence, end) for one in self.watched)
                return replace(here, verdicts=verdicts, watched=())
        here = replace(here, evidence=self.evidence.advance(fact))
        return _looked(here, fact) if here.evidence.newest else here

    @property
    def may_fix(self) -> bool:
        """Whether this segment may still be given its automatic proposal."""
        wanted = (self.evidence.request.get("diagnosis") or {}).get("auto_fix")
        return bool(wanted) and not self.proposed and self.rewinds < MOST_REWINDS


def _looked(here: D, fact: Fact) -> D:
    """The rules have seen one more window or evaluation."""
    unsaid = [rule for rule in RULES if (rule.name, here.evidence.segment) not in here.fired]
    findings = [found for rule in unsaid if (found := rule.look(here.evidence))]
    return _with_end(_with_verdicts(_with_findings(here, findings, fact), findings))


def _with_findings(here: D, findings: Sequence[RuleFinding], fact: Fact) -> D:
    segment = here.evidence.segment
    said: list[Said] = [_explained(here, one).diagnosed(segment) for one in findings]
    pending = here.pending
    automatic = next((one for one in findings if one.remedy), None) if here.may_fix else None
    if automatic is not None and (proposal := automatic.proposed(segment)) is not None:
        pending = Pending(fact.id, automatic)
        said.append(proposal)
    fired = here.fired | {(one.rule, segment) for one in findings}
    proposed = here.proposed or pending is not None
    return replace(here, said=tuple(said), fired=fired, pending=pending, proposed=proposed)


def _explained(here: DiagnosisState, finding: RuleFinding) -> RuleFinding:
    if finding.remedy is None or here.rewinds < MOST_REWINDS:
        return finding
    cure = f"{MOST_REWINDS} automatic rewinds did not help: look at the data and the model. {finding.cure}"
    return replace(finding, cure=cure)


def _with_verdicts(here: D, findings: Sequence[RuleFinding]) -> D:
    problem = next((one.rule for one in findings if one.remedy), "")
    found = [(one, one.verdict(here.evidence, problem)) for one in here.watched]
    watched = tuple(one for one, verdict in found if verdict is None)
    return replace(here, watched=watched, verdicts=tuple(verdict for _, verdict in found if verdict is not None))


def _with_end(here: D) -> D:
    """The last window and its evaluation are both in, so every rule has seen the segment."""
    seen = here.evidence
    judged = seen.evaluations[-1] if seen.evaluations else None
    if judged is None or judged.step != seen.step or not (judged.stop or judged.step == seen.total):
        return here
    if here.ended == judged.step:
        return here
    here = replace(here, ended=judged.step)
    return here if here.pending else _reached(here)


def _reached(here: D) -> D:
    if here.ended is None:
        return here
    return replace(here, said=(*here.said, DiagnosisReached(segment=here.evidence.segment, step=here.ended)))


def _passed_over(here: D, event: WindowRecorded | ControlEvaluated) -> D:
    """Only the end of the plan is noticed, in case that the trainer declines what is pending."""
    if not isinstance(event, ControlEvaluated) or event.segment != here.evidence.segment:
        return here
    return replace(here, ended=event.step) if event.stop or event.step == here.evidence.total else here


def _named(here: D, fact: Fact) -> D:
    """What is pending has been said, and is known from now on by its event's identity."""
    pending, event = here.pending, fact.event
    if pending is None or fact.lane != ROLE or not isinstance(event, InterventionProposed):
        return here
    if (fact.envelope.causationid, event.rule) != (pending.cause, pending.finding.rule):
        return here
    return replace(here, pending=replace(pending, id=fact.id))


def _applied(here: D, applied: InterventionApplied, fact: Fact) -> D:
    evidence = here.evidence.advance(fact)
    if evidence.segment == here.evidence.segment:
        return here
    finding = here.pending.finding if here.pending and here.pending.answered_by(applied) else None
    begun = replace(
        here,
        evidence=evidence,
        pending=None,
        proposed=False,
        rewinds=here.rewinds + (finding is not None),
        watched=(*here.watched, watch(fact.id, applied, evidence, finding)),
        ended=here.ended if here.ended == applied.step else None,
    )
    return _reached(begun)


def _declined(here: D, declined: InterventionDeclined) -> D:
    if here.pending is None or not here.pending.answered_by(declined):
        return here
    return _reached(replace(here, pending=None))
