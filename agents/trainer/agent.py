"""The trainer: claims a session whose dataset is ready and sees it through to its end; computes again for audits."""

from __future__ import annotations

import asyncio

from agents.trainer.course import Course, Sayings
from agents.trainer.machine import Machine
from agents.trainer.verdicts import Verdicts
from contracts.data_manager import DatasetPrepared
from contracts.errors import Fenced
from contracts.operator import CancelRequested, SessionRequested
from contracts.trainer import TrainingCancelled
from runtime.jobs import process
from runtime.node.agent import Agent, Say, on, together
from runtime.node.ground import Case


class Trainer(Agent):
    """Turns a resolved plan into recorded windows, checkpoints and final weights."""

    stands_by = True

    async def begin(self) -> None:
        """Have a zygote ready and its bits known by the time the first session asks for them."""
        self.machine = Machine(self.ground)
        self.turns = asyncio.Semaphore(process.cores())
        self.machine.warm()

    async def end(self) -> None:
        """Stop warming up."""
        self.machine.cool()

    @on
    async def train(self, ready: DatasetPrepared, case: Case, say: Say[Sayings]) -> None:
        """Claim, train, hold and apply decisions, complete; goes on where the log says it stopped."""
        while True:
            course = Course(case, ready, say, self.machine)
            try:
                while await course.due() and await course.attempt():
                    course.rest()
                return
            except Fenced:
                # Another one has it now; this one stands by, for that one may fall silent too.
                if course.unfit:
                    raise
            finally:
                course.rest()

    @on
    async def cancel(self, asked: CancelRequested, case: Case) -> TrainingCancelled | None:
        """End what has no data yet, for nobody is on its course; whoever prepares them hears of it too."""
        now = case.now
        if now.kind not in ("training", "trial") or now.dataset is not None or now.outcome is not None:
            return None
        return TrainingCancelled(segment=now.segment.number, step=now.step, reason=asked.reason)

    @on
    @together
    async def audit(self, asked: SessionRequested, case: Case, say: Say[Verdicts]) -> None:
        """Take part in an audit: spans that no other trainer computes, and the verdict once everything is said."""
        if asked.kind != "audit" or case.now.outcome is not None:
            return
        # Late, because it brings numpy into the host, which most of its life has no use for it.
        from agents.trainer.auditing import Auditing

        await Auditing(case, say, self.turns).run()
