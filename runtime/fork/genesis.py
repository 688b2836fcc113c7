"""The genesis of a fork, made from its parent's log alone: the same question gives the same answer, to auditors too.

Which rows a fork may leave out is here too; what it may change of a request stands in `contracts.request.changes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from contracts.errors import InvalidInput, InvalidRequest, NotFound, Problem, Refused
from contracts.fork import Fork
from contracts.ledger import LedgerCheckpointed
from contracts.request import Request, read_request
from contracts.request.changes import refused_changes
from contracts.request.reading import put
from contracts.request.section import Section
from contracts.session import SessionState
from contracts.trainer import TrainingClaimed
from runtime.engine.report import Control
from runtime.engine.sampling import SPLIT
from runtime.fork.start import SegmentPath, StepWeights
from runtime.log.row_names import RowNames, RowPlace
from runtime.log.session_log import SessionLog
from runtime.replay.initial_state import InheritedPlan, ListStore

MODES = ("mode", "auto_fix")
"""The two names in `diagnosis` of who decides."""


@dataclass(frozen=True)
class ForkRequest:
    """Where a fork begins, and its change: values by dotted path, rows by their places from 1."""

    step: int
    segment: int | None = None
    set: Mapping[str, object] = field(default_factory=dict)
    without: Runs = ()


@dataclass(frozen=True)
class ForkGenesis:
    """The request of a fork, and what else its genesis says."""

    request: dict[str, object]
    fork: Fork


def fork_genesis(parent: SessionLog, asked: ForkRequest, blobs: ListStore) -> ForkGenesis:
    """The fork that was asked for; `InvalidInput`, `InvalidRequest` and `Refused` say why there is none."""
    state = parent.state
    if not state.kind.trains or state.training.claim is None or state.training.dataset is None:
        kind = f"a session of the kind {state.kind.name!r} in state {state.state!r}"
        message = f"{parent.id} is {kind}: it has trained nothing."
        raise Refused(message, cure="Fork a session that has been training.")
    line = SegmentPath.of(parent, asked.segment)
    at_step = line.at(asked.step)
    request = _request(state, asked)
    inherited = InheritedPlan.of(state, blobs)
    seen = [*inherited.evaluations, *_evaluations(line, asked.step, request, state)]
    inherited_plan = InheritedPlan(tuple(seen), joined_runs([*inherited.without, *asked.without]))
    plan = state.training.changes(line.changes(asked.step))
    _refuse_the_end(parent, at_step, request, state.training.claim, inherited_plan, plan)
    resolved = request.resolved()
    kept = at_step.checkpoint
    size, root, sealed = signed_root(parent)
    return ForkGenesis(
        resolved,
        Fork(
            session=parent.id,
            root=root,
            size=size,
            sealed=sealed,
            step=asked.step,
            segment=at_step.segment,
            weights_digest=at_step.weights_digest,
            state_root=kept.state_root if kept else None,
            blob=kept.blob if kept else None,
            dataset=state.training.dataset.root,
            resolved=state.training.claim.resolved,
            changes=plan,
            set={path: _at(_written_out(request, path), path) for path in asked.set},
            **inherited_plan.placed(blobs),
        ),
    )


def signed_root(history: SessionLog) -> tuple[int, str | None, bool]:
    """How many events the ledger's newest note covers, their root, and whether that is the seal."""
    seal = history.state.sealed
    if seal is not None:
        return seal.size, seal.root, True
    notes = (fact.event for fact in reversed(history.facts) if isinstance(fact.event, LedgerCheckpointed))
    newest = next(notes, None)
    return (newest.size, newest.root, False) if newest else (0, None, False)


def _request(parent: SessionState, asked: ForkRequest) -> Request:
    before = read_request(parent.request)
    raw: Any = parent.request
    if asked.set.keys() & {f"diagnosis.{name}" for name in MODES}:
        # Each of both says the whole of it, and a request that says it twice contradicts itself.
        kept = {name: value for name, value in raw.get("diagnosis", {}).items() if name not in MODES}
        raw = put(raw, ["diagnosis"], kept)
    for path, value in asked.set.items():
        raw = put(raw, path.split("."), value)
    after = read_request(raw)
    if problems := list(refused_changes(before, after)):
        raise InvalidRequest(problems)
    # What the parent began with is in its state by now.
    model = after.model.model_copy(update={"init": None})
    return after.model_copy(update={"model": model})


