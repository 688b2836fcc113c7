"""What an older version of an event means today is written down: an upcaster that says otherwise is noticed.

`python -m tests.contracts.test_lifted` adds what is missing; what stands there is never edited.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts import envelope
from contracts.event import events
from tests.contracts.make_goldens import GOLDENS, lines, schema_file

GOLDEN = Path(__file__).with_name("lifted.json")


def lifted() -> dict[str, Any]:
    """The present payload of every golden of an older version."""
    found, kinds = {}, events()
    for path in sorted(GOLDENS.glob("*.jsonl")):
        wire = path.name.removesuffix(".jsonl")
        for version, line in lines(wire):
            if version < kinds[wire].version():
                _, event = envelope.read(line)
                found[f"{wire}/{version} as {event.schema_id}"] = json.loads(event.model_dump_json())
    return found


def test_every_older_event_is_lifted_to_what_it_was_lifted_to() -> None:
    written = json.loads(GOLDEN.read_text())
    found = lifted()
    assert len(found) >= 4
    assert found == {name: written.get(name) for name in found}


JUNK = [None, True, 7, -1.5, "x", [], [1, "two", None], {}, {"three": [{}]}]


@pytest.mark.parametrize(
    ("wire", "version", "line"),
    [
        (path.name.removesuffix(".jsonl"), version, line)
        for path in sorted(GOLDENS.glob("*.jsonl"))
        for version, line in lines(path.name.removesuffix(".jsonl"))
        if version < events()[path.name.removesuffix(".jsonl")].version()
    ],
    ids=lambda one: str(one) if isinstance(one, str | int) else "",
)
def test_what_an_older_version_left_free_is_read_whatever_it_holds(wire: str, version: int, line: bytes) -> None:
    """The signed log of an older version stays what it was, whatever its members of any form hold."""
    kind, free = events()[wire], json.loads(schema_file(wire, version).read_text())
    data, names = json.loads(line)["data"], _names(kind.model_json_schema())
    for at, inner in _free_places(free):
        shapes = [{name: junk} for name in names for junk in JUNK] + [{}, dict.fromkeys(names), {"other": JUNK}]
        for shape in shapes:
            changed = data | {at: [shape, shape] if inner else shape}
            event = kind.read(version, json.dumps(changed).encode())
            assert kind.read(kind.version(), event.model_dump_json().encode()) == event


def _free_places(schema: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """The members of an event that are objects of any form, and whether each is a list of such."""
    for name, member in schema["properties"].items():
        for one in [member, *member.get("anyOf", ())]:
            if one.get("additionalProperties") is True:
                yield name, False
            if one.get("items", {}).get("additionalProperties") is True:
                yield name, True


def _names(schema: dict[str, Any]) -> list[str]:
    """The names of all members that a value inside the event has today."""
    inside = [one.get("properties", {}) for one in schema.get("$defs", {}).values()]
    return sorted({name for names in inside for name in names})


def test_an_old_outcome_asks_for_no_proof() -> None:
    (old,) = [payload for name, payload in lifted().items() if name.startswith("outcome.judged/1 ")]
    assert old["prove"] is False


if __name__ == "__main__":
    known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    GOLDEN.write_text(json.dumps(lifted() | known, indent=1, sort_keys=True) + "\n")
