"""The one codec between frozen values and the JSON of frames: exact, strict, driven by the annotations of the values.

A value is a frozen dataclass, a named tuple, a pydantic model, or what these are made of: None, bool, int, float, str,
bytes, paths, literals, tuples, read-only mappings with text keys, and unions of those. Floats travel as hex text and
bytes as base64, so no bit is lost; tensors travel as files. A field of type `object` is JSON as it was recorded, which
only its reader judges. What arrives with an unknown, missing or ill-typed member is refused.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Union

import orjson

if TYPE_CHECKING:
    from pydantic import BaseModel

Encode = Callable[[Any], object]
Decode = Callable[[Any], Any]


class NotOfType(ValueError):
    """What is to be sent, or what arrived, is no value of the type that both ends have agreed on."""


class TypeCodec(NamedTuple):
    """How values of one type become JSON, and back."""

    encode: Encode
    decode: Decode


@cache
def codec_of(kind: Any) -> TypeCodec:
    """The codec of a type; `TypeError` for a type whose values are not frozen or cannot travel."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    found = _of_generic(typing.get_origin(kind), typing.get_args(kind)) or _of_class(kind)
    if found is None:
        raise TypeError(f"values of {_name(kind)} do not pass between processes: use frozen ones")
    return found


def _of_generic(origin: Any, arguments: tuple[Any, ...]) -> TypeCodec | None:
    if origin is Literal:
        return TypeCodec(_one_of(arguments), _one_of(arguments))
    if origin in (Union, types.UnionType):
        return _union(arguments)
    if origin is Sequence or (origin is tuple and arguments[1:] == (...,)):
        return _many(arguments[0])
    if origin is tuple:
        return _fixed(arguments)
    return _mapping(arguments[1]) if origin is Mapping and arguments[0] is str else None


def _of_class(kind: Any) -> TypeCodec | None:
    if not isinstance(kind, type):
        return None
    # Not imported here: a zygote does without pydantic where its jobs do.
    if getattr(kind, "model_config", {}).get("frozen"):
        return _model(kind)
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return _named_tuple(kind)
    if dataclasses.is_dataclass(kind) and vars(kind)["__dataclass_params__"].frozen:
        return _dataclass(kind)
    return None


def _same(value: object) -> object:
    return value


def _exactly(kind: type) -> Decode:
    def read(raw: object) -> object:
        if type(raw) is not kind:
            raise NotOfType(f"{raw!r:.80} is no {kind.__name__}")
        return raw

    return read


def _text(value: object) -> str:
    """A plain string; libraries have classes of their own for some of theirs."""
    if not isinstance(value, str):
        raise NotOfType(f"{value!r:.80} is no str")
    return str(value)


def _float(raw: object) -> float:
    try:
        return float.fromhex(_exactly(str)(raw))
    except (ValueError, OverflowError):
        raise NotOfType(f"{raw!r:.80} is no float in hex") from None


def _bytes(raw: object) -> bytes:
    try:
        return base64.b64decode(_exactly(str)(raw), validate=True)
    except (binascii.Error, ValueError):
        raise NotOfType(f"{raw!r:.80} is no base64") from None


def _one_of(allowed: tuple[object, ...]) -> Decode:
    def read(raw: object) -> object:
        if not any(raw == one and type(raw) is type(one) for one in allowed):
            raise NotOfType(f"{raw!r:.80} is none of {allowed}")
        return raw

    return read


def _list(raw: object) -> Sequence[object]:
    if not isinstance(raw, list):
        raise NotOfType(f"{raw!r:.80} is no list")
    return raw


def _object(raw: object) -> Mapping[str, object]:
    if not isinstance(raw, dict):
        raise NotOfType(f"{raw!r:.80} is no object")
    return raw


def _many(kind: object) -> TypeCodec:
    inner = codec_of(kind)
    return TypeCodec(
        lambda value: [inner.encode(one) for one in value], lambda raw: tuple(inner.decode(one) for one in _list(raw))
    )


def _fixed(kinds: Sequence[object]) -> TypeCodec:
    inner = [codec_of(kind) for kind in kinds]

    def encode(value: Sequence[object]) -> object:
        return [codec.encode(one) for codec, one in zip(inner, value, strict=True)]

    def decode(raw: object) -> object:
        given = _list(raw)
        if len(given) != len(inner):
            raise NotOfType(f"{raw!r:.80} has {len(given)} parts, not {len(inner)}")
        return tuple(codec.decode(one) for codec, one in zip(inner, given, strict=True))

    return TypeCodec(encode, decode)