def _evaluations(line: SegmentPath, step: int, request: Request, parent: SessionState) -> Sequence[tuple[int, float]]:
    metric, seen = request.early_stopping.metric, line.evaluations(step)
    followed = parent.request["early_stopping"]["metric"]
    if any(metric not in one.values for one in seen) or (parent.fork and followed != metric):
        names = ", ".join(dict.fromkeys(name for one in seen for name in one.values)) or followed
        message = f"the parent did not follow {metric!r} up to step {step}"
        raise InvalidRequest([Problem("early_stopping.metric", message, f"It followed {names}.")])
    return [(one.step, one.values[metric]) for one in seen]


def _refuse_the_end(
    parent: SessionLog,
    at: StepWeights,
    request: Request,
    claim: TrainingClaimed,
    inherited_plan: InheritedPlan,
    plan: Sequence[Any],
) -> None:
    """A fork has something left to do, in numbers."""
    resolved = claim.resolved
    if not at.finite:
        message = f"the weights of {parent.id} at step {at.step} are not finite."
        raise Refused(message, cure="Begin at an earlier step.", path="--at")
    if resolved["profile"] != "exact" and at.checkpoint is None:
        message = f"{parent.id} kept no checkpoint of step {at.step}, and its bits cannot be computed again."
        raise Refused(message, cure=f"Choose a kept step: swarm checkpoints {parent.id}", path="--at")
    rows, taken = resolved["rows"], resolved["batch"] * resolved["accumulate"]
    total = request.limits.last_step(-(-request.training.epochs * rows // taken), rows, taken)
    last = min([total, *(int(one["step"]) for one in plan if one.get("stop"))])
    if at.step >= last:
        message = f"no step is left after step {at.step}: training would end at step {last}."
        raise InvalidInput(message, cure="Begin earlier, or change training.epochs or limits.", path="--at")
    if Control.of(request.early_stopping).after_all(inherited_plan.evaluations).stop:
        message = f"early stopping has ended the training of {parent.id} by step {at.step}."
        raise InvalidInput(message, cure="Begin earlier, or change early_stopping.patience.", path="--at")


def _written_out(request: Request, path: str) -> dict[str, object]:
    """The request with everything at a path: some options are recorded only where they are not the usual ones."""
    resolved, (name, dot, _) = request.resolved(), path.partition(".")
    written = resolved.get(name)
    if not dot or not isinstance(written, dict):
        return resolved
    whole = {key: dict(value) if isinstance(value, Section) else value for key, value in getattr(request, name)}
    inside = {key: whole[key] | value for key, value in written.items() if isinstance(whole.get(key), dict)}
    return resolved | {name: whole | written | inside}


def _at(request: Any, path: str) -> Any:
    for key in path.split("."):
        request = request[int(key)] if isinstance(request, list) else request[key]
    return request


Runs = tuple[tuple[int, int], ...]
_RANGE = re.compile(r"(?:(train):)?(\d+)-(\d+)")


def training_rows(named: Iterable[str], names: RowNames, rows: int) -> Runs:
    """The places in the training split, from 1, as runs in order; at least one row must be left.

    `NotFound` for a name that no row has, `InvalidInput` for one that is not trained on.
    """
    found = joined_runs(run for name in named for run in _runs(name.strip(), names))
    if sum(last - first + 1 for first, last in found) >= rows:
        raise Refused("no row is left to train on.", cure="Leave out fewer rows.", path="--without")
    return found


def joined_runs(runs: Iterable[tuple[int, int]]) -> Runs:
    """The same rows as runs in order, none of which touch."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(runs):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return tuple(found)


def _runs(name: str, names: RowNames) -> Iterator[tuple[int, int]]:
    span = _RANGE.fullmatch(name)
    if span is None:
        yield _one(name, names)
        return
    first, last = int(span[2]), int(span[3])
    if span[1]:
        begin, end = (names.find(f"{SPLIT}:{row}").row for row in (first, last))
        run: tuple[int, int] | None = (begin, end) if begin <= end else None
    else:
        run = names.between(SPLIT, first, last)
    if run is None:
        message = f"no row of the training split lies in {name!r}."
        raise NotFound(message, cure="See where a row is: swarm trace S --row ID", path="--without")
    yield run


def _one(name: str, names: RowNames) -> tuple[int, int]:
    try:
        place: RowPlace = names.find(name)
    except NotFound:
        aside = names.aside(name)
        if aside is None:
            raise
        message = f"{aside['where']}: it was set aside as {aside['kind']} and is in no split."
        raise InvalidInput(message, cure="Leave it out of this list.", path="--without") from None
    if place.split != SPLIT:
        message = f"{name!r} is {place}, which is never trained on."
        raise InvalidInput(message, cure="Leave it out of this list: only training rows can be.", path="--without")
    return place.row, place.row
