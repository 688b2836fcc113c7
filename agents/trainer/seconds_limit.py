"""The seconds that a session has been trained, and when its request has it end because of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime

from agents.trainer.decisions import ends_training
from contracts import trainer as events
from contracts.common import ChildEnded
from contracts.envelope import Fact
from contracts.roles import TRAINER
from contracts.session import SessionState
from runtime.node.agent_context import Wakeup


class SecondsLimit:
    """Counts what was trained before this attempt by the times of its log, and this attempt by a clock of the process.

    So whoever goes on after a death goes on counting; what has died without a word is not counted.
    """

    def __init__(self, wakeup: Wakeup) -> None:
        limits = wakeup.session.request.get("limits") or {}
        self._allowed: float | None = limits.get("seconds")
        self._wakeup = wakeup
        self._before = 0.0
        self._began = 0.0

    def begin(self) -> None:
        """An attempt begins now."""
        self._began = asyncio.get_running_loop().time()
        self._before = 0.0 if self._allowed is None else trained_seconds(self._wakeup.history.facts)

    @property
    def _spent(self) -> float:
        return self._before + asyncio.get_running_loop().time() - self._began

    def left(self, session: SessionState) -> float | None:
        """Seconds until the training is to end; None where nothing limits them, or its end is decided already."""
        if self._allowed is None or ends_training(session.training.segment.changes):
            return None
        return max(0.0, self._allowed - self._spent)

    def reached(self, session: SessionState, step: int) -> events.InterventionApplied:
        """The event that ends the training at the step where it holds."""
        return events.InterventionApplied(
            proposal=self._wakeup.history.facts[0].id,
            by=events.SPENT,
            segment=session.training.segment.number + 1,
            step=step,
            changes={"stop": True},
            reproducible=False,
            seconds=self._spent,
        )


def trained_seconds(facts: Iterable[Fact]) -> float:
    """How long a trainer was at work, by what it said: not from a pause or a child's end to what followed it."""
    seconds, since = 0.0, None
    for fact in facts:
        if fact.lane != TRAINER:
            continue
        now = datetime.fromisoformat(fact.envelope.time)
        if since is not None and not isinstance(fact.event, events.TrainingClaimed | events.TrainingResumed):
            seconds += max(0.0, (now - since).total_seconds())
        since = None if isinstance(fact.event, ChildEnded | events.TrainingPaused) else now
    return seconds
