"""The mode `log`: admission of every record, schemas, the ledger's roots, the seal, anchors, and every named blob.

It trusts the root key's fingerprint and nothing else, computes no training anew, and changes nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path

from bus import subjects
from bus.blobs import DirectoryBlobs
from contracts.errors import NotVerified
from contracts.event import SPOKEN, Unknown
from contracts.keyring import GUEST, fingerprint
from contracts.operator import SessionRequested
from runtime.archive import Archive, Kept
from runtime.audit import parentage
from runtime.audit.books import Books
from runtime.audit.holdings import Holdings, Inventory, Store
from runtime.audit.verdict import UNANCHORED, Divergence, Verdict
from runtime.bundle.opened import Bundle


def log(
    archive: Archive, session: str, blobs: DirectoryBlobs, *, at_least: int = 0, anchors: Sequence[str] | None = None
) -> Verdict:
    """The verdict on a session's log. `at_least` is how many events a running swarm says there are.

    Raises `NotFound` for a session without a file, and `NewerThanCode` for one that this code cannot judge.
    """
    try:
        kept = archive.read(session)
    except NotVerified as error:
        damage = Divergence(0, 0, "file", error.message)
        return Verdict(session, "fail", divergences=(damage,), root=archive.root or UNANCHORED)
    ring, begun = archive.ring(subjects.partition(session)), parentage.judged(kept, archive, blobs)
    found = [*_short(kept, at_least), *begun.divergences]
    return _judged(kept, ring, Store(blobs), archive.root, found, anchors, begun.unchecked)


def bundle(path: Path, *, root: str = "", anchors: Sequence[str] | None = None) -> Verdict:
    """The verdict on a bundle, from its bytes alone. `NotFound` without a file; what is no bundle fails."""
    try:
        with Bundle(path, root) as opened:
            begun = parentage.judged(opened.kept, None, None)
            found = _judged(
                opened.kept, opened.ring, opened, root, list(opened.divergences()), anchors, begun.unchecked
            )
    except NotVerified as error:
        damage = Divergence(0, 0, "bundle", error.message)
        return Verdict("", "fail", bundle=str(path), divergences=(damage,), root=root or UNANCHORED)
    return Verdict(**vars(found) | {"bundle": str(path)})


def _judged(
    kept: Kept,
    ring: Kept | None,
    holdings: Holdings,
    root: str,
    found: list[Divergence],
    anchors: Sequence[str] | None,
    unchecked: Sequence[str],
) -> Verdict:
    state = kept.history.state
    books, inventory = Books(kept, ring), Inventory(state, holdings)
    inside = [*_unread(kept), *_origin(kept, ring), *_schemas(kept), *books.divergences(), *found]
    # What is wrong with the keys is the reason of much else; then the first place is told first.
    found = [*(_unread(ring, "keyring: ") if ring and ring is not kept else ()), *sorted(inside, key=_place)]
    found += [*inventory.divergences(), *(books.anchored(anchors) if anchors is not None else ())]
    heads = kept.admission.lanes(kept.history.id)
    noted = books.noted
    return Verdict(
        kept.history.id,
        "fail" if found else "pass",
        events=kept.history.size,
        lane_heads={lane: head.digest for lane, head in heads.items()},
        signatures=sum(fact.closes for fact in kept.history.facts),
        checkpoints=len(noted),
        signed_events=noted[-1][1].size if noted else 0,
        blobs=inventory.checked,
        anchors=len(anchors or ()),
        root=root or UNANCHORED,
        sealed=state.sealed.root if state.sealed else None,
        spans_total=max(0, sum(one.usable for one in state.path_checkpoints()) - 1),
        unchecked=(
            *_open_ends(kept, ring, books, root),
            *unchecked,
            *inventory.missing,
            "the computation itself was not repeated",
        ),
        divergences=tuple(found),
    )


def _place(one: Divergence) -> tuple[bool, int]:
    """By place in the session; what has none follows from something that has, unless it is about the keys."""
    return not one.position and one.what != "keyring", one.position


def _unread(kept: Kept, where: str = "") -> Iterator[Divergence]:
    """Records that are no facts, and bytes that are no record: a copy holds neither."""
    seqs = [fact.seq for fact in kept.history.facts]
    for void in kept.voids:
        position = 1 + bisect_left(seqs, void.seq)
        yield Divergence(position, void.seq, str(void.reason), f"{where}record {void.seq}: {void.detail}")
    if kept.torn_bytes:
        last = seqs[-1] if seqs else 0
        message = f"{where}{kept.torn_bytes} bytes after record {last} are no record"
        yield Divergence(len(seqs) + 1, last, "torn", message)


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


def _schemas(kept: Kept) -> Iterator[Divergence]:
    """What a built-in role said under a known name is what that name means; a guest's words bind nobody."""
    for fact in kept.history.facts:
        if isinstance(fact.event, Unknown) and fact.name in SPOKEN and not fact.lane.startswith(GUEST):
            message = f"{fact.lane!r} has no say in {fact.envelope.dataschema}, or its data are not what that means"
            yield Divergence(fact.position, fact.seq, "schema", message)


def _open_ends(kept: Kept, ring: Kept | None, books: Books, root: str) -> Iterator[str]:
    state = kept.history.state
    if state.sealed is None:
        signed = books.noted[-1][1].size if books.noted else 0
        yield (
            f"not sealed yet: nothing signed says that event {state.events} is the last; "
            f"the ledger has signed the first {signed}"
        )
    if not root and ring is not None and ring.history.size:
        opened = ring.admission.keyring(subjects.partition(kept.history.id)).root
        yield f"root: unanchored; the keyring is that of root {fingerprint(opened)}, which nobody was asked about"
    strangers = sum(isinstance(fact.event, Unknown) for fact in kept.history.facts)
    if strangers:
        yield f"{strangers} events of a type unknown here: their place is verified, their data are not"
