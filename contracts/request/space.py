"""The space of a search: by dotted path, which values a training request may have there."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from contracts.errors import InvalidRequest, Problem
from contracts.request.reading import put, read_request, shown
from contracts.request.request import Request
from contracts.request.section import Real, Section, Whole, refused

CONTROL, PAUSES = "early_stopping.metric", "training.pauses"
"""What a search sets in the request of every trial, beside its name."""

Path = Annotated[str, Field(min_length=1, max_length=200)]


def _listed(given: object) -> object:
    return list(given) if isinstance(given, list | tuple) else [given]


Values = Annotated[tuple[Any, ...], Field(min_length=1, max_length=1000), BeforeValidator(_listed)]
"""A value, or a list of some."""


class Parameter(Section):
    """What all domains share. With `when` it is chosen only in trials in which each path named there has one of the
    values named there; in others the request says nothing at its path but what the base does."""

    when: dict[Path, Values] = Field({}, max_length=8)

    @model_serializer(mode="wrap")
    def _without_conditions_of_none(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        """The genesis does not say what no search had before, so that of a search without it is the same bytes."""
        values: dict[str, object] = write(self)
        return values if self.when else {name: value for name, value in values.items() if name != "when"}


class Interval(Parameter):
    """Any number from `low` to `high`; `log` spreads trials evenly over orders of magnitude."""

    type: Literal["float"]
    low: Real
    high: Real
    log: bool = False

    @model_validator(mode="after")
    def _has_inside(self) -> Interval:
        refuse_backwards(self.low, self.high, log=self.log)
        return self


class Wholes(Parameter):
    """Whole numbers from `low` to `high` in steps of `step`, or spread over orders of magnitude with `log`."""

    type: Literal["int"]
    low: Whole
    high: Whole
    step: Whole = Field(1, ge=1)
    log: bool = False

    @model_validator(mode="after")
    def _has_inside(self) -> Wholes:
        refuse_backwards(self.low, self.high, log=self.log)
        if self.log and self.step != 1:
            raise refused("`log` and `step` exclude each other", "Leave one of them out.")
        return self

    @property
    def count(self) -> int:
        """How many values it allows: any number of them, so they are never listed."""
        return (self.high - self.low) // self.step + 1

    def value(self, place: int) -> int:
        """The value at a place, from 0."""
        return self.low + place * self.step


class Choice(Parameter):
    """One of some values, which may be of any kind; a plain list in the place of a domain is a choice of its items.

    A mapping is a whole section (`model: [{architecture: mlp}, {architecture: cnn}]`), in the place of the base's.
    """

    type: Literal["choice"]
    options: tuple[Any, ...] = Field(min_length=1, max_length=1000)

    @property
    def count(self) -> int:
        """How many values it allows."""
        return len(self.options)

    def value(self, place: int) -> Any:
        """The value at a place, from 0."""
        return self.options[place]

    def place(self, value: object) -> int:
        """The place of a value, from 0."""
        return next(place for place, option in enumerate(self.options) if same(option, value))


Domain = Annotated[Interval | Wholes | Choice, Field(discriminator="type")]


def _with_choices(space: object) -> object:
    if not isinstance(space, Mapping):
        return space
    return {
        path: {"type": "choice", "options": domain} if isinstance(domain, list | tuple) else domain
        for path, domain in space.items()
    }


Space = Annotated[dict[Path, Domain], Field(min_length=1, max_length=64), BeforeValidator(_with_choices)]
"""A plain list in the place of a domain is a choice of its items."""


def value_at(request: object, path: str | Sequence[str]) -> Any:
    """The value at a dotted path; None where there is nothing."""
    for key in path.split(".") if isinstance(path, str) else path:
        if isinstance(request, Mapping):
            request = request.get(key)
        elif isinstance(request, list | tuple) and key.isdigit() and int(key) < len(request):
            request = request[int(key)]
        else:
            return None
    return request


def put_values(base: Mapping[str, object], values: Mapping[str, object]) -> dict[str, object]:
    """A request with values at their dotted paths; the others of a list that it leaves to its default keep theirs."""
    given = dict(base)
    # A whole section first, then what lies in it.
    for path, value in sorted(values.items(), key=lambda item: item[0].count(".")):
        keys = path.split(".")
        place = next((at for at, key in enumerate(keys) if key.isdigit()), 0)
        if place and value_at(given, keys[:place]) is None:
            given = put(given, keys[:place], value_at(read_request(base).resolved(), keys[:place]))
        given = put(given, keys, value)
    return given


def giver(space: Container[str], path: str) -> str | None:
    """Which path of a space has a value at a path: that path itself, or one of a section around it."""
    ends = (len(path), *(place for place in range(len(path) - 1, 0, -1) if path[place] == "."))
    return next((path[:end] for end in ends if path[:end] in space), None)


def given_at(values: Mapping[str, object], path: str) -> Any:
    """The value at a path in a trial with these values; None where they say nothing of it."""
    place = giver(values, path)
    if place is None or place == path:
        return values.get(path)
    return value_at(values[place], path[len(place) + 1 :])


def same(first: object, second: object) -> bool:
    """Whether two values of a request are the same: 1 is 1.0, and neither is true."""
    return first == second and isinstance(first, bool) == isinstance(second, bool)


def inside(domain: Interval | Wholes | Choice, value: Any) -> bool:
    """Whether a domain allows a value."""
    if isinstance(domain, Choice):
        return any(same(value, option) for option in domain.options)
    if not isinstance(value, int | float) or isinstance(value, bool) or not domain.low <= value <= domain.high:
        return False
    return isinstance(domain, Interval) or (isinstance(value, int) and (value - domain.low) % domain.step == 0)


def allowing(space: Mapping[str, Domain], path: str, allowed: Iterable[object]) -> list[object]:
    """The values of the one that gives a path (`giver`) under which there is one of the allowed values."""
    place = giver(space, path)
    if place is None:
        return []
    if place == path:
        return [value for value in allowed if inside(space[path], value)]
    options = domain.options if isinstance(domain := space[place], Choice) else ()
    return [option for option in options if any(same(given_at({place: option}, path), value) for value in allowed)]


def refuse_backwards(low: float, high: float, *, log: bool) -> None:
    """Raise the error of a section whose `low` is not below its `high`, or has no order of magnitude."""
    if not low < high:
        raise refused(f"low is {low:g} and high is {high:g}", "Make `low` smaller than `high`.")
    if log and low <= 0:
        raise refused(f"low is {low:g}, and orders of magnitude begin above 0", "Make `low` positive, or `log` false.")


def problems_at(
    space: Mapping[str, Domain], trial: Callable[[Mapping[str, object]], Mapping[str, object]], path: str
) -> Iterator[Problem]:
    """The values of one path that a trial would be refused for; `trial` gives the request of some values."""
    domain = space[path]
    if path.partition(".")[0] not in Request.model_fields or not all(path.split(".")):
        yield Problem(f"space.{path}", "is not a setting of a training request", "Write section.key, as --set does.")
        return
    for of, allowed in domain.when.items():
        for value in allowed:
            if not allowing(space, of, [value]):
                cure = f"Name a value that {of} can have."
                yield Problem(f"space.{path}.when.{of}", f"{shown(value)} is none of its values", cure)
    ends = domain.options if isinstance(domain, Choice) else (domain.low, domain.high)
    around = _conditions(space, path)
    for value in ends:
        try:
            read_request(trial({**around, path: value}))
        except InvalidRequest as error:
            # Another parameter may be what makes a choice of a kind possible, so only the path itself is judged.
            for each in error.problems:
                near = f"{each.path}.".startswith(f"{path}.") or path.startswith(f"{each.path}.")
                if near or len(space) == 1:
                    yield Problem(f"space.{path}", each.message, each.cure)


def _conditions(space: Mapping[str, Domain], path: str) -> dict[str, object]:
    """Values under which a trial has a parameter at the path: the first that each condition allows."""
    values: dict[str, object] = {}
    for of, allowed in space[path].when.items():
        place = giver(space, of) or of
        values |= {**_conditions(space, place), place: next(iter(allowing(space, of, allowed)), allowed[0])}
    return values
