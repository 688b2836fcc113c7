"""What the ledger has signed of a session."""

from __future__ import annotations

from contracts.errors import NotFound
from contracts.ledger import LedgerCheckpointed, SessionSealed
from runtime.log.history import SessionLog


def newest_root(history: SessionLog) -> LedgerCheckpointed | SessionSealed:
    """What the ledger signed last in a session: its seal, when there is one."""
    for fact in reversed(history.facts):
        if isinstance(fact.event, LedgerCheckpointed | SessionSealed):
            return fact.event
    raise NotFound(
        f"the ledger has signed nothing in {history.id} yet.",
        cure=f"Wait for the first note, or: swarm wait {history.id}",
    )
