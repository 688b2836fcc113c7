"""The mode `log`: admission of every record, schemas, the ledger's roots, the seal, anchors, and every named blob.

It trusts the root key's fingerprint and nothing else, and computes no training again. A bundle is handed out only after
it has passed here and in the verifier that it holds.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import orjson

from bus import subjects
from bus.blobs import DirectoryBlobs
from contracts.envelope import Fact
from contracts.errors import NotVerified, count_of
from contracts.event import SPOKEN, Unknown
from contracts.keyring import fingerprint
from contracts.operator import SessionRequested
from contracts.roles import GUEST
from runtime.audit import fork_check
from runtime.audit.authority_check import CITING, check_grants
from runtime.audit.blob_check import BlobCheck, BlobSource, HomeBlobs
from runtime.audit.ledger_check import LedgerCheck
from runtime.audit.log_digest import ASKED, LogDigest, decisions_in, fast_digest
from runtime.bundle import verify_bundle
from runtime.bundle.reader import Bundle
from runtime.bundle.writer import BundleFile, write_bundle
from runtime.log.archive import Archive, StoredSession
from runtime.replay.verdict import UNANCHORED, Divergence, Verdict


def check_log(
    archive: Archive, session: str, blobs: DirectoryBlobs, *, at_least: int = 0, anchors: Sequence[str] | None = None
) -> Verdict:
    """The verdict on a session's log. `at_least` is how many events a running swarm says there are.

    Raises `NotFound` for a session without a file, and `NewerThanCode` for one that this code cannot judge.
    """
    asked = _CheckOptions(archive.root, anchors)
    told = fast_digest(archive, session)
    if told is not None and told.size >= at_least and told.state.fork is None:
        ring = archive.ring(subjects.partition(session))
        ledger = LedgerCheck(told, ring)
        inside = (*told.broken, *_unread(ring), *_origin(told.first, ring), *ledger.divergences(), *_lies(told, ring))
        if not any((*inside, *check_grants(archive, told.citing), *ledger.anchored(anchors))):
            return _verdict(told, ring, HomeBlobs(blobs), asked, _LogFindings())
    return _closely(archive, session, blobs, at_least, asked)


def check_bundle(
    path: Path, *, root: str = "", anchors: Sequence[str] | None = None, contradictions: bool = True
) -> Verdict:
    """The verdict on a bundle, from its bytes alone. `NotFound` without a file; what is no bundle fails.

    Without `contradictions` it says only whether the bundle is whole, not whether its log contradicts itself.
    """
    try:
        with Bundle(path, root) as opened:
            begun = fork_check.check_genesis(opened.kept, None, None)
            against = list(opened.divergences())
            asked = _CheckOptions(root, anchors, contradictions)
            if other := _other_root(opened.ring.stored[0].body if opened.ring.stored else b"", root):
                return Verdict(opened.session, "fail", bundle=str(path), divergences=(other,), root=root)
            found = _check_closely(opened.kept, opened.ring, opened, asked, against, begun.unchecked)
    except NotVerified as error:
        damage = Divergence(0, 0, "bundle", error.message)
        return Verdict("", "fail", bundle=str(path), divergences=(damage,), root=root or UNANCHORED)
    return Verdict(**vars(found) | {"bundle": str(path)})


class _CheckOptions(NamedTuple):
    """The root key's fingerprint that is trusted, notes that were kept elsewhere, and whether words are compared."""

    root: str
    anchors: Sequence[str] | None
    contradictions: bool = True


class _LogFindings(NamedTuple):
    """What does not hold in the log, or of notes that were kept elsewhere, and what could not be looked at."""

    inside: Sequence[Divergence] = ()
    anchored: Sequence[Divergence] = ()
    unchecked: Sequence[str] = ()


def _misfit(fact: Fact) -> str:
    return f"{fact.lane!r} has no say in {fact.envelope.dataschema}, or its data are not what that means"


