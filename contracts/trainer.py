"""What the trainer says: its claim, what each window of steps did, decisions applied, how it ended, and of audits.

Everything on which bits depend is exact. Wall-clock figures are kept out of windows, so that a resumed run's
windows can be compared with the recorded ones byte for byte.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Literal, NamedTuple, TypedDict

from pydantic import Field, JsonValue

from contracts.event import (
    Event,
    Exact,
    Hex64,
    Packed,
    Payload,
    Value,
    fitted,
    pack32,
    pack64,
    unchanged,
    unpack,
    unpack64,
)
from contracts.findings import (
    AuditedMachine,
    AuditFindings,
    DivergencePlace,
    FoundDivergence,
    Mode,
    RecordedExport,
    SpanDivergence,
    SpanPlanned,
    fitted_divergence,
    fitted_export,
    fitted_findings,
    fitted_place,
)
from contracts.roles import TRAINER


class TrainingClaimed(Event, lane=TRAINER, wire="training.claimed", upcasts=[unchanged, unchanged]):
    """A trainer takes the session; the epoch fences every earlier one out.

    Since version 2 `initial` names the blob of the weights that the session begins with, where its request names some.
    Since version 3 `grant` names the event of the queue's log that gave the session its slot, where a queue is kept.
    """

    epoch: int
    worker: str
    incarnation: str
    segment: int
    resumed_from: int
    dataset: Hex64
    resolved: dict[str, Any]
    engine_bits: int
    fingerprint: Hex64
    families: dict[str, str]
    environment: dict[str, str]
    sources: dict[str, str]
    initial: Hex64 | None = None
    grant: str | None = None


class Layer(NamedTuple):
    """Evidence about one layer: norms at the last step of a window, and what its sensors say.

    `dead` is the share of its units that answered no row of the last batch, `saturated` the share of the answers of its
    bounded activation that lie at a bound, `cosine` the mean cosine of successive gradients, `noise` the gradient noise
    scale in rows. Each is None where there is no such figure.
    """

    name: str
    gradient: float
    weight: float
    update: float
    dead: float | None = None
    saturated: float | None = None
    cosine: float | None = None
    noise: float | None = None

    @property
    def ratio(self) -> float:
        """The update's norm over the weight's; 0 where the weight is 0."""
        return self.update / self.weight if self.weight else 0.0


MOST_NAMED_ROWS = 16
"""Rows of a window that are named because a stored value of theirs is not finite."""


class WindowSensors(Value):
    """What sensors saw of a window: float32 figures, one per layer in the order of `layer_names`; NaN where none is.

    A list without any figure is empty. `cosine` is the mean cosine of the gradients of successive attempts, over up to
    two pairs at the end of the window. `saturated` is the share of the answers, in the last batch, of a bounded
    activation behind the layer that lie within a hundredth of its range from a bound. `noise` is the gradient noise
    scale: the number of rows from which on the sum of the variances of a gradient is less than its square, estimated
    from the micro-batches of the last attempts, and infinite where noise hides the gradient; `noise_scale` is that of
    all layers together. `rows_not_finite` names up to 16 rows of the window, by their places from 1 in the training
    split, with a stored value that is not finite; only a window that is not finite is searched for them.
    """

    cosine: Packed = ""
    saturated: Packed = ""
    noise: Packed = ""
    noise_scale: Exact | None = None
    rows_not_finite: list[int] = Field(default_factory=list, max_length=MOST_NAMED_ROWS)


class LossFigures(NamedTuple):
    """Of the finite losses of a window: their median, the distance between their quartiles, and their slope per step.

    The slope is that of the least squares line. NaN where losses are missing: one for the slope, any for the others.
    """

    median: float
    spread: float
    slope: float


class WindowRecorded(Event, lane=TRAINER, wire="window.recorded", upcasts=[unchanged]):
    """The attempts after step `first` up to step `last`: losses, evidence, and the digest of the weights after them.

    Since version 2 `sensors` are there, but for sessions that were begun without: these go on in their first form.
    """

    segment: int
    first: int
    last: int
    losses: Packed
    gradient_norm: Exact
    learning_rate: Exact
    index_digest: str
    weights_digest: Hex64
    finite: bool
    layer_names: list[str]
    layer_figures: Packed
    scalars: dict[str, Packed] = Field(default_factory=dict)
    sensors: WindowSensors | None = None

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The evidence, unpacked: most readers of a window never ask for it."""
        figures, sensors = unpack64(self.layer_figures), self.sensors or WindowSensors()
        rows = [figures[4 * at : 4 * at + 4] for at in range(len(self.layer_names))]
        seen = [_by_layer(one, len(rows)) for one in (sensors.saturated, sensors.cosine, sensors.noise)]
        return tuple(
            Layer(name, gradient, weight, update, None if math.isnan(dead) else dead, *figures)
            for name, (gradient, weight, update, dead), *figures in zip(self.layer_names, rows, *seen, strict=True)
        )

    @property
    def loss(self) -> LossFigures:
        """Median, spread and slope of the losses, which follow from them and so are not recorded."""
        found = [(at, loss) for at, loss in enumerate(unpack(self.losses)) if math.isfinite(loss)]
        if not found:
            return LossFigures(math.nan, math.nan, math.nan)
        ordered, middle = sorted(loss for _, loss in found), sum(at for at, _ in found) / len(found)
        lower, median, upper = (_quantile(ordered, share) for share in (0.25, 0.5, 0.75))
        across = math.fsum((at - middle) ** 2 for at, _ in found)
        rise = math.fsum((at - middle) * loss for at, loss in found)
        return LossFigures(median, upper - lower, rise / across if across else math.nan)


