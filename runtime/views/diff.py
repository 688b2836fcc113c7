"""Two sessions side by side: what was asked for, what it ran on, where their computation parts, what came of it.

Pure functions from two histories to JSON values: pairs, one value for each session, None where one has none. Only
what differs is listed. Windows and evaluations are those of the paths that the sessions took in the end.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from contracts.session import SessionState
from contracts.trainer import ControlEvaluated, WindowRecorded
from runtime.log.session_log import SessionLog
from runtime.replay.comparison import first_field, flat
from runtime.views import view

Pair = list[Any]
Pairs = dict[str, Pair]

INCIDENTAL = frozenset({"segment"})
"""The number of a segment says how a plan came about and nothing about bits."""

INHERITED = "its parent"
"""Who decided what a fork was begun with."""

LOSS = 4
"""Bytes of one recorded loss."""


def difference(one: SessionLog, other: SessionLog) -> dict[str, Any]:
    """Everything in which two sessions differ: request, machine, data, decisions, metrics, first differing window."""
    states = (one.state, other.state)
    claims = [state.claim for state in states]
    found: dict[str, Any] = {
        "sessions": [one.id, other.id],
        "states": [state.state for state in states],
        "forks": [view.fork(state) for state in states],
        "request": pairs(flat(state.request) for state in states),
        "resolved": pairs(claim.resolved if claim else {} for claim in claims),
        "environment": pairs(claim.environment if claim else {} for claim in claims),
        # What computed: the engine's own arithmetic, and workloads by their digests.
        "code": pairs({"engine_bits": claim.engine_bits} | claim.sources if claim else {} for claim in claims),
        "fingerprint": _fingerprint(*states),
        "data": pairs(_data(state) for state in states),
        "decisions": {
            "same": one.state.changes() == other.state.changes(),
            "applied": [_applied(state) for state in states],
        },
        "windows": windows(one, other),
        "evaluations": evaluations(one, other),
        "metrics": both(view.metrics(state) for state in states),
        "weights": [state.weights_digest for state in states],
    }
    parted = found["windows"]["parted"] or found["evaluations"]["parted"]
    # Nothing was computed otherwise, as far as both went.
    return found | {"same": not parted and found["weights"][0] == found["weights"][1]}


def pairs(sides: Iterable[Mapping[str, Any]]) -> Pairs:
    """What differs between two mappings, by name."""
    return {name: pair for name, pair in both(sides).items() if pair[0] != pair[1]}


def both(sides: Iterable[Mapping[str, Any]]) -> Pairs:
    """All names of two mappings with both values."""
    one, other = sides
    return {name: [one.get(name), other.get(name)] for name in dict.fromkeys([*one, *other])}


def windows(one: SessionLog, other: SessionLog) -> dict[str, Any]:
    """How many windows of two paths are the same, up to the first that is not; and how far each path goes."""
    ours, theirs = _Path.of(one), _Path.of(other)
    same = 0
    for place, window in ours.windows.items():
        parted = _parted(window, ours, theirs)
        if parted is not None:
            return {"same": same, "parted": parted, "reached": [ours.ends, theirs.ends]}
        same += place in theirs.windows
    return {"same": same, "parted": None, "reached": [ours.ends, theirs.ends]}


def evaluations(one: SessionLog, other: SessionLog) -> dict[str, Any]:
    """How many evaluations of two paths are the same, and the first step at which one is not."""
    ours, theirs = (
        {evaluation.step: evaluation for evaluation in history.state.evaluations} for history in (one, other)
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
            (window for window in windows if history.state.on_path(window.segment, window.last)),
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


def _parted(window: WindowRecorded, ours: _Path, theirs: _Path) -> dict[str, Any] | None:
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


def _fingerprint(one: SessionState, other: SessionState) -> dict[str, Any]:
    """Whether both were computed with the same numeric fingerprint; if not, in which families of operators."""
    digests = [state.claim.fingerprint if state.claim else None for state in (one, other)]
    families = pairs(state.claim.families if state.claim else {} for state in (one, other))
    return {"digests": digests, "families": list(families) if None not in digests else []}


def _data(session: SessionState) -> dict[str, Any]:
    ready = session.dataset
    if ready is None:
        return {}
    findings = {f"findings.{finding.kind}": finding.count for finding in ready.findings}
    about = {"root": ready.root, "source": ready.source, "source_digest": ready.source_digest, "rows": ready.rows}
    return about | flat(ready.splits, "splits") | findings


def _applied(session: SessionState) -> list[dict[str, Any]]:
    """Every change of plan, those that a fork inherits first."""
    inherited = session.fork.changes if session.fork else []
    about = ((number, dict(changes)) for number, changes in enumerate(inherited, 2))
    made = [{"segment": n, "step": changes.pop("step"), "by": INHERITED, "changes": changes} for n, changes in about]
    own = (event.model_dump(mode="json", include={"segment", "step", "by", "changes"}) for _, event in session.applied)
    return [*made, *own]
