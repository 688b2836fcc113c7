"""Judges the body of a command by the schema that is published for it; what a request asks for is judged elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from contracts.errors import InvalidInput, InvalidRequest, Problem
from contracts.request.reading import did_you_mean, shown
from runtime.commands.verbs import VERBS, Schema


def refuse_misfits(verb: str, body: Mapping[str, Any]) -> None:
    """`InvalidRequest` lists every member of a body that is not as published; what is null was not given."""
    schemas: Mapping[str, Schema] = VERBS[verb].body["properties"] if verb in VERBS else {}
    given = ((name, body[name], schema) for name, schema in schemas.items() if body.get(name) is not None)
    problems = [Problem(name, *wrong) for name, value, schema in given if (wrong := _misfit(value, schema))]
    if problems:
        raise InvalidRequest(problems)


MOST_KEYS = 1000
"""Keys of one mapping in a request: far more than any has, and few enough to be judged at once."""

MOST_VALUES = 5000
"""Values in a whole request, for the same reason: each may be wrong, and what is wrong with it is found in one step."""

_WEIGHTS: Mapping[str, tuple[tuple[type, ...], float]] = {
    "class_weights": ((int, float), 1e9),
    "repeats": ((int,), 1e6),
}
"""Options that may have a number for each of very many classes, and what is surely such a number; it is not counted."""


def refuse_crowded(body: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` for a request with so many keys or values that judging them would block the host."""
    values, rest = 0, list[tuple[str, Any]]([("", body)])
    while rest:
        name, value = rest.pop()
        if isinstance(value, dict) and len(value) > MOST_KEYS:
            message = f"the request has {len(value)} keys in one place, and {MOST_KEYS} are the most."
            raise InvalidInput(message, cure="See what a request may hold: swarm init")
        inside = value.items() if isinstance(value, dict) else ((name, one) for one in _counted(name, value))
        before = len(rest)
        rest.extend(inside)
        values += len(rest) - before
        if values > MOST_VALUES:
            message = f"the request has more than {MOST_VALUES} values; {shown(name)} has many of them."
            raise InvalidInput(message, cure="See what a request may hold: swarm init", path=name)


def _counted(name: str, value: Any) -> Iterable[Any]:
    """The items of a list that may be wrong, as far as can be told without the schema."""
    if not isinstance(value, list):
        return ()
    if name not in _WEIGHTS:
        return value
    kinds, largest = _WEIGHTS[name]
    return (one for one in value if type(one) not in kinds or not 0 <= one <= largest)


_KINDS: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "string": (str, "text"),
    "integer": (int, "a whole number"),
    "number": ((int, float), "a number"),
    "array": (list, "a list"),
    "object": (dict, "an object"),
}


def _misfit(value: Any, schema: Schema) -> tuple[str, str] | None:
    """What is wrong with a member, and the cure; None when it fits, or one of several schemas that it may have."""
    wrong = [_unlike(value, one) for one in schema.get("oneOf", [schema])]
    return None if None in wrong else wrong[0]


def _unlike(value: Any, schema: Schema) -> tuple[str, str] | None:
    if "enum" in schema:
        known = value in schema["enum"]
        return None if known else (f"{shown(value)} is not known", did_you_mean(value, filter(None, schema["enum"])))
    kinds, words = _KINDS[schema["type"]]
    fits = isinstance(value, kinds) and not isinstance(value, bool)
    if not fits:
        return f"{shown(value)} is not {words}", f"Give {words}."
    if "minimum" in schema and value < schema["minimum"]:
        return f"{shown(value)} is out of bounds", f"Give {schema['minimum']} or more."
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        return f"has {len(value)} characters", f"Give {schema['maxLength']} or fewer."
    if "items" in schema:
        return next((wrong for one in value if (wrong := _misfit(one, schema["items"]))), None)
    return None
