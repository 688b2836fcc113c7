"""What a session learns. Data, model and loss together decide it: the same rows can be classified or rebuilt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from contracts.request.loss import Loss
    from contracts.request.model import Model

DataTask = Literal["classification", "regression", "sequences"]
"""What rows are for by themselves: a class each, a number each, or tokens one after another."""

Task = Literal["classification", "regression", "sequences", "reconstruction", "embedding"]
"""As `DataTask`; or to answer with the row itself, or with a place near rows of the same class."""


def task_of(model: Model, loss: Loss, data: Task | None) -> Task | None:
    """The task of a session on data of a kind; None where only the rows can tell."""
    return model.learns or loss.learns or data
