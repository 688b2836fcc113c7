"""The fold behind the ledger: the tree over a session's facts, and what it has to say next. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from bus import notes, subjects
from bus.keys import HEADER
from bus.tree import Tree, headers_digest, leaf
from contracts.envelope import Fact
from contracts.ledger import LedgerCheckpointed, SessionSealed
from contracts.session import SessionState
from runtime.bundle import bundle_members

LANE = "ledger"


@dataclass(frozen=True)
class Book:
    """The tree in stream order, lane heads, and how much the last checkpoint covered."""

    tree: Tree = field(default_factory=Tree)
    lanes: tuple[tuple[str, str], ...] = ()
    last_seq: int = 0
    covered: int = 0
    unnoted: int = 0

    def advance(self, fact: Fact) -> Self:
        """The book with one more fact in it."""
        tree = self.tree.copy()
        tree.append(leaf_of(fact))
        lanes = dict(self.lanes) | {fact.lane: fact.digest}
        noted = isinstance(fact.event, LedgerCheckpointed)
        return replace(
            self,
            tree=tree,
            lanes=tuple(sorted(lanes.items())),
            last_seq=fact.seq,
            covered=fact.event.size if isinstance(fact.event, LedgerCheckpointed) else self.covered,
            # The ledger's own events never call for another checkpoint.
            unnoted=0 if noted else self.unnoted + (fact.lane != LANE),
        )

    def checkpoint(self, session: str) -> notes.SignedTreeHead:
        """The head of the tree over all facts so far, ready to be signed."""
        return notes.SignedTreeHead(
            notes.origin(session), self.tree.size, self.tree.root(), (f"last-seq {self.last_seq}",)
        )

    def checkpointed(self, note: str) -> LedgerCheckpointed:
        """The event for a signed checkpoint of this book."""
        return LedgerCheckpointed(size=self.tree.size, root=self.tree.root().hex(), last_seq=self.last_seq, note=note)

    def sealed(self, session: SessionState, ring: Book, furniture: Mapping[str, str]) -> SessionSealed:
        """The last word about the session, its note still to be signed; `ring` is the book of the keyring."""
        return SessionSealed(
            size=self.tree.size,
            root=self.tree.root().hex(),
            last_seq=self.last_seq,
            lanes=dict(self.lanes),
            keyring=session.genesis.keyring if session.genesis else "",
            keyring_size=ring.tree.size,
            keyring_root=ring.tree.root().hex(),
            members=bundle_members.sealed_members(session) | dict(furniture),
            note="",
        )


def leaf_of(fact: Fact) -> bytes:
    """The leaf of an admitted event, as every verifier computes it from the stored message."""
    headers = {HEADER: fact.signature} if fact.signature else {}
    return leaf(
        fact.seq, subjects.fact(fact.envelope.subject, fact.lane, fact.name), fact.digest, headers_digest(headers)
    )
