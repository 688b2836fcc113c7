"""The envelope around every event: CloudEvents 1.0, structured JSON, one writer and one reader.

The bytes made here are what is stored, hashed and signed; nothing re-serialises them. `laneseq` and `prev` chain
the events of one lane (one session and one role); `prev` is the SHA-256 of the body before.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, create_model

from contracts.errors import InvalidInput
from contracts.event import SPOKEN, Event, Hex64, Unknown, split_schema

Token = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,64}$")]
SessionId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{2}-[a-z2-7]{26}$")]

PREFIX = "io.stigmergy"


class Envelope(BaseModel):
    """Who says what, when, because of what, and where in the lane; `data` is typed where this code knows the type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    specversion: Literal["1.0"]
    id: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    source: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    type: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    subject: SessionId
    time: Annotated[str, StringConstraints(max_length=40)]
    datacontenttype: Literal["application/json"]
    dataschema: Annotated[str, StringConstraints(max_length=120)]
    lane: Token
    laneseq: Annotated[int, Field(ge=1)]
    prev: Hex64
    causationid: str | None = None
    correlationid: str | None = None
    epoch: int | None = None
    step: int | None = None
    data: Any


@dataclass(frozen=True, slots=True)
class Fact:
    """An admitted event and its place: `seq` in the whole stream, `position` (from 1) in its session."""

    seq: int
    position: int
    envelope: Envelope
    event: Event
    digest: str
    signature: str = ""
    """The signature header; an append carries one, on its last event."""

    @property
    def name(self) -> str:
        """The wire name, also of events that this code does not know."""
        return self.event.name if isinstance(self.event, Unknown) else self.event.wire

    @property
    def closes(self) -> bool:
        """Whether it ends its append."""
        return bool(self.signature)

    @property
    def lane(self) -> str:
        """Who speaks."""
        return self.envelope.lane

    @property
    def id(self) -> str:
        """The identity of the event."""
        return self.envelope.id


def timestamp(moment: datetime | None = None) -> str:
    """RFC 3339 with microseconds, in UTC."""
    return (moment or datetime.now(UTC)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def write(  # noqa: PLR0913 - an envelope has this many attributes, and each is named at the call
    event: Event,
    *,
    id: str,
    session: str,
    lane: str,
    laneseq: int,
    prev: str,
    source: str,
    time: str,
    cause: str | None = None,
    correlation: str | None = None,
    epoch: int | None = None,
    step: int | None = None,
) -> bytes:
    """The body of an event: the bytes that will be stored, hashed and signed."""
    body: dict[str, Any] = {
        "specversion": "1.0",
        "id": id,
        "source": source,
        "type": f"{PREFIX}.{lane}.{event.wire}",
        "subject": session,
        "time": time,
        "datacontenttype": "application/json",
        "dataschema": event.schema_id,
        "lane": lane,
        "laneseq": laneseq,
        "prev": prev,
    }
    optional = {"causationid": cause, "correlationid": correlation, "epoch": epoch, "step": step}
    body |= {key: value for key, value in optional.items() if value is not None}
    return orjson.dumps(body | {"data": orjson.Fragment(event.model_dump_json().encode())})


_SCHEMA = re.compile(rb'"dataschema":"([^"\\\\]{1,120})"')


@lru_cache(maxsize=1024)
def _typed(schema: bytes) -> type[Envelope] | None:
    """The envelope with its data already typed, for an event in its present version; None for any other."""
    name, _, version = schema.decode(errors="replace").rpartition("/")
    known = SPOKEN.get(name)
    if known is None or known is Unknown or version != str(known.version()):
        return None
    fields: dict[str, Any] = {"data": (known, ...)}
    return create_model(f"EnvelopeOf{known.__name__}", __base__=Envelope, **fields)


def read(body: bytes) -> tuple[Envelope, Event]:
    """The envelope and the typed event inside a body; `InvalidInput` names what is wrong with it."""
    # One pass over the bytes when a look ahead finds a schema that is current; whatever is odd takes the long way.
    found = _SCHEMA.search(body)
    typed = _typed(found[1]) if found else None
    if typed is not None:
        with suppress(ValidationError):
            envelope = typed.model_validate_json(body)
            event: Event = envelope.data
            if envelope.dataschema == event.schema_id and envelope.type == _type(envelope.lane, event.wire):
                return envelope, event
    return _read_slowly(body)


@lru_cache(maxsize=4096)
def _type(lane: str, name: str) -> str:
    return f"{PREFIX}.{lane}.{name}"


def _read_slowly(body: bytes) -> tuple[Envelope, Event]:
    try:
        envelope = Envelope.model_validate_json(body)
    except ValidationError as error:
        raise InvalidInput(f"not an event: {_first(error)}", path="envelope") from None
    name, version = split_schema(envelope.dataschema)
    if envelope.type != _type(envelope.lane, name):
        raise InvalidInput(f"type {envelope.type!r} does not say lane and schema.", path="type")
    known = SPOKEN.get(name)
    if known is None or known is Unknown:
        return envelope, Unknown(name=name, data=envelope.data)
    try:
        return envelope, known.read(version, orjson.dumps(envelope.data))
    except (ValidationError, LookupError, AttributeError, TypeError, ValueError) as error:
        reason = _first(error) if isinstance(error, ValidationError) else repr(error)
        raise InvalidInput(f"{envelope.dataschema} does not hold: {reason}", path="data") from None


def _first(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_context=False)[0]
    return f"{'.'.join(map(str, problem['loc'])) or 'body'}: {problem['msg']}"
