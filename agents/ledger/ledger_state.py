"""What the ledger knows of a session: the tree over its facts, and the guests that a seal may wait for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from bus import notes, subjects
from bus.keys import HEADER
from bus.tree import Tree, headers_digest, leaf
from contracts.envelope import Fact
from contracts.event import SPOKEN, Unknown
from contracts.keyring import Key
from contracts.kind import Duty
from contracts.ledger import LedgerCheckpointed, SessionSealed
from contracts.session import SessionState
from runtime.bundle import bundle_members

LANE = "ledger"
HEAR = "hear"
"""The duty of a guest: to answer what it has heard."""


@dataclass(frozen=True)
class LedgerState:
    """The tree in stream order, lane heads, and how much the last signed head covered."""

    tree: Tree = field(default_factory=Tree)
    lanes: tuple[tuple[str, str], ...] = ()
    last_seq: int = 0
    covered: int = 0
    unsigned: int = 0

    def advance(self, fact: Fact) -> Self:
        """The state after one more fact."""
        tree = self.tree.copy()
        tree.append(leaf_of(fact))
        lanes = dict(self.lanes) | {fact.lane: fact.digest}
        signed = isinstance(fact.event, LedgerCheckpointed)
        return replace(
            self,
            tree=tree,
            lanes=tuple(sorted(lanes.items())),
            last_seq=fact.seq,
            covered=fact.event.size if isinstance(fact.event, LedgerCheckpointed) else self.covered,
            # The ledger's own events never call for another signature.
            unsigned=0 if signed else self.unsigned + (fact.lane != LANE),
        )

    def tree_head(self, session: str) -> notes.SignedTreeHead:
        """The head of the tree over all facts so far, ready to be signed."""
        last = (f"last-seq {self.last_seq}",)
        return notes.SignedTreeHead(notes.origin(session), self.tree.size, self.tree.root(), last)

    def checkpointed(self, note: str) -> LedgerCheckpointed:
        """The event for a signed head of this tree."""
        return LedgerCheckpointed(size=self.tree.size, root=self.tree.root().hex(), last_seq=self.last_seq, note=note)

    def sealed(self, session: SessionState, ring: LedgerState, members: Mapping[str, str]) -> SessionSealed:
        """The last word about the session, its note still to be signed; `ring` is the state of the keyring."""
        return SessionSealed(
            size=self.tree.size,
            root=self.tree.root().hex(),
            last_seq=self.last_seq,
            lanes=dict(self.lanes),
            keyring=session.genesis.keyring if session.genesis else "",
            keyring_size=ring.tree.size,
            keyring_root=ring.tree.root().hex(),
            members=bundle_members.sealed_members(session) | dict(members),
            note="",
        )


def leaf_of(fact: Fact) -> bytes:
    """The leaf of an admitted event, as every verifier computes it from the stored message."""
    headers = {HEADER: fact.signature} if fact.signature else {}
    return leaf(
        fact.seq, subjects.fact(fact.envelope.subject, fact.lane, fact.name), fact.digest, headers_digest(headers)
    )


def unanswered(session: SessionState, facts: Sequence[Fact], guests: Iterable[Key]) -> tuple[Duty, ...]:
    """What guests may still say: of each one answer, to the last event of the session that it hears.

    A role answers one session in the order of its events, so that answer comes after all others. Whether a guest is
    there is judged by the agent.
    """
    duties = []
    for guest in guests:
        heard = next((fact for fact in facts[::-1] if _hears(guest, fact)), None)
        if heard is not None and not _answered(guest.role, heard, facts):
            duties.append(Duty(guest.role, HEAR, heard.id))
    return tuple(duty for duty in duties if duty.name not in session.waived)


def _hears(guest: Key, fact: Fact) -> bool:
    """Whether a handler of the guest hears the fact: a known type in a lane that may not say it is heard by none."""
    means_something = not isinstance(fact.event, Unknown) or fact.name not in SPOKEN
    return fact.name in guest.hears and fact.lane != guest.role and means_something


def _answered(role: str, heard: Fact, facts: Sequence[Fact]) -> bool:
    later = facts[heard.position :]
    return any(fact.lane == role and fact.envelope.causationid == heard.id for fact in later)
