"""What must still be answered before an ended session can be sealed: pure functions of the fold."""

from __future__ import annotations

from dataclasses import dataclass

from contracts.session import SessionState
from contracts.trainer import TrainingCompleted


@dataclass(frozen=True, slots=True)
class Duty:
    """An answer that a role still owes; `cause` is the event that waits for it."""

    role: str
    what: str
    cause: str

    @property
    def name(self) -> str:
        """The duty as one word, `WHAT:CAUSE`, by which `duty.waived` names it."""
        return f"{self.what}:{self.cause}"


def owed(session: SessionState) -> tuple[Duty, ...]:
    """The answers that roles still owe to an ended session; empty while it runs, once it is sealed, or when all came.

    A duty that was waived, or whose role has recorded a failure for it, is not owed.
    """
    if session.outcome is None or session.sealed is not None:
        return ()
    duties = [
        Duty("checkpoint_keeper", "store", kept.id)
        for kept in session.checkpoints
        if kept.stored is None and not kept.gone
    ]
    if isinstance(session.outcome, TrainingCompleted):
        wanted = {kept.id: kept for name in ("best", "last") if (kept := session.checkpoint(name))}
        duties += [
            Duty("validator", "validate", kept.stored_id)
            for kept in wanted.values()
            if kept.stored and not kept.validated and not session.answers("validator", kept.stored_id)
        ]
    duties += [Duty("diagnostician", "judge", id) for id, _ in session.applied if id not in session.judged]
    duties += [
        Duty("diagnostician", "prove", id) for id in session.to_prove if not session.answers("diagnostician", id)
    ]
    duties += [
        Duty("exporter", f"export.{form}.{quantize or 'plain'}", cause)
        for form, quantize, _, cause in wanted_exports(session)
    ]
    if session.kind in ("training", "trial") and not session.answers("resource_monitor", session.outcome_id):
        duties.append(Duty("resource_monitor", "summarise", session.outcome_id))
    failed = {(failure.role, failure.heard) for failure in session.failures}
    return tuple(duty for duty in duties if duty.name not in session.waived and (duty.role, duty.cause) not in failed)


def wanted_exports(session: SessionState) -> list[tuple[str, str, str, str]]:
    """Every export asked for and not answered, as (format, quantize, checkpoint, cause)."""
    if not isinstance(session.outcome, TrainingCompleted):
        return []
    asked = session.request.get("export") or {}
    wanted = [
        (form, quantize, asked.get("checkpoint", "best"), session.outcome_id)
        for form in asked.get("formats", ())
        for quantize in ("", *(asked.get("quantize", ()) if form == "onnx" else ()))
    ]
    wanted += [(wish.format, wish.quantize, wish.checkpoint, id) for id, wish in session.export_wishes]
    done = {(said.format, said.quantize, said.checkpoint) for _, said in session.exports}
    done |= {(said.format, said.quantize, said.checkpoint) for said in session.refusals}
    return [export for export in wanted if export[:3] not in done]
