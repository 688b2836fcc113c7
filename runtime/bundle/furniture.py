"""The members that every bundle has: the schemas of all events, and the program that verifies the bundle.

They are kept as blobs before a seal names them, so that a session is always bundled with what it was sealed with, also
by a later version of this software.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from bus.blobs import DirectoryBlobs
from contracts.common import HandlerFailed
from contracts.event import Event, events
from runtime.bundle.members import SCHEMAS, VERIFIER

OLDER = Path(__file__).parent / "older_schemas.json"
"""The schemas of versions that are no longer written but are in logs; `tests/contracts/make_goldens.py` adds to it."""

SPEAKER_INSIDE = "role"
"""In place of lanes: said by the role that the event itself names under `role`."""


def placed(blobs: DirectoryBlobs) -> dict[str, str]:
    """Keep both in the store; their names there by the name of the member. Doing it twice changes nothing."""
    return {name: blobs.put(content) for name, content in texts().items()}


@functools.cache
def texts() -> dict[str, bytes]:
    """The bytes of both as this software has them."""
    return {SCHEMAS: schemas(), VERIFIER: (Path(__file__).parent / VERIFIER).read_bytes()}


def schemas() -> bytes:
    """For every event, in every version ever shipped, its JSON Schema and who may say it, as canonical JSON.

    A session may have been begun by older software than the one that seals it.
    """
    ours = events().values()
    present = {one.schema_id: {"said_by": _speakers(one), "schema": _schema(one)} for one in ours}
    speakers = {one.wire: _speakers(one) for one in ours}
    past = {name: {"said_by": speakers[name.rpartition("/")[0]], "schema": schema} for name, schema in older().items()}
    return json.dumps(past | present, sort_keys=True, indent=1).encode() + b"\n"


def older() -> dict[str, Any]:
    """The schemas of versions before the present ones, by NAME/VERSION."""
    found: dict[str, Any] = json.loads(OLDER.read_text())
    return found


def _speakers(event: type[Event]) -> list[str]:
    return [SPEAKER_INSIDE] if event is HandlerFailed else list(event.said_in)


def _schema(event: type[Event]) -> Any:
    return _bare(event.model_json_schema())


def _bare(node: Any, *, names: bool = False) -> Any:
    """A schema without titles; below `properties` and `$defs` every key is a name and stays, also `title`."""
    if isinstance(node, list):
        return [_bare(one) for one in node]
    if not isinstance(node, dict):
        return node
    kept = {key: one for key, one in node.items() if names or key != "title"}
    return {key: _bare(one, names=not names and key in ("properties", "$defs")) for key, one in kept.items()}
