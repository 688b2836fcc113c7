"""The base of every event: a frozen fact with a stable wire name and a version that only grows, said in lanes.

The version is one more than the number of upcasters, so a new version without a way from the old one cannot be
written. Stored bytes are never changed: an old body is lifted to the present when it is read. Floats on which a
re-execution depends are `Exact` (hex text) or `Packed` (little-endian bytes), because JSON has no NaN.

Lanes are those of the built-in roles, of people, and of the two roles that admit keys. A guest's lane is `guest_` and
its name.
"""

from __future__ import annotations

import base64
import functools
import importlib
import inspect
import math
import pkgutil
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, ClassVar, Self

import orjson
from pydantic import (
    AllowInfNan,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    model_serializer,
)
from pydantic_core import from_json

import contracts
from contracts.errors import InvalidInput, NewerThanCode
from contracts.roles import ANYBODY, GUEST

Payload = dict[str, Any]
Upcast = Callable[[Payload], Payload]


def _from_hex(value: object) -> object:
    if isinstance(value, str):
        try:
            return float.fromhex(value)
        except OverflowError as error:
            raise ValueError(str(error)) from None
    return value


def _to_hex(value: float) -> str:
    # float.hex() writes infinities and NaN as words that float.fromhex() reads back.
    return value.hex() if math.isfinite(value) else str(value)


Exact = Annotated[
    float,
    AllowInfNan(allow_inf_nan=True),
    BeforeValidator(_from_hex, json_schema_input_type=str),
    PlainSerializer(_to_hex, when_used="json"),
]
"""A float whose bits matter; hex text on the wire, NaN and infinities included."""


