"""Whether a user's code computes the same again: a stretch of steps as it was lived, beside the same steps repeated.

Both are plain data, so that they may come from two processes. Nothing is stopped here: whoever asks decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

from contracts.errors import NotRepeatable
from runtime.engine import digest
from runtime.engine.hidden import suspects
from runtime.engine.loop import Run
from runtime.engine.report import Evaluation, Report, Window

FLOAT = 8
"""Hexadecimal digits of one float32."""


class Told(NamedTuple):
    """One thing that was told about a step, in words, and its exact value."""

    step: int
    what: str
    value: str


@dataclass(frozen=True)
class Stretch:
    """What some steps gave, in order; the digest of every tensor afterwards; attributes that are no state, in words."""

    first: int
    told: Sequence[Told]
    leaves: Mapping[str, str]
    hidden: Mapping[str, str]

    @classmethod
    def of(cls, first: int, reports: Sequence[Report], run: Run) -> Self:
        """What these reports of the steps after `first` say, and how the run stands now."""
        told: list[Told] = []
        for report in reports:
            told += _of_window(report.window) if report.window is not None else ()
            told += _of_evaluation(report.evaluation) if report.evaluation is not None else ()
        return cls(first, told, digest.leaves(run.tensors()), run.hidden())

    def as_json(self) -> dict[str, Any]:
        """Plain data; `Stretch.from_json` gives it back."""
        told = [list(one) for one in self.told]
        return {"first": self.first, "told": told, "leaves": dict(self.leaves), "hidden": dict(self.hidden)}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """A stretch from its JSON form."""
        return cls(raw["first"], [Told(*one) for one in raw["told"]], raw["leaves"], raw["hidden"])


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


def repeated(run: Run, until: int) -> Stretch:
    """Advance a resumed run up to a step, and say what that gave."""
    first, reports = run.step, []
    while run.step < until:
        reports.append(run.advance())
    return Stretch.of(first, reports, run)


def compare(lived: Stretch, again: Stretch) -> Difference | None:
    """The first difference between steps as they were lived and the same steps repeated; None when there is none."""
    names = sorted({*lived.leaves, *again.leaves})
    tensor = next((name for name in names if lived.leaves.get(name) != again.leaves.get(name)), "")
    pairs = zip(_in_order(lived.told), _in_order(again.told), strict=False)
    parted = next((one for one, other in pairs if one != other), None)
    if parted is None and not tensor:
        return None
    step, what = (parted.step, parted.what) if parted else (lived.first, "the state afterwards")
    return Difference(step, what, tensor, suspects(lived.hidden, again.hidden))


def _in_order(told: Sequence[Told]) -> list[Told]:
    return sorted(told, key=lambda one: one.step)


def _of_window(window: Window) -> Iterator[Told]:
    yield Told(window.first, f"the order of rows after step {window.first}", window.index_digest)
    for what, packed in {"the loss": window.losses, **window.scalars}.items():
        digits = packed.hex()
        for step, at in enumerate(range(0, len(digits), FLOAT), window.first + 1):
            yield Told(step, f"{what} of step {step}", digits[at : at + FLOAT])


def _of_evaluation(seen: Evaluation) -> Iterator[Told]:
    for name, value in seen.values.items():
        yield Told(seen.step, f"{name} of the evaluation at step {seen.step}", value.hex())
