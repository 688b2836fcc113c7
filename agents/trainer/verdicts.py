"""What the trainer may say in an audit."""

from __future__ import annotations

from contracts.trainer import AuditCompleted, AuditDeclined, AuditFailed, AuditPlanned, SpanRepeated, SpanTaken

Verdicts = AuditPlanned | SpanTaken | SpanRepeated | AuditDeclined | AuditCompleted | AuditFailed
