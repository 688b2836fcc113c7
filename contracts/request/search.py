"""A search over training requests, and a learning-rate range test: what is tried, how often, judged by what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from itertools import count, takewhile
from math import prod
from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationError,
    model_serializer,
    model_validator,
)

from contracts.errors import InvalidRequest, Problem, ProblemType
from contracts.request.constraints import Constraints, problems_of_constraints
from contracts.request.objectives import Objective, disagreements
from contracts.request.population import Population
from contracts.request.reading import did_you_mean, parsed, problems_of, put, read_request, with_overrides
from contracts.request.section import AutoWhole, Name, Real, Section, Whole
from contracts.request.space import (
    CONTROL,
    PAUSES,
    Choice,
    Interval,
    Space,
    given_at,
    giver,
    problems_at,
    put_values,
    refuse_backwards,
    same,
    value_at,
)
from contracts.request.training import ControlMetric, is_minimized

SEED = "reproducibility.seed"
MOST_SESSIONS = 10_000
MOST_COMPARED = 1000
"""Trials of a search with several objectives: each is compared with each, and one event names the whole front."""
MOST_RUNGS = 16
MOST_BRANCHES = 1000
"""Combinations of the values on which others depend that a grid is counted over."""


class Halving(Section):
    """Trials pause at rungs, after `first_epochs` epochs and then after `factor` times as many each time, until as many
    are a training's whole length. Once all of them wait at a rung, one in `factor` goes on from where it is.

    What is compared is the metric's last value and how it changed since half the epochs. `auto` is a thirteenth of
    the base's epochs.
    """

    first_epochs: AutoWhole = "auto"
    factor: Whole = Field(2, ge=2, le=16)

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """The epochs of each rung below a training of so many."""
        first = max(1, epochs // 13) if self.first_epochs == "auto" else self.first_epochs
        powers = takewhile(lambda after: after < epochs, (first * self.factor**rung for rung in count()))
        return tuple(powers)


Seeds = Annotated[
    Annotated[Whole, Field(ge=1, le=32), Tag("count")]
    | Annotated[tuple[Annotated[Whole, Field(ge=0, lt=2**63)], ...], Field(min_length=1, max_length=32), Tag("list")],
    Discriminator(lambda given: "list" if isinstance(given, list | tuple) else "count"),
]
"""How many seeds each trial is trained with, from the base's on; or which."""


