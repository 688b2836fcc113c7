"""A search whose trials, the members of a population, take over each other's states and change their settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cached_property
from math import floor, prod
from typing import Annotated, Literal

from pydantic import Field

from contracts.errors import InvalidRequest, Problem
from contracts.request.changes import MAY, refused_changes
from contracts.request.reading import read_request, shown
from contracts.request.section import AutoWhole, Name, Real, Section, Whole
from contracts.request.space import CONTROL, PAUSES, Choice, Interval, Space, problems_at, put_values, value_at
from contracts.request.training import ControlMetric, is_minimized

EARLY = "early_stopping.enabled"
MOST_GENERATIONS = 64
"""As many pauses as a training may have."""


class Population(Section):
    """Population-based training: trials, its members, train side by side and change their settings on the way.

    Members pause after every `generation_epochs` epochs. Once all of them wait, the worst `share` of them leave their
    state and go on from that of a member of the best `share`, with other values: a number is multiplied by one of
    `factors` and stays within its bounds, a choice stays; with probability `resample` either is drawn anew. What counts
    is the metric's last value. `auto` is a tenth of the base's epochs.

    Values are drawn by `seed`, member and generation, and what is decided follows from what was recorded: so the same
    seed makes the same population however many train at once. Member 0 begins as the base. Early stopping is off.
    """

    method: Literal["population"]
    name: Name = "population"
    base: dict[str, object]
    space: Space
    size: Whole = Field(8, ge=2, le=1000)
    generation_epochs: AutoWhole = "auto"
    share: Real = Field(0.25, gt=0, le=0.5)
    factors: tuple[Annotated[Real, Field(gt=0, le=1000)], ...] = Field((0.8, 1.25), min_length=1, max_length=16)
    resample: Real = Field(0.25, ge=0, le=1)
    parallel: Whole = Field(1, ge=1, le=64)
    metric: ControlMetric = "val_loss"
    direction: Literal["auto", "minimize", "maximize"] = "auto"
    seed: Whole = Field(0, ge=0, lt=2**31)

    @property
    def minimizes(self) -> bool:
        """Whether a smaller value of the metric is a better one."""
        return is_minimized(self.metric, self.direction)

    @property
    def copying(self) -> int:
        """How many members are the worst, and how many the best, of a generation."""
        return max(1, floor(self.size * self.share))

    @cached_property
    def generations(self) -> tuple[int, ...]:
        """After how many epochs each generation ends, without the last one, which ends with the training."""
        epochs = read_request(self.base).training.epochs
        each = max(1, epochs // 10) if self.generation_epochs == "auto" else self.generation_epochs
        return tuple(range(each, epochs, each))

    def trial(self, number: int, parameters: Mapping[str, object]) -> dict[str, object]:
        """The training request of a member that begins with these values, as it would be given."""
        given: dict[str, object] = deepcopy({key: value for key, value in self.base.items() if key != "export"})
        given.setdefault("diagnosis", {"auto_fix": False})
        own = {"name": self.trial_name(number), CONTROL: self.metric, EARLY: False, PAUSES: list(self.generations)}
        return put_values(given, {**parameters, **own})

    def trial_name(self, number: int) -> str:
        """The name of a trial's session."""
        return f"{self.name}-{number}"[:120]

    def resolved(self) -> dict[str, object]:
        """The JSON form with defaults written out; reading it gives this population again."""
        return self.model_dump(mode="json")

    def problems(self) -> Iterator[Problem]:
        """What base and space disagree on, and values that a training cannot take on while it is under way."""
        if self.space.keys() & {CONTROL, PAUSES, EARLY, "name", "request_id", "training.epochs"}:
            message = f"name, request_id, training.epochs, {CONTROL}, {EARLY} and {PAUSES} are the same for all members"
            yield Problem("space", message, "Leave them out.")
        if value_at(self.base, PAUSES):
            yield Problem(f"base.{PAUSES}", "members pause at the end of each generation", "Leave it out.")
        if value_at(self.base, EARLY):
            message = "a population ends its members itself, and a member that has stopped cannot go on"
            yield Problem(f"base.{EARLY}", message, "Leave it out, or write false.")
        if value_at(self.base, "limits") or any(path.partition(".")[0] == "limits" for path in self.space):
            message = "a member that a limit has ended cannot go on"
            yield Problem("base.limits", message, "Leave `limits` out: `training.epochs` is what members have.")
        yield from self._problems_of_generations()
        try:
            read_request(self.trial(0, {}))
        except InvalidRequest as error:
            yield from (Problem("metric", each.message, each.cure) for each in error.problems)
            return
        for path, domain in self.space.items():
            if domain.when:
                message = "every member has every parameter, because members take over each other's states"
                yield Problem(f"space.{path}.when", message, "Leave it out, or use `method: search`.")
                continue
            wrong = list(problems_at(self.space, lambda values: self.trial(0, values), path))
            yield from wrong or self._problems_of_changes(path)
        kinds = [None if isinstance(domain, Interval) else domain.count for domain in self.space.values()]
        if None not in kinds and (most := prod(kind or 1 for kind in kinds)) < self.size:
            message = f"{self.size} members begin with different values, and the space has {most} of them"
            yield Problem("size", message, f"Have {most} members at most, or widen the space.")

    def _problems_of_generations(self) -> Iterator[Problem]:
        base = read_request(self.base)
        epochs, every = base.training.epochs, base.validation.every_epochs
        if not self.generations:
            yield Problem(
                "generation_epochs", f"a training has {epochs} epochs, so there is one generation", "Choose fewer."
            )
        elif len(self.generations) >= MOST_GENERATIONS:
            message = f"that makes {len(self.generations) + 1} generations"
            yield Problem("generation_epochs", message, f"Have {MOST_GENERATIONS} at most: let each take more epochs.")
        elif self.generations[0] < every:
            message = (
                f"a generation of {self.generations[0]} may end without an evaluation: there is one in {every} epochs"
            )
            yield Problem("generation_epochs", message, f"Write {every} or more.")

    def _problems_of_changes(self, path: str) -> Iterator[Problem]:
        domain = self.space[path]
        first, *others = domain.options if isinstance(domain, Choice) else (domain.low, domain.high)
        before = read_request(self.trial(0, {path: first}))
        for value in others:
            refusal = next(refused_changes(before, read_request(self.trial(0, {path: value}))), None)
            if refusal is not None:
                reason = refusal.message.partition(": ")[2]
                message = f"a training under way cannot go from {shown(first)} to {shown(value)}: {reason}"
                yield Problem(f"space.{path}", message, f"Leave it to the base, or use `method: search`. {MAY}")
                return
