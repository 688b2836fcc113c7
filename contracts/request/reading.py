"""Reads a request from JSON or already parsed data, and answers with all that is wrong with it. It opens no files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from pydantic import ValidationError

from contracts.errors import InvalidRequest, Problem
from contracts.request.agreement import disagreements
from contracts.request.problems import problems_of
from contracts.request.request import Request

LIMIT = 1 << 20
"""A request larger than this is refused unread; its options are small, its data lives elsewhere."""


def read_request(raw: Mapping[str, Any] | bytes | str, *, overrides: Sequence[str] = ()) -> Request:
    """The request in `raw` with `a.b=value` overrides applied; raises `InvalidRequest` with every problem found."""
    given = with_overrides(parsed(raw), overrides)
    try:
        request = Request.model_validate(given)
    except ValidationError as error:
        problems = problems_of(error, Request)
        raise InvalidRequest([*problems, *_beyond(given, problems)]) from None
    if problems := list(disagreements(request)):
        raise InvalidRequest(problems)
    return request


def parsed(raw: Mapping[str, Any] | bytes | str) -> dict[str, Any]:
    """The mapping in JSON text or already parsed data; raises `InvalidRequest` for anything else."""
    if isinstance(raw, bytes | str):
        if len(raw) > LIMIT:
            raise InvalidRequest([Problem("", f"the request has {len(raw)} bytes", f"Stay below {LIMIT} bytes.")])
        try:
            raw = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise InvalidRequest([Problem("", f"this is not JSON: {error}", "Send one JSON object.")]) from None
    if not isinstance(raw, Mapping):
        raise InvalidRequest([Problem("", f"{type(raw).__name__} is not a request", "Give a mapping of sections.")])
    if strange := [key for key in raw if not isinstance(key, str)]:
        raise InvalidRequest([Problem(str(key), f"the key {key!r} is not text", "Quote it.") for key in strange])
    return dict(raw)


def with_overrides(given: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `given` with each `a.b=value` put in place; raises `InvalidRequest` naming what is no override."""
    for path, value in assigned(overrides).items():
        given = put(given, path.split("."), value)
    return given


def assigned(overrides: Sequence[str]) -> dict[str, Any]:
    """The values of `a.b=value` by path, the last one of each; `InvalidRequest` names every wrong override."""
    found, problems = {}, []
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not all(path.split(".")):
            problems.append(Problem("", f"{override!r} is not an override", "Write `section.key=value`."))
            continue
        found[path.strip()] = _value(text)
    if problems:
        raise InvalidRequest(problems)
    return found


def _value(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def put(container: Any, path: Sequence[str], value: Any) -> Any:
    """A copy of `container` with `value` at `path`; what is in the way is replaced, the schema judges the result."""
    if not path:
        return value
    key, *rest = path
    if isinstance(container, list | tuple) and key.isdigit() and int(key) <= len(container):
        items = [*container, None] if int(key) == len(container) else [*container]
        items[int(key)] = put(items[int(key)], rest, value)
        return items
    inside = dict(container) if isinstance(container, Mapping) else {}
    inside[key] = put(inside.get(key), rest, value)
    return inside


def _beyond(given: Mapping[str, Any], problems: Sequence[Problem]) -> list[Problem]:
    """Contradictions between the sections that are sound, so that one answer names those too."""
    broken = {problem.path.partition(".")[0] for problem in problems}
    try:
        request = Request.model_validate({key: value for key, value in given.items() if key not in broken})
    except ValidationError:
        return []
    return [found for found in disagreements(request) if found.path.partition(".")[0] not in broken]
