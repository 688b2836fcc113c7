"""Which steps saw a row, and which rows a step saw: from the order of rows turned round, never by going through it.

The order is a function of request, dataset and step, so the log need not hold it: it holds a digest for each window,
and every answer is held against those. Steps and rows count from 1: step n leads from n - 1 finished attempts to n.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bus.blobs import DirectoryBlobs, digest_of
from contracts.data_manager import DatasetPrepared
from contracts.envelope import Fact
from contracts.errors import InvalidInput, NotFound
from contracts.request import Request
from contracts.session import Session
from contracts.trainer import TrainingClaimed, WindowRecorded
from contracts.validator import CheckpointValidated
from runtime.engine.dataset import Dataset
from runtime.engine.sampling import SPLIT, Sampler, TrainingRows, samplers
from runtime.history import History
from runtime.names import Names, Place


@dataclass(frozen=True, slots=True)
class Stretch:
    """The steps after `first` up to `last` as one segment made them; off the path when a rewind superseded them."""

    segment: int
    first: int
    last: int
    on_path: bool


def stretches(session: Session, facts: Iterable[Fact]) -> list[Stretch]:
    """Every step that was made, segment by segment, on the path first."""
    reached: dict[int, int] = {}
    for fact in facts:
        if isinstance(fact.event, WindowRecorded):
            reached[fact.event.segment] = max(reached.get(fact.event.segment, 0), fact.event.last)
    return sorted(_cut(session, reached), key=lambda one: (not one.on_path, one.segment))


def _cut(session: Session, reached: dict[int, int]) -> Iterator[Stretch]:
    for at, segment in enumerate(session.segments):
        begins, ends = segment.begins, reached.get(segment.number, segment.begins)
        cut = min([ends, *(later.begins for later in session.segments[at + 1 :])])
        if begins < cut:
            yield Stretch(segment.number, begins, cut, on_path=True)
        if max(begins, cut) < ends:
            yield Stretch(segment.number, max(begins, cut), ends, on_path=False)


class Trace:
    """One session's rows and steps; raises `InvalidInput` for a session in which nothing was trained."""

    def __init__(self, history: History, blobs: DirectoryBlobs) -> None:
        session = history.state
        if session.claim is None or session.dataset is None:
            raise InvalidInput(f"no step of {history.id} was made yet.", cure=f"Wait for it: swarm wait {history.id}")
        self._history, self._blobs = history, blobs
        self._claim: TrainingClaimed = session.claim
        self._ready: DatasetPrepared = session.dataset
        self._names = Names(session.dataset, blobs)
        self._taken = int(self._claim.resolved["batch"]) * int(self._claim.resolved["accumulate"])
        self.stretches = stretches(session, history.facts)

    def row(self, name: str, limit: int) -> dict[str, Any]:
        """Every step that saw a row: on the path, and in what was superseded; of each at most `limit` are listed."""
        aside = None
        try:
            place = self._names.find(name)
        except NotFound:
            aside = self._names.aside(name)
            if aside is None:
                raise
            return {"session": self._history.id, "set_aside": aside} | self._source
        about = {"session": self._history.id, "row": self._called(place)} | self._source
        if place.split != SPLIT:
            return about | {"evaluated": self._evaluated(place.split)}
        path = self._comings(place.row, [one for one in self.stretches if one.on_path])
        others = [one for one in self.stretches if not one.on_path]
        return (
            about
            | _listed(path, limit)
            | {
                "superseded": [_about(one) | _listed(self._comings(place.row, [one]), limit) for one in others],
                "windows": self._held([*path[:1], *path[-1:]]),
            }
        )

    def step(self, step: int) -> dict[str, Any]:
        """The rows that a step saw, in their order, and who made that step."""
        made = [one for one in self.stretches if one.first < step <= one.last]
        if not made:
            reached = max((one.last for one in self.stretches), default=0)
            message = f"session {self._history.id} made no step {step}; it made {reached}."
            raise InvalidInput(message, cure=f"Choose from 1 to {reached}.", path="--step")
        first = (step - 1) * self._taken
        rows = self._sampler.take(first, self._taken).tolist()
        turns = self._sampler.turns(first, self._taken).tolist()
        return {
            "session": self._history.id,
            "step": step,
            "made": [_about(one) for one in made],
            "rows": [
                self._called(Place(SPLIT, row + 1)) | {"coming": turn + 1}
                for row, turn in zip(rows, turns, strict=True)
            ],
            "windows": self._held([step]),
        } | self._source

    def _comings(self, row: int, within: Sequence[Stretch]) -> list[int]:
        """The steps among these that saw a row, once for each time."""
        found = [
            self._sampler.comings(row - 1, one.first * self._taken, one.last * self._taken) // self._taken + 1
            for one in within
        ]
        steps: list[int] = np.concatenate([np.empty(0, np.int64), *found]).tolist()
        return steps

    def _held(self, steps: Iterable[int]) -> list[dict[str, Any]]:
        """The recorded windows of these steps, and whether the order of rows is the one that they were signed with."""
        wanted, found = set(steps), []
        for fact in self._history.facts:
            window = fact.event
            if isinstance(window, WindowRecorded) and any(window.first < step <= window.last for step in wanted):
                rows = self._sampler.take(window.first * self._taken, (window.last - window.first) * self._taken)
                same = digest_of(rows.astype("<i8").tobytes()) == window.index_digest
                place = {"event": fact.position, "segment": window.segment, "first": window.first, "last": window.last}
                found.append(place | {"held": same})
        return found

    def _called(self, place: Place) -> dict[str, Any]:
        return {"place": str(place), "name": self._names.of(place)}

    @property
    def _source(self) -> dict[str, Any]:
        return {"source": self._ready.source, "dataset": self._ready.root}

    def _evaluated(self, split: str) -> list[int]:
        """The steps whose weights were judged on a split; its rows are never trained on."""
        session, facts = self._history.state, self._history.facts
        judged = (fact.event for fact in facts if isinstance(fact.event, CheckpointValidated))
        steps = {one.step for one in judged if one.split == split and session.on_path(one.segment, one.step)}
        return sorted(steps | ({one.step for one in session.evaluations} if split == "val" else set()))

    @cached_property
    def _sampler(self) -> Sampler:
        request = Request.model_validate(self._history.state.request)
        rows = TrainingRows(int(self._claim.resolved["rows"]), {})
        if getattr(request.sampler, "column", None) is not None:
            folder = self._blobs.root / "datasets" / self._ready.root
            rows = TrainingRows(rows.count, Dataset.open(folder, verify=False).columns(SPLIT))
        return samplers.of(request.sampler)(request.sampler, request.reproducibility.seed, rows)


def _about(one: Stretch) -> dict[str, Any]:
    return {"segment": one.segment, "first": one.first + 1, "last": one.last, "on_path": one.on_path}


def _listed(comings: Sequence[int], limit: int) -> dict[str, Any]:
    steps = list(dict.fromkeys(comings))
    return {"times": len(comings), "steps": steps[:limit], "more": max(0, len(steps) - limit)}
