"""What every section of a request shares: frozen, closed, finite numbers, and what rows can be for."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, GetJsonSchemaHandler, Tag
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
"""What JSON Schema calls a bound that pydantic writes under its own name, where a number is converted first."""


class Section(BaseModel):
    """A frozen part of a request; a key it does not know is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The published schema, in which every bound has the name that readers of JSON Schema know."""
        schema = handler(core)
        handler.resolve_ref_schema(schema).update(_named(handler.resolve_ref_schema(schema)))
        return schema


def _named(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_named(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    is_number = schema.get("type") in ("number", "integer")
    return {_BOUNDS.get(name, name) if is_number else name: _named(value) for name, value in schema.items()}


def with_default_kind(given: Any, field: FieldInfo) -> Any:
    """A section that does not name its kind is one of the field's default kind; what is no mapping stays as it is.

    Keys that another kind has and the default has not mean that the kind was forgotten: nothing is made up then.
    """
    default = field.default
    if not isinstance(given, Mapping) or "type" in given or not isinstance(default, Section):
        return given
    foreign = given.keys() - type(default).model_fields.keys()
    if any(foreign & kind.model_fields.keys() for kind in get_args(field.annotation)):
        return given
    return {"type": dict(default)["type"], **given}


def refused(message: str, cure: str = "") -> PydanticCustomError:
    """The error a section's own validator raises: what is wrong, and what to write instead."""
    return PydanticCustomError("refused", "{message}", {"message": message, "cure": cure})


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise refused(f"{value!r} is not a number", "Write a number.")
    return value


def _which(value: Any) -> str:
    return "auto" if value == "auto" else "given"


def _number_from_text(value: Any) -> Any:
    """YAML 1.1 reads `1e3` as text; a whole number written that way is still a whole number."""
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return value
        return int(number) if number.is_integer() else value
    return _no_bool(value)


Whole = Annotated[int, BeforeValidator(_number_from_text)]
"""A whole number; text such as "20" is the number it is."""

Real = Annotated[float, BeforeValidator(_no_bool)]
"""A finite number; YAML reads `1e-4` as text, here it is the number it is."""

AutoWhole = Annotated[
    Annotated[Whole, Field(ge=1, le=10**9), Tag("given")] | Annotated[Literal["auto"], Tag("auto")],
    Discriminator(_which),
]
"""A whole number from 1, or `auto`: resolved once, by a pure rule, at the first claim."""

AutoFlag = Annotated[
    Annotated[bool, Tag("given")] | Annotated[Literal["auto"], Tag("auto")],
    Discriminator(_which),
]
"""True, false, or `auto`."""

Name = Annotated[str, Field(min_length=1, max_length=120, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""A short printable text."""


def _no_address(value: Any) -> Any:
    # Addresses may hold secrets, and a command would be run: neither is repeated.
    if isinstance(value, str) and set(value) & set(":/@. \\"):
        cure = (
            "Write the label of a receiver; its address or command stands in the home's settings.toml, as [[notify]]."
        )
        raise refused("an address or a command is no label", cure)
    return value


Label = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$"), BeforeValidator(_no_address)]
"""What the owner of a home calls a receiver of alerts."""

Options = dict[str, object]
"""Options of a user's workload; its own model checks them where its code is at hand."""

Patterns = tuple[Annotated[str, Field(min_length=1, max_length=500)], ...]
"""Names of tensors as `swarm show` has them; `*` matches any characters."""


DataTask = Literal["classification", "regression", "sequences"]
"""What rows are for by themselves: a class each, a number each, or tokens one after another."""

Task = Literal["classification", "regression", "sequences", "reconstruction", "embedding"]
"""As `DataTask`; or to answer with the row itself, or with a place near rows of the same class."""
