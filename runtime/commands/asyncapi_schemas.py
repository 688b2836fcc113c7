"""The JSON Schemas of everything that travels, under one roof and in the form that AsyncAPI 3 takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from contracts.envelope import EnvelopeSchema
from contracts.event import Event
from contracts.request import Request
from contracts.request.search import RangeTest, Search

Json = dict[str, Any]

_ASKED = (Request, Search, RangeTest)


class Schemas:
    """Definitions by name; a definition that several messages share is there once."""

    def __init__(self, events: Iterable[type[Event]]) -> None:
        kept = tuple(events)
        models: list[type[BaseModel]] = [*kept, EnvelopeSchema, *_ASKED]
        asked: Sequence[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in models]
        found, defined = models_json_schema(asked, ref_template="#/components/schemas/{model}")
        names = {model: one["$ref"].rpartition("/")[2] for (model, _), one in found.items()}
        renamed = {names[event]: data_of(event) for event in kept} | {names[EnvelopeSchema]: "Envelope"}
        self.definitions: Json = {
            renamed.get(name, name): _plain(one, renamed) for name, one in defined["$defs"].items()
        }
        self.request, search, range_test = (_commanded(self.definitions[names[model]]) for model in _ASKED)
        self.search: Json = {"oneOf": [search, range_test]}


def data_of(event: type[Event]) -> str:
    """The name of the schema of an event's data among the components."""
    return f"{event.wire}.v{event.version()}"


def _commanded(body: Json) -> Json:
    """What is asked for, with what belongs to the command; in full, because it is closed to unknown keys."""
    extra = {"request_id": {"type": "string"}, "asked_by": {"type": "string"}}
    return body | {"properties": body["properties"] | extra}


def _plain(node: Any, renamed: Mapping[str, str]) -> Any:
    """A schema with our events' names and without the `discriminator` of pydantic, which means another thing here."""
    if isinstance(node, list):
        return [_plain(one, renamed) for one in node]
    if not isinstance(node, dict):
        return node
    kept = {key: one for key, one in node.items() if not (key == "discriminator" and isinstance(one, dict))}
    made = {key: _plain(one, renamed) for key, one in kept.items()}
    reference = made.get("$ref")
    if isinstance(reference, str):
        place, _, name = reference.rpartition("/")
        made["$ref"] = f"{place}/{renamed.get(name, name)}"
    return made
