"""How often and by what a model in training is judged."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from contracts.request.section import Section, Whole
from contracts.request.task import Task

Metric = Literal[
    "accuracy",
    "f1_macro",
    "rmse",
    "mae",
    "r2",
    "perplexity",
    "next_token_accuracy",
    "reconstruction_error",
    "neighbour_accuracy",
]

TASK_OF: dict[str, Task] = {
    "accuracy": "classification",
    "f1_macro": "classification",
    "rmse": "regression",
    "mae": "regression",
    "r2": "regression",
    "perplexity": "sequences",
    "next_token_accuracy": "sequences",
    "reconstruction_error": "reconstruction",
    "neighbour_accuracy": "embedding",
}

LESS_IS_BETTER = ("loss", "rmse", "mae", "perplexity", "error")


def less_is_better(metric: str) -> bool:
    """Whether a metric is a loss or an error, and not a score; a workload's own are told by how their names end."""
    return metric.endswith(LESS_IS_BETTER)


Metrics = Annotated[
    Annotated[tuple[Metric, ...], Field(min_length=1, max_length=32), Tag("given")]
    | Annotated[Literal["auto"], Tag("auto")],
    Discriminator(lambda value: "auto" if value == "auto" else "given"),
]


class Validation(Section):
    """`auto` metrics are those of the task; `test_set` also judges the final model on the test split."""

    every_epochs: Whole = Field(1, ge=1, le=1_000_000)
    metrics: Metrics = "auto"
    test_set: bool = False
