"""What a trainer does for remedies beside training: a child names rows, and proposals lapse that nobody decides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

from agents.trainer.claim import SessionClaim
from agents.trainer.jobs import BisectionTask, bisect_window
from agents.trainer.repeatability import TRIES
from contracts import trainer as events
from contracts.errors import ChildDied, SwarmError
from contracts.request.training import Diagnosis, diagnosis_of
from contracts.session import SessionState
from runtime.engine.report import PoisonedRows
from runtime.node.agent_context import Wakeup


class ProposalLapse:
    """How long proposals wait for a person, counted since this trainer saw them: no clock is compared with another."""

    def __init__(self, wanted: Diagnosis) -> None:
        self.wanted = wanted
        self._seen: dict[str, float] = {}

    def seconds(self, session: SessionState) -> float | None:
        """Until the next one lapses; None when none waits."""
        waiting = session.training.waiting_proposals()
        if not waiting:
            return None
        now = asyncio.get_running_loop().time()
        ends = (self._seen.setdefault(id, now) + self.wanted.wait for id, _ in waiting)
        return max(0.0, min(ends) - now)

    def lapsed(self, session: SessionState) -> dict[str, str]:
        """Those that have waited for as long as the request allows, each with the reason why it is declined."""
        waiting = session.training.waiting_proposals()
        if not waiting:
            return {}
        now = asyncio.get_running_loop().time()
        over = [id for id, _ in waiting if self._seen.setdefault(id, now) + self.wanted.wait <= now]
        return dict.fromkeys(over, f"nobody decided within {self.wanted.wait:g} s")


class RowNaming:
    """Has a child name the rows that made a segment's first unsound window so: one at a time, and once.

    What is owed follows from the fold, so whoever takes the session over names them where nobody has. `arrived` is
    called when there is an answer.
    """

    def __init__(self, wakeup: Wakeup, claim: SessionClaim, arrived: Callable[[], None]) -> None:
        self._wakeup, self._claim, self._arrived = wakeup, claim, arrived
        self._running: asyncio.Task[events.AttemptBisected] | None = None
        # It may take as long as an epoch, and trials of a search that diverge need no remedy.
        self._wanted = diagnosis_of(wakeup.session.request).mode in ("fix", "propose")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    @property
    def pending(self) -> bool:
        """Whether an answer is still to come, or to be said."""
        return self._running is not None

    def answers(self, session: SessionState) -> tuple[events.AttemptBisected, ...]:
        """Begin what is owed; the event when there is an answer that has not been said."""
        training, told = session.training, list[events.AttemptBisected]()
        if self._running is not None and self._running.done():
            told.append(self._running.result())
            self._running = None
        unsound, segment = training.unsound, training.segment.number
        if self._wanted and unsound is not None and not told and not self._running and segment not in training.bisected:
            self._running = asyncio.create_task(self._name(unsound))
            self._running.add_done_callback(lambda _: self._arrived())
        return tuple(told)

    async def _name(self, window: events.WindowRecorded) -> events.AttemptBisected:
        found, problem = PoisonedRows(0, (), 0), ""
        try:
            for tries in range(1, TRIES + 1):
                try:
                    found = await self._ask(window)
                    break
                except ChildDied:
                    if tries == TRIES:
                        raise
        except SwarmError as error:
            problem = error.message[:500]
        return events.AttemptBisected(
            segment=window.segment,
            first=window.first,
            last=window.last,
            step=found.step,
            rows=list(found.rows),
            looked=found.looked,
            problem=problem,
        )

    async def _ask(self, window: events.WindowRecorded) -> PoisonedRows:
        context, session = self._wakeup.ground, self._wakeup.history.id
        task = BisectionTask(await self._claim.task_before(window.first), window.last)
        return await context.children.run(
            bisect_window, task, session=session, log=context.home.session(session) / "bisection.log"
        )
