"""Which members a bundle has, what they are called and in which order: a function of the log and a choice."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from bus.port import StoredRecord
from contracts.session import SessionState
from runtime.bundle.members import FURNITURE, SCHEMAS, VERIFIER, origins

__all__ = ["BLOBS", "DATASET", "FURNITURE", "KEYRING", "LOG", "MANIFEST_FILE", "MARKER", "SECTIONS"]

MARKER, LOG, KEYRING = "bundle", "log", "keyring"
BLOBS, DATASET = "blobs/", "dataset/"
MANIFEST_FILE = f"{DATASET}manifest.json"

SECTIONS = ("manifest", "sources", "exports", "checkpoints", "dataset")
"""What may be left out; a section that is there is there as a whole."""


def marker(session: str, sections: Iterable[str]) -> bytes:
    """The first member: the format, whose bundle it is, and which sections it has."""
    chosen = set(sections)
    return " ".join(["stigmergy/bundle/1", session, *(one for one in SECTIONS if one in chosen)]).encode() + b"\n"


def names(state: SessionState, sections: Iterable[str], manifest: bytes | None) -> list[str]:
    """Every member of the bundle in order."""
    digests = {digest for section in sections for digest in blobs(state, section)}
    more = [f"{BLOBS}{digest}" for digest in digests]
    if "manifest" in sections:
        more.append(MANIFEST_FILE)
    if "dataset" in sections and manifest is not None:
        more += [f"{DATASET}{file}" for file in data_files(manifest)]
    return [MARKER, LOG, KEYRING, SCHEMAS, VERIFIER, *sorted(set(more), key=str.encode)]


def possible(state: SessionState) -> list[str]:
    """The sections that would not be empty."""
    data = ["manifest", "dataset"] if state.dataset else []
    return [one for one in SECTIONS if one in data or blobs(state, one)]


def blobs(state: SessionState, section: str) -> list[str]:
    """The digests that the session names in one section."""
    match section:
        case "sources":
            return list(state.claim.sources.values()) if state.claim else []
        case "exports":
            return [made.blob for _, made in state.exports]
        case "checkpoints":
            named = (state.claim.initial if state.claim else None, state.fork.more if state.fork else None)
            begun = [digest for digest in named if digest]
            return [*begun, *(kept.written.blob for kept in state.checkpoints if kept.usable)]
        case "dataset":
            return list(origins(state).values())
    return []


def data_files(manifest: bytes) -> list[str]:
    """The files that a manifest names; none when it cannot be read, which the audit says."""
    try:
        splits = json.loads(manifest)["splits"]
        files = dict.fromkeys(str(one["file"]) for columns in splits.values() for one in columns.values())
        "".join(files).encode()  # half a letter has no bytes, and no member such a name
        return list(files)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def numbered(records: Sequence[StoredRecord], size: int, ring: Sequence[StoredRecord]) -> Iterator[StoredRecord]:
    """The records as a bundle numbers them.

    Those in the seal's tree keep their place in the stream. The seal itself gets its place after it was signed, so
    nothing can vouch for it: it and what else stands behind the tree is counted on from what came before.
    """
    yield from records[:size]
    last = max((one.seq for one in (*records[:size], *ring)), default=0)
    for n, one in enumerate(records[size:], 1):
        yield one._replace(seq=last + n)
