"""What is to be done next with a running session: the oldest wish of the most urgent kind. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from contracts.common import HandlerFailed
from contracts.diagnostician import InterventionProposed
from contracts.operator import CancelRequested, PauseRequested
from contracts.session import SessionState

Kind = Literal["cancel", "pause", "drain", "intervene"]


@dataclass(frozen=True)
class Decision:
    """One thing to do at the next grid step, and the event that asks for it."""

    kind: Kind
    cause: str = ""
    reason: str = ""
    proposal: InterventionProposed | None = None


def next_decision(session: SessionState, *, draining: bool = False) -> Decision | None:
    """Cancel, then pause, then rewind, stop or change; None when training simply goes on."""
    for id, wish in session.wishes:
        if isinstance(wish, CancelRequested):
            return Decision("cancel", id, wish.reason)
    for id, wish in session.wishes:
        if isinstance(wish, PauseRequested):
            return Decision("pause", id)
    if draining:
        return Decision("drain")
    current = [(id, seen) for id, seen in session.open_proposals() if seen.segment == session.segment.number]
    current.sort(key=lambda one: _urgency(one[1]))
    if current:
        return Decision("intervene", current[0][0], current[0][1].reason, current[0][1])
    return None


def hopeless_proposals(session: SessionState) -> list[tuple[str, str]]:
    """Proposals that cannot be followed any more, or never could, each with the reason why it is declined."""
    found = [(id, _against(seen, session)) for id, seen in session.open_proposals()]
    return [(id, reason) for id, reason in found if reason]


def _against(proposal: InterventionProposed, session: SessionState) -> str:
    if proposal.segment != session.segment.number:
        return "the segment it was made for is over"
    if proposal.rewind_to is not None and proposal.rewind_to < session.begins:
        return f"step {proposal.rewind_to} lies before step {session.begins}, at which this session begins"
    return ""


def _urgency(proposal: InterventionProposed) -> int:
    if proposal.rewind_to is not None:
        return 0
    return 1 if proposal.changes.get("stop") else 2


def judged(session: SessionState, step: int) -> bool:
    """Whether the diagnostician has seen the plan's last window, or has been recorded as unable to."""
    segment = session.segment
    if session.waived_judgement or segment.changes.get("stop"):
        return True
    reached = session.diagnosed
    if reached is not None and (reached.segment, reached.step) == (segment.number, step):
        return True
    return any(_is_diagnosticians(seen) for seen in session.failures)


def _is_diagnosticians(failure: HandlerFailed) -> bool:
    return failure.role == "diagnostician"
