"""In what two sessions differ: what was asked for, what it ran on, where their computation parts, what came of it.

Pure functions from two histories to JSON values: pairs, one value for each session, None where one has none. Only what
differs is listed. Windows and evaluations are those of the paths that the sessions took.
"""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self, TypeVar, cast

from typing_extensions import TypedDict

from contracts.replies import ParentReply
from contracts.request.reading import flat
from contracts.session import SessionState
from contracts.trainer import ControlEvaluated, WindowRecorded
from runtime.log.session_log import SessionLog
from runtime.replay.comparison import first_field

T = TypeVar("T")
Pairs = dict[str, list[object]]


class WindowPlace(TypedDict):
    """The first window that differs, in which field, and from which step on the losses do."""

    first: int
    last: int
    field: str
    step: int | None


class WindowsDifference(TypedDict):
    """How many windows are the same, the first that is not, and how far each path goes."""

    same: int
    parted: WindowPlace | None
    reached: list[int]


class EvaluationPlace(TypedDict):
    """The first evaluation that differs, and its values."""

    step: int
    values: Pairs


class EvaluationsDifference(TypedDict):
    """How many evaluations are the same, and the first that is not."""

    same: int
    parted: EvaluationPlace | None


class FingerprintDifference(TypedDict):
    """Both numeric fingerprints, and the families of operators in which they differ."""

    digests: list[str | None]
    families: list[str]


class AppliedChange(TypedDict):
    """One change of plan."""

    segment: int
    step: int
    by: str
    changes: dict[str, object]


class DecisionsDifference(TypedDict):
    """Whether both plans changed alike, and how."""

    same: bool
    applied: list[list[AppliedChange]]


class SessionsDifference(TypedDict):
    """Everything in which two sessions differ; `same` says that nothing was computed otherwise."""

    sessions: list[str]
    states: list[str]
    forks: list[ParentReply | None]
    request: Pairs
    resolved: Pairs
    environment: Pairs
    code: Pairs
    fingerprint: FingerprintDifference
    data: Pairs
    decisions: DecisionsDifference
    windows: WindowsDifference
    evaluations: EvaluationsDifference
    metrics: dict[str, list[float | None]]
    weights: list[str | None]
    same: bool


INCIDENTAL = frozenset({"segment"})
"""The number of a segment says how a plan came about and nothing about bits."""

INHERITED = "its parent"
"""Who decided what a fork was begun with."""

LOSS = 4
"""Bytes of one recorded loss."""


def difference(one: SessionLog, other: SessionLog) -> SessionsDifference:
    """Everything in which two sessions differ: request, machine, data, decisions, metrics, first differing window."""
    states = (one.state, other.state)
    claims = [state.training.claim for state in states]
    windows_differ, evaluations_differ = windows(one, other), evaluations(one, other)
    weights = [state.weights_digest for state in states]
    return {
        "sessions": [one.id, other.id],
        "states": [state.state for state in states],
        "forks": [state.fork.parent if state.fork else None for state in states],
        "request": pairs(flat(state.request) for state in states),
        "resolved": pairs(claim.resolved if claim else {} for claim in claims),
        "environment": pairs(claim.environment if claim else {} for claim in claims),
        # What computed: the engine's own arithmetic, and workloads by their digests.
        "code": pairs({"engine_bits": claim.engine_bits, **claim.sources} if claim else {} for claim in claims),
        "fingerprint": _fingerprint(*states),
        "data": pairs(_data(state) for state in states),
        "decisions": {
            "same": one.state.training.changes() == other.state.training.changes(),
            "applied": [_applied(state) for state in states],
        },
        "windows": windows_differ,
        "evaluations": evaluations_differ,
        "metrics": both(state.metrics for state in states),
        "weights": weights,
        # Nothing was computed otherwise, as far as both went.
        "same": not windows_differ["parted"] and not evaluations_differ["parted"] and weights[0] == weights[1],
    }


def pairs(sides: Iterable[Mapping[str, object]]) -> Pairs:
    """What differs between two mappings, by name."""
    return {name: pair for name, pair in both(sides).items() if pair[0] != pair[1]}


def both(sides: Iterable[Mapping[str, T]]) -> dict[str, list[T | None]]:
    """All names of two mappings with both values."""
    one, other = sides
    return {name: [one.get(name), other.get(name)] for name in dict.fromkeys([*one, *other])}