def _quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which a share of ordered ones lies, on the straight line between the two that are nearest."""
    place = share * (len(ordered) - 1)
    below = ordered[int(place)]
    return below + (place - int(place)) * (ordered[math.ceil(place)] - below)


def _by_layer(figures: Packed, layers: int) -> Sequence[float | None]:
    values = unpack(figures) if len(figures) == 4 * -(-4 * layers // 3) else ()
    return [None if math.isnan(value) else value for value in values] or [None] * layers


def by_layer(figures: Sequence[float | None]) -> Packed:
    """A list of `WindowSensors` that holds these figures, one per layer; empty where no layer has one."""
    if all(figure is None for figure in figures):
        return ""
    return pack32(math.nan if figure is None else figure for figure in figures)


class LayerFields(TypedDict):
    """The fields of `WindowRecorded` that hold the norms of layers."""

    layer_names: list[str]
    layer_figures: Packed


def evidence(layers: Iterable[Layer]) -> LayerFields:
    """The fields of `WindowRecorded` that hold these norms and shares of dead units."""
    given = list(layers)
    figures = (
        (layer.gradient, layer.weight, layer.update, math.nan if layer.dead is None else layer.dead) for layer in given
    )
    return {"layer_names": [layer.name for layer in given], "layer_figures": pack64(chain.from_iterable(figures))}


class ControlEvaluated(Event, lane=TRAINER, wire="control.evaluated"):
    """The control metric on the validation split, bit for bit, and what it means for best and patience."""

    segment: int
    step: int
    epoch: int
    values: dict[str, Exact]
    metric: str
    improved: bool
    best: Exact | None
    best_step: int | None
    patience_left: int
    stop: bool


class CheckpointWritten(Event, lane=TRAINER, wire="checkpoint.written", upcasts=[unchanged]):
    """All state of one step stands in the blob store; since version 2 the clock may be the reason."""

    segment: int
    step: int
    reason: Literal["planned", "best", "final", "drain", "timed"]
    state_root: Hex64
    weights_digest: Hex64
    blob: Hex64
    bytes: int


Computed = WindowRecorded | ControlEvaluated | CheckpointWritten
"""What training the same steps again must give again."""


def place_of(event: Computed) -> tuple[str, int, int]:
    """Wire name, first and last step of what is computed: two events with the same place mean the same thing."""
    if isinstance(event, WindowRecorded):
        return event.wire, event.first, event.last
    return event.wire, event.step, event.step


def computed_at(event: Computed) -> int:
    """The step at which it is computed: the last one of a window."""
    return place_of(event)[2]


class CheckpointRefused(
    Event,
    lane=TRAINER,
    wire="checkpoint.refused",
    says="cannot begin from the checkpoint of step {step} ({reason}): goes on from step {instead}",
):
    """The trainer could not begin from a checkpoint and goes on from step `instead`; its keeper looks at it again."""

    segment: int
    step: int
    blob: Hex64
    reason: str
    instead: int


class AttemptEnded(Event, lane=TRAINER, wire="attempt.ended"):
    """One child trained up to `step`: the seconds it spent, by what they went into. Never compared with anything."""

    epoch: int
    segment: int
    first: int
    step: int
    seconds: dict[str, float]


NOT_TRAINING = frozenset({"setup", "held", "birth audit"})
"""What attempts spend seconds on that trains no row."""


def training_seconds(spent: Mapping[str, float]) -> float:
    """Of the seconds that attempts spent, by what they went into, those in which rows were trained on."""
    return sum(seconds for name, seconds in spent.items() if name not in NOT_TRAINING)


class ProfiledOperator(Value):
    """One operator of torch in the steps that were profiled; milliseconds are its own, without what it calls."""

    name: str
    calls: int
    cpu_ms: float
    device_ms: float


class TrainingProfiled(
    Event,
    lane=TRAINER,
    wire="training.profiled",
    says="torch's profiler looked at {steps:step} behind step {first}, which took {seconds:.3g} s",
):
    """Where the time of `steps` steps behind step `first` went. Measured once and never compared with anything.

    `operators` are the dearest ones, `others_ms` is what all the rest took on the processor.
    """

    segment: int
    first: int
    steps: int
    seconds: float
    operators: list[ProfiledOperator]
    others_ms: float


class WindowsReproduced(
    Event, lane=TRAINER, wire="windows.reproduced", says="{count} recorded windows computed again, same bits"
):
    """After a resume, recorded windows were computed again and came out the same."""

    segment: int
    first: int
    last: int
    count: int


class DivergenceFound(
    Event,
    lane=TRAINER,
    wire="divergence.found",
    says="DIVERGENCE in steps {first}..{last}: {field} differs from the record",
):
    """A recomputed window differs from the recorded one: an incident that stops the session."""

    segment: int
    first: int
    last: int
    field: str
    recorded: str
    computed: str


class BirthAudited(Event, lane=TRAINER, wire="birth.audited"):
    """A fresh process repeated steps of a session with user code, `evaluated` if the last one was judged as well.

    `difference` says what came out otherwise, `tensor` names the first one of the state that did; empty when all was
    the same. `suspects` are attributes of the user's objects that ended otherwise.
    """

    segment: int
    first: int
    last: int
    evaluated: bool
    difference: str = ""
    tensor: str = ""
    suspects: list[str] = Field(default_factory=list)


MOST_FIELDS = 32
"""Values that are named of a window that came out otherwise."""


class WindowRechecked(Event, lane=TRAINER, wire="window.rechecked"):
    """A second process computed a window again while its session trained, because `training.recheck` asks for it.

    `recorded` and `computed` are digests of everything that the two processes gave: the window, its evaluation, and all
    state after it. `fields` names what differs, as `EVENT.FIELD` or `state.TENSOR`; none when all is the same.
    `upheld` is whether the record stands: after a difference, whether a third process gave what was recorded.
    """

    segment: int
    first: int
    last: int
    recorded: Hex64
    computed: Hex64
    fields: list[str] = Field(default_factory=list, max_length=MOST_FIELDS)
    upheld: bool = True


class AttemptBisected(Event, lane=TRAINER, wire="attempt.bisected"):
    """The training rows that made a window's loss or gradient not finite, found by halves in a child of its own.

    A function of plan and step: attempt `step` (from 1) of the segment's first such window is sound without these
    `rows` (places from 1), and so are those looked at that follow it. No rows: no few rows are the reason. `problem`
    says why nothing was found out.
    """

    segment: int
    first: int
    last: int
    step: int
    rows: list[int]
    looked: int
    problem: str = ""


class MemoryExhausted(
    Event,
    lane=TRAINER,
    wire="memory.exhausted",
    says="out of memory behind step {step}, with {batch} x {accumulate} rows in a step: {message}",
):
    """The steps behind `step` took more memory than there was, with `accumulate` parts of `batch` rows in each.

    No child trains before it is decided how to go on. `limit` is what the owner of the machine lets a training take, if
    anything; `evaluated` is how many rows were judged at once.
    """

    segment: int
    step: int
    batch: int = Field(ge=1)
    accumulate: int = Field(ge=1)
    evaluated: int = Field(ge=1)
    message: str
    limit: int | None = None


SPENT = "limits.seconds"
"""By whom a training is ended whose seconds are spent: the request itself, whose event the decision names."""


class InterventionApplied(Event, lane=TRAINER, wire="intervention.applied", upcasts=[unchanged, unchanged]):
    """A decision took effect: the segment that begins at `step` runs under these changes.

    Since version 3 the request may have decided, by `limits.seconds`: `seconds` are those that were spent.
    """

    proposal: str
    by: str
    segment: int
    step: int
    changes: dict[str, JsonValue]
    reproducible: bool
    seconds: Exact | None = None


class InterventionDeclined(Event, lane=TRAINER, wire="intervention.declined", says="proposal declined: {reason}"):
    """A decision was not taken, and why."""

    proposal: str
    reason: str


class JudgementWaived(
    Event, lane=TRAINER, wire="judgement.waived", says="no diagnostician judged the steps up to {step}"
):
    """No diagnostician was there to judge the last windows; the session is reproducible from its log only."""

    segment: int
    step: int


class TrainingPaused(
    Event, lane=TRAINER, wire="training.paused", upcasts=[unchanged], says="paused at step {step} ({by})"
):
    """Training waits at a grid step, with its state kept. Since version 2 its plan may say so (`training.pauses`)."""

    by: Literal["drain", "person", "plan"]
    segment: int
    step: int


class TrainingResumed(Event, lane=TRAINER, wire="training.resumed", upcasts=[unchanged], says="resumed at step {step}"):
    """A person's pause is over; since version 2 `grant` names what gave the session a slot again, as in a claim."""

    segment: int
    step: int
    grant: str | None = None


