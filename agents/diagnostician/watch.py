"""Watches what became of an intervention: whether the problem stayed away, and what the loss did. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from agents.diagnostician.evidence import Evidence
from agents.diagnostician.finding import RuleFinding
from contracts.diagnostician import OutcomeJudged
from contracts.trainer import InterventionApplied, TrainingCancelled, TrainingCompleted, TrainingFailed

End = TrainingCompleted | TrainingFailed | TrainingCancelled


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
        if isinstance(end, TrainingCompleted) and seen.step > self.begins:
            return self._by_figures(seen)
        ended = "was cancelled" if isinstance(end, TrainingCancelled) else "ended"
        message = f"The session {ended} at step {end.step} before it showed."
        if isinstance(end, TrainingFailed):
            message = f"The session failed at step {end.step}: {end.message}"[:500]
        return self._said(seen, helped=False, message=message)

    def _said(self, seen: Evidence, *, helped: bool, message: str) -> OutcomeJudged:
        figures = {"loss_before": self.loss, "loss_after": _loss(seen), "step": float(seen.step)}
        prove = bool((seen.request.get("diagnosis") or {}).get("prove"))
        return OutcomeJudged(proposal=self.id, helped=helped, message=message, figures=figures, prove=prove)


def watch(id: str, applied: InterventionApplied, seen: Evidence, finding: RuleFinding | None) -> InterventionWatch:
    """What is to be watched from now on; `seen` is the evidence as of the beginning of the new segment."""
    window: int = seen.resolved.get("window") or 1
    shown = finding.last + 2 * window if finding else applied.step + 4 * window
    total = seen.total or shown
    return InterventionWatch(
        id, finding.rule if finding else "", applied.segment, applied.step, min(shown, total), _loss(seen)
    )


def _loss(seen: Evidence) -> float:
    if seen.latest is not None:
        return seen.latest.median
    return math.nan if seen.initial is None else seen.initial
