"""The union of events that the trainer may say in an audit; handlers declare it as their return type."""

from __future__ import annotations

from contracts.trainer import AuditCompleted, AuditDeclined, AuditFailed, AuditPlanned, SpanRepeated, SpanTaken

Verdicts = AuditPlanned | SpanTaken | SpanRepeated | AuditDeclined | AuditCompleted | AuditFailed
