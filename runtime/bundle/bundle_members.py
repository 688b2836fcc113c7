"""The members of a bundle: what they are called, in which order, and what a seal says of them.

Two of them every bundle has and no event names: the schemas of all events, and the program that verifies the bundle.
They are kept as blobs before a seal names them, so that a session is always bundled with what it was sealed with, also
by a later version of this software.
"""

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bus import notes
from bus.blobs import DirectoryBlobs
from bus.port import StoredRecord
from contracts.common import HandlerFailed
from contracts.event import Event, events
from contracts.exporter import ExportingState
from contracts.ids import sha256
from contracts.ledger import SessionSealed
from contracts.session import SessionState

SCHEMAS, VERIFIER = "schemas.json", "verify_bundle.py"
FIXED_MEMBERS = (SCHEMAS, VERIFIER)
"""Members that every session has and no event names: the seal alone says which they were."""


def sealed_members(session: SessionState) -> dict[str, str]:
    """The digest of every member that the session's own events name."""
    found = {"inherited": session.fork.more} if session.fork and session.fork.more else {}
    if session.training.dataset:
        found["dataset"] = session.training.dataset.root
        found |= {f"rows/{split}": members_digest for split, members_digest in row_names(session).items()}
    if session.training.claim:
        found |= {f"source/{name}": members_digest for name, members_digest in session.training.claim.sources.items()}
        found |= {"initial": session.training.claim.initial} if session.training.claim.initial else {}
    for number, (_, made) in enumerate(ExportingState.of(session).exports, 1):
        found[f"export/{number}/{made.filename}"] = made.blob
    for kept in session.training.checkpoints:
        if kept.usable:
            found[f"checkpoint/{kept.written.segment}/{kept.written.step}"] = kept.written.blob
    return found


def row_names(session: SessionState) -> Mapping[str, str]:
    """The blobs with what the source calls the rows of each split; none for datasets that were prepared before."""
    named = session.training.dataset.origins if session.training.dataset else None
    return named.blobs if named else {}


def members_digest(members: Mapping[str, str]) -> str:
    """One digest over all members: SHA-256 of a title and a line each, sorted."""
    lines = "".join(f"{name} {members[name]}\n" for name in sorted(members))
    return sha256(f"stigmergy/members/1\n{lines}".encode())


def sealed_tree_head(session: str, seal: SessionSealed) -> notes.SignedTreeHead:
    """What the note of a seal says: beside the tree it pins the keyring and the members, and so the whole bundle."""
    extensions = (
        f"last-seq {seal.last_seq}",
        f"keyring {seal.keyring_size} {seal.keyring_root}",
        f"members {members_digest(seal.members)}",
    )
    return notes.SignedTreeHead(notes.origin(session), seal.size, bytes.fromhex(seal.root), extensions)


MARKER, LOG, KEYRING = "bundle", "log", "keyring"
BLOBS, DATASET = "blobs/", "dataset/"
MANIFEST_FILE = f"{DATASET}manifest.json"

SECTIONS = ("manifest", "sources", "exports", "checkpoints", "dataset")
"""What may be left out; a section that is there is there as a whole."""


def marker(session: str, sections: Iterable[str]) -> bytes:
    """The first member: the format, whose bundle it is, and which sections it has."""
    chosen = set(sections)
    return " ".join(["stigmergy/bundle/1", session, *(one for one in SECTIONS if one in chosen)]).encode() + b"\n"


def member_names(state: SessionState, sections: Iterable[str], manifest: bytes | None) -> list[str]:
    """Every member of the bundle in order."""
    digests = {digest for section in sections for digest in section_blobs(state, section)}
    more = [f"{BLOBS}{digest}" for digest in digests]
    if "manifest" in sections:
        more.append(MANIFEST_FILE)
    if "dataset" in sections and manifest is not None:
        more += [f"{DATASET}{file}" for file in data_files(manifest)]
    return [MARKER, LOG, KEYRING, SCHEMAS, VERIFIER, *sorted(set(more), key=str.encode)]


def possible_sections(state: SessionState) -> list[str]:
    """The sections that would not be empty."""
    data = ["manifest", "dataset"] if state.training.dataset else []
    return [one for one in SECTIONS if one in data or section_blobs(state, one)]


def section_blobs(state: SessionState, section: str) -> list[str]:
    """The digests that the session names in one section."""
    match section:
        case "sources":
            return list(state.training.claim.sources.values()) if state.training.claim else []
        case "exports":
            return [made.blob for _, made in ExportingState.of(state).exports]
        case "checkpoints":
            named = (
                state.training.claim.initial if state.training.claim else None,
                state.fork.more if state.fork else None,
            )
            begun = [digest for digest in named if digest]
            return [*begun, *(kept.written.blob for kept in state.training.checkpoints if kept.usable)]
        case "dataset":
            return list(row_names(state).values())
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


def number_records(records: Sequence[StoredRecord], size: int, ring: Sequence[StoredRecord]) -> Iterator[StoredRecord]:
    """The records as a bundle numbers them.

    Those in the seal's tree keep their place in the stream. The seal itself gets its place after it was signed, so
    nothing can vouch for it: it and what else stands behind the tree is counted on from what came before.
    """
    yield from records[:size]
    last = max((one.seq for one in (*records[:size], *ring)), default=0)
    for n, one in enumerate(records[size:], 1):
        yield one._replace(seq=last + n)


OLDER = Path(__file__).parent / "older_schemas.json"
"""The schemas of versions that are no longer written but are in logs; `tests/contracts/make_goldens.py` adds to it."""

SPEAKER_INSIDE = "role"
"""In place of lanes: said by the role that the event itself names under `role`."""


def keep_fixed_members(blobs: DirectoryBlobs) -> dict[str, str]:
    """Keep both in the store; their names there by the name of the member. Doing it twice changes nothing."""
    return {name: blobs.put(content) for name, content in fixed_members().items()}


@functools.cache
def fixed_members() -> dict[str, bytes]:
    """The bytes of both as this software has them."""
    return {SCHEMAS: event_schemas(), VERIFIER: (Path(__file__).parent / VERIFIER).read_bytes()}


def event_schemas() -> bytes:
    """For every event, in every version ever shipped, its JSON Schema and who may say it, as canonical JSON.

    A session may have been begun by older software than the one that seals it.
    """
    ours = events().values()
    present = {one.schema_id: {"said_by": _speakers(one), "schema": _bare(one.model_json_schema())} for one in ours}
    speakers = {one.wire: _speakers(one) for one in ours}
    past = {
        name: {"said_by": speakers[name.rpartition("/")[0]], "schema": schema}
        for name, schema in older_schemas().items()
    }
    return json.dumps(past | present, sort_keys=True, indent=1).encode() + b"\n"


def older_schemas() -> dict[str, object]:
    """The schemas of versions before the present ones, by NAME/VERSION."""
    found: dict[str, object] = json.loads(OLDER.read_text())
    return found


def _speakers(event: type[Event]) -> list[str]:
    return [SPEAKER_INSIDE] if event is HandlerFailed else list(event.said_in)


def _bare(node: Any, *, names: bool = False) -> Any:
    """A schema without titles; below `properties` and `$defs` every key is a name and stays, also `title`."""
    if isinstance(node, list):
        return [_bare(one) for one in node]
    if not isinstance(node, dict):
        return node
    kept = {key: one for key, one in node.items() if names or key != "title"}
    return {key: _bare(one, names=not names and key in ("properties", "$defs")) for key, one in kept.items()}
