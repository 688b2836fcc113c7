"""What must still be answered before an ended session can be sealed: pure functions of the fold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contracts.session import SessionState


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

    Its kind says what is owed. A duty that was waived, or whose role has recorded a failure for it, is not.
    """
    if session.outcome is None or session.sealed is not None:
        return ()
    duties = session.kind.owes(session)
    failed = {(failure.role, failure.heard) for failure in session.failures}
    return tuple(duty for duty in duties if duty.name not in session.waived and (duty.role, duty.cause) not in failed)
