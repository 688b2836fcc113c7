"""The envelope around every event: CloudEvents 1.0, structured JSON, one writer and one reader.

The bytes made here are what is stored, hashed and signed; nothing re-serialises them. `laneseq` and `prev` chain
the events of one lane (one session and one role); `prev` is the SHA-256 of the body before. A body as `write` makes it
is read by one pattern for everything before the data and one validator for the data; any other spelling of an event is
read by the slower ways, with the same result.
"""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, create_model

from contracts.errors import InvalidInput
from contracts.event import SPOKEN, Event, Hex64, Unknown, split_schema

PREFIX, FORM = "io.stigmergy", "application/json"

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


class EnvelopeSchema(BaseModel):
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


Spelling = EnvelopeSchema
"""The name under which guests and readers of logs have imported it."""


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
    body: dict[str, object] = {
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


_WORD, _WHOLE = r"[!#-\[\]-~]", r"(?:-?[1-9][0-9]{0,15}|0)"
HEAD = re.compile(
    rf'\{{"specversion":"1\.0","id":"({_WORD}{{1,64}})"'
    r'(,"source":"[^"]{1,200}","type":"[^"]{1,200}","subject":"[^"]{29}")'
    rf',"time":"({_WORD}{{0,40}})"'
    rf'(,"datacontenttype":"{FORM}","dataschema":"[^"]{{1,120}}","lane":"[^"]{{1,64}}")'
    r',"laneseq":([1-9][0-9]{0,15}),"prev":"([0-9a-f]{64})"'
    r'((?:,"causationid":"[^"]{0,200}")?(?:,"correlationid":"[^"]{0,200}")?(?:,"epoch":[^,]{1,20})?(?:,"step":[^,]{1,20})?),"data":'
)
"""Everything before the data as `write` writes it: id, source to subject, time, form to lane, laneseq, prev, causes.

The three groups of members are the same in many events of a lane; `head_fields` parses each combination once and
remembers it, so none may be long.
"""
_FIELDS = re.compile(
    rf',"source":"({_WORD}{{1,200}})","type":"({_WORD}{{1,200}})","subject":"([a-z0-9]{{2}}-[a-z2-7]{{26}})"'
    rf',"datacontenttype":"{FORM}","dataschema":"({_WORD}{{1,120}})","lane":"([a-z0-9_-]{{1,64}})"'
    rf'(?:,"causationid":"({_WORD}*)")?(?:,"correlationid":"({_WORD}*)")?(?:,"epoch":({_WHOLE}))?(?:,"step":({_WHOLE}))?'
)


class HeadFields(NamedTuple):
    """The members in the head of an event as written; `known` is the class of the event, `read` parses its data."""

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
def head_fields(speaker: str, schema: str, causes: str) -> HeadFields | None:
    """The fields of an event that is read as it stands, whose type says lane and schema; None for any other."""
    match = _FIELDS.fullmatch(speaker + schema + causes)
    known = present(match[4]) if match else None
    if match is None or known is None or match[2] != type_of(match[5], known.wire) or _holds_anything(known):
        return None
    source, kind, session, schema, lane, cause, correlation, epoch, step = match.groups()
    return HeadFields(
        source, kind, session, schema, lane, cause, correlation,
        int(epoch) if epoch else None, int(step) if step else None, known, _data_reader(known),
    )  # fmt: skip


MOST_OPENED = 190
"""Lists and objects in data that is read by itself: more may be nested deeper than a reader of the whole body follows.

Only a member that comes twice can hold them, for the form of the data forbids them where they count.
"""


def _data_reader(known: type[Event]) -> Callable[[str], Event]:
    """What reads the data of an event as it stands; raises `ValidationError` where a closer look is due."""
    validate = known.__pydantic_validator__.validate_json

    def read(data: str) -> Event:
        event: Event = validate(data if data.count("[") + data.count("{") <= MOST_OPENED else "")
        return event

    return read


@lru_cache(maxsize=256)
def _holds_anything(known: type[Event]) -> bool:
    """Whether its data may have any form, and so be nested one level deeper than a reader of the whole body follows."""
    return "'type': 'any'" in str(known.__pydantic_core_schema__)


def present(schema: str) -> type[Event] | None:
    """The event of this name and version if this code knows it and lifts it from there to its present form unchanged.

    Its bytes are then read as those of the present version are.
    """
    name, _, version = schema.rpartition("/")
    known = SPOKEN.get(name)
    if known is None or known is Unknown:
        return None
    return known if known.schema_id == schema or version in known.same_form else None


@lru_cache(maxsize=4096)
def type_of(lane: str, name: str) -> str:
    """The type of an event, which says who speaks and what."""
    return f"{PREFIX}.{lane}.{name}"


def read(body: bytes) -> tuple[Envelope, Event]:
    """The envelope and the typed event inside a body; `InvalidInput` names what is wrong with it."""
    return _read_canonical(body) or _read_present(body) or _read_slowly(body)


def read_untyped(body: bytes) -> tuple[Envelope, Unknown]:
    """The same for a body whose data this software cannot interpret: they are kept as bytes."""
    envelope = _untyped_envelope(body)
    event = Unknown(name=split_schema(envelope.dataschema)[0], body=body)
    return envelope._replace(data=event), event


def _read_canonical(body: bytes) -> tuple[Envelope, Event] | None:
    """What `write` wrote, of an event in its present version; None for anything else, which may still be an event."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    head = HEAD.match(text)
    if head is None or text[-1] != "}":
        return None
    id, speaker, time, form, laneseq, prev, causes = head.groups()
    fields = head_fields(speaker, form, causes)
    if fields is None:
        return None
    source, kind, session, schema, lane, cause, about, epoch, step, _, read_data = fields
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
def _typed(schema: bytes) -> type[EnvelopeSchema] | None:
    """The envelope with its data already typed, for an event that is read as it stands; None for any other."""
    known = present(schema.decode(errors="replace"))
    if known is None:
        return None
    fields: dict[str, Any] = {"data": (known, ...)}
    return create_model(f"EnvelopeOf{known.__name__}", __base__=EnvelopeSchema, **fields)


def _read_present(body: bytes) -> tuple[Envelope, Event] | None:
    """An event in its present version, however it is spelled: one pass over the bytes when a look ahead finds it so."""
    match = _SCHEMA.search(body)
    typed = _typed(match[1]) if match else None
    if typed is None:
        return None
    try:
        envelope = typed.model_validate_json(body).envelope()
    except ValidationError:
        return None
    event: Event = envelope.data
    schema = envelope.dataschema
    meant = schema == event.schema_id or present(schema) is type(event)
    return (envelope, event) if meant and envelope.type == type_of(envelope.lane, event.wire) else None


def _read_slowly(body: bytes) -> tuple[Envelope, Event]:
    envelope = _untyped_envelope(body)
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


def _untyped_envelope(body: bytes) -> Envelope:
    try:
        return EnvelopeSchema.model_validate_json(body).envelope()
    except ValidationError as error:
        raise InvalidInput(f"not an event: {_first(error)}", path="envelope") from None


def _first(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_context=False)[0]
    return f"{'.'.join(map(str, problem['loc'])) or 'body'}: {problem['msg']}"


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
