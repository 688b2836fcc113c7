"""Reads a request from JSON or parsed data; every problem in it is told, each with a cure. It opens no files."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import Annotated, Any, Literal, get_args, get_origin

import orjson
from pydantic import BaseModel, Tag, ValidationError
from pydantic_core import ErrorDetails

from contracts.errors import InvalidRequest, Problem, count_of
from contracts.request.request import Request, disagreements

Saying = Callable[[object, Mapping[str, object]], tuple[str, str]]
"""From the value and the schema's context: what is wrong, and the cure."""


def _bound(key: str, words: str) -> Saying:
    return lambda value, context: (f"{shown(value)} is out of bounds", f"Write {words} {context[key]}.")


def _kind(name: str) -> Saying:
    return lambda value, _: (f"{shown(value)} is not {name}", f"Write {name}.")


def _list(value: object, _: Mapping[str, object]) -> tuple[str, str]:
    text = value.strip() if isinstance(value, str) else ""
    if not (text.startswith("[") and text.endswith("]")):
        return f"{shown(value)} is not a list", "Write a list."
    items = ", ".join(_as_json(item.strip()) for item in text[1:-1].split(",") if item.strip())
    return f"{shown(value)} is text and not a list", f"Write it as JSON, words in double quotes: [{items}]."


def _as_json(word: str) -> str:
    """A word of a list as JSON has it; people write lists of YAML where JSON is read."""
    try:
        float(word)
    except ValueError:
        word = word.strip("'\"")
        return f'"{word}"'
    return word


def _mapping(value: object, _: Mapping[str, object]) -> tuple[str, str]:
    if isinstance(value, str) and value.strip().startswith("{"):
        return f"{shown(value)} is text and not a mapping", "Write it as JSON, keys and words in double quotes."
    return f"{shown(value)} is not a mapping of keys to values", "Write a mapping of keys to values."


def _length(key: str, fault: str, words: str) -> Saying:
    return lambda value, context: (f"{shown(value)} is too {fault}", f"Write text of {words} {context[key]} letters.")


_SAYINGS: Mapping[str, Saying] = {
    "refused": lambda _, context: (str(context["message"]), str(context["cure"])),
    "literal_error": lambda value, context: (f"{shown(value)} is not known", did_you_mean(value, _allowed(context))),
    "finite_number": lambda value, _: (f"{shown(value)} is not finite", "Write a finite number."),
    "too_short": lambda _, context: (f"has {context['actual_length']} items", f"Give {context['min_length']} or more."),
    "too_long": lambda _, context: (f"has {context['actual_length']} items", f"Give {context['max_length']} or fewer."),
    "greater_than_equal": _bound("ge", "at least"),
    "greater_than": _bound("gt", "more than"),
    "less_than_equal": _bound("le", "at most"),
    "less_than": _bound("lt", "less than"),
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float", "int_parsing_size"), _kind("a whole number")),
    **dict.fromkeys(("float_parsing", "float_type"), _kind("a number")),
    **dict.fromkeys(("bool_parsing", "bool_type"), _kind("true or false")),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), _mapping),
    "string_type": _kind("text"),
    "string_too_short": _length("min_length", "short", "at least"),
    "string_too_long": _length("max_length", "long", "at most"),
    "string_pattern_mismatch": lambda value, context: (f"{shown(value)} does not fit", f"Fit {context['pattern']}."),
    **dict.fromkeys(("tuple_type", "list_type"), _list),
}


MOST_PROBLEMS = 100
"""The most problems that one answer lists: each costs a search for what was meant, and people read no more."""

_LONGEST_WORD = 100


def problems_of(error: ValidationError, schema: type[BaseModel]) -> list[Problem]:
    """The errors of a validation, in the order of the schema, each once; of very many the first and how many more."""
    problems: dict[tuple[str, str], Problem] = {}
    details = error.errors(include_url=False)
    more = len(details) - MOST_PROBLEMS
    details = details[:MOST_PROBLEMS]
    for detail in details:
        if detail["type"] == "too_short" and any(_inside(other["loc"], detail["loc"]) for other in details):
            continue  # what is wrong with an item says more than that a sound item is missing
        problem = _problem(detail, schema)
        problems.setdefault((problem.path, problem.message), problem)
    rest = [Problem("", f"and {count_of(more, 'problem')} more", "Mend these first.")] if more > 0 else []
    return [*problems.values(), *rest]


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """A cure for a word that is not known: the nearest one, or all of them."""
    names = sorted(filter(None, known))
    near = get_close_matches(str(word)[:_LONGEST_WORD], names, 1, 0.6)
    return f"Did you mean {near[0]!r}?" if near else "Known: " + ", ".join(names) + "."


def _inside(inner: tuple[int | str, ...], outer: tuple[int | str, ...]) -> bool:
    return len(inner) > len(outer) and inner[: len(outer)] == outer


