"""The fold behind every answer of the diagnostician: what is to be said because of one fact of the trainer's lane.

It follows that lane, one fact after the other, so what is said because of a fact does not depend on batches, arrival
or restarts. Of its own lane it takes one thing: the identity of a proposal, which the trainer's answer names. That is
read from the log and never computed here, because how identities are made is the writer's to change. A proposal that
the advisor chose is known in the same way, and changes what is said only once the trainer has applied it.

In the mode `fix` the first grave problem of a segment whose ladder has an automatic remedy makes the segment's only
automatic proposal; what the trainer records between that and the next segment will be superseded, and is passed over.
Where rows may be the reason, the proposal waits until the trainer has recorded which. Other remedies, and all of them
in the mode `propose`, wait for a person, and the rules go on. An intervention that took effect is watched until it can
be said whether the problem stayed away, and what the control metric did.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self, TypeVar

from contracts import trainer
from contracts.data_manager import DatasetPrepared
from contracts.diagnostician import (
    AdvisorAsked,
    DiagnosisReached,
    InterventionProposed,
    OutcomeJudged,
    ProblemDiagnosed,
)
from contracts.envelope import Fact
from contracts.operator import SessionRequested
from contracts.request.training import less_is_better
from contracts.resource_monitor import ResourcesMeasured
from runtime.diagnosis.evidence import Evidence, RuleFinding, asked
from runtime.diagnosis.remedies import NEEDS_ROWS, RUNGS, Changes, Rung, Trouble, next_rung
from runtime.engine.plain_kinds import read_levers

ROLE = "diagnostician"
MOST_REWINDS = 3
"""Automatic rewinds of one session; what still diverges after that needs a person."""

Said = ProblemDiagnosed | InterventionProposed | DiagnosisReached
End = trainer.TrainingCompleted | trainer.TrainingFailed | trainer.TrainingCancelled
D = TypeVar("D", bound="DiagnosisState")


@dataclass(frozen=True, slots=True)
class Pending:
    """A proposal that the trainer has neither applied nor declined; None while rows are looked for.

    `cause` is the fact because of which it is made; `id` is its event's, empty until the log shows it.
    """

    cause: str
    finding: RuleFinding
    proposal: InterventionProposed | None
    id: str = ""
    advised: bool = False

    def answered_by(self, answer: trainer.InterventionApplied | trainer.InterventionDeclined) -> bool:
        """Whether the trainer's answer is about this proposal."""
        return bool(self.id) and answer.proposal == self.id

    def named_by(self, fact: Fact) -> Self:
        """With its identity, when the fact is its event."""
        event, finding = fact.event, self.finding
        if self.id or not isinstance(event, InterventionProposed):
            return self
        mine = (fact.envelope.causationid, event.rule) == (self.cause, finding.rule)
        return replace(self, id=fact.id) if mine else self


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
    grave: bool = True
    """Whether the problem had to go away and nothing more; from others the control metric has to gain."""
    before: tuple[float, float] = (math.nan, math.nan)
    """The control metric as many steps before it began as it is watched, and when it began."""

    def verdict(self, seen: Evidence, problem: str) -> OutcomeJudged | None:
        """What can be said at the newest fact: a problem again, or the steps that showed it were passed."""
        if problem and self.rule:
            what = "came back" if problem == self.rule else f"was followed by {problem}"
            return self._said(seen, helped=False, message=f"{self.rule} {what} in segment {seen.segment}.")
        shows = "window" if seen.edition == 1 else "evaluation"
        if seen.newest != shows or seen.step < self.until:
            return None
        return self._by_figures(seen)

    def _by_figures(self, seen: Evidence) -> OutcomeJudged:
        now, metric = _loss(seen), self._metric(seen)
        if self.rule:
            message = f"{self.rule} stayed away: the loss is {now:.4g} at step {seen.step}."
            gained = self.grave or not metric or metric["metric_gain"] > 0
            return self._said(seen, helped=math.isfinite(now) and gained, message=message, metric=metric)
        better = now < self.loss
        words = "better" if better else "no better"
        message = f"The training loss is {words}: {self.loss:.4g} before, {now:.4g} at step {seen.step}."
        return self._said(seen, helped=better, message=message, metric=metric)

    def at_end(self, seen: Evidence, end: End) -> OutcomeJudged:
        """The last word: the session is over."""
        if isinstance(end, trainer.TrainingCompleted) and seen.step > self.begins:
            return self._by_figures(seen)
        ended = "was cancelled" if isinstance(end, trainer.TrainingCancelled) else "ended"
        message = f"The session {ended} at step {end.step} before it showed."
        if isinstance(end, trainer.TrainingFailed):
            message = f"The session failed at step {end.step}: {end.message}"[:500]
        return self._said(seen, helped=False, message=message)

    def _metric(self, seen: Evidence) -> dict[str, float]:
        """What the control metric did since, and in as many steps before; empty when it was not evaluated."""
        newest = seen.evaluations[-1] if seen.evaluations else None
        if newest is None or newest.step <= self.begins or seen.edition == 1 or math.isnan(self.before[1]):
            return {}
        sign = -1.0 if less_is_better(newest.metric) else 1.0
        gains = {"metric_gain": sign * (newest.value - self.before[1])}
        if not math.isnan(self.before[0]):
            gains["metric_gain_before"] = sign * (self.before[1] - self.before[0])
        return {"metric_before": self.before[1], "metric_after": newest.value} | gains

    def _said(
        self, seen: Evidence, *, helped: bool, message: str, metric: Mapping[str, float] | None = None
    ) -> OutcomeJudged:
        figures = {"loss_before": self.loss, "loss_after": _loss(seen), "step": float(seen.step), **(metric or {})}
        if metric:
            name, steps = seen.evaluations[-1].metric, seen.step - self.begins
            message += (
                f" {name} went from {metric['metric_before']:.4g} to {metric['metric_after']:.4g} in {steps} steps"
            )
            before = metric.get("metric_gain_before")
            message += "." if before is None else f", a gain of {metric['metric_gain']:.4g} after {before:.4g} before."
        return OutcomeJudged(proposal=self.id, helped=helped, message=message, figures=figures, prove=seen.prove)


