"""What a session learns, between data and loss; the tasks themselves are parts. It does not choose among them."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from contracts.errors import InvalidRequest, Problem
from contracts.request.section import Section
from runtime.engine.facts import Facts
from runtime.engine.kinds import Batch
from runtime.engine.registry import Registry


class Aim:
    """The facts that model and loss are made from, and what answers are held against; this one takes both as they are.

    `loss` is the one that an `auto` stands for; `needs` are the columns that there must be.
    """

    loss: ClassVar[Section]
    needs: ClassVar[tuple[str, ...]] = ("x", "y")

    def __init__(self, facts: Facts, loss: Section) -> None:
        if missing := [name for name in self.needs if name not in facts.columns]:
            message = f"a built-in model needs the column {missing[0]!r}, and there are {', '.join(facts.columns)}"
            raise InvalidRequest([Problem("model.architecture", message, "Train this data with a workload.")])
        if -1 in facts.shape:
            message = "a built-in model needs rows of one shape, and those of `x` have any length"
            raise InvalidRequest([Problem("model.architecture", message, "Train this data with a workload.")])
        self.facts = facts

    def held(self, answers: Tensor, batch: Batch) -> tuple[Tensor, Batch]:
        """Answers and a batch whose `y` is what they should be, as losses take them."""
        return answers, batch

    def kept(self, answers: Tensor, batch: Batch) -> Tensor:
        """What metrics need to know of answers, one line per row; for large answers much less than all of them."""
        return answers


tasks: Registry[type[Aim]] = Registry("runtime.engine.parts.tasks")