def _problem(detail: ErrorDetails, schema: type[BaseModel]) -> Problem:
    kind, context, value = detail["type"], detail.get("ctx", {}), detail["input"]
    path, section = _place(detail["loc"], schema)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _unknown_tag(path, section, context, value)
    if kind == "extra_forbidden":
        message, cure = f"unknown key {shown(path[-1])}", did_you_mean(path[-1], section.model_fields)
    elif kind == "missing":
        message, cure = "is required", f"Add `{path[-1]}`."
    elif kind in _SAYINGS:
        message, cure = _SAYINGS[kind](value, context)
    else:
        message, cure = f"{shown(value)}: {detail['msg'][0].lower()}{detail['msg'][1:]}", ""
    return Problem(".".join(path), message, cure)


def _unknown_tag(path: list[str], section: Any, context: Mapping[str, object], value: object) -> Problem:
    field = str(context["discriminator"]).strip("'")
    tags = _allowed({"expected": context["expected_tags"]}) if "expected_tags" in context else list(tags_of(section))
    at = ".".join([*path, field])
    if isinstance(value, Mapping) and field in value:
        return Problem(at, f"{shown(value[field])} is not known", did_you_mean(value[field], tags))
    if isinstance(value, Mapping):
        return Problem(at, "is required", "Choose one of " + ", ".join(sorted(tags)) + ".")
    return Problem(".".join(path), f"{shown(value)} is not a mapping", f"Write `{{{field}: ...}}`.")


def _allowed(context: Mapping[str, object]) -> list[str]:
    return [word.strip().strip("'") for word in str(context["expected"]).replace(" or ", ", ").split(",")]


def shown(value: object) -> str:
    """A value as a sentence can hold it."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _place(loc: tuple[int | str, ...], schema: type[BaseModel]) -> tuple[list[str], Any]:
    """The path as the request's author sees it (without the tags of unions), and the section it ends in."""
    path: list[str] = []
    here: Any = schema
    section: Any = schema
    for item in loc:
        tags = tags_of(here)
        if tags:
            here = tags.get(str(item), None)
            section = here or section
            continue
        path.append(str(item))
        if isinstance(here, type) and issubclass(here, BaseModel):
            section = here
            field = here.model_fields.get(str(item))
            here = field.annotation if field else None
        else:
            # The last argument is what a tuple or a mapping holds; a mapping's first is its key.
            here = next((part for part in reversed(get_args(_bare(here))) if part is not Ellipsis), None)
    if tags := tags_of(here):
        section = here
    return path, section


def tags_of(annotation: Any) -> dict[str, object]:
    """The members of a tagged union by tag, in its order; empty for everything else."""
    tags: dict[str, object] = {}
    for member in get_args(_bare(annotation)) if not isinstance(annotation, type) else ():
        if isinstance(member, type) and issubclass(member, BaseModel):
            fields = (member.model_fields.get(name) for name in ("source", "architecture", "type"))
            kinds = [field.annotation for field in fields if field and get_origin(field.annotation) is Literal]
            tags |= {str(value): member for kind in kinds for value in get_args(kind)}
        elif get_origin(member) is Annotated:
            tags |= {part.tag: get_args(member)[0] for part in member.__metadata__ if isinstance(part, Tag)}
    return tags


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


LIMIT = 1 << 20
"""A request larger than this is refused unread; its options are small, its data lives elsewhere."""


def read_request(raw: Mapping[str, object] | bytes | str, *, overrides: Sequence[str] = ()) -> Request:
    """The request in `raw` with `a.b=value` overrides applied; raises `InvalidRequest` with every problem found."""
    given = with_overrides(parsed(raw), overrides)
    try:
        request = Request.model_validate(given)
    except ValidationError as error:
        problems = problems_of(error, Request)
        # Sections that are sound may contradict each other: one answer names that too.
        broken = {problem.path.partition(".")[0] for problem in problems}
        with suppress(ValidationError):
            request = Request.model_validate({key: value for key, value in given.items() if key not in broken})
            problems += [problem for problem in disagreements(request) if problem.path.partition(".")[0] not in broken]
        raise InvalidRequest(problems) from None
    if problems := list(disagreements(request)):
        raise InvalidRequest(problems)
    return request


def parsed(raw: Mapping[str, object] | bytes | str) -> dict[str, object]:
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


def with_overrides(given: dict[str, object], overrides: Sequence[str]) -> dict[str, object]:
    """A copy of `given` with each `a.b=value` put in place; raises `InvalidRequest` naming what is no override."""
    for path, value in assigned(overrides).items():
        given = put(given, path.split("."), value)
    return given


def assigned(overrides: Sequence[str]) -> dict[str, object]:
    """The values of `a.b=value` by path, the last one of each; `InvalidRequest` names every wrong override."""
    values: dict[str, object] = {}
    problems = []
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not all(path.split(".")):
            problems.append(Problem("", f"{override!r} is not an override", "Write `section.key=value`."))
            continue
        try:
            values[path.strip()] = orjson.loads(text)
        except orjson.JSONDecodeError:
            values[path.strip()] = text
    if problems:
        raise InvalidRequest(problems)
    return values


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


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested mappings and lists as one mapping from dotted paths, as people name values of a request."""
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, list | tuple):
        inner = enumerate(value)
    leaves: dict[str, Any] = {}
    for name, item in inner:
        leaves |= flat(item, f"{path}.{name}" if path else str(name))
    return leaves or ({path: value} if path else {})
