"""The ledger's part of an audit: every root it signed computed again, the seal, and notes that were kept elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from bus import notes, subjects
from bus.tree import Rows, leaf_hash, leaf_of
from contracts.envelope import Fact
from contracts.errors import NotVerified
from contracts.keyring import Key
from contracts.ledger import LedgerCheckpointed, SessionSealed
from runtime.archive import Kept
from runtime.audit.verdict import Divergence
from runtime.bundle import members

LEDGER = "ledger"
Noted = LedgerCheckpointed | SessionSealed


class Books:
    """The trees over a session's admitted records and over those of its keyring."""

    def __init__(self, kept: Kept, ring: Kept | None) -> None:
        self._kept = kept
        self._ring = ring
        self._facts = kept.history.facts
        self._rows = rows(kept)
        self._ring_rows = rows(ring) if ring else Rows(b"")
        self._keys = [key for key in _ring_keys(kept) if key.role == LEDGER]

    @property
    def noted(self) -> list[tuple[Fact, Noted]]:
        """Everything that the ledger signed a note for, in order."""
        return [
            (fact, fact.event)
            for fact in self._facts
            if fact.lane == LEDGER and isinstance(fact.event, LedgerCheckpointed | SessionSealed)
        ]

    def divergences(self) -> Iterator[Divergence]:
        """Every note and seal that does not say what the records say."""
        for fact, said in self.noted:
            against = self._against_tree(fact, said) or self._against_note(fact, said)
            if not against and isinstance(said, SessionSealed):
                against = self._against_lanes(said) or self._against_keyring(said) or self._against_members(fact, said)
            if against:
                yield Divergence(fact.position, fact.seq, fact.name, against)

    def anchored(self, anchors: Iterable[str]) -> Iterator[Divergence]:
        """Every note from outside that does not belong to this log, when there is one about it at all."""
        own = notes.origin(self._kept.history.id)
        about = [note for note in anchors if notes.parse(note).origin == own]
        if not about:
            yield Divergence(0, 0, "anchor", f"no note that was given is about {self._kept.history.id}")
        for note in about:
            against = self._against_anchor(note)
            if against:
                yield Divergence(min(notes.parse(note).size, len(self._facts)), 0, "anchor", against)

    def _against_anchor(self, note: str) -> str:
        said = notes.parse(note)
        if not any(_signs(key, note) for key in self._keys):
            return f"the anchored note over {said.size} events is signed by no key that this ledger ever held"
        if said.size > self._rows.size:
            return f"an anchored note covers {said.size} events, and there are {len(self._facts)}: the end is missing"
        found = self._rows.root(said.size)
        if found != said.root:
            return f"the anchored root over {said.size} events is {said.root.hex()}, not {found.hex()}"
        sealed = self._kept.history.state.sealed
        if said.extension("members") and (sealed is None or sealed.note != note):
            return f"the anchored seal over {said.size} events is not the seal that stands here"
        return ""

    def _against_tree(self, fact: Fact, said: Noted) -> str:
        if not 0 < said.size < fact.position:
            return f"it covers {said.size} events and is itself event {fact.position}"
        found = self._rows.root(said.size).hex()
        if found != said.root:
            return f"the root over {said.size} events is {found}, not {said.root}"
        last = self._facts[said.size - 1].seq
        return "" if last == said.last_seq else f"event {said.size} has sequence {last}, not {said.last_seq}"

    def _against_note(self, fact: Fact, said: Noted) -> str:
        session = self._kept.history.id
        if isinstance(said, SessionSealed):
            expected = members.checkpoint_of(session, said)
        else:
            last_seq = (f"last-seq {said.last_seq}",)
            expected = notes.Checkpoint(notes.origin(session), said.size, bytes.fromhex(said.root), last_seq)
        if not any(key.valid(fact.seq) and _signs(key, said.note) for key in self._keys):
            return "no key that the ledger held then has signed its note"
        signed = notes.parse(said.note)
        return "" if signed == expected else f"its note says {signed}, and the event {expected}"

    def _against_lanes(self, said: SessionSealed) -> str:
        heads = {earlier.lane: earlier.digest for earlier in self._facts[: said.size]}
        if heads == said.lanes:
            return ""
        differing = sorted(lane for lane in heads.keys() | said.lanes.keys() if heads.get(lane) != said.lanes.get(lane))
        return f"the sealed heads of {', '.join(differing)} are not those of the lanes"

    def _against_keyring(self, said: SessionSealed) -> str:
        genesis = self._kept.history.state.genesis
        if genesis and said.keyring != genesis.keyring:
            return f"it names keyring head {said.keyring}, and the genesis {genesis.keyring}"
        if not 0 < said.keyring_size <= self._ring_rows.size:
            return f"it covers {said.keyring_size} events of the keyring, and there are {self._ring_rows.size}"
        found = self._ring_rows.root(said.keyring_size).hex()
        if found != said.keyring_root:
            return f"the root over {said.keyring_size} events of the keyring is {found}, not {said.keyring_root}"
        later = self._ring.history.facts[said.keyring_size :] if self._ring else []
        if later and later[0].seq <= said.last_seq:
            return f"it leaves out event {said.keyring_size + 1} of the keyring, which came before the session's last"
        return ""

    def _against_members(self, fact: Fact, said: SessionSealed) -> str:
        expected = members.of(self._kept.history.states[fact.position - 1])
        named = expected.keys() | set(members.FURNITURE)
        wrong = {name for name, digest in expected.items() if said.members.get(name) != digest}
        wrong |= said.members.keys() ^ named
        return f"its members {', '.join(sorted(wrong))} are not those that the events name" if wrong else ""


def rows(kept: Kept) -> Rows:
    """The tree over the admitted records, with the root over the first n for every n."""
    admitted = {fact.seq for fact in kept.history.facts}
    return Rows(b"".join(leaf_hash(leaf_of(stored)) for stored in kept.stored if stored.seq in admitted))


def _ring_keys(kept: Kept) -> Iterable[Key]:
    return kept.admission.keyring(subjects.partition(kept.history.id)).keys.values()


def _signs(key: Key, note: str) -> bool:
    with suppress(NotVerified):
        notes.verify(note, key.public)
        return True
    return False