class TrainingCompleted(Event, lane=TRAINER, wire="training.completed"):
    """The plan has been carried out; these are the weights."""

    segment: int
    step: int
    epochs: int
    stopped_early: bool
    best_step: int | None
    weights_digest: Hex64
    state_root: Hex64
    final_blob: Hex64
    values: dict[str, Exact]


class TrainingFailed(Event, lane=TRAINER, wire="training.failed"):
    """Training cannot go on: what happened, where, and what would cure it."""

    segment: int
    step: int
    code: str
    message: str
    cure: str = ""
    frame: str = ""


class TrainingCancelled(Event, lane=TRAINER, wire="training.cancelled"):
    """Training ended because a person wanted it to."""

    segment: int
    step: int
    reason: str = ""


def _typed_plan(old: Payload) -> Payload:
    broken = [fitted(FoundDivergence, one, position=0, seq=0, what="", message="") for one in old["broken"]]
    machine = fitted(AuditedMachine, old["machine"]) if old["machine"] else None
    log = fitted_findings(old["log"], old["session"], "log", "not-comparable")
    exports = [fitted_export(one) for one in old["exports"]]
    return old | {"log": log, "broken": broken, "exports": exports, "machine": machine}


class AuditPlanned(Event, lane=TRAINER, wire="audit.planned", upcasts=[_typed_plan]):
    """The log of the session that an audit is about was verified as `log` says, and this is to be computed again.

    `chosen` are numbers of spans, `cuts` the blobs at which spans begin, `broken` what is wrong without computing
    anything, `exports` the files to be made again, `machine` whose bits are wanted (None where nothing is to be
    computed); `ended` and `reached` are said of the session.
    """

    session: str
    mode: Mode
    size: int
    root: Hex64
    log: AuditFindings
    spans: list[SpanPlanned]
    chosen: list[int]
    cuts: list[Hex64]
    broken: list[FoundDivergence]
    exports: list[RecordedExport]
    machine: AuditedMachine | None
    ended: bool
    reached: int


