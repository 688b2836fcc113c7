"""A search over training requests, and a learning-rate range test: what is tried, how often, judged by what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from math import prod
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from contracts.errors import InvalidRequest, Problem
from contracts.request.reading import did_you_mean, parsed, problems_of, put, read_request, with_overrides
from contracts.request.request import Request
from contracts.request.section import Name, Real, Section, Whole, refused
from contracts.request.training import less_is_better

CONTROL = "early_stopping.metric"


class Interval(Section):
    """Any number from `low` to `high`; `log` spreads trials evenly over orders of magnitude."""

    type: Literal["float"]
    low: Real
    high: Real
    log: bool = False

    @model_validator(mode="after")
    def _has_inside(self) -> Interval:
        _check(self.low, self.high, log=self.log)
        return self


class Wholes(Section):
    """Whole numbers from `low` to `high` in steps of `step`, or spread over orders of magnitude with `log`."""

    type: Literal["int"]
    low: Whole
    high: Whole
    step: Whole = Field(1, ge=1)
    log: bool = False

    @model_validator(mode="after")
    def _has_inside(self) -> Wholes:
        _check(self.low, self.high, log=self.log)
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


class Choice(Section):
    """One of some values, which may be of any kind."""

    type: Literal["choice"]
    options: tuple[Any, ...] = Field(min_length=1, max_length=1000)

    @property
    def count(self) -> int:
        """How many values it allows."""
        return len(self.options)

    def value(self, place: int) -> Any:
        """The value at a place, from 0."""
        return self.options[place]


Domain = Annotated[Interval | Wholes | Choice, Field(discriminator="type")]
Path = Annotated[str, Field(min_length=1, max_length=200)]


class Search(Section):
    """Trials are sessions of their own: `base` with one value per path of `space`; the first trial is `base` itself.

    Trial n is chosen once trials 0..n-`parallel` have ended, by their values alone: so the same seed makes the same
    trials whatever ends first. `metric` is also what each trial stops early by.
    """

    method: Literal["search"] = "search"
    name: Name = "search"
    base: dict[str, object]
    space: dict[Path, Domain] = Field(min_length=1, max_length=64)
    trials: Whole = Field(20, ge=1, le=10_000)
    parallel: Whole = Field(1, ge=1, le=64)
    sampler: Literal["auto", "gp", "tpe", "random", "grid"] = "auto"
    metric: str = Field("val_loss", max_length=64)
    direction: Literal["auto", "minimize", "maximize"] = "auto"
    seed: Whole = Field(0, ge=0, lt=2**31)

    @field_validator("metric")
    @classmethod
    def _is_control_metric(cls, metric: str) -> str:
        if not metric.startswith("val_") or not metric[4:].isidentifier():
            raise refused(f"{metric!r} is not a control metric", "Write val_loss, or val_ and a metric's name.")
        return metric

    @property
    def minimizes(self) -> bool:
        """Whether a smaller value of the metric is a better one."""
        if self.direction != "auto":
            return self.direction == "minimize"
        return less_is_better(self.metric)

    @property
    def grid_size(self) -> int | None:
        """How many different trials there are; None when a parameter has no end of values."""
        sizes = [domain.count for domain in self.space.values() if not isinstance(domain, Interval)]
        return prod(sizes) if len(sizes) == len(self.space) else None

    def combination(self, number: int) -> dict[str, object]:
        """One combination of the grid, from 0, the last path changing fastest; only where `grid_size` is a number."""
        values: dict[str, object] = {}
        for path, domain in reversed(self.space.items()):
            if not isinstance(domain, Interval):
                number, place = divmod(number, domain.count)
                values[path] = domain.value(place)
        return {path: values[path] for path in self.space}

    def trial(self, number: int, parameters: Mapping[str, object]) -> dict[str, object]:
        """The training request of one trial, as it would be given: not exported, judged by the search's metric.

        Unless the base says otherwise it is not repaired either, so that its value is that of its parameters.
        """
        given: dict[str, object] = deepcopy({key: value for key, value in self.base.items() if key != "export"})
        given.setdefault("diagnosis", {"auto_fix": False})
        for path, value in {**parameters, "name": f"{self.name}-{number}"[:120], CONTROL: self.metric}.items():
            given = put(given, path.split("."), value)
        return given

    def resolved(self) -> dict[str, object]:
        """The JSON form with defaults written out; reading it gives this search again."""
        return self.model_dump(mode="json")


class RangeTest(Section):
    """One short training of `base` while the learning rate rises from `low` to `high`; it tells where loss falls."""

    method: Literal["lr_range"] = "lr_range"
    name: Name = "learning-rate range test"
    base: dict[str, object]
    low: Real = Field(1e-5, gt=0, le=1000)
    high: Real = Field(10.0, gt=0, le=1000)
    steps: Whole = Field(100, ge=20, le=1000)

    @model_validator(mode="after")
    def _rises(self) -> RangeTest:
        _check(self.low, self.high, log=True)
        return self

    def resolved(self) -> dict[str, object]:
        """The JSON form with defaults written out; reading it gives this test again."""
        return self.model_dump(mode="json")


METHODS: Mapping[str, type[Search | RangeTest]] = {"search": Search, "lr_range": RangeTest}


def read_search(raw: Mapping[str, object] | bytes | str, *, overrides: Sequence[str] = ()) -> Search | RangeTest:
    """The search (or range test) in `raw` with overrides applied; raises `InvalidRequest` with every problem found."""
    given = with_overrides(parsed(raw), overrides)
    method = given.get("method", "search")
    schema = METHODS.get(method) if isinstance(method, str) else None
    if schema is None:
        raise InvalidRequest([Problem("method", f"{method!r} is not known", did_you_mean(method, METHODS))])
    problems: list[Problem] = []
    search: Search | RangeTest | None = None
    try:
        search = schema.model_validate(given)
    except ValidationError as error:
        problems += problems_of(error, schema)
    base = given.get("base")
    try:
        if isinstance(base, Mapping):
            read_request(base)
    except InvalidRequest as error:
        problems += [Problem(f"base.{each.path}".rstrip("."), each.message, each.cure) for each in error.problems]
    else:
        if isinstance(search, Search):
            problems += _problems_in_space(search)
    if problems or search is None:
        raise InvalidRequest(problems)
    return search


def _check(low: float, high: float, *, log: bool) -> None:
    if not low < high:
        raise refused(f"low is {low:g} and high is {high:g}", "Make `low` smaller than `high`.")
    if log and low <= 0:
        raise refused(f"low is {low:g}, and orders of magnitude begin above 0", "Make `low` positive, or `log` false.")


def _problems_in_space(search: Search) -> Iterator[Problem]:
    """Values that a trial would be refused for, and what the space and the rest of the search disagree on."""
    if CONTROL in search.space or "name" in search.space or "request_id" in search.space:
        yield Problem("space", "name, request_id and early_stopping.metric are set by the search", "Leave them out.")
    if search.sampler == "grid" and search.grid_size is None:
        yield Problem(
            "sampler", "a grid needs parameters with an end of values", "Use int and choice, or another sampler."
        )
    try:
        read_request(search.trial(0, {}))
    except InvalidRequest as error:
        yield from (Problem("metric", each.message, each.cure) for each in error.problems)
        return
    for path, domain in search.space.items():
        yield from _problems_at(search, path, domain)


def _problems_at(search: Search, path: str, domain: Interval | Wholes | Choice) -> Iterator[Problem]:
    if path.partition(".")[0] not in Request.model_fields or not all(path.split(".")):
        yield Problem(f"space.{path}", "is not a setting of a training request", "Write section.key, as --set does.")
        return
    ends = domain.options if isinstance(domain, Choice) else (domain.low, domain.high)
    for value in ends:
        try:
            read_request(search.trial(0, {path: value}))
        except InvalidRequest as error:
            # Another parameter may be what makes a choice of a kind possible, so only the path itself is judged.
            for each in error.problems:
                near = f"{each.path}.".startswith(f"{path}.") or path.startswith(f"{each.path}.")
                if near or len(search.space) == 1:
                    yield Problem(f"space.{path}", each.message, each.cure)
