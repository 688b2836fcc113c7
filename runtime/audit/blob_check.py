"""The bytes that a session names and that are no events, each compared with its digest, wherever they are kept."""

import json
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Protocol

from blake3 import blake3

from bus.blobs import DirectoryBlobs
from contracts.errors import InvalidInput, NotFound, NotVerified, count_of
from contracts.exporter import ExportingState
from contracts.session import SessionState
from runtime.bundle.bundle_members import FIXED_MEMBERS, row_names
from runtime.engine.dataset import MANIFEST, PIECE, Manifest, canonical
from runtime.replay.verdict import Divergence

CHECKPOINT = "checkpoint of step "


class BlobSource(Protocol):
    """Where the bytes are: the store of a home, or a bundle."""

    place: str
    """In words."""

    def check(self, digest: str) -> None:
        """Return if the blob is there and is what its name says; `NotFound`, `NotVerified`."""
        ...

    def pieces(self, root: str, file: str) -> Iterator[bytes]:
        """A file of the dataset with this root, in pieces of 4 MiB; `NotFound`."""
        ...


class HomeBlobs:
    """The blobs of a home."""

    place = "this store"

    def __init__(self, blobs: DirectoryBlobs) -> None:
        self._blobs = blobs

    def check(self, digest: str) -> None:
        """The blob's file, read through once."""
        self._blobs.check(digest)

    def pieces(self, root: str, file: str) -> Iterator[bytes]:
        """A file of a prepared dataset."""
        path = self._blobs.root / "datasets" / root / file
        if not path.is_file():
            raise NotFound(f"{file!r} of dataset {root} is not in this store")
        return _read(path)


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


def named_blobs(state: SessionState) -> Iterator[tuple[str, str]]:
    """Every blob that a session names and has not deleted, with a word on what it is."""
    for kept in state.training.checkpoints:
        if kept.usable:
            yield f"{CHECKPOINT}{kept.written.step}", kept.written.blob
    for _, made in ExportingState.of(state).exports:
        yield f"export {made.filename}", made.blob
    for name, digest in (state.training.claim.sources if state.training.claim else {}).items():
        yield f"source {name}", digest
    if state.training.claim and state.training.claim.initial:
        yield "weights to begin with", state.training.claim.initial
    if state.fork and state.fork.more:
        yield "what the fork inherits", state.fork.more
    for split, digest in row_names(state).items():
        yield f"names of {split} rows", digest
    if state.sealed:
        yield from ((name, state.sealed.members[name]) for name in FIXED_MEMBERS if name in state.sealed.members)


class BlobCheck:
    """What a session names, looked up where it is kept."""

    def __init__(self, state: SessionState, source: BlobSource) -> None:
        self._state = state
        self._source = source
        self.checked = 0
        self.missing: list[str] = []

    def divergences(self) -> Iterator[Divergence]:
        """Every blob whose bytes are not those that its name says; what is not there is listed in `missing`."""
        absent = 0
        for what, digest in named_blobs(self._state):
            try:
                self._source.check(digest)
                self.checked += 1
            except NotFound:
                if what.startswith(CHECKPOINT):
                    absent += 1
                else:
                    self.missing.append(f"{what}: blob {digest} is not here")
            except (InvalidInput, NotVerified) as error:
                yield Divergence(0, 0, "blob", f"{what}: {error.message}")
        if absent:
            left = count_of(absent, "is", "are")
            self.missing.append(f"checkpoints: {left} not in {self._source.place}; the log has their digests")
        gone = [kept for kept in self._state.training.checkpoints if kept.gone]
        if gone:
            told = count_of(len(gone), "checkpoint was", "checkpoints were")
            self.missing.append(f"{told} let go, as the log says, which has the digests")
        if self._state.training.dataset:
            yield from self._dataset(self._state.training.dataset.root)

    def _dataset(self, root: str) -> Iterator[Divergence]:
        try:
            raw = b"".join(self._source.pieces(root, MANIFEST))
        except NotFound:
            self.missing.append(f"dataset {root} is not here")
            return
        try:
            manifest = _manifest(raw, root)
        except NotVerified as error:
            yield Divergence(0, 0, "dataset", f"dataset {root}, {MANIFEST}: {error.message}")
            return
        self.checked += 1
        yield from self._shards(root, manifest)

    def _shards(self, root: str, manifest: Manifest) -> Iterator[Divergence]:
        stored = [one for columns in manifest.splits.values() for one in columns.values()]
        absent = []
        for one in stored:
            try:
                found = tuple(blake3(piece).hexdigest() for piece in self._source.pieces(root, one.file))
            except NotFound:
                absent.append(one.file)
                continue
            self.checked += 1
            if found != one.pieces:
                pairs = enumerate(zip_longest(found, one.pieces))
                at = next(number for number, (piece, wanted) in pairs if piece != wanted)
                yield Divergence(0, 0, "dataset", f"dataset {root}, {one.file}: piece {at} is not what was prepared")
        if absent and len(absent) < len(stored):
            yield Divergence(0, 0, "dataset", f"dataset {root}: {', '.join(absent)} missing, though the rest is here")
        elif absent:
            self.missing.append(f"dataset {root}: its rows are not here")


def _manifest(raw: bytes, root: str) -> Manifest:
    """The manifest, if its bytes are the only spelling of what it says and it has this root."""
    try:
        found = Manifest.from_json(json.loads(raw))
    except (ValueError, KeyError, TypeError, AttributeError, InvalidInput, RecursionError) as error:
        raise NotVerified(f"it cannot be read ({error}).") from None
    if found.root != root:
        raise NotVerified(f"it has root {found.root}.")
    if canonical(found.as_json()) != raw:
        raise NotVerified("it is not in its canonical form.")
    return found
