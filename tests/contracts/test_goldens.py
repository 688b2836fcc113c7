from __future__ import annotations

import json

import orjson
import pytest

from contracts import envelope
from contracts.errors import NewerThanCode
from contracts.event import SPOKEN, Event, Unknown, events
from tests.contracts.make_goldens import GOLDENS, SCHEMAS, body, lines, schema, schema_file

EVENTS = events()
SHIPPED = [
    (path.name.removesuffix(".jsonl"), version, line)
    for path in sorted(GOLDENS.glob("*.jsonl"))
    for version, line in lines(path.name.removesuffix(".jsonl"))
]
MAKE = "python tests/contracts/make_goldens.py"


def named(one: object) -> str:
    return str(one) if isinstance(one, str | int) else ""


@pytest.mark.parametrize(("wire", "version", "line"), SHIPPED, ids=named)
def test_every_event_ever_shipped_is_still_read_as_what_it_was(wire: str, version: int, line: bytes) -> None:
    assert wire in EVENTS, f"{wire} was shipped, so logs hold it: its class must stay, though nobody says it any more."
    read, event = envelope.read(line)
    assert type(event) is EVENTS[wire], (
        f"{wire}/{version} is no longer read as its class, but as {type(event).__name__}."
    )
    assert read.dataschema == f"{wire}/{version}"


@pytest.mark.parametrize(("wire", "version", "line"), SHIPPED, ids=named)
def test_what_was_read_is_written_the_same(wire: str, version: int, line: bytes) -> None:
    _, event = envelope.read(line)
    written = event.model_dump_json().encode()
    if version == EVENTS[wire].version():
        assert written == orjson.dumps(orjson.loads(line)["data"])
    assert EVENTS[wire].read(EVENTS[wire].version(), written).model_dump_json().encode() == written


@pytest.mark.parametrize("wire", EVENTS)
def test_every_event_has_a_golden_of_every_version_and_a_schema_of_each(wire: str) -> None:
    kind, found = EVENTS[wire], [version for version, _ in lines(wire)]
    assert found == list(range(1, kind.version() + 1)), f"{wire} has goldens of versions {found}: {MAKE}"
    for version in found:
        assert schema_file(wire, version).exists(), f"{wire}/{version} has no schema in {SCHEMAS.name}/: {MAKE}"


@pytest.mark.parametrize("wire", EVENTS)
def test_an_event_does_not_change_without_a_version(wire: str) -> None:
    kind = EVENTS[wire]
    path = schema_file(wire, kind.version())
    assert path.exists(), f"{kind.schema_id} has no schema in {SCHEMAS.name}/: {MAKE}"
    assert schema(kind) == json.loads(path.read_text()), (
        f"{kind.__qualname__} has changed and is still {kind.schema_id}, as which it stands in logs. "
        f"Give the class one more upcaster (`upcasts=[...]`: from the data of version {kind.version()} to that of the "
        f"next), then run {MAKE}."
    )


def test_every_golden_and_schema_is_of_an_event_that_is_known() -> None:
    wires = {wire for wire, _, _ in SHIPPED} | {path.name.rsplit(".v", 1)[0] for path in SCHEMAS.glob("*.json")}
    assert wires == set(EVENTS)


def test_an_old_event_is_lifted_and_a_newer_one_is_refused() -> None:
    class Lifted(Event, wire="golden.lifted", upcasts=[lambda old: {"metres": old["feet"] * 0.3048}]):
        metres: float

    try:
        assert Lifted.read(1, b'{"feet": 10}') == Lifted.read(2, b'{"metres": 3.048}')
        with pytest.raises(NewerThanCode, match="newer than this software"):
            Lifted.read(3, b"{}")
    finally:
        del SPOKEN["golden.lifted"]


def test_an_event_that_nobody_knows_is_kept_with_its_name() -> None:
    strange = body(EVENTS["model.exported"]).replace(b"model.exported", b"model.imported")
    _, event = envelope.read(strange)
    assert isinstance(event, Unknown)
    assert event.name == "model.imported"
    assert event.data["format"] == "format"
