"""Verifies a session from its file alone: admission of every record, the ledger's trees, the seal, and named blobs.

It trusts the root key's fingerprint and nothing else, computes no training anew, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from bus import notes, subjects
from bus.blobs import DirectoryBlobs
from bus.tree import Tree, leaf_of
from contracts.envelope import Fact
from contracts.errors import NotFound, NotVerified
from contracts.keyring import Keyring
from contracts.ledger import LedgerCheckpointed, SessionSealed
from contracts.operator import SessionRequested
from contracts.session import Session
from runtime.archive import Archive, Kept
from runtime.engine.dataset import Dataset

UNANCHORED = "unanchored"
LEDGER = "ledger"


@dataclass(frozen=True, slots=True)
class Divergence:
    """One thing that does not hold: its place in the session (0 when it has none), in the stream, and a sentence."""

    position: int
    seq: int
    what: str
    message: str

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"position": self.position, "seq": self.seq, "what": self.what, "message": self.message}


@dataclass(frozen=True)
class Verdict:
    """What an audit found; `unchecked` says what it could not or did not look at."""

    session: str
    verdict: Literal["pass", "fail", "not-comparable"]
    events: int = 0
    lane_heads: dict[str, str] = field(default_factory=dict)
    signatures: int = 0
    checkpoints: int = 0
    blobs: int = 0
    root: str = UNANCHORED
    sealed: str | None = None
    spans_checked: int = 0
    spans_total: int = 0
    unchecked: tuple[str, ...] = ()
    divergences: tuple[Divergence, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain data, with the keys that programs rely on."""
        return {
            "session": self.session,
            "mode": "log",
            "verdict": self.verdict,
            "events": self.events,
            "lanes": len(self.lane_heads),
            "lane_heads": self.lane_heads,
            "signatures": self.signatures,
            "checkpoints": self.checkpoints,
            "blobs": self.blobs,
            "root": self.root,
            "sealed": self.sealed,
            "spans_checked": self.spans_checked,
            "spans_total": self.spans_total,
            "unchecked": list(self.unchecked),
            "first_divergence": self.divergences[0].as_json() if self.divergences else None,
            "divergences": len(self.divergences),
        }


def log(archive: Archive, session: str, blobs: DirectoryBlobs, *, at_least: int = 0) -> Verdict:
    """The verdict on a session's log. `at_least` is how many events a running swarm says there are.

    Raises `NotFound` for a session without a file, and `NewerThanCode` for one that this code cannot judge.
    """
    try:
        kept = archive.read(session)
    except NotVerified as error:
        damage = Divergence(0, 0, "file", error.message)
        return Verdict(session, "fail", divergences=(damage,), root=archive.root or UNANCHORED)
    ring = archive.ring(subjects.partition(session))
    state = kept.history.state
    looked = _Blobs(state, blobs)
    found = [*_unread(kept, ring), *_short(kept, at_least), *_origin(kept, ring), *_books(kept), *looked.divergences()]
    heads = kept.admission.lanes(session)
    return Verdict(
        session,
        "fail" if found else "pass",
        events=kept.history.size,
        lane_heads={lane: head.digest for lane, head in heads.items()},
        signatures=sum(fact.closes for fact in kept.history.facts),
        checkpoints=sum(isinstance(fact.event, LedgerCheckpointed | SessionSealed) for fact in kept.history.facts),
        blobs=looked.checked,
        root=archive.root or UNANCHORED,
        sealed=state.sealed.root if state.sealed else None,
        spans_total=max(0, sum(one.usable for one in state.path_checkpoints()) - 1),
        unchecked=(*_open_ends(state), *looked.missing, "the computation itself was not repeated"),
        divergences=tuple(found),
    )


def _unread(kept: Kept, ring: Kept | None) -> Iterator[Divergence]:
    """Records that are no facts, and bytes that are no record: a copy holds neither."""
    for one in (ring, kept) if ring is not None and ring is not kept else (kept,):
        where = "" if one is kept else "keyring: "
        for void in one.voids:
            position = 1 + sum(fact.seq < void.seq for fact in one.history.facts)
            yield Divergence(position, void.seq, str(void.reason), f"{where}record {void.seq}: {void.detail}")
        if one.torn_bytes:
            last = one.history.facts[-1].seq if one.history.facts else 0
            message = f"{where}{one.torn_bytes} bytes after record {last} are no record"
            yield Divergence(one.history.size + 1, last, "torn", message)


def _short(kept: Kept, at_least: int) -> Iterator[Divergence]:
    if kept.history.size < at_least:
        message = f"the file ends after event {kept.history.size}, and the swarm holds {at_least}"
        yield Divergence(kept.history.size + 1, 0, "short", message)


