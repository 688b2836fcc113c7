"""The trainer: claims a session whose dataset is ready and sees it through to its end; computes again for audits."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from agents.trainer.course import Sayings, SessionRun
from agents.trainer.machine import RESOLVE, MachineProbe
from agents.trainer.verdicts import Verdicts
from contracts.data_manager import DatasetPrepared
from contracts.errors import Fenced
from contracts.operator import CancelRequested, SessionRequested
from contracts.trainer import TrainingCancelled
from runtime.jobs import process
from runtime.node.agent import Agent, Say, on, together
from runtime.node.agent_context import Wakeup


class Trainer(Agent):
    """Trains sessions and takes part in audits: the plan becomes recorded windows, checkpoints and final weights."""

    stands_by = True
    jobs: ClassVar = {"resolve": RESOLVE}

    async def begin(self) -> None:
        """Start the zygotes that sessions will probably need, and measure their fingerprints."""
        self.machine = MachineProbe(self.ground)
        self.turns = asyncio.Semaphore(process.cores())
        self.machine.warm()

    async def end(self) -> None:
        """Cancel what `begin` started and has not finished."""
        self.machine.cool()

    @on
    async def train(self, ready: DatasetPrepared, case: Wakeup, say: Say[Sayings]) -> None:
        """Train the session whose dataset is ready until it ends; after a restart, continue where its log ends."""
        while True:
            course = SessionRun(case, ready, say, self.machine)
            try:
                while await course.due() and await course.attempt():
                    course.rest()
                return
            except Fenced:
                # Another trainer owns the session now. This one waits, because the other may fall silent too.
                if course.unfit:
                    raise
            finally:
                course.rest()

    @on
    async def cancel(self, asked: CancelRequested, case: Wakeup) -> TrainingCancelled | None:
        """Cancel a training that has no dataset yet; one that has its dataset is cancelled by `train`."""
        now = case.now
        if now.kind not in ("training", "trial") or now.dataset is not None or now.outcome is not None:
            return None
        return TrainingCancelled(segment=now.segment.number, step=now.step, reason=asked.reason)

    @on
    @together
    async def audit(self, asked: SessionRequested, case: Wakeup, say: Say[Verdicts]) -> None:
        """Take part in an audit: compute spans that no other trainer computes, then record the verdict."""
        if asked.kind != "audit" or case.now.outcome is not None:
            return
        # Late, because it brings numpy into the host, which most of its life has no use for it.
        from agents.trainer.auditing import Auditing

        await Auditing(case, say, self.turns).run()
