"""What some steps gave, as plain data, and where two such traces differ. It computes nothing and knows no torch.

The comparison is made in a process that never loads the user's code: the code must not judge itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any, NamedTuple, Self

from contracts.errors import NotRepeatable, UserCodeFailed

GENERATOR, TENSOR = "a generator of its own", "a tensor that is no buffer"
MOVING = (GENERATOR, TENSOR)
"""Attributes that may have moved although they are described in the same words."""


class StepRecord(NamedTuple):
    """One thing that was told about a step, in words, and its exact value."""

    step: int
    what: str
    value: str


@dataclass(frozen=True)
class StepTrace:
    """What some steps gave, in order; the digest of every tensor afterwards; attributes that are no state, in words."""

    first: int
    told: Sequence[StepRecord]
    leaves: Mapping[str, str]
    hidden: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """Plain data; `StepTrace.from_json` gives it back."""
        told = [list(one) for one in self.told]
        return {"first": self.first, "told": told, "leaves": dict(self.leaves), "hidden": dict(self.hidden)}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """A stretch from its JSON form; `UserCodeFailed` when the process that ran the code sent something else."""
        try:
            told = [StepRecord(int(step), str(what), str(value)) for step, what, value in raw["told"]]
            leaves, hidden = ({str(name): str(one) for name, one in raw[of].items()} for of in ("leaves", "hidden"))
            return cls(int(raw["first"]), told, leaves, hidden)
        except (KeyError, TypeError, ValueError, AttributeError):
            message = "the process that ran the workload did not tell what its steps gave"
            raise UserCodeFailed(message, cure="Look for code that changes Stigmergy's own functions.") from None


@dataclass(frozen=True)
class Difference:
    """Where two stretches part: in what, the first tensor that differs by name, attributes under suspicion."""

    step: int
    what: str
    tensor: str
    suspects: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def error(self) -> NotRepeatable:
        """It as the error that ends a session, with the cure."""
        message = f"a restart would give other bits: repeated, {self.what} came out otherwise"
        message += f"; the first tensor that differs is {self.tensor!r}" if self.tensor else ""
        found = f"Not the same afterwards: {'; '.join(self.suspects)}. " if self.suspects else ""
        return NotRepeatable(message, cure=found + NotRepeatable.RULES)


def compare(lived: StepTrace, again: StepTrace) -> Difference | None:
    """The first difference between steps as they were lived and the same steps repeated; None when there is none.

    What only one of the two tells of is a difference too.
    """
    names = sorted({*lived.leaves, *again.leaves})
    tensor = next((name for name in names if lived.leaves.get(name) != again.leaves.get(name)), "")
    pairs = zip_longest(_in_order(lived.told), _in_order(again.told))
    parted = next((one or other for one, other in pairs if one != other), None)
    if parted is None and not tensor:
        return None
    step, what = (parted.step, parted.what) if parted else (lived.first, "the state afterwards")
    return Difference(step, what, tensor, suspects(lived.hidden, again.hidden))


def suspects(lived: Mapping[str, str], again: Mapping[str, str]) -> tuple[str, ...]:
    """Attributes that differ between two processes, and generators and tensors, which may differ unseen."""
    changed = [name for name, said in lived.items() if again.get(name) != said]
    found = [f"{name} ({lived[name]}, repeated {again.get(name, 'nothing')})" for name in changed]
    found += [f"{name} ({said})" for name, said in lived.items() if name not in changed and said.startswith(MOVING)]
    return tuple(found)


def _in_order(told: Sequence[StepRecord]) -> list[StepRecord]:
    return sorted(told, key=lambda one: one.step)