class SpanTaken(Event, lane=TRAINER, wire="span.taken", says="span {span} is computed by {worker}"):
    """A trainer computes this span, so that no other does; in place of an earlier one that fell silent, when named."""

    span: int
    worker: str
    incarnation: str
    instead_of: str | None = None


def _typed_divergence(old: Payload) -> Payload:
    divergence, located = old["divergence"], old["located"]
    return old | {
        "divergence": None if divergence is None else fitted_divergence(divergence),
        "located": None if located is None else fitted_place(located),
    }


class SpanRepeated(Event, lane=TRAINER, wire="span.repeated", upcasts=[_typed_divergence]):
    """A span was computed again under this fingerprint: with the recorded bits, or with the first that differ.

    `located` says what a bisection found of the place; `problem` why nothing was computed.
    """

    span: int
    steps: int
    divergence: SpanDivergence | None
    located: DivergencePlace | None
    fingerprint: Hex64
    problem: str = ""


class AuditDeclined(Event, lane=TRAINER, wire="audit.declined"):
    """This trainer cannot compute the bits that an audit asks for, and leaves them to others: what differs here."""

    worker: str
    incarnation: str
    differing: list[str]


def _typed_findings(old: Payload) -> Payload:
    return old | {"found": fitted_findings(old["found"], old["session"], old["mode"], old["verdict"])}


class AuditCompleted(Event, lane=TRAINER, wire="audit.completed", upcasts=[_typed_findings]):
    """The verdict, and in `found` everything that an audit without a swarm answers with."""

    session: str
    mode: Mode
    verdict: Literal["pass", "fail", "not-comparable"]
    found: AuditFindings


class AuditFailed(Event, lane=TRAINER, wire="audit.failed", says="audit without a verdict: {message} {cure}"):
    """An audit came to no verdict, and why."""

    message: str
    cure: str = ""