def _closely(archive: Archive, session: str, blobs: DirectoryBlobs, at_least: int, asked: _CheckOptions) -> Verdict:
    """The verdict from a log that was read whole: every place that does not hold is named."""
    try:
        kept = archive.read(session)
    except NotVerified as error:
        damage = Divergence(0, 0, "file", error.message)
        return Verdict(session, "fail", divergences=(damage,), root=asked.root or UNANCHORED)
    partition = subjects.partition(session)
    if other := _other_root(archive.ring_opening(partition), asked.root):
        return Verdict(session, "fail", divergences=(other,), root=asked.root)
    ring, begun = archive.ring(partition), fork_check.check_genesis(kept, archive, blobs)
    against, size = [*begun.divergences], kept.history.size
    if size < at_least:
        message = f"the file ends after event {size}, and the swarm holds {at_least}"
        against.insert(0, Divergence(size + 1, 0, "short", message))
    against += check_grants(archive, [*kept.history.telling(CITING)])
    return _check_closely(kept, ring, HomeBlobs(blobs), asked, against, begun.unchecked)


def _check_closely(
    kept: StoredSession,
    ring: StoredSession | None,
    source: BlobSource,
    asked: _CheckOptions,
    against: Sequence[Divergence],
    unchecked: Sequence[str],
) -> Verdict:
    told = LogDigest.of(kept)
    ledger = LedgerCheck(told, ring)
    origin = _origin(told.first, ring) if kept is not ring else ()
    # Every event of a built-in role under a known name fits its schema; guests' events are not checked.
    misfits = [
        fact
        for fact in kept.history.facts
        if isinstance(fact.event, Unknown) and fact.name in SPOKEN and not fact.lane.startswith(GUEST)
    ]
    inside = [
        *_unread(kept),
        *origin,
        *(Divergence(fact.position, fact.seq, "schema", _misfit(fact)) for fact in misfits),
        *ledger.divergences(),
        *(_lies(told, ring) if kept is not ring else _lies(told, None)),
        *against,
        *(told.broken if asked.contradictions else ()),
    ]
    # What is wrong with the keys is the reason of much else; then the first place is told first.
    keys = _unread(ring, "keyring: ") if kept is not ring else ()
    found = _LogFindings([*keys, *sorted(inside, key=_place)], list(ledger.anchored(asked.anchors)), unchecked)
    return _verdict(told, ring, source, asked, found)


def _verdict(
    told: LogDigest, ring: StoredSession | None, source: BlobSource, asked: _CheckOptions, found: _LogFindings
) -> Verdict:
    state, blobs_check = told.state, BlobCheck(told.state, source)
    divergences = (*found.inside, *blobs_check.divergences(), *found.anchored)
    signed = told.noted[-1][1].size if told.noted else 0
    return Verdict(
        state.id,
        "fail" if divergences else "pass",
        events=told.size,
        lane_heads=dict(told.heads(told.size)),
        signatures=told.signatures,
        checkpoints=len(told.noted),
        signed_events=signed,
        blobs=blobs_check.checked,
        anchors=len(asked.anchors or ()),
        decisions=len(told.decisions),
        root=asked.root or UNANCHORED,
        sealed=state.sealed.root if state.sealed else None,
        spans_total=max(0, sum(one.usable for one in state.training.path_checkpoints()) - 1),
        unchecked=(
            *_open_ends(told, ring, signed, asked.root),
            *found.unchecked,
            *blobs_check.missing,
            "the computation itself was not repeated",
        ),
        divergences=divergences,
    )


def _other_root(opening: bytes, root: str) -> Divergence | None:
    """That the keyring is another root's than the one that is trusted: nothing else can be said then."""
    try:
        found = fingerprint(orjson.loads(opening)["data"]["root"]) if opening and root else root
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None  # no keyring that anybody could mean: what is wrong with it is told record by record
    if found == root:
        return None
    return Divergence(0, 0, "keyring", f"its keys are those of root {found}, and root {root} is to be trusted")


