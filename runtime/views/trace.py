"""Which steps saw a row, and which rows a step saw: from the order of rows turned round, never by going through it.

The order is a function of request, dataset, step and recorded evaluations, so the log need not hold it: it holds a
digest for each window, and every answer is held against those. Steps and rows count from 1: step n leads from n - 1
finished attempts to n.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NotRequired, Self

import numpy as np
from typing_extensions import TypedDict

from bus.blobs import DirectoryBlobs, digest_of
from contracts.data_manager import DatasetPrepared
from contracts.envelope import Fact
from contracts.errors import InvalidInput, NotFound
from contracts.request import Request
from contracts.session import Segment, SessionState
from contracts.trainer import ControlEvaluated, TrainingClaimed, WindowRecorded
from contracts.training import counts
from contracts.validator import CheckpointValidated
from runtime.engine.dataset import Dataset
from runtime.engine.evaluations import EvaluationsView
from runtime.engine.report import Control
from runtime.engine.sampling import SPLIT, Sampler, TrainingRows, samplers
from runtime.log.archive import Archive
from runtime.log.row_names import RowNames, RowPlace
from runtime.log.session_log import SessionLog
from runtime.replay.initial_state import InheritedPlan


@dataclass(frozen=True, slots=True)
class SegmentSteps:
    """The steps after `first` up to `last` as one segment made them; off the path when a rewind superseded them."""

    segment: int
    first: int
    last: int
    on_path: bool


def made_steps(
    session: SessionState, facts: Iterable[Fact], segments: Sequence[Segment] | None = None
) -> list[SegmentSteps]:
    """The recorded steps under these segments (or under all), those on the path first."""
    mine = session.training.segments if segments is None else segments
    reached: dict[int, int] = {}
    for fact in facts:
        if isinstance(fact.event, WindowRecorded):
            reached[fact.event.segment] = max(reached.get(fact.event.segment, 0), fact.event.last)
    return sorted(_cut(mine, reached), key=lambda part: (not part.on_path, part.segment))


def _cut(segments: Sequence[Segment], reached: dict[int, int]) -> Iterator[SegmentSteps]:
    for at, segment in enumerate(segments):
        begins, ends = segment.begins, reached.get(segment.number, segment.begins)
        cut = min([ends, *(later.begins for later in segments[at + 1 :])])
        if begins < cut:
            yield SegmentSteps(segment.number, begins, cut, on_path=True)
        if max(begins, cut) < ends:
            yield SegmentSteps(segment.number, max(begins, cut), ends, on_path=False)


class StepsLine(TypedDict):
    """Steps: how often, the first of them, and how many more there are."""

    times: int
    steps: list[int]
    more: int


class MadeLine(TypedDict):
    """Steps that one segment made, counted from 1."""

    segment: int
    first: int
    last: int
    on_path: bool


class SupersededLine(MadeLine, StepsLine):
    """What a superseded stretch of steps saw of a row."""


class WindowLine(TypedDict):
    """A recorded window, and whether the order of rows is the one that it was signed with."""

    session: str
    event: int
    segment: int
    first: int
    last: int
    held: bool


class UnknownLine(TypedDict):
    """Who knows of the steps up to one."""

    session: str
    upto: int


class RowLine(TypedDict):
    """A row by its place and its name in the source; of a step also the how many-th time this is."""

    place: str
    name: str | None
    coming: NotRequired[int]
    left_out: NotRequired[bool]


class RowAnswer(TypedDict):
    """What became of a row: set aside, judged on, or seen by steps on the path and off it."""

    session: str
    source: str
    dataset: str
    set_aside: NotRequired[dict[str, str]]
    row: NotRequired[RowLine]
    evaluated: NotRequired[list[int]]
    times: NotRequired[int]
    steps: NotRequired[list[int]]
    more: NotRequired[int]
    superseded: NotRequired[list[SupersededLine]]
    windows: NotRequired[list[WindowLine]]
    left_out: NotRequired[StepsLine]
    unknown: NotRequired[UnknownLine]


class StepAnswer(TypedDict):
    """The rows that a step saw, in their order, and who made it."""

    session: str
    source: str
    dataset: str
    step: int
    made: list[MadeLine]
    rows: list[RowLine]
    windows: list[WindowLine]


@dataclass(frozen=True)
class RowVisits:
    """The steps of a path that saw a row, once for each time; those it was left out of; who knows of the rest."""

    steps: Sequence[int] = ()
    left_out: Sequence[int] = ()
    unknown: tuple[str, int] | None = None
    windows: Sequence[WindowLine] = ()


class Trace:
    """One session's rows and steps; raises `InvalidInput` for a session in which nothing was trained.

    A fork's first steps were made by its parent, and are asked of that, where it is at hand.
    """

    def __init__(self, history: SessionLog, blobs: DirectoryBlobs, parent: Trace | None = None) -> None:
        session = history.state
        if session.training.claim is None or session.training.dataset is None:
            raise _no_step(session)
        self._history, self._blobs, self._parent = history, blobs, parent
        self._claim: TrainingClaimed = session.training.claim
        self._ready: DatasetPrepared = session.training.dataset
        self._names = RowNames(session.training.dataset, blobs)
        self._taken = int(self._claim.resolved["batch"]) * int(self._claim.resolved["accumulate"])
        self._made = made_steps(session, history.facts)
        self._orders: dict[int, Sampler] = {}

    @classmethod
    def of(cls, history: SessionLog, blobs: DirectoryBlobs, archive: Archive | None) -> Self:
        """With all ancestors that the archive has."""
        fork = history.state.fork
        try:
            parent = cls.of(archive.read(fork.session).history, blobs, archive) if fork and archive else None
        except NotFound:
            parent = None
        return cls(history, blobs, parent)

    def row(self, name: str, limit: int) -> RowAnswer:
        """Every step that saw a row, on the path and off it; of each at most `limit` are listed."""
        session, source, dataset = self._history.id, self._ready.source, self._ready.root
        try:
            place = self._names.find(name)
        except NotFound:
            aside = self._names.aside(name)
            if aside is None:
                raise
            return {"session": session, "set_aside": aside, "source": source, "dataset": dataset}
        answer: RowAnswer = {"session": session, "row": self._called(place), "source": source, "dataset": dataset}
        if place.split != SPLIT:
            return {**answer, "evaluated": self._evaluated(place.split)}
        visits = self.seen(place.row)
        others = [part for part in self._made if not part.on_path]
        answer = {
            **answer,
            **_listed(visits.steps, limit),
            "superseded": [{**_about(part), **_listed(self._comings(place.row, [part]), limit)} for part in others],
            "windows": list(visits.windows),
        }
        if visits.left_out:
            answer["left_out"] = _listed(visits.left_out, limit)
        if visits.unknown:
            answer["unknown"] = {"session": visits.unknown[0], "upto": visits.unknown[1]}
        return answer

    def seen(self, row: int, upto: int | None = None, segment: int | None = None) -> RowVisits:
        """What the path saw of a row, or a segment's line up to a step; steps before a fork as its ancestors tell."""
        session, before = self._history.state, RowVisits()
        if session.fork is not None:
            unknown = RowVisits(unknown=(session.fork.session, session.fork.step))
            before = self._parent.seen(row, session.fork.step, session.fork.segment) if self._parent else unknown
        mine = (
            session.training.segments
            if segment is None
            else [part for part in session.training.segments if part.number <= segment]
        )
        made = [part for part in made_steps(session, self._history.facts, mine) if part.on_path]
        comings: dict[bool, list[int]] = {
            left_out: [
                step
                for step in self._comings(
                    row, [part for part in made if self._is_left_out(row, part.segment) == left_out]
                )
                if upto is None or step <= upto
            ]
            for left_out in (False, True)
        }
        steps = sorted(comings[False] + comings[True])
        windows = [*before.windows, *self._held([*steps[:1], *steps[-1:]])]
        left_out = [*before.left_out, *comings[True]]
        return RowVisits([*before.steps, *comings[False]], left_out, before.unknown, windows)

    def step(self, step: int) -> StepAnswer:
        """The rows that a step saw, in their order, and who made that step."""
        session = self._history.state
        if 0 < step <= session.training.begins and session.fork is not None:
            if self._parent is None:
                message = f"step {step} was made by {session.fork.session}, which is not here."
                raise NotFound(message, cure=f"Ask where it is: swarm trace {session.fork.session} --step {step}")
            return self._parent.step(step)
        made = [part for part in self._made if part.first < step <= part.last]
        if not made:
            reached = max((part.last for part in self._made), default=0)
            message = f"session {self._history.id} made no step {step}; it made {reached}."
            raise InvalidInput(message, cure=f"Choose from 1 to {reached}.", path="--step")
        first = (step - 1) * self._taken
        segment = next((part for part in made if part.on_path), made[-1]).segment
        order = self._order(segment)
        rows = order.take(first, self._taken).tolist()
        turns = order.turns(first, self._taken).tolist()
        return {
            "session": self._history.id,
            "step": step,
            "made": [_about(part) for part in made],
            "rows": [self._come(row + 1, turn + 1, segment) for row, turn in zip(rows, turns, strict=True)],
            "windows": self._held([step]),
            "source": self._ready.source,
            "dataset": self._ready.root,
        }

    def _come(self, row: int, coming: int, segment: int) -> RowLine:
        """A training row that comes for the so many-th time, in a segment."""
        line: RowLine = {**self._called(RowPlace(SPLIT, row)), "coming": coming}
        if self._is_left_out(row, segment):
            line["left_out"] = True
        return line

    def _comings(self, row: int, within: Sequence[SegmentSteps]) -> list[int]:
        """The steps of these segments that see a row; a step that sees it twice is listed twice."""
        steps_of_parts = [
            self._order(part.segment).comings(row - 1, part.first * self._taken, part.last * self._taken) // self._taken
            + 1
            for part in within
        ]
        steps: list[int] = np.concatenate([np.empty(0, np.int64), *steps_of_parts]).tolist()
        return steps

    def _held(self, steps: Iterable[int]) -> list[WindowLine]:
        """The recorded windows of these steps, and whether the order of rows is the one that they were signed with."""
        wanted, windows = set(steps), list[WindowLine]()
        for fact in self._history.facts:
            window = fact.event
            if isinstance(window, WindowRecorded) and any(window.first < step <= window.last for step in wanted):
                rows = self._order(window.segment).take(
                    window.first * self._taken, (window.last - window.first) * self._taken
                )
                same = digest_of(rows.astype("<i8").tobytes()) == window.index_digest
                windows.append(
                    {
                        "session": self._history.id,
                        "event": fact.position,
                        "segment": window.segment,
                        "first": window.first,
                        "last": window.last,
                        "held": same,
                    }
                )
        return windows

    def _called(self, place: RowPlace) -> RowLine:
        return {"place": str(place), "name": self._names.of(place)}

    def _is_left_out(self, row: int, segment: int) -> bool:
        """Whether a segment goes on without a training row: by its genesis, or by a decision up to it."""
        training = self._history.state.training
        decided = training.changes(sum(part.number <= segment for part in training.segments))
        runs = [*self._heritage.without, *(run for change in decided for run in change.get("skip_rows", ()))]  # type: ignore[attr-defined]
        return any(first <= row <= last for first, last in runs)

    def _evaluated(self, split: str) -> list[int]:
        """The steps whose weights were judged on a split; its rows are never trained on."""
        session, facts = self._history.state, self._history.facts
        judged = (fact.event for fact in facts if isinstance(fact.event, CheckpointValidated))
        steps = {
            event.step
            for event in judged
            if event.split == split and session.training.on_path(event.segment, event.step)
        }
        return sorted(steps | ({event.step for event in session.training.evaluations} if split == "val" else set()))

    @cached_property
    def _heritage(self) -> InheritedPlan:
        return InheritedPlan.of(self._history.state, self._blobs)

    def _order(self, segment: int) -> Sampler:
        """The order of rows as a segment had it, which may follow the evaluations that the segment went on from."""
        if segment not in self._orders:
            training = self._history.state.training
            evaluations: Iterable[ControlEvaluated] = training.evaluations
            if segment != training.segment.number:
                line = [part for part in training.segments if part.number <= segment]
                told = (fact.event for fact in self._history.facts if isinstance(fact.event, ControlEvaluated))
                evaluations = [one for one in told if one.segment <= segment and counts(one.segment, one.step, line)]
            own = [(one.step, one.values[one.metric]) for one in evaluations]
            control = Control.of(self._request.early_stopping).after_all([*self._heritage.evaluations, *own])
            self._orders[segment] = self._sampler.after(EvaluationsView(control.costs), self._taken)
        return self._orders[segment]

    @cached_property
    def _request(self) -> Request:
        return Request.model_validate(self._history.state.request)

    @cached_property
    def _sampler(self) -> Sampler:
        request = self._request
        rows = TrainingRows(int(self._claim.resolved["rows"]), {})
        if getattr(request.sampler, "column", None) is not None:
            rows = TrainingRows.of(Dataset.open(self._blobs.root / "datasets" / self._ready.root, verify=False))
        return samplers.of(request.sampler)(request.sampler, request.reproducibility.seed, rows)


def _no_step(session: SessionState) -> InvalidInput:
    if not session.kind.trains:
        message = f"{session.id} is of the kind {session.kind.name!r}, which trains nothing itself."
        return InvalidInput(message, cure="Name a training, or a trial of a search: swarm show SEARCH")
    if session.outcome is not None:
        cure = f"See why: swarm show {session.id}"
        return InvalidInput(f"{session.id} ended ({session.state}) before its first step.", cure=cure)
    return InvalidInput(f"no step of {session.id} was made yet.", cure=f"Wait for it: swarm wait {session.id}")


def _about(part: SegmentSteps) -> MadeLine:
    return {"segment": part.segment, "first": part.first + 1, "last": part.last, "on_path": part.on_path}


def _listed(comings: Sequence[int], limit: int) -> StepsLine:
    steps = list(dict.fromkeys(comings))
    return {"times": len(comings), "steps": steps[:limit], "more": max(0, len(steps) - limit)}
