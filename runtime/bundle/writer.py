"""Writes the bundle of a sealed session from the files of a home."""

from __future__ import annotations  # the reference shows annotations as they are written

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bus import subjects
from bus.blobs import DirectoryBlobs, digest_of
from bus.port import StoredRecord
from bus.records import frame, title
from contracts.errors import NotFound, Refused
from contracts.ledger import SessionSealed
from contracts.session import SessionState
from runtime.bundle import bundle_members, container
from runtime.engine.dataset import MANIFEST
from runtime.log.archive import Archive, StoredSession


@dataclass(frozen=True, slots=True)
class BundleFile:
    """A bundle on disk: the SHA-256 of the file, its size, and which sections it has.

    `older` when the program inside is not that of this software, but of the one that sealed the session.
    """

    session: str
    path: Path
    digest: str
    bytes: int
    sections: tuple[str, ...]
    older: bool = False


def write_bundle(
    archive: Archive, session: str, blobs: DirectoryBlobs, path: Path, *, wanted: Sequence[str] = ()
) -> BundleFile:
    """Write the bundle; `wanted` are the sections beyond manifest and sources, which are there when they can be.

    `Refused` for a session that is not sealed, `NotFound` when something of a wanted section is gone.
    """
    kept, ring = archive.read(session), archive.ring(subjects.partition(session))
    seal = kept.history.state.sealed
    if seal is None or ring is None:
        message = f"session {session} is not sealed: nothing signed says what belongs to it."
        raise Refused(message, cure=f"Wait for its end: swarm wait {session}")
    sections = _sections(kept.history.state, blobs, wanted)
    container.write_container(path, _members(kept, ring, seal, blobs, sections))
    older = seal.members[bundle_members.VERIFIER] != digest_of(bundle_members.fixed_members()[bundle_members.VERIFIER])
    return BundleFile(session, path, _sha256(path), path.stat().st_size, sections, older)


def _sections(state: SessionState, blobs: DirectoryBlobs, wanted: Sequence[str]) -> tuple[str, ...]:
    """What was asked for, and of manifest and sources what the store still has."""
    chosen = set(wanted)
    if state.training.dataset and (_dataset(blobs, state) / MANIFEST).is_file():
        chosen.add("manifest")
    if all(blobs.has(digest) for digest in bundle_members.section_blobs(state, "sources")):
        chosen.add("sources")
    if "dataset" in chosen:
        chosen.add("manifest")
    return tuple(one for one in bundle_members.possible_sections(state) if one in chosen)


def _members(
    kept: StoredSession, ring: StoredSession, seal: SessionSealed, blobs: DirectoryBlobs, sections: Sequence[str]
) -> Iterator[tuple[str, bytes | Path]]:
    state = kept.history.state
    before = ring.stored[: seal.keyring_size]
    manifest = _data_file(_dataset(blobs, state), MANIFEST).read_bytes() if "manifest" in sections else None
    text = {
        bundle_members.MARKER: bundle_members.marker(state.id, sections),
        bundle_members.LOG: _log(state.id, bundle_members.number_records(kept.stored, seal.size, before)),
        bundle_members.KEYRING: _log(ring.history.id, before),
    }
    for name in bundle_members.member_names(state, sections, manifest):
        if name in text:
            yield name, text[name]
        elif name in bundle_members.FIXED_MEMBERS:
            # As the seal names it; our own when it is the same and the store has lost it.
            own, digest = bundle_members.fixed_members()[name], seal.members[name]
            yield name, own if digest_of(own) == digest else blobs.get(digest)
        elif name.startswith(bundle_members.BLOBS):
            yield name, blobs.check(name.removeprefix(bundle_members.BLOBS))
        else:
            yield name, _data_file(_dataset(blobs, state), name.removeprefix(bundle_members.DATASET))


def _log(session: str, records: Iterator[StoredRecord] | Sequence[StoredRecord]) -> bytes:
    return title(session) + b"".join(map(frame, records))


def _dataset(blobs: DirectoryBlobs, state: SessionState) -> Path:
    return blobs.root / "datasets" / (state.training.dataset.root if state.training.dataset else "")


def _data_file(folder: Path, file: str) -> Path:
    if not (folder / file).is_file():
        raise NotFound(f"{file!r} of the dataset is not in {folder}.", cure="Bundle without --dataset.")
    return folder / file


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
