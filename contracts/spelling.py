"""How a body is spelled as we write it: one pattern for everything before the data, one validator for the data.

What does not fit the pattern may be an event all the same, spelled otherwise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from contracts.event import SPOKEN, Event, Unknown

PREFIX, FORM = "io.stigmergy", "application/json"

_WORD, _WHOLE = r"[!#-\[\]-~]", r"(?:-?[1-9][0-9]{0,15}|0)"
HEAD = re.compile(
    rf'\{{"specversion":"1\.0","id":"({_WORD}{{1,64}})"'
    r'(,"source":"[^"]{1,200}","type":"[^"]{1,200}","subject":"[^"]{29}")'
    rf',"time":"({_WORD}{{0,40}})"'
    rf'(,"datacontenttype":"{FORM}","dataschema":"[^"]{{1,120}}","lane":"[^"]{{1,64}}")'
    r',"laneseq":([1-9][0-9]{0,15}),"prev":"([0-9a-f]{64})"'
    r'((?:,"causationid":"[^"]{0,200}")?(?:,"correlationid":"[^"]{0,200}")?(?:,"epoch":[^,]{1,20})?(?:,"step":[^,]{1,20})?),"data":'
)
"""Everything before the data: id, stretch, time, stretch, laneseq, prev, stretch.

The stretches are the same in many events of a lane; `stretches` looks at each once and remembers them, so that none may
be long.
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
    if _holds_anything(known):
        return None
    source, kind, session, schema, lane, cause, correlation, epoch, step = found.groups()
    return Stretches(
        source, kind, session, schema, lane, cause, correlation,
        int(epoch) if epoch else None, int(step) if step else None, known, known.__pydantic_validator__.validate_json,
    )  # fmt: skip


@lru_cache(maxsize=256)
def _holds_anything(known: type[Event]) -> bool:
    """Whether its data may have any form, and so be nested one level deeper than a reader of the whole body follows."""
    return "'type': 'any'" in str(known.__pydantic_core_schema__)


def has_constant(body: bytes) -> bool:
    """Whether a body that our reader takes for JSON has NaN or an infinity among its values: JSON has neither."""
    if b"NaN" not in body and b"Infinity" not in body:
        return False
    try:
        json.loads(body.decode(), parse_constant=_refuse)
    except ValueError:
        return True
    return False


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def present(schema: str) -> type[Event] | None:
    """The event of exactly this name and version, if this code knows it."""
    known = SPOKEN.get(schema.rpartition("/")[0])
    return known if known and known is not Unknown and known.schema_id == schema else None


@lru_cache(maxsize=4096)
def type_of(lane: str, name: str) -> str:
    """The type of an event, which says who speaks and what."""
    return f"{PREFIX}.{lane}.{name}"
