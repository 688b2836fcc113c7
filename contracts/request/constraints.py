"""What a trial of a search must keep to, beside being good: bounds on figures that are measured once it is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import Field, model_serializer, model_validator

from contracts.errors import InvalidRequest, Problem
from contracts.request.reading import put, read_request
from contracts.request.section import Real, Section, refused

ACCURACY = "val_accuracy"


class Constraints(Section):
    """Bounds that a trial keeps to, or is never the best. All figures are of its best weights.

    `max_memory_mb` is the peak of a process that takes one step of the trial, as `swarm check` measures it.
    `max_size_mb` and `max_latency_ms` are of the trial exported to ONNX, as the exporter records it: the size of the
    file, and the median time of an answer to one row. `min_accuracy` is `val_accuracy`. A megabyte is 10^6 bytes.
    """

    max_memory_mb: Real | None = Field(None, gt=0, le=1e9)
    max_latency_ms: Real | None = Field(None, gt=0, le=1e9)
    min_accuracy: Real | None = Field(None, gt=0, le=1)
    max_size_mb: Real | None = Field(None, gt=0, le=1e9)

    @model_validator(mode="after")
    def _bounds_something(self) -> Constraints:
        if not self.limits:
            raise refused("nothing is bounded", f"Name one of {', '.join(Constraints.model_fields)}.")
        return self

    @model_serializer
    def _without_what_is_free(self) -> dict[str, float]:
        return self.limits

    @property
    def limits(self) -> dict[str, float]:
        """The bounds that there are, by name."""
        named = ((name, getattr(self, name)) for name in Constraints.model_fields)
        return {name: limit for name, limit in named if limit is not None}

    @property
    def of_a_file(self) -> bool:
        """Whether a trial has to be exported to be measured."""
        return self.max_latency_ms is not None or self.max_size_mb is not None


def problems_of_constraints(
    constraints: Constraints | None, trial: Mapping[str, object], *, halving: bool
) -> Iterator[Problem]:
    """What keeps the trials of a search from being measured, by the request of one of them."""
    if constraints is not None and halving:
        message = "are measured of trials that are trained to their end, and with `halving` most are not"
        yield Problem("constraints", message, "Leave out one of the two.")
    if constraints is None or constraints.min_accuracy is None:
        return
    path, validation = "constraints.min_accuracy", trial.get("validation")
    metrics = validation.get("metrics") if isinstance(validation, Mapping) else None
    try:
        read_request(put(trial, ["early_stopping", "metric"], ACCURACY))
    except InvalidRequest as error:
        yield from (Problem(path, each.message, each.cure) for each in error.problems)
    else:
        if isinstance(metrics, list | tuple) and "accuracy" not in metrics:
            yield Problem(path, "is not among `validation.metrics` of the base", "Add accuracy to that list.")