def _origin(kept: Kept, ring: Kept | None) -> Iterator[Divergence]:
    """The first event is the genesis, and it names a state of the keyring that there was."""
    if ring is None:
        yield Divergence(0, 0, "keyring", "there is no keyring session, so no signature can be verified")
        return
    if kept is ring:
        return
    first = kept.history.facts[0] if kept.history.facts else None
    if first is None or not isinstance(first.event, SessionRequested):
        yield Divergence(1, first.seq if first else 0, "genesis", "the session does not begin with its genesis")
    elif first.event.keyring not in {fact.digest for fact in ring.history.facts}:
        yield Divergence(1, first.seq, "genesis", f"the genesis names keyring head {first.event.keyring}, unknown here")


def _books(kept: Kept) -> Iterator[Divergence]:
    """Every root the ledger signed, computed again from the records."""
    admitted = {fact.seq: fact for fact in kept.history.facts}
    roots, tree = [Tree().root()], Tree()
    for stored in kept.stored:
        if stored.seq in admitted:
            tree.append(leaf_of(stored))
            roots.append(tree.root())
    ring = kept.admission.keyring(subjects.partition(kept.history.id))
    for fact in kept.history.facts:
        if fact.lane == LEDGER and isinstance(fact.event, LedgerCheckpointed | SessionSealed):
            against = _against(fact, fact.event, roots, ring, kept)
            if against:
                yield Divergence(fact.position, fact.seq, fact.name, against)


def _against(
    fact: Fact, said: LedgerCheckpointed | SessionSealed, roots: list[bytes], ring: Keyring, kept: Kept
) -> str:
    """What is wrong with one signed checkpoint; empty when nothing is."""
    if not 0 < said.size < fact.position:
        return f"it covers {said.size} events and is itself event {fact.position}"
    if roots[said.size].hex() != said.root:
        return f"the root over {said.size} events is {roots[said.size].hex()}, not {said.root}"
    if kept.history.facts[said.size - 1].seq != said.last_seq:
        return f"event {said.size} has sequence {kept.history.facts[said.size - 1].seq}, not {said.last_seq}"
    last_seq = (f"last-seq {said.last_seq}",)
    expected = notes.Checkpoint(notes.origin(kept.history.id), said.size, bytes.fromhex(said.root), last_seq)
    signed = _signed(said.note, ring, fact)
    if signed is None:
        return "no key that the ledger held then has signed its note"
    if signed != expected:
        return f"its note says {signed}, and the event {expected}"
    return _against_seal(said, kept) if isinstance(said, SessionSealed) else ""


def _signed(note: str, ring: Keyring, fact: Fact) -> notes.Checkpoint | None:
    """What the note says, if a key of the ledger that held at the event has signed it."""
    for key in ring.keys.values():
        if key.role == LEDGER and key.valid(fact.seq):
            with suppress(NotVerified):
                return notes.verify(note, key.public)
    return None


def _against_seal(said: SessionSealed, kept: Kept) -> str:
    heads: dict[str, str] = {}
    for earlier in kept.history.facts[: said.size]:
        heads[earlier.lane] = earlier.digest
    if heads != said.lanes:
        differing = sorted(lane for lane in heads.keys() | said.lanes.keys() if heads.get(lane) != said.lanes.get(lane))
        return f"the sealed heads of {', '.join(differing)} are not those of the lanes"
    genesis = kept.history.state.genesis
    if genesis and said.keyring != genesis.keyring:
        return f"it names keyring head {said.keyring}, and the genesis {genesis.keyring}"
    return ""


def _open_ends(state: Session) -> Iterator[str]:
    if state.sealed is None:
        yield f"not sealed yet: nothing signed says that event {state.events} is the last"


class _Blobs:
    """The blobs that a session names and still keeps, compared with their names."""

    def __init__(self, state: Session, blobs: DirectoryBlobs) -> None:
        self._state = state
        self._blobs = blobs
        self.checked = 0
        self.missing: list[str] = []

    def divergences(self) -> Iterator[Divergence]:
        """Every blob whose bytes are not those that its name says."""
        for what, digest in self._named():
            try:
                self._blobs.check(digest)
                self.checked += 1
            except NotFound:
                self.missing.append(f"{what}: blob {digest} is not in this store")
            except NotVerified as error:
                yield Divergence(0, 0, "blob", f"{what}: {error.message}")
        yield from self._dataset()

    def _named(self) -> Iterator[tuple[str, str]]:
        for kept in self._state.checkpoints:
            if kept.usable:
                yield f"checkpoint of step {kept.written.step}", kept.written.blob
        for _, made in self._state.exports:
            yield f"export {made.filename}", made.blob
        for name, digest in (self._state.claim.sources if self._state.claim else {}).items():
            yield f"source {name}", digest

    def _dataset(self) -> Iterator[Divergence]:
        prepared = self._state.dataset
        if prepared is None:
            return
        try:
            found = Dataset.open(self._blobs.root / "datasets" / prepared.root)
            if found.root != prepared.root:
                yield Divergence(0, 0, "dataset", f"its manifest has root {found.root}, not {prepared.root}")
            self.checked += 1
        except NotFound:
            self.missing.append(f"dataset {prepared.root} is not in this store")
        except NotVerified as error:
            yield Divergence(0, 0, "dataset", f"dataset {prepared.root}: {error.message}")
