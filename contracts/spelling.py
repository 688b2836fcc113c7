"""How a body is spelled as we write it, as patterns: what fits one needs no closer look.

What does not fit may be an event all the same, spelled otherwise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, get_args

from pydantic import BeforeValidator

from contracts.event import SPOKEN, Event, Exact, Hex64, Packed, Unknown

PREFIX, FORM = "io.stigmergy", "application/json"

_WORD, _WHOLE = r"[!#-\[\]-~]", r"(?:-?[1-9][0-9]{0,15}|0)"
_HEAD = (
    rf'\{{"specversion":"1\.0","id":"({_WORD}{{1,64}})"'
    r'(,"source":"[^"]*","type":"[^"]*","subject":"[^"]*")'
    rf',"time":"({_WORD}{{0,40}})"'
    rf'(,"datacontenttype":"{FORM}","dataschema":"[^"]*","lane":"[^"]*")'
    r',"laneseq":([1-9][0-9]{0,15}),"prev":"([0-9a-f]{64})"'
    r'((?:,"causationid":"[^"]*")?(?:,"correlationid":"[^"]*")?(?:,"epoch":[^,]*)?(?:,"step":[^,]*)?),"data":'
)
HEAD = re.compile(_HEAD)
"""Everything before the data: id, stretch, time, stretch, laneseq, prev, stretch.

The stretches are the same in many events of a lane; `stretches` looks at each once.
"""
_STRETCHES = re.compile(
    rf',"source":"({_WORD}{{1,200}})","type":"({_WORD}{{1,200}})","subject":"([a-z0-9]{{2}}-[a-z2-7]{{26}})"'
    rf',"datacontenttype":"{FORM}","dataschema":"({_WORD}{{1,120}})","lane":"([a-z0-9_-]{{1,64}})"'
    rf'(?:,"causationid":"({_WORD}*)")?(?:,"correlationid":"({_WORD}*)")?(?:,"epoch":({_WHOLE}))?(?:,"step":({_WHOLE}))?'
)


class Stretches(NamedTuple):
    """What the stretches of a head say, which event that makes it, and what reads the data of such an event."""

    source: str
    kind: str
    session: str
    schema: str
    lane: str
    cause: str | None
    correlation: str | None
    epoch: int | None
    step: int | None
    known: type[Event]
    read: Callable[[str], Event]


@lru_cache(maxsize=4096)
def stretches(who: str, what: str, why: str) -> Stretches | None:
    """Those of an event in its present version, whose type says lane and schema; None for any other."""
    found = _STRETCHES.fullmatch(who + what + why)
    known = present(found[4]) if found else None
    if found is None or known is None or found[2] != type_of(found[5], known.wire):
        return None
    # Data of any form may be nested one level deeper than a reader of the whole body follows.
    if "'type': 'any'" in str(known.__pydantic_core_schema__):
        return None
    source, kind, session, schema, lane, cause, correlation, epoch, step = found.groups()
    return Stretches(
        source, kind, session, schema, lane, cause, correlation,
        int(epoch) if epoch else None, int(step) if step else None, known, known.__pydantic_validator__.validate_json,
    )  # fmt: skip


def present(schema: str) -> type[Event] | None:
    """The event of exactly this name and version, if this code knows it."""
    known = SPOKEN.get(schema.rpartition("/")[0])
    return known if known and known is not Unknown and known.schema_id == schema else None


@lru_cache(maxsize=4096)
def type_of(lane: str, name: str) -> str:
    """The type of an event, which says who speaks and what."""
    return f"{PREFIX}.{lane}.{name}"


@lru_cache(maxsize=256)
def body(known: type[Event]) -> re.Pattern[str] | None:
    """A whole body with such an event, its data as its class demands; groups as in `HEAD`. None when no pattern can."""
    data = _value(known.__pydantic_core_schema__)
    return re.compile(rf"{_HEAD}{data}\}}") if data else None


_PLAIN = {"metadata", "ref", "serialization", "json_schema_input_schema", "cls", "model_name", "computed_fields"}
_DEFAULT = {"default", "default_factory", "default_factory_takes_data"}
_CONFIG = {"allow_inf_nan", "extra_fields_behavior", "strict", "title", "frozen"}
"""What does not matter to a body in which every field is written, in pydantic's own description of what it takes."""

_BASE64 = "(?:[A-Za-z0-9+/]{64})*+(?:[A-Za-z0-9+/]{4})*+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
_TEXTS = {get_args(Hex64)[1].pattern: '"[0-9a-f]{64}"', get_args(Packed)[1].pattern: f'"{_BASE64}"'}
_TEXT = r'"[^"\\\x00-\x1f]*"'
_FROM_HEX = next(one.func for one in get_args(Exact) if isinstance(one, BeforeValidator))
_EXACT = r'"(?:-?0x[01]\.[0-9a-f]{1,13}p[+-][0-9]{1,3}|nan|-?inf)"'


def _value(schema: Mapping[str, Any]) -> str:
    """The pattern of the canonical spellings of what a schema of pydantic takes; empty when there is none."""
    bare = {key: one for key, one in schema.items() if key not in _PLAIN}
    return _single(bare) or _composed(bare)


def _single(schema: Mapping[str, Any]) -> str:
    match schema:
        case {"type": "int", **more} if not more:
            return _WHOLE
        case {"type": "bool", **more} if not more:
            return "(?:true|false)"
        case {"type": "str", **more} if more.keys() <= {"pattern"}:
            return _TEXTS.get(more["pattern"], "") if more else _TEXT
        case {"type": "literal", "expected": words, **more} if not more and all(isinstance(one, str) for one in words):
            return f"(?:{'|'.join(re.escape(json.dumps(one)) for one in words)})"
        case {"type": "function-before", "function": {"function": function}, **more} if more.keys() <= {"schema"}:
            return _EXACT if function is _FROM_HEX else ""
    return ""


def _composed(schema: Mapping[str, Any]) -> str:  # noqa: PLR0911 - one for each way in which data are put together
    match schema:
        case {"type": "nullable", "schema": inner, **more} if not more:
            return _around("(?:{0}|null)", inner)
        case {"type": "list", "items_schema": inner, **more} if not more:
            return _around(r"\[(?:{0}(?:,{0})*+)?\]", inner)
        case {"type": "dict", "keys_schema": {"type": "str", **rest}, "values_schema": inner, **more}:
            return "" if rest or more else _around(rf"\{{{{(?:{_TEXT}:{{0}}(?:,{_TEXT}:{{0}})*+)?\}}}}", inner)
        case {"type": "default", "schema": inner, **more} if more.keys() <= _DEFAULT:
            return _value(inner)
        case {"type": "model", "schema": inner, "config": config, "custom_init": False, "root_model": False, **more}:
            return _value(inner) if not more and config.keys() <= _CONFIG else ""
        case {"type": "model-fields", "fields": fields, **more} if not more:
            found = {name: _value(one["schema"]) for name, one in fields.items()}
            members = ",".join(f'"{name}":{one}' for name, one in found.items())
            return rf"\{{{members}\}}" if all(found.values()) else ""
    return ""


def _around(form: str, inner: Mapping[str, Any]) -> str:
    one = _value(inner)
    return form.format(one) if one else ""
