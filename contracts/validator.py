"""What the validator says: how good a checkpoint is, judged apart from the training."""

from typing import Literal

from pydantic import ConfigDict, Field

from contracts.event import Event, Exact, Hex64, PartialValue, Payload, Value, fitted
from contracts.roles import VALIDATOR


class ClassScore(Value):
    """How one class is answered; a share of nothing is None."""

    label: str
    rows: int
    precision: float | None
    recall: float | None
    f1: float | None


class ConfusedPair(Value):
    """Rows of one class that were taken for another; on the wire `real` is called `is`."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    real: str = Field(alias="is")
    said: str
    rows: int


class ConfidenceBin(Value):
    """Answers whose confidence is below a bound and in no bin before: their mean confidence, and the share of hits."""

    below: float
    rows: int
    confidence: float
    accuracy: float


class Calibration(Value):
    """How far confidence can be trusted: the expected calibration error, and the bins that it is made of."""

    ece: float
    bins: list[ConfidenceBin]


class ErrorSpread(Value):
    """How errors are spread, in the target's own units."""

    mean: float
    median_absolute: float
    p90_absolute: float
    largest: float


class ControlDetails(PartialValue):
    """How many control values came out again, or those that did not, each as recorded and computed, and the reason."""

    values: int = 0
    recorded_and_computed: dict[str, list[str]] = Field(default_factory=dict)
    reason: str = ""
    families: list[str] = Field(default_factory=list)


class JudgementDetails(PartialValue):
    """What answers are like besides the metrics, where the kind of target is known, and what is said of the control.

    `confusion` counts rows by class and answer; of many classes only the most `confused` pairs are told. Calibration
    and errors are None where answers were not finite.
    """

    calibration: Calibration | None = None
    per_class: list[ClassScore] = Field(default_factory=list)
    confusion: list[list[int]] = Field(default_factory=list)
    confused: list[ConfusedPair] = Field(default_factory=list)
    errors: ErrorSpread | None = None
    control: ControlDetails = ControlDetails()


def _typed_details(old: Payload) -> Payload:
    details = dict(old["details"])
    if "control" in details:
        details["control"] = fitted(ControlDetails, details["control"])
    return old | {"details": fitted(JudgementDetails, details)}


class CheckpointValidated(Event, lane=VALIDATOR, wire="checkpoint.validated", upcasts=[_typed_details]):
    """A checkpoint was judged in a child of its own; `control` says whether the control metric came out the same."""

    segment: int
    step: int
    blob: Hex64
    split: str
    rows: int
    metrics: dict[str, Exact]
    control: Literal["reproduced", "differs", "not-comparable"]
    details: JudgementDetails


class ValidationFailed(
    Event, lane=VALIDATOR, wire="validation.failed", says="step {step} could not be judged: {message}"
):
    """A checkpoint could not be judged."""

    segment: int
    step: int
    blob: Hex64
    code: str
    message: str