def _place(one: Divergence) -> tuple[bool, int]:
    """By place in the session; what has none follows from something that has, unless it is about the keys."""
    return not one.position and one.what != "keyring", one.position


def _unread(kept: StoredSession | None, where: str = "") -> Iterator[Divergence]:
    """Records that are no facts, and bytes that are no record: a copy holds neither."""
    if kept is None:
        return
    seqs = [fact.seq for fact in kept.history.facts]
    for void in kept.voids:
        position = 1 + bisect_left(seqs, void.seq)
        yield Divergence(position, void.seq, str(void.reason), f"{where}record {void.seq}: {void.detail}")
    if kept.torn_bytes:
        last = seqs[-1] if seqs else 0
        message = f"{where}{kept.torn_bytes} bytes after record {last} are no record"
        yield Divergence(len(seqs) + 1, last, "torn", message)


def _origin(first: Fact | None, ring: StoredSession | None) -> Iterator[Divergence]:
    """The first event is the genesis, and it names a state of the keyring that there was."""
    if ring is None:
        yield Divergence(0, 0, "keyring", "there is no keyring session, so no signature can be verified")
    elif first is None or not isinstance(first.event, SessionRequested):
        yield Divergence(1, first.seq if first else 0, "genesis", "the session does not begin with its genesis")
    elif first.event.keyring not in {fact.digest for fact in ring.history.facts}:
        yield Divergence(1, first.seq, "genesis", f"the genesis names keyring head {first.event.keyring}, unknown here")


def _lies(told: LogDigest, ring: StoredSession | None) -> Iterator[Divergence]:
    """Decisions of the session, and of who may take part, that were not signed as they stand."""
    about_keys = decisions_in(ring.history.telling(ASKED)) if ring is not None else []
    if told.decisions or about_keys:
        # It takes the models of all commands, which most audits do without.
        from runtime.audit.authority_check import check_decisions

        yield from check_decisions(told.decisions, told.keys)
        yield from check_decisions(about_keys, told.keys, "keyring: ")


def _open_ends(told: LogDigest, ring: StoredSession | None, signed: int, root: str) -> Iterator[str]:
    if told.state.sealed is None:
        yield (
            f"not sealed yet: nothing signed says that event {told.state.events} is the last; "
            f"the ledger has signed the first {signed}"
        )
    if not root and ring is not None and ring.history.size:
        opened = fingerprint(told.keys.root)
        yield f"root: unanchored; the keyring is that of root {opened}, which nobody was asked about"
    if told.strangers:
        strange = count_of(told.strangers, "event")
        yield f"{strange} of a type unknown here: only the place in the log is verified, not the data"


T = TypeVar("T")

_TRIES, _PAUSE = 5, 0.1


def read_steadily(look: Callable[[], tuple[Verdict, T]]) -> tuple[Verdict, T]:
    """What a look gives, taken again while the file ends in half a record, which a host leaves there for a moment."""
    for _ in range(_TRIES - 1):
        found = look()
        if not any(one.what == "torn" for one in found[0].divergences):
            return found
        time.sleep(_PAUSE)
    return look()


def make_bundle(
    archive: Archive, session: str, blobs: DirectoryBlobs, path: Path, *, wanted: Sequence[str] = ()
) -> BundleFile:
    """As `runtime.bundle.writer.write_bundle`; `NotVerified`, and no file, when the session does not pass.

    One whose log contradicts itself is bundled: others are to see that.
    """
    made = write_bundle(archive, session, blobs, path, wanted=wanted)
    found = check_bundle(path, root=archive.root, contradictions=False)
    # A seal may name any program, so only our own is run; it is the one inside unless older software sealed.
    alone = verify_bundle.findings(path, archive.root, contradictions=False)
    wrong = found.divergences[0].message if found.divergences else alone["divergence"]
    if wrong:
        path.unlink()
        raise NotVerified(f"session {session} does not pass: {wrong}", cure=f"See: swarm audit {session}")
    return made
