"""Which guests a seal may wait for: pure rules over the facts of a session. Presence is judged by the agent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from contracts.duties import Duty
from contracts.envelope import Fact
from contracts.event import SPOKEN, Unknown
from contracts.keyring import Key
from contracts.session import SessionState

WHAT = "hear"


def unanswered(session: SessionState, facts: Sequence[Fact], guests: Iterable[Key]) -> tuple[Duty, ...]:
    """What guests may still say: of each one answer, to the last event of the session that it hears.

    A role answers one session in the order of its events, so that answer comes after all others.
    """
    last = ((guest.role, _last_heard(guest, facts)) for guest in guests)
    duties = (Duty(role, WHAT, fact.id) for role, fact in last if fact and not _answered(role, fact, facts))
    return tuple(duty for duty in duties if duty.name not in session.waived)


def _last_heard(guest: Key, facts: Sequence[Fact]) -> Fact | None:
    for fact in facts[::-1]:
        if fact.name in guest.hears and fact.lane != guest.role and _means_something(fact):
            return fact
    return None


def _answered(role: str, heard: Fact, facts: Sequence[Fact]) -> bool:
    later = facts[heard.position :]
    return any(fact.lane == role and fact.envelope.causationid == heard.id for fact in later)


def _means_something(fact: Fact) -> bool:
    """Whether any handler hears the fact: a known type in a lane that has no say in it is heard by none."""
    return not isinstance(fact.event, Unknown) or fact.name not in SPOKEN