def watch(
    id: str, applied: trainer.InterventionApplied, seen: Evidence, finding: RuleFinding | None
) -> InterventionWatch:
    """What is to be watched from now on; `seen` is the evidence as of the beginning of the new segment."""
    window = seen.grid.window if seen.grid else 1
    shown = finding.last + 2 * window if finding else applied.step + 4 * window
    until = min(shown, seen.total or shown)
    earlier = 2 * applied.step - until
    values = [[one.value for one in seen.evaluations if one.step <= step] for step in (earlier, applied.step)]
    return InterventionWatch(
        id,
        finding.rule if finding else "",
        applied.segment,
        applied.step,
        until,
        _loss(seen),
        grave=finding is None or _is_grave(finding, seen),
        before=(values[0][-1] if values[0] else math.nan, values[1][-1] if values[1] else math.nan),
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
    """The automatic proposal of this segment."""
    waiting: tuple[Pending, ...] = ()
    """Proposals of this segment that wait for a person."""
    proposed: bool = False
    tried: tuple[tuple[str, str], ...] = ()
    """Problems and the remedies that were proposed for them, in their order."""
    rows: tuple[int, tuple[int, ...]] | None = None
    """The segment whose first unsound window was bisected, and the rows that were named."""
    clip: float | None = None
    """At what norm a decision has gradients clipped."""
    factor: float = 1.0
    """By what decisions have multiplied the learning rate."""
    questions: tuple[tuple[str, AdvisorAsked], ...] = ()
    """What the advisor was asked about this segment, with the ids of the events."""
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
                state = _declined(state, declined, fact)
            case trainer.AttemptBisected() as bisected:
                state = _bisected(state, bisected, fact)
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
        return self.evidence.mode == "fix" and not self.proposed and self.rewinds < MOST_REWINDS


def _advised(state: D, fact: Fact) -> D:
    """The state after the rules about the machine: they advise, whatever is pending, and nothing is decided by them."""
    evidence, segment = state.evidence.advance(fact), state.evidence.segment
    findings = [found for rule in asked(evidence) if evidence.mode != "off" and (found := rule.look(evidence))]
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
    rules = [rule for rule in asked(evidence) if evidence.mode != "off" and (rule.name, segment) not in state.fired]
    findings = [finding for rule in rules if (finding := rule.look(evidence))]
    state = replace(state, fired=state.fired | {(finding.rule, segment) for finding in findings})
    grave = next((finding for finding in findings if _is_grave(finding, evidence)), None)
    before = state
    for finding in findings:
        state = _proposing(state, finding, fact)
    told = [_with_the_end(before, finding, fact).diagnosed(segment) for finding in findings]
    worse = {finding.rule for finding in findings if finding.severity != "note"}
    problems = [watched.rule if watched.rule in worse else grave.rule if grave else "" for watched in state.watched]
    verdicts = [watched.verdict(evidence, rule) for watched, rule in zip(state.watched, problems, strict=True)]
    judged = list(zip(state.watched, verdicts, strict=True))
    state = replace(
        state,
        said=(*told, *state.said),
        verdicts=tuple(verdict for _, verdict in judged if verdict is not None),
        watched=tuple(watched for watched, verdict in judged if verdict is None),
    )
    last = evidence.evaluations[-1] if evidence.evaluations else None
    ends = last is not None and last.step == evidence.step and (last.stop or last.step == evidence.total)
    if last is None or not ends or state.ended == last.step:
        return state
    # The last window and its evaluation are both in, so every rule has seen the segment.
    return _reached(replace(state, ended=last.step))


def _is_grave(finding: RuleFinding, seen: Evidence) -> bool:
    """Whether a problem says of an earlier intervention that it did not help."""
    return finding.remedy is not None or (seen.edition > 1 and finding.severity == "critical")


def trouble_of(state: DiagnosisState, finding: RuleFinding) -> Trouble:
    """What remedies of a finding are chosen by."""
    rows = state.rows[1] if state.rows and state.rows[0] == state.evidence.segment else ()
    asked_for = (state.evidence.request.get("training") or {}).get("grad_clip")
    return Trouble(finding, state.evidence, rows, asked_for if state.clip is None else state.clip, state.factor)


def _with_the_end(state: DiagnosisState, finding: RuleFinding, fact: Fact) -> RuleFinding:
    """A grave finding says so when nothing is left that would be tried for it, and how a person goes on."""
    if not _is_grave(finding, state.evidence):
        return finding
    if finding.rule == "out_of_memory":
        if state.rewinds < MOST_REWINDS:
            return finding
        following = f"swarm diagnose {fact.envelope.subject} -o next.yaml writes a request with smaller parts."
        return replace(finding, cure=f"{MOST_REWINDS} automatic repairs were not enough. {following} {finding.cure}")
    if state.rewinds >= MOST_REWINDS:
        advice = f"{MOST_REWINDS} automatic rewinds did not help: look at the data and the model."
    elif state.evidence.edition > 1 and state.tried and next_rung(trouble_of(state, finding), state.tried) is None:
        names = ", ".join(dict.fromkeys(name for rule, name in state.tried if rule == finding.rule))
        advice = f"Nothing is left to try for {finding.rule} after {names or 'what was tried'}."
    else:
        return finding
    step = state.evidence.planned(finding.first)
    by_hand = f"To go on by hand: swarm fork {fact.envelope.subject} --at {step} --set optimizer.learning_rate=..."
    return replace(finding, cure=f"{advice} {finding.cure} {by_hand}")


def _proposing(state: D, finding: RuleFinding, fact: Fact) -> D:
    """The state with what is proposed for one finding, by its ladder or, in edition 1, by itself."""
    evidence = state.evidence
    if evidence.newest == "exhaustion" and state.pending is not None and state.pending.proposal is None:
        # No child is left that could name rows, and whoever trains waits for an answer to this.
        state = replace(state, pending=None, proposed=False)
    if evidence.mode not in ("fix", "propose") or state.pending is not None:
        return state
    if evidence.edition == 1 and evidence.mode == "fix" and evidence.newest != "exhaustion":
        proposal = finding.proposed(evidence.segment) if state.may_fix else None
        return state if proposal is None else _pending(state, Pending(fact.id, finding, proposal))
    if finding.severity == "note":
        return state
    unknown = state.rows is None or state.rows[0] != evidence.segment
    if finding.rule in NEEDS_ROWS and unknown and evidence.newest == "window" and not evidence.windows[-1].finite:
        looked_for = Pending(fact.id, finding, None)
        if evidence.mode == "propose":
            return replace(state, waiting=(*state.waiting, looked_for))
        return replace(state, pending=looked_for, proposed=True) if state.may_fix else state
    return _climbed(state, finding, fact)


def _climbed(state: D, finding: RuleFinding, fact: Fact) -> D:
    """The state with the next remedy of a finding's ladder proposed."""
    evidence = state.evidence
    found = next_rung(trouble_of(state, finding), state.tried)
    if found is None:
        return state
    rung, changes = found
    automatic = evidence.mode == "fix" and finding.severity == "critical" and rung.automatic
    if automatic and not state.may_fix:
        return state
    proposal = proposal_of(finding, rung, changes, evidence, automatic=automatic)
    state = replace(state, tried=(*state.tried, (finding.rule, rung.name)))
    made = Pending(fact.id, finding, proposal)
    if automatic:
        return _pending(state, made)
    return replace(state, said=(*state.said, proposal), waiting=(*state.waiting, made))


def proposal_of(
    finding: RuleFinding, rung: Rung, changes: Changes, seen: Evidence, *, automatic: bool = False
) -> InterventionProposed:
    """The event that proposes a remedy for a finding; unless it is automatic, it waits for a person."""
    back = None
    if not (rung.another or rung.begins):
        first = max(finding.first, seen.origin)
        back = finding.remedy.rewind_to if finding.remedy else seen.planned(first)
    words = rung.words if rung.another else read_levers(changes)[0].sentence()
    where = "another training" if rung.another else "from here on" if back is None else f"from step {back} again"
    why = finding.remedy.why if finding.remedy else finding.message.rstrip(".")
    return InterventionProposed(
        rule=finding.rule,
        segment=seen.segment,
        rewind_to=back,
        changes={} if rung.another else dict(changes),
        reason=f"{why}; {where} with {words}."[:1000],
        automatic=automatic,
        remedy=rung.name,
        waits=not automatic,
        set=dict(changes) if rung.another else {},
    )


def _pending(state: D, made: Pending) -> D:
    assert made.proposal is not None  # noqa: S101 - it is made with one
    return replace(state, pending=made, proposed=True, said=(*state.said, made.proposal))


def _bisected(state: D, bisected: trainer.AttemptBisected, fact: Fact) -> D:
    """The state once the trainer has recorded which rows made a segment's first unsound window so."""
    if bisected.segment != state.evidence.segment:
        return state
    state = replace(state, rows=(bisected.segment, tuple(bisected.rows)))
    if state.pending is not None and state.pending.proposal is None:
        finding = state.pending.finding
        state = _climbed(replace(state, pending=None, proposed=False), finding, fact)
    looked_for = [one.finding for one in state.waiting if one.proposal is None]
    state = replace(state, waiting=tuple(one for one in state.waiting if one.proposal is not None))
    for finding in looked_for:
        state = _climbed(state, finding, fact)
    return _reached(state)


def _declined(state: D, declined: trainer.InterventionDeclined, fact: Fact) -> D:
    """The state after a proposal came to nothing; in place of an automatic one the next remedy is proposed."""
    state = replace(state, waiting=tuple(one for one in state.waiting if not one.answered_by(declined)))
    if state.pending is None or not state.pending.answered_by(declined):
        return state
    finding, proposal = state.pending.finding, state.pending.proposal
    state = replace(state, pending=None)
    if state.evidence.edition > 1 and proposal is not None:
        # What cannot be done now is not tried again.
        given_up = ((finding.rule, proposal.remedy),) * RUNGS[proposal.remedy].times
        state = _climbed(replace(state, proposed=False, tried=(*state.tried, *given_up)), finding, fact)
    return _reached(state)


def _reached(state: D) -> D:
    """The state that says that every rule has seen the segment, once its end is in and no proposal is under way."""
    looked_for = any(one.proposal is None for one in state.waiting)
    if state.ended is None or state.pending is not None or looked_for:
        return state
    return replace(state, said=(*state.said, DiagnosisReached(segment=state.evidence.segment, step=state.ended)))


def _named(state: D, fact: Fact) -> D:
    """What was proposed has been said, and is known from now on by its event's identity."""
    if fact.lane != ROLE or not isinstance(fact.event, InterventionProposed | AdvisorAsked):
        return state
    if isinstance(fact.event, AdvisorAsked):
        return replace(state, questions=(*state.questions, (fact.id, fact.event)))
    asked = next((asked for id, asked in state.questions if id == fact.envelope.causationid), None)
    if asked is not None and fact.event.segment == state.evidence.segment:
        finding = RuleFinding(asked.rule, asked.severity, asked.first, asked.last, "", "", ())
        chosen = Pending(fact.envelope.causationid or "", finding, fact.event, fact.id, advised=True)
        return replace(state, waiting=(*state.waiting, chosen))
    pending = state.pending.named_by(fact) if state.pending else None
    return replace(state, pending=pending, waiting=tuple(one.named_by(fact) for one in state.waiting))


def _applied(state: D, applied: trainer.InterventionApplied, fact: Fact) -> D:
    evidence = state.evidence.advance(fact)
    if evidence.segment == state.evidence.segment:
        return state
    made = [state.pending] if state.pending else []
    answered = next((one for one in (*made, *state.waiting) if one.answered_by(applied)), None)
    clip, factor = applied.changes.get("grad_clip"), applied.changes.get("learning_rate")
    # A remedy of the advisor's choice counts as tried once it takes effect: until then the ladder does not know it.
    chosen = answered.proposal if answered and answered.advised else None
    begun = replace(
        state,
        evidence=evidence,
        tried=(*state.tried, (chosen.rule, chosen.remedy)) if chosen else state.tried,
        questions=(),
        pending=None,
        waiting=(),
        proposed=False,
        clip=float(clip) if isinstance(clip, int | float) else state.clip,
        factor=state.factor * (float(factor) if isinstance(factor, int | float) else 1.0),
        rewinds=state.rewinds + (answered is not None and answered is state.pending),
        # What a limit ends is no remedy.
        watched=state.watched
        if applied.by == trainer.SPENT
        else (*state.watched, watch(fact.id, applied, evidence, answered.finding if answered else None)),
        ended=state.ended if state.ended == applied.step else None,
    )
    return _reached(begun)
