"""The envelope around every event: CloudEvents 1.0, structured JSON, one writer and one reader.

The bytes made here are what is stored, hashed and signed; nothing re-serialises them. `laneseq` and `prev` chain
the events of one lane (one session and one role); `prev` is the SHA-256 of the body before.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, create_model

from contracts import spelling
from contracts.errors import InvalidInput
from contracts.event import SPOKEN, Event, Hex64, Unknown, split_schema
from contracts.spelling import FORM, type_of

Token = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,64}$")]
SessionId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{2}-[a-z2-7]{26}$")]


class Envelope(NamedTuple):
    """The members of an event's body as values; `data` is the typed event where this software has read it."""

    specversion: str
    id: str
    source: str
    type: str
    subject: str
    time: str
    datacontenttype: str
    dataschema: str
    lane: str
    laneseq: int
    prev: str
    causationid: str | None = None
    correlationid: str | None = None
    epoch: int | None = None
    step: int | None = None
    data: Any = None


class Spelling(BaseModel):
    """What the JSON of an envelope may hold."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, title="Envelope")

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

    def envelope(self) -> Envelope:
        """The envelope as the value that all other code handles."""
        return Envelope(**vars(self))


class Fact(NamedTuple):
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
        """Whether it is the last event of its append, the one that carries the signature."""
        return bool(self.signature)

    @property
    def lane(self) -> str:
        """The lane in which the event was said: the role, or `guest_NAME`."""
        return self.envelope.lane

    @property
    def id(self) -> str:
        """The event's id, unique in its session among the events that roles said."""
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
        "type": type_of(lane, event.wire),
        "subject": session,
        "time": time,
        "datacontenttype": FORM,
        "dataschema": event.schema_id,
        "lane": lane,
        "laneseq": laneseq,
        "prev": prev,
    }
    optional = {"causationid": cause, "correlationid": correlation, "epoch": epoch, "step": step}
    body |= {key: value for key, value in optional.items() if value is not None}
    return orjson.dumps(body | {"data": orjson.Fragment(event.model_dump_json().encode())})


def read(body: bytes) -> tuple[Envelope, Event]:
    """The envelope and the typed event inside a body; `InvalidInput` names what is wrong with it."""
    return _read_written(body) or _read_known(body) or _read_slowly(body)


def read_untyped(body: bytes) -> tuple[Envelope, Unknown]:
    """The same for a body whose data this software cannot interpret: they are kept as bytes."""
    envelope = _spelled(body)
    event = Unknown(name=split_schema(envelope.dataschema)[0], body=body)
    return envelope._replace(data=event), event


def _read_written(body: bytes) -> tuple[Envelope, Event] | None:
    """What `write` wrote, of an event in its present version; None for anything else, which may still be an event."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    head = spelling.HEAD.match(text)
    if head is None or text[-1] != "}":
        return None
    id, who, time, what, laneseq, prev, why = head.groups()
    stretches = spelling.stretches(who, what, why)
    if stretches is None:
        return None
    source, kind, session, schema, lane, cause, about, epoch, step, _, read_data = stretches
    try:
        event = read_data(text[head.end() : -1])
    except ValidationError:
        return None
    n = int(laneseq)
    return Envelope(
        "1.0", id, source, kind, session, time, FORM, schema, lane, n, prev, cause, about, epoch, step, event
    ), event


_SCHEMA = re.compile(rb'"dataschema":"([^"\\\\]{1,120})"')


@lru_cache(maxsize=1024)
def _typed(schema: bytes) -> type[Spelling] | None:
    """The envelope with its data already typed, for an event in its present version; None for any other."""
    known = spelling.present(schema.decode(errors="replace"))
    if known is None:
        return None
    fields: dict[str, Any] = {"data": (known, ...)}
    return create_model(f"EnvelopeOf{known.__name__}", __base__=Spelling, **fields)


def _read_known(body: bytes) -> tuple[Envelope, Event] | None:
    """An event in its present version, however it is spelled: one pass over the bytes when a look ahead finds it so."""
    found = _SCHEMA.search(body)
    typed = _typed(found[1]) if found else None
    if typed is None:
        return None
    try:
        envelope = typed.model_validate_json(body).envelope()
    except ValidationError:
        return None
    event: Event = envelope.data
    said = envelope.dataschema == event.schema_id and envelope.type == type_of(envelope.lane, event.wire)
    return (envelope, event) if said else None


def _read_slowly(body: bytes) -> tuple[Envelope, Event]:
    envelope = _spelled(body)
    name, version = split_schema(envelope.dataschema)
    if envelope.type != type_of(envelope.lane, name):
        raise InvalidInput(f"type {envelope.type!r} does not say lane and schema.", path="type")
    known = SPOKEN.get(name)
    if known is None or known is Unknown:
        event = Unknown(name=name, body=body)
        return envelope._replace(data=event), event
    try:
        return envelope, known.read(version, orjson.dumps(envelope.data))
    except (ValidationError, LookupError, AttributeError, TypeError, ValueError) as error:
        reason = _first(error) if isinstance(error, ValidationError) else repr(error)
        raise InvalidInput(f"{envelope.dataschema} does not hold: {reason}", path="data") from None


def _spelled(body: bytes) -> Envelope:
    try:
        return Spelling.model_validate_json(body).envelope()
    except ValidationError as error:
        raise InvalidInput(f"not an event: {_first(error)}", path="envelope") from None


def _first(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_context=False)[0]
    return f"{'.'.join(map(str, problem['loc'])) or 'body'}: {problem['msg']}"
