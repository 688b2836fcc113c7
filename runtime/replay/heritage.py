"""What a session takes from the one in whose bits it began, as its genesis names it; for any other session nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import orjson

from contracts.fork import Evaluated, Fork, Rows
from contracts.session import SessionState

LONGEST = 2000
"""Evaluations and runs of rows that a genesis holds by itself."""


class Lists(Protocol):
    """Where lists are kept that are too long for an event: a store of blobs, or something that only reads one."""

    def get(self, digest: str) -> bytes:
        """The bytes under a digest."""
        ...

    def put(self, content: bytes) -> str:
        """The digest of the bytes, which are kept."""
        ...


@dataclass(frozen=True)
class InheritedPlan:
    """The control metric up to the fork, and the training rows without which it goes on."""

    evaluations: tuple[tuple[int, float], ...] = ()
    without: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, session: SessionState, blobs: Lists) -> Self:
        """As the genesis says; `NotFound` or `NotVerified` when what it had no room for is not in the store."""
        fork = session.fork
        if fork is None:
            return cls()
        evaluations, without = _unfolded(fork, blobs)
        return cls(tuple((one.step, one.value) for one in evaluations), tuple((one.first, one.last) for one in without))

    def placed(self, blobs: Lists) -> dict[str, Any]:
        """The fields of `Fork` that hold it, once what is too long for an event is in the store."""
        evaluations = [Evaluated(step=step, value=value) for step, value in self.evaluations]
        without = [Rows(first=first, last=last) for first, last in self.without]
        found: dict[str, Any] = {"rows_without": sum(one.last - one.first + 1 for one in without), "more": None}
        if len(evaluations) + len(without) <= LONGEST:
            return found | {"evaluations": evaluations, "without": without}
        listed = {
            "evaluations": [one.model_dump(mode="json") for one in evaluations],
            "without": [one.model_dump(mode="json") for one in without],
        }
        digest = blobs.put(orjson.dumps(listed, option=orjson.OPT_SORT_KEYS))
        return found | {"evaluations": [], "without": [], "more": digest}


def plan_of(session: SessionState, heritage: InheritedPlan, segments: int | None = None) -> dict[str, Any]:
    """The plan with so many segments (or all), in the form of `runtime.engine.plan.Plan.from_json`."""
    return {
        "request": session.request,
        "resolved": session.claim.resolved if session.claim else {},
        "changes": session.changes(segments),
        "begins": session.begins,
        "without": heritage.without,
    }


def _unfolded(fork: Fork, blobs: Lists) -> tuple[Sequence[Evaluated], Sequence[Rows]]:
    if fork.more is None:
        return fork.evaluations, fork.without
    listed = orjson.loads(blobs.get(fork.more))
    evaluations = [Evaluated.model_validate(one) for one in listed["evaluations"]]
    return evaluations, [Rows.model_validate(one) for one in listed["without"]]