class Search(Section):
    """Trials are sessions of their own: `base` with one value per path of `space`; the first trial is `base` itself.

    Trial n is chosen once trials 0..n-`parallel` have ended, by their values alone: so the same seed makes the same
    trials whatever ends first. `metric` is also what each trial stops early by, and by which its best weights are kept.

    With `objectives` a trial is judged by several figures, and `metric` is the first validation metric among them
    unless it is given. With weights the search optimises one number made of them, which depends on what it has seen;
    without, it looks for the trials than which no other is better in all.

    With `seeds` each trial is trained once with each of them, as sessions of their own; its value is their mean, and it
    has none where one of them has none. `trials` and `parallel` count trials, `epochs` those of all sessions.

    No further trial begins once those that count have trained for `epochs` epochs in all, or `seconds` seconds after
    the search was requested, as the log tells; those that have begun go on to their end.

    A trial that breaks one of the `constraints` is never the best; a search of which no trial keeps to all has failed.
    """

    method: Literal["search"] = "search"
    name: Name = "search"
    base: dict[str, object]
    space: Space
    trials: Whole = Field(20, ge=1, le=10_000)
    parallel: Whole = Field(1, ge=1, le=64)
    sampler: Literal["auto", "gp", "tpe", "random", "grid"] = "auto"
    metric: ControlMetric = "val_loss"
    direction: Literal["auto", "minimize", "maximize"] = "auto"
    objectives: tuple[Objective, ...] = Field((), max_length=8)
    seeds: Seeds = ()
    seed: Whole = Field(0, ge=0, lt=2**31)
    epochs: Whole | None = Field(None, ge=1, le=10**9)
    seconds: Real | None = Field(None, gt=0, le=1e9)
    halving: Halving | None = None
    constraints: Constraints | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_not_wanted(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        values: dict[str, object] = write(self)
        later = ("epochs", "seconds", "halving", "objectives", "seeds", "constraints")
        return {name: value for name, value in values.items() if value or name not in later}

    @model_validator(mode="before")
    @classmethod
    def _trains_by_the_first_metric(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or "metric" in given or not isinstance(given.get("objectives"), list | tuple):
            return given
        named = (one["metric"] for one in given["objectives"] if isinstance(one, Mapping) and "metric" in one)
        first = next((metric for metric in named if isinstance(metric, str) and metric.startswith("val_")), None)
        return {**given, "metric": first} if first else given

    @property
    def minimizes(self) -> bool:
        """Whether a smaller value of the metric is a better one."""
        return is_minimized(self.metric, self.direction)

    @property
    def judged_by(self) -> tuple[Objective, ...]:
        """Its objectives; where it has none, its metric is the only one."""
        return self.objectives or (Objective(metric=self.metric, direction=self.direction),)

    @property
    def weights(self) -> tuple[float, ...]:
        """By what one number is made of several objectives; empty where none is made."""
        return tuple(objective.weight for objective in self.objectives if objective.weight is not None)

    @cached_property
    def training_seeds(self) -> tuple[int, ...]:
        """The seeds of each trial; empty where it has the one of its request."""
        if isinstance(self.seeds, int):
            first = read_request(self.base).reproducibility.seed
            return tuple((first + place) % 2**63 for place in range(self.seeds))
        return self.seeds

    @cached_property
    def rungs(self) -> tuple[int, ...]:
        """After how many epochs trials pause; nowhere without `halving`."""
        return self.halving.rungs(read_request(self.base).training.epochs) if self.halving else ()

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The paths of the space, each behind those on which it depends; those are left out that depend on themselves,
        or on a path that is not there."""
        placed: list[str] = []
        left = list(self.space)
        needs = {path: {giver(self.space, of) for of in self.space[path].when} for path in left}
        while ready := [path for path in left if needs[path] <= set(placed)]:
            placed += ready
            left = [path for path in left if path not in ready]
        return tuple(placed)

    @property
    def conditional(self) -> bool:
        """Whether some trials have parameters that others have not."""
        return any(domain.when for domain in self.space.values())

    def applies(self, path: str, values: Mapping[str, object]) -> bool:
        """Whether a trial with these values, which hold what the path depends on, has a parameter at the path."""
        conditions = self.space[path].when.items()
        return all(
            giver(values, of) is not None and any(same(given_at(values, of), one) for one in allowed)
            for of, allowed in conditions
        )

    @property
    def _deciding(self) -> set[str]:
        """The paths on which others depend."""
        givers = (giver(self.space, of) for domain in self.space.values() for of in domain.when)
        return {place for place in givers if place is not None}

    @property
    def grid_size(self) -> int | None:
        """How many different trials there are; None when a parameter has no end of values, and where that many depend
        on others that they are not counted."""
        if any(isinstance(domain, Interval) for domain in self.space.values()):
            return None
        deciding = self._deciding
        if prod(domain.count for of in deciding if not isinstance(domain := self.space[of], Interval)) > MOST_BRANCHES:
            return None
        return sum(size for *_, size in self._branches())

    def combination(self, number: int) -> dict[str, object]:
        """One combination of the grid, from 0, the last path changing fastest; only where `grid_size` is a number."""
        values: dict[str, object] = {}
        for decided, free, size in self._branches():
            if number < size:
                values = dict(decided)
                for path in reversed(free):
                    domain = self.space[path]
                    assert not isinstance(domain, Interval)  # noqa: S101 - a grid has none
                    number, place = divmod(number, domain.count)
                    values[path] = domain.value(place)
                break
            number -= size
        return {path: values[path] for path in self.space if path in values}

    def _branches(self) -> Iterator[tuple[Mapping[str, object], Sequence[str], int]]:
        """Every choice of the values on which others depend, with the paths that are free then, and how many trials
        that makes."""
        deciding = self._deciding
        branches: list[dict[str, object]] = [{}]
        for path in (path for path in self.order if path in deciding):
            domain = self.space[path]
            assert not isinstance(domain, Interval)  # noqa: S101 - a grid has none
            branches = [
                {**branch, path: domain.value(place)} if place is not None else branch
                for branch in branches
                for place in (range(domain.count) if self.applies(path, branch) else (None,))
            ]
        for branch in branches:
            free = [path for path in self.space if path not in deciding and self.applies(path, branch)]
            sizes = (domain.count for path in free if not isinstance(domain := self.space[path], Interval))
            yield branch, free, prod(sizes)

    def trial(self, number: int, parameters: Mapping[str, object], place: int = 0) -> dict[str, object]:
        """The training request of one trial, as it would be given: judged by the search's metric, and exported
        only where a constraint is about the file.

        With several seeds it is that of the seed at this place.
        Unless the base says otherwise it is not repaired either, so that its value is that of its parameters.
        """
        given: dict[str, object] = deepcopy({key: value for key, value in self.base.items() if key != "export"})
        given.setdefault("diagnosis", {"auto_fix": False})
        if self.constraints and self.constraints.of_a_file:
            given["export"] = {"formats": ["onnx"]}
        own: dict[str, object] = {"name": f"{self.name}-{number}"[:120], CONTROL: self.metric}
        if self.training_seeds:
            own[SEED] = self.training_seeds[place]
        if self.rungs:
            own[PAUSES] = list(self.rungs)
        return put_values(given, {**parameters, **own})

    def parameters(self, request: Mapping[str, object]) -> dict[str, Any]:
        """The parameters that a trial's request has, by path."""
        values: dict[str, Any] = {}
        for path in self.order:
            if self.applies(path, values):
                values[path] = self.parameter(path, request)
        return {path: values[path] for path in self.space if path in values}

    def parameter(self, path: str, request: Mapping[str, object]) -> Any:
        """The value at a path of a trial's request; where everything is written out, the option that this came from."""
        found, domain = value_at(request, path), self.space[path]
        if not isinstance(domain, Choice) or any(same(found, option) for option in domain.options):
            return found
        given = {other: value for other in self.space if (value := value_at(request, other)) is not None}
        for option in domain.options:
            with suppress(InvalidRequest):
                resolved = read_request(self.trial(0, {**given, path: option})).resolved()
                if same(value_at(resolved, path), found):
                    return option
        return found

    def whole_trial(self, number: int, parameters: Mapping[str, object]) -> dict[str, object]:
        """The request that trains a trial as a session of its own: without rungs, and exported as the base says."""
        given = self.trial(number, parameters)
        if self.rungs:
            given = put(given, PAUSES.split("."), value_at(self.base, PAUSES) or [])
        return given | {key: value for key, value in self.base.items() if key == "export"}

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
        refuse_backwards(self.low, self.high, log=True)
        return self

    def resolved(self) -> dict[str, object]:
        """The JSON form with defaults written out; reading it gives this test again."""
        return self.model_dump(mode="json")


Method = Search | Population | RangeTest
METHODS: Mapping[str, type[Method]] = {"search": Search, "population": Population, "lr_range": RangeTest}


def read_search(raw: Mapping[str, object] | bytes | str, *, overrides: Sequence[str] = ()) -> Method:
    """The search (of any method) in `raw` with overrides applied; raises `InvalidRequest` with every problem found."""
    given = with_overrides(parsed(raw), overrides)
    method = given.get("method", "search")
    schema = METHODS.get(method) if isinstance(method, str) else None
    if schema is None:
        raise InvalidRequest([Problem("method", f"{method!r} is not known", did_you_mean(method, METHODS))])
    problems: list[Problem] = []
    search: Method | None = None
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
        elif isinstance(search, Population):
            problems += search.problems()
    if problems or search is None:
        raise InvalidRequest([replace(problem, type=_type_of(problem)) for problem in problems])
    return search


def _type_of(problem: Problem) -> ProblemType:
    """What a problem of a search is about: how much it may take, what it is judged by, or the values that it tries."""
    first, _, rest = problem.path.removeprefix("base.").partition(".")
    if first in _OF_THE_BUDGET or (first == "training" and rest in _OF_THE_MACHINE):
        return "resource"
    return "convergence" if first in _OF_JUDGEMENT else "hyperparameter"


_OF_THE_BUDGET = ("trials", "size", "parallel", "epochs", "seconds", "seeds", "constraints")
_OF_THE_MACHINE = ("device", "threads", "world_size")
_OF_JUDGEMENT = ("metric", "direction", "objectives", "early_stopping", "validation", "halving", "generation_epochs")


def _problems_in_space(search: Search) -> Iterator[Problem]:
    """Values that a trial would be refused for, and what the space and the rest of the search disagree on."""
    if search.space.keys() & {CONTROL, PAUSES, "name", "request_id"}:
        message = "name, request_id, early_stopping.metric and training.pauses are set by the search"
        yield Problem("space", message, "Leave them out.")
    yield from _problems_of_sessions(search)
    if search.objectives:
        yield from disagreements(search.objectives)
        yield from _problems_of_objectives(search)
    round_about = [path for path in search.space if path not in search.order]
    for path in round_about:
        missing = [of for of in search.space[path].when if giver(search.space, of) is None]
        for of in missing:
            yield Problem(f"space.{path}.when", f"{of!r} is not in the space", did_you_mean(of, search.space))
        if not missing:
            yield Problem(f"space.{path}.when", "depends on itself", "Let a parameter depend on others alone.")
    if search.sampler == "gp" and search.conditional:
        cure = "Write `sampler: tpe`, or leave it out."
        yield Problem("sampler", "a Gaussian process needs every parameter in every trial, and some have `when`", cure)
    if search.sampler == "grid" and not round_about and search.grid_size is None:
        yield Problem(
            "sampler", "a grid needs parameters with an end of values", "Use int and choice, or another sampler."
        )
    try:
        read_request(search.trial(0, {}))
    except InvalidRequest as error:
        yield from (Problem("metric", each.message, each.cure) for each in error.problems)
        return
    yield from problems_of_constraints(search.constraints, search.trial(0, {}), halving=bool(search.halving))
    for path in search.order:
        yield from problems_at(search.space, lambda values: search.trial(0, values), path)


def _problems_of_sessions(search: Search) -> Iterator[Problem]:
    """Pauses and seeds that the sessions of its trials cannot have."""
    if value_at(search.base, PAUSES):
        yield Problem(f"base.{PAUSES}", "trials pause only where `halving` has them", "Leave it out.")
    if search.halving and not search.rungs:
        epochs = read_request(search.base).training.epochs
        yield Problem("halving.first_epochs", f"a training has {epochs} epochs, so there is no rung", "Choose fewer.")
    if len(search.rungs) > MOST_RUNGS:
        yield Problem("halving.factor", f"that makes {len(search.rungs)} rungs", f"Have {MOST_RUNGS} at most.")
    if SEED in search.space and search.seeds:
        yield Problem(f"space.{SEED}", "each trial has all of `seeds`", "Leave one of them out.")
    if len(seeds := search.training_seeds) > len(set(seeds)):
        yield Problem("seeds", "one of them is there twice, and would be the same training", "Name each once.")
    if (sessions := search.trials * len(seeds)) > MOST_SESSIONS:
        message = f"{search.trials} trials with {len(seeds)} seeds are {sessions} sessions"
        yield Problem("seeds", message, f"Have {MOST_SESSIONS} sessions at most.")


def _problems_of_objectives(search: Search) -> Iterator[Problem]:
    """What objectives and the rest of the search disagree on, and metrics that no evaluation of a trial would have."""
    if search.metric not in (names := [objective.metric for objective in search.objectives]):
        yield Problem("metric", f"{search.metric!r} is none of the objectives", "Leave it out, or name one of them.")
    if search.trials > MOST_COMPARED:
        message = f"{search.trials} trials with several objectives are too many to compare"
        yield Problem("trials", message, f"Have {MOST_COMPARED} at most.")
    if search.direction != "auto":
        yield Problem("direction", "each objective has its own", "Leave it out.")
    trial = search.trial(0, {})
    listed = value_at(trial, "validation.metrics")
    for place, name in enumerate(names):
        # What training is judged by is looked at with the first trial.
        if not name.startswith("val_") or name == search.metric:
            continue
        path = f"objectives.{place}.metric"
        try:
            read_request(put(trial, CONTROL.split("."), name))
        except InvalidRequest as error:
            yield from (Problem(path, each.message, each.cure) for each in error.problems if each.path == CONTROL)
        else:
            if isinstance(listed, list | tuple) and name[4:] not in ("loss", *listed):
                yield Problem(path, "is not among `validation.metrics` of the base", f"Add {name[4:]} to that list.")
