"""The fold of an audit in a swarm: what was planned, who computes which span, and what came out. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from contracts.common import HandlerFailed
from contracts.envelope import Fact
from contracts.event import Event
from contracts.exporter import ExportRepeated
from contracts.findings import SpanPlanned
from contracts.trainer import AuditDeclined, AuditPlanned, SpanRepeated, SpanTaken

EXPORTER = "exporter"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who computes a span; `id` is the event that says so."""

    id: str
    incarnation: str


@dataclass(frozen=True, slots=True)
class Audit:
    """An audit as of one event. The first plan counts; of two accounts of a span the one that found something."""

    planned: AuditPlanned | None = None
    planned_id: str = ""
    holders: Mapping[int, Holder] = field(default_factory=dict)
    repeated: Mapping[int, SpanRepeated] = field(default_factory=dict)
    exports: Mapping[str, ExportRepeated] = field(default_factory=dict)
    declined: Mapping[str, AuditDeclined] = field(default_factory=dict)
    """By incarnation."""
    exporter_failed: bool = False

    def advance(self, fact: Fact) -> Self:
        """The audit after one more fact."""
        fold = _FOLDS.get(type(fact.event))
        changes = fold(self, fact.event, fact.id) if fold else {}
        return replace(self, **changes) if changes else self

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


def _planned(audit: Audit, said: AuditPlanned, id: str) -> Changes:
    return {} if audit.planned else {"planned": said, "planned_id": id}


def _taken(audit: Audit, said: SpanTaken, id: str) -> Changes:
    """Of two that take a span at once the earlier one has it; in its place comes only who names it."""
    holder = audit.holders.get(said.span)
    if said.instead_of != (holder.id if holder else None):
        return {}
    return {"holders": {**audit.holders, said.span: Holder(id, said.incarnation)}}


def _repeated(audit: Audit, said: SpanRepeated, id: str) -> Changes:
    known = audit.repeated.get(said.span)
    if known is not None and (known.divergence is not None or said.divergence is None):
        return {}
    return {"repeated": {**audit.repeated, said.span: said}}


def _failed(audit: Audit, said: HandlerFailed, id: str) -> Changes:
    return {"exporter_failed": True} if (said.role, said.heard) == (EXPORTER, audit.planned_id) else {}


Changes = dict[str, Any]
_FOLDS: dict[type[Event], Callable[[Audit, Any, str], Changes]] = {
    AuditPlanned: _planned,
    SpanTaken: _taken,
    SpanRepeated: _repeated,
    ExportRepeated: lambda audit, said, _: {"exports": {**audit.exports, said.export: said}},
    AuditDeclined: lambda audit, said, _: {"declined": {**audit.declined, said.incarnation: said}},
    HandlerFailed: _failed,
}