def _mapping(kind: object) -> TypeCodec:
    inner = codec_of(kind)
    return TypeCodec(
        lambda value: {name: inner.encode(one) for name, one in value.items()},
        lambda raw: {name: inner.decode(one) for name, one in _object(raw).items()},
    )


def _named_tuple(kind: type) -> TypeCodec:
    hints = typing.get_type_hints(kind)
    inner = _fixed([hints[name] for name in kind._fields])  # type: ignore[attr-defined]
    return TypeCodec(inner.encode, lambda raw: kind(*inner.decode(raw)))


def _dataclass(kind: type) -> TypeCodec:
    hints = typing.get_type_hints(kind)
    fields = {one.name: codec_of(hints[one.name]) for one in dataclasses.fields(kind) if one.init}

    def encode(value: object) -> object:
        if type(value) is not kind:
            raise NotOfType(f"it is a {type(value).__name__}")
        return {name: codec.encode(getattr(value, name)) for name, codec in fields.items()}

    def decode(raw: object) -> object:
        given = _object(raw)
        if given.keys() != fields.keys():
            wrong = ", ".join(sorted(given.keys() ^ fields.keys()))
            raise NotOfType(f"a {kind.__name__} has other members than it should: {wrong:.200}")
        try:
            return kind(**{name: codec.decode(given[name]) for name, codec in fields.items()})
        except NotOfType as error:
            raise NotOfType(f"{kind.__name__}: {error}") from None

    return TypeCodec(encode, decode)


def _model(kind: type[BaseModel]) -> TypeCodec:
    def encode(value: BaseModel) -> object:
        if type(value) is not kind:
            raise NotOfType(f"it is a {type(value).__name__}")
        return value.model_dump(mode="json")

    def decode(raw: object) -> object:
        try:
            return kind.model_validate_json(orjson.dumps(raw))
        except ValueError as error:
            raise NotOfType(f"no {kind.__name__}: {str(error)[:300]}") from None

    return TypeCodec(encode, decode)


def _union(kinds: Sequence[Any]) -> TypeCodec:
    """Classes are told apart by name, as [NAME, VALUE]; beside them None may stand, or there are primitives alone."""
    optional = type(None) in kinds
    inner = {kind: codec_of(kind) for kind in kinds if kind is not type(None)}
    if len(inner) == 1:
        ((_, one),) = inner.items()
        return TypeCodec(
            lambda value: None if value is None else one.encode(value),
            lambda raw: None if raw is None else one.decode(raw),
        )
    if all(kind in (bool, int, str) or typing.get_origin(kind) is Literal for kind in inner):
        return _primitives(inner, optional=optional)
    names = {kind.__name__: codec for kind, codec in inner.items()}
    if len(names) != len(inner) or any(kind in (bool, int, float, str, bytes) for kind in inner):
        raise TypeError(f"the members of {kinds} cannot be told apart")

    def encode(value: object) -> object:
        if value is None and optional:
            return None
        name = type(value).__name__
        if name not in names:
            raise NotOfType(f"it is a {name}")
        return [name, names[name].encode(value)]

    def decode(raw: object) -> object:
        if raw is None and optional:
            return None
        match raw:
            case [str(name), body] if name in names:
                return names[name].decode(body)
        raise NotOfType(f"{raw!r:.80} is none of {', '.join(names)}")

    return TypeCodec(encode, decode)


def _primitives(inner: Mapping[Any, TypeCodec], *, optional: bool) -> TypeCodec:
    def read(raw: object) -> object:
        if raw is None and optional:
            return None
        for codec in inner.values():
            try:
                return codec.decode(raw)
            except NotOfType:
                continue
        raise NotOfType(f"{raw!r:.80} is none of {', '.join(map(_name, inner))}")

    return TypeCodec(read, read)


def _name(kind: object) -> str:
    return getattr(kind, "__name__", str(kind))


_AS_IT_IS = TypeCodec(_same, _same)
_PLAIN: Mapping[Any, TypeCodec] = {
    object: _AS_IT_IS,
    Any: _AS_IT_IS,
    None: TypeCodec(_exactly(type(None)), _exactly(type(None))),
    type(None): TypeCodec(_exactly(type(None)), _exactly(type(None))),
    bool: TypeCodec(_exactly(bool), _exactly(bool)),
    int: TypeCodec(_exactly(int), _exactly(int)),
    str: TypeCodec(_text, _exactly(str)),
    float: TypeCodec(lambda value: float(value).hex(), _float),
    bytes: TypeCodec(lambda value: base64.b64encode(value).decode("ascii"), _bytes),
    Path: TypeCodec(str, lambda raw: Path(_exactly(str)(raw))),
}

UNKNOWN = TypeCodec(_exactly(type(None)), _one_of(()))
"""What decodes nothing."""
