"""Adds the missing lines of `goldens/` and files of `schemas/`, for events and versions that are new. It edits nothing.

A version that is no longer the present one is added to the schemas that every bundle carries.

    python tests/contracts/make_goldens.py

A golden line is the body of one event as it is stored, under one version of its schema; a schema file is what that
version looks like. Once shipped, both are history.
"""

from __future__ import annotations

import json
import re
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

import annotated_types  # noqa: E402
from pydantic import BaseModel, JsonValue, StringConstraints  # noqa: E402

from contracts import envelope  # noqa: E402
from contracts.event import Event, Exact, Packed, events, pack  # noqa: E402
from contracts.ids import ZERO, session_id, uuid8  # noqa: E402
from contracts.roles import ANYBODY, TRAINER  # noqa: E402
from runtime.bundle import bundle_members  # noqa: E402

GOLDENS = HERE / "goldens"
SCHEMAS = HERE / "schemas"


def body(kind: type[Event]) -> bytes:
    """An example of an event as it would be stored: every field given, none by chance."""
    return envelope.write(
        kind.model_validate_json(json.dumps(_example_of(kind))),
        id=str(uuid8("golden", kind.schema_id)),
        session=session_id(uuid8("golden")),
        lane=TRAINER if ANYBODY in kind.said_in else kind.said_in[-1],
        laneseq=1,
        prev=ZERO,
        source="goldens",
        time="2026-01-01T00:00:00.000000Z",
        cause=str(uuid8("cause")),
        correlation=str(uuid8("correlation")),
        epoch=1,
        step=50,
    )


def schema(kind: type[Event]) -> dict[str, Any]:
    """What an event's data must look like, without the words that describe it."""
    bare: dict[str, Any] = _without_words(kind.model_json_schema())
    return bare


def lines(wire: str) -> Iterator[tuple[int, bytes]]:
    """The golden bodies of one event with their versions, oldest first."""
    path = GOLDENS / f"{wire}.jsonl"
    for line in path.read_bytes().splitlines() if path.exists() else ():
        yield int(json.loads(line)["dataschema"].rpartition("/")[2]), line


def schema_file(wire: str, version: int) -> Path:
    """Where the schema of one version stands."""
    return SCHEMAS / f"{wire}.v{version}.json"


def older() -> dict[str, Any]:
    """The schemas of all versions before the present ones, by NAME/VERSION."""
    known = {wire: range(1, kind.version()) for wire, kind in events().items()}
    return {f"{wire}/{n}": json.loads(schema_file(wire, n).read_text()) for wire, past in known.items() for n in past}


def _without_words(node: Any, *, names: bool = False) -> Any:
    """A schema without titles and descriptions; where keys are `names`, these are names like any other."""
    if isinstance(node, list):
        return [_without_words(one) for one in node]
    if not isinstance(node, dict):
        return node
    kept = node if names else {key: one for key, one in node.items() if key not in ("title", "description")}
    inside = {"properties", "$defs"}
    return {key: _without_words(one, names=not names and key in inside) for key, one in kept.items()}


def _example_of(model: type[BaseModel]) -> dict[str, Any]:
    return {name: _example(name, field.annotation, field.metadata) for name, field in model.model_fields.items()}


def _example(name: str, kind: Any, metadata: list[Any]) -> Any:
    if get_origin(kind) is Annotated:
        inner, *more = get_args(kind)
        return _example(name, inner, [*metadata, *more])
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _example(name, next(one for one in arguments if one is not type(None)), metadata)
    if origin is Literal:
        return arguments[0]
    if origin in (list, tuple):
        return [_example(name, arguments[0], [])]
    if origin in (dict, Mapping):
        return {_example("key", arguments[0], []): _example(name, arguments[1], [])}
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _example_of(kind)
    return _plain(name, kind, metadata)


def _plain(name: str, kind: Any, metadata: list[Any]) -> Any:
    known = {id(one) for one in metadata}
    if known & {id(one) for one in get_args(Exact)[1:]}:
        return "nan" if name == "gradient_norm" else (0.1).hex()
    if known & {id(one) for one in get_args(Packed)[1:]}:
        return pack(b"\x00\x00\x80?\x00\x00\x00@")
    if kind in (Any, object) or kind is JsonValue:
        return [1, "two", {"three": None}]
    if kind is bool:
        return True
    if kind in (int, float):
        least = next((one.ge for one in metadata if isinstance(one, annotated_types.Ge)), 3)
        return kind(max(least, 3)) if kind is int else 0.5
    if kind is str:
        return _text(name, metadata)
    raise TypeError(f"{name}: {kind!r} has no example yet; teach {__name__} one.")


EXAMPLES = {"time": "2026-01-01T00:00:00.000000Z", "signature": "0123456789abcdef:" + 86 * "A"}
"""Of texts of a signed command, whose form says more than their name."""


def _text(name: str, metadata: list[Any]) -> str:
    if name in EXAMPLES and any(isinstance(one, StringConstraints) for one in metadata):
        return EXAMPLES[name]
    for one in metadata:
        pattern = one.pattern if isinstance(one, StringConstraints) else None
        hexadecimal = re.fullmatch(r"\^\[0-9a-f\]\{(\d+)\}\$", pattern) if isinstance(pattern, str) else None
        if hexadecimal:
            return ("0123456789abcdef" * 8)[: int(hexadecimal[1])]
        if pattern == "^[a-z0-9]{2}-[a-z2-7]{26}$":
            return session_id(uuid8(name))
    return name


def main() -> None:
    """Add what is missing and say what was added."""
    GOLDENS.mkdir(exist_ok=True)
    SCHEMAS.mkdir(exist_ok=True)
    for wire, kind in events().items():
        if kind.version() not in dict(lines(wire)):
            with (GOLDENS / f"{wire}.jsonl").open("ab") as file:
                file.write(body(kind) + b"\n")
            print(f"golden {kind.schema_id}")
        path = schema_file(wire, kind.version())
        if not path.exists():
            path.write_text(json.dumps(schema(kind), indent=2, sort_keys=True) + "\n")
            print(f"schema {kind.schema_id}")
    bundle_members.OLDER.write_text(
        json.dumps(older() | bundle_members.older_schemas(), indent=1, sort_keys=True) + "\n"
    )


if __name__ == "__main__":
    main()
