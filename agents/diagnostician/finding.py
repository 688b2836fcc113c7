"""What a rule says when it fires: the problem, its evidence, and what an automatic cure would be. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from agents.diagnostician.evidence import Evidence
from contracts.diagnostician import InterventionProposed, ProblemDiagnosed

MOST_EVIDENCE = 32


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change of plan from the planned checkpoint `rewind_to` on."""

    rewind_to: int
    changes: Mapping[str, Any]
    reason: str


@dataclass(frozen=True, slots=True)
class RuleFinding:
    """One problem in the steps [first, last]; `remedy` is there only when it can be put right without a person."""

    rule: str
    severity: Literal["note", "warning", "critical"]
    first: int
    last: int
    message: str
    cure: str
    evidence: tuple[str, ...]
    figures: Mapping[str, float] = field(default_factory=dict)
    remedy: Remedy | None = None

    def diagnosed(self, segment: int) -> ProblemDiagnosed:
        """The event that tells it."""
        return ProblemDiagnosed(
            rule=self.rule,
            segment=segment,
            first=self.first,
            last=self.last,
            severity=self.severity,
            message=self.message,
            cure=self.cure,
            evidence=list(self.evidence[-MOST_EVIDENCE:]),
            figures=dict(self.figures),
        )

    def proposed(self, segment: int) -> InterventionProposed | None:
        """The event that proposes its remedy."""
        if self.remedy is None:
            return None
        return InterventionProposed(
            rule=self.rule,
            segment=segment,
            rewind_to=self.remedy.rewind_to,
            changes=dict(self.remedy.changes),
            reason=self.remedy.reason,
            automatic=True,
        )


class Rule(Protocol):
    """One way of being wrong. `look` is pure and is called after every window and every evaluation on the path."""

    @property
    def name(self) -> str:
        """What the rule is called in events."""
        ...

    def look(self, seen: Evidence) -> RuleFinding | None:
        """What is wrong as of the newest fact, or None."""
        ...