Packed = Annotated[str, StringConstraints(pattern=r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$")]
"""Little-endian floats as base64 text: float32 by `pack` and `unpack`, float64 by `pack64` and `unpack64`."""

Hex64 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 or BLAKE3 digest."""


def pack(values: bytes) -> str:
    """The base64 text of packed little-endian float32 bytes."""
    return base64.b64encode(values).decode()


def unpack(text: str) -> tuple[float, ...]:
    """The float32 values inside a `Packed` text."""
    raw = base64.b64decode(text)
    return struct.unpack(f"<{len(raw) // 4}f", raw)


LARGEST32 = 2.0**128 - 2.0**104
"""The largest finite float32."""


def pack32(values: Iterable[float]) -> str:
    """The base64 text of values rounded to float32; what is too large for it is infinite."""
    fitting = [math.copysign(math.inf, value) if abs(value) > LARGEST32 else value for value in values]
    return pack(struct.pack(f"<{len(fitting)}f", *fitting))


def pack64(values: Iterable[float]) -> str:
    """The base64 text of float64 values, bit for bit."""
    numbers = tuple(values)
    return base64.b64encode(struct.pack(f"<{len(numbers)}d", *numbers)).decode()


def unpack64(text: str) -> tuple[float, ...]:
    """The float64 values inside a `Packed` text."""
    raw = base64.b64decode(text)
    return struct.unpack(f"<{len(raw) // 8}d", raw)


SPOKEN: dict[str, type[Event]] = {}
"""Every event that this code knows, by wire name."""


class Value(BaseModel):
    """A frozen part of an event; plain floats in it are finite, because JSON would write NaN as null."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def unchanged(old: Payload) -> Payload:
    """The upcaster of a version that says the same of fewer forms, or has more members than the one before."""
    return old


class PartialValue(Value):
    """A value that is written with the members that it was given and no others, so that an absent one stays absent."""

    @model_serializer(mode="wrap")
    def _given(self, write: SerializerFunctionWrapHandler) -> Payload:
        return {name: member for name, member in write(self).items() if name in self.model_fields_set}


def fitted(kind: type[Value], given: object, **instead: object) -> Payload:
    """What of a member of any form, as older versions had it, has the form of a value.

    Members that the value does not have, or has in another form, are left out. `instead` has what stands for a
    required one that is missing or left out.
    """
    fitting = instead | (given if isinstance(given, dict) else {})
    try:
        kind.model_validate(fitting)
    except ValidationError as error:
        wrong = {problem["loc"][0] for problem in error.errors(include_url=False, include_context=False)}
        kept = {name: member for name, member in fitting.items() if name not in wrong}
        return {name: member for name, member in instead.items() if name in wrong} | kept
    return fitting


class Event(Value):
    """A fact. Subclasses state once who says it and under which name: `class X(Event, lane=ROLE, wire="x.happened")`.

    In another lane it means nothing: it is kept and shown, never folded. Without a lane only guests may say it. `says`
    may hold what it says to people, with its members in braces: `says="{trials:trial} of {session} failed: {message}"`.
    """

    wire: ClassVar[str] = ""
    saying: ClassVar[str] = ""
    """What it says to people, with the names of its members in braces; empty where that takes more."""
    said_in: ClassVar[tuple[str, ...]] = ()
    upcasts: ClassVar[tuple[Upcast, ...]] = ()
    schema_id: ClassVar[str] = ""
    """NAME/VERSION, as written into `dataschema`."""
    same_form: ClassVar[frozenset[str]] = frozenset()
    """The older versions, as text, whose payloads are payloads of the present one as they stand."""

    def __init_subclass__(
        cls,
        *,
        wire: str = "",
        lane: str | tuple[str, ...] = (),
        says: str = "",
        upcasts: Sequence[Upcast] = (),
        **rest: Any,
    ) -> None:
        super().__init_subclass__(**rest)
        if not wire:
            raise TypeError(f"{cls.__qualname__} needs a wire name: class {cls.__name__}(Event, wire='thing.happened')")
        other = SPOKEN.setdefault(wire, cls)
        if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(f"the wire name {wire!r} is already that of {other.__module__}.{other.__qualname__}")
        SPOKEN[wire] = cls
        cls.wire, cls.saying = wire, says
        cls.said_in = (lane,) if isinstance(lane, str) else lane
        cls.upcasts = tuple(upcasts)
        cls.schema_id = f"{wire}/{cls.version()}"
        lifted = enumerate(cls.upcasts, 1)
        changed = max((version for version, upcast in lifted if upcast is not unchanged), default=0)
        cls.same_form = frozenset(map(str, range(changed + 1, cls.version())))

    @classmethod
    def may_be_said_in(cls, lane: str) -> bool:
        """Whether an event of this class counts in this lane; in others it is read as `Unknown` and never folded."""
        if not cls.said_in:
            return lane.startswith(GUEST)
        return lane in cls.said_in or ANYBODY in cls.said_in

    @classmethod
    def version(cls) -> int:
        """One more than the number of upcasters."""
        return 1 + len(cls.upcasts)

    @classmethod
    def read(cls, version: int, payload: bytes) -> Self:
        """The event in its present form, from the bytes of any version ever shipped."""
        if version > cls.version():
            raise NewerThanCode(
                f"{cls.wire}/{version} is newer than this software, which knows {cls.schema_id}.",
                cure="Update stigmergy to read this log.",
            )
        if version < cls.version() and str(version) not in cls.same_form:
            lifted: Payload = orjson.loads(payload)
            for upcast in cls.upcasts[version - 1 :]:
                lifted = upcast(lifted)
            payload = orjson.dumps(lifted)
        return cls.model_validate_json(payload)


class Unknown(Event, lane=ANYBODY, wire="unknown"):
    """An event of a type this code has never heard of: kept and shown, never folded.

    A stranger decides how large its data would be as objects, so only the body's bytes are kept; `data` parses them.
    """

    name: str
    body: bytes

    @property
    def data(self) -> Any:
        """The body's member `data`, parsed again at each call."""
        return from_json(self.body)["data"]


def split_schema(schema: str) -> tuple[str, int]:
    """The wire name and version inside `dataschema`."""
    name, _, version = schema.rpartition("/")
    if not name or not (version.isascii() and version.isdigit()) or int(version) < 1:
        raise InvalidInput(f"dataschema {schema!r} is not NAME/VERSION.", path="dataschema")
    return name, int(version)


@functools.cache
def events() -> dict[str, type[Event]]:
    """The events that files of `contracts` define, by wire name; those of guests are not among them."""
    events = dict[str, type[Event]]()
    for module in pkgutil.iter_modules(contracts.__path__, "contracts."):
        if not module.ispkg:
            classes = [value for _, value in inspect.getmembers(importlib.import_module(module.name), inspect.isclass)]
            events |= {kind.wire: kind for kind in classes if issubclass(kind, Event) and kind not in (Event, Unknown)}
    return dict(sorted(events.items()))