def windows(one: SessionLog, other: SessionLog) -> WindowsDifference:
    """How many windows of two paths are the same, up to the first that is not; and how far each path goes."""
    ours, theirs = _Path.of(one), _Path.of(other)
    same = 0
    for place, window in ours.windows.items():
        parted = _parted(window, ours, theirs)
        if parted is not None:
            return {"same": same, "parted": parted, "reached": [ours.ends, theirs.ends]}
        same += place in theirs.windows
    return {"same": same, "parted": None, "reached": [ours.ends, theirs.ends]}


def evaluations(one: SessionLog, other: SessionLog) -> EvaluationsDifference:
    """How many evaluations of two paths are the same, and the first step at which one is not."""
    ours, theirs = (
        {evaluation.step: evaluation for evaluation in history.state.training.evaluations} for history in (one, other)
    )
    same = 0
    for step, evaluation in ours.items():
        if step not in theirs:
            continue
        if named := pairs((_exact(evaluation), _exact(theirs[step]))):
            return {"same": same, "parted": {"step": step, "values": named}}
        same += 1
    return {"same": same, "parted": None}


@dataclass(frozen=True)
class _Path:
    """The windows on a path by their steps, in order, and the losses of all of its steps in a row."""

    windows: Mapping[tuple[int, int], WindowRecorded]
    begins: int
    losses: bytes

    @classmethod
    def of(cls, history: SessionLog) -> Self:
        windows = [fact.event for fact in history.facts if isinstance(fact.event, WindowRecorded)]
        path = sorted(
            (window for window in windows if history.state.training.on_path(window.segment, window.last)),
            key=lambda window: window.first,
        )
        losses = b"".join(base64.b64decode(window.losses) for window in path)
        return cls({(window.first, window.last): window for window in path}, path[0].first if path else 0, losses)

    @property
    def ends(self) -> int:
        """The last step."""
        return self.begins + len(self.losses) // LOSS

    def between(self, first: int, last: int) -> bytes:
        """The losses after one step up to another."""
        return self.losses[max(0, first - self.begins) * LOSS : max(0, last - self.begins) * LOSS]


def _parted(window: WindowRecorded, ours: _Path, theirs: _Path) -> WindowPlace | None:
    """How a window differs from the same steps of another path; None when it does not, or they are not there."""
    other = theirs.windows.get((window.first, window.last))
    field = first_field(window, other, INCIDENTAL) if other else None
    # The first step whose loss differs by its bits, counted from 1, however windows are cut.
    first, last = max(window.first, theirs.begins), min(window.last, theirs.ends)
    mine, its = ours.between(first, last), theirs.between(first, last)
    offsets = (at for at in range(0, len(mine), LOSS) if mine[at : at + LOSS] != its[at : at + LOSS])
    offset = next(offsets, None) if mine != its else None
    step = None if offset is None else first + offset // LOSS + 1
    if field is None and step is None:
        return None
    return {"first": window.first, "last": window.last, "field": field or "losses", "step": step}


def _exact(evaluation: ControlEvaluated) -> dict[str, str]:
    values: dict[str, str] = evaluation.model_dump(mode="json")["values"]
    return values


def _fingerprint(one: SessionState, other: SessionState) -> FingerprintDifference:
    """Whether both were computed with the same numeric fingerprint; if not, in which families of operators."""
    digests = [state.training.claim.fingerprint if state.training.claim else None for state in (one, other)]
    families = pairs(state.training.claim.families if state.training.claim else {} for state in (one, other))
    return {"digests": digests, "families": list(families) if None not in digests else []}


def _data(session: SessionState) -> dict[str, object]:
    ready = session.training.dataset
    if ready is None:
        return {}
    findings = {f"findings.{finding.kind}": finding.count for finding in ready.findings}
    about = {"root": ready.root, "source": ready.source, "source_digest": ready.source_digest, "rows": ready.rows}
    return about | flat(ready.splits, "splits") | findings


def _applied(session: SessionState) -> list[AppliedChange]:
    """Every change of plan, those that a fork inherits first."""
    inherited = session.fork.changes if session.fork else []
    made = [
        AppliedChange(
            segment=number,
            step=cast("int", changes["step"]),
            by=INHERITED,
            changes={name: value for name, value in changes.items() if name != "step"},
        )
        for number, changes in enumerate(inherited, 2)
    ]
    own = (
        AppliedChange(segment=event.segment, step=event.step, by=event.by, changes=dict(event.changes))
        for _, event in session.training.applied
    )
    return [*made, *own]
