"""What the diagnostician says: what is wrong, on what evidence, what it proposes, and whether that helped."""

from __future__ import annotations

from typing import Any, Literal

from contracts.event import Event, Exact


class ProblemDiagnosed(Event, wire="problem.diagnosed"):
    """A rule found a problem in these steps; the evidence names the events."""

    rule: str
    segment: int
    first: int
    last: int
    severity: Literal["note", "warning", "critical"]
    message: str
    cure: str
    evidence: list[str]
    figures: dict[str, Exact]


class InterventionProposed(Event, wire="intervention.proposed"):
    """A change of plan for one segment; the trainer applies or declines it."""

    rule: str
    segment: int
    rewind_to: int | None
    changes: dict[str, Any]
    reason: str
    automatic: bool


class DiagnosisReached(Event, wire="diagnosis.reached"):
    """Every rule has seen the segment up to this step; nothing further is proposed for it."""

    segment: int
    step: int


class OutcomeJudged(Event, wire="outcome.judged"):
    """What became of an intervention."""

    proposal: str
    helped: bool
    message: str
    figures: dict[str, Exact]
