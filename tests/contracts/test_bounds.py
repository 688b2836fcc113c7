"""Every bound of a request is written down: `bounds.json` has them all, and a changed one is a change of that file.

`python -m tests.contracts.test_bounds` writes it anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from contracts.request import Request
from contracts.request.population import Population
from contracts.request.search import Search

GOLDEN = Path(__file__).with_name("bounds.json")
BOUNDS = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "pattern",
    "enum",
    "const",
    "ge",
    "gt",
    "le",
    "lt",
)


def bounds(schema: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every bound in a schema, by the place at which it holds."""
    if isinstance(schema, dict):
        yield from ((f"{place}.{name}", schema[name]) for name in BOUNDS if name in schema and name != place)
        for name, inner in schema.items():
            if name not in (*BOUNDS, "default", "description", "title", "discriminator"):
                yield from bounds(inner, f"{place}.{name}" if place else name)
    elif isinstance(schema, list):
        for number, inner in enumerate(schema):
            yield from bounds(inner, f"{place}.{number}")


def present() -> dict[str, dict[str, Any]]:
    found = {}
    for kind in (Request, Search, Population):
        found[kind.__name__] = dict(sorted(bounds(TypeAdapter(kind).json_schema())))
    return found


def test_every_bound_of_a_request_is_the_one_that_is_written_down() -> None:
    written = json.loads(GOLDEN.read_text())
    assert len(written["Request"]) > 200
    assert present() == written


def test_every_bound_has_the_name_that_json_schema_has_for_it() -> None:
    names = {place.rpartition(".")[2] for kind in present().values() for place in kind}
    assert {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"} <= names
    assert not names & {"ge", "gt", "le", "lt"}


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(present(), indent=1) + "\n")
