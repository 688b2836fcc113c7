"""An audit in a swarm: the fold of what was planned, who computes which span, and what came out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from contracts.common import HandlerFailed
from contracts.envelope import Fact
from contracts.exporter import ExportRepeated
from contracts.findings import SpanPlanned
from contracts.kind import Carrier, Kind, KindState, failed_unless_cancelled, having
from contracts.operator import CancelRequested
from contracts.roles import EXPORTER, TRAINER
from contracts.trainer import AuditCompleted, AuditDeclined, AuditFailed, AuditPlanned, SpanRepeated, SpanTaken


@dataclass(frozen=True, slots=True)
class Holder:
    """Who computes a span; `id` is the event that says so."""

    id: str
    incarnation: str


@dataclass(frozen=True)
class AuditState(KindState):
    """An audit as of one event. The first plan counts; of two accounts of a span the one that found something.

    `step` counts the steps of every account.
    """

    planned: AuditPlanned | None = None
    planned_id: str = ""
    holders: Mapping[int, Holder] = field(default_factory=dict)
    repeated: Mapping[int, SpanRepeated] = field(default_factory=dict)
    exports: Mapping[str, ExportRepeated] = field(default_factory=dict)
    declined: Mapping[str, AuditDeclined] = field(default_factory=dict)
    """By incarnation."""
    exporter_failed: bool = False

    def advance(self, fact: Fact) -> AuditState:
        """The audit after one more fact of its session."""
        fold = AUDIT.folds.get(type(fact.event))
        return cast("AuditState", fold(self, fact.event, fact)) if fold else self

    @property
    def total_steps(self) -> int | None:
        """The steps of the chosen spans; None before they are planned."""
        if self.planned is None:
            return None
        chosen = set(self.planned.chosen)
        return sum(span.ends - span.begins for span in self.planned.spans if span.number in chosen)

    def waiting(self) -> list[SpanPlanned]:
        """The chosen spans without an account, whoever holds them, in the order in which they are to be taken.

        The longest come first, so that the last ones are short. Who looks for the first divergence goes by number and
        needs nothing behind one.
        """
        if self.planned is None:
            return []
        chosen = [span for span in self.planned.spans if span.number in self.planned.chosen]
        left = [span for span in chosen if span.number not in self.repeated]
        if self.planned.mode == "bisect":
            bad = min((number for number, repeated in self.repeated.items() if repeated.divergence), default=None)
            return [span for span in left if bad is None or span.number < bad]
        return sorted(left, key=lambda span: (span.begins - span.ends, span.number))

    def unexported(self) -> list[str]:
        """The exports to be made again of which the exporter has said nothing, and may still."""
        if self.planned is None or self.exporter_failed:
            return []
        return [made.export for made in self.planned.exports if made.export not in self.exports]


def _planned(audit: AuditState, said: AuditPlanned, fact: Fact) -> AuditState:
    return audit if audit.planned else having(audit, planned=said, planned_id=fact.id)


def _taken(audit: AuditState, said: SpanTaken, fact: Fact) -> AuditState:
    """Of two that take a span at once the earlier one has it; in its place comes only who names it."""
    holder = audit.holders.get(said.span)
    if said.instead_of != (holder.id if holder else None):
        return audit
    return having(audit, holders={**audit.holders, said.span: Holder(fact.id, said.incarnation)})


def _repeated(audit: AuditState, said: SpanRepeated, fact: Fact) -> AuditState:
    known, step = audit.repeated.get(said.span), audit.step + said.steps
    if known is not None and (known.divergence is not None or said.divergence is None):
        return having(audit, step=step)
    return having(audit, step=step, repeated={**audit.repeated, said.span: said})


def _failed(audit: AuditState, said: HandlerFailed, fact: Fact) -> AuditState:
    return having(audit, exporter_failed=True) if (said.role, said.heard) == (EXPORTER, audit.planned_id) else audit


AUDIT = Kind(
    "audit",
    AuditState,
    carriers=(Carrier(TRAINER),),
    ends={AuditCompleted: "completed", AuditFailed: failed_unless_cancelled},
    heeds=(CancelRequested,),
    folds={
        AuditPlanned: _planned,
        SpanTaken: _taken,
        SpanRepeated: _repeated,
        ExportRepeated: lambda s, e, f: having(s, exports={**s.exports, e.export: e}),
        AuditDeclined: lambda s, e, f: having(s, declined={**s.declined, e.incarnation: e}),
        HandlerFailed: _failed,
    },
)

Audit = AuditState
"""The name under which readers of logs have imported it."""
