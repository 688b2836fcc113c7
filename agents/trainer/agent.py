"""The trainer: claims a session whose dataset is ready and sees it through to its end; computes again for audits."""

import asyncio
from typing import ClassVar

from agents.trainer.jobs import resolve_request
from agents.trainer.machine import MachineProbe
from agents.trainer.run import SessionRun
from contracts import trainer as events
from contracts.audit import AUDIT
from contracts.common import ChildEnded
from contracts.data_manager import DatasetPrepared
from contracts.errors import Fenced
from contracts.operator import CancelRequested, SessionRequested
from runtime.jobs import process
from runtime.node.agent import Agent, Say, on, together
from runtime.node.agent_context import Wakeup
from runtime.node.capabilities import RESOLVE_REQUEST

Sayings = (
    events.TrainingClaimed
    | events.WindowRecorded
    | events.ControlEvaluated
    | events.CheckpointWritten
    | events.CheckpointRefused
    | events.AttemptEnded
    | events.TrainingProfiled
    | events.WindowsReproduced
    | events.DivergenceFound
    | events.BirthAudited
    | events.WindowRechecked
    | events.AttemptBisected
    | events.MemoryExhausted
    | events.InterventionApplied
    | events.InterventionDeclined
    | events.JudgementWaived
    | events.TrainingPaused
    | events.TrainingResumed
    | events.TrainingCompleted
    | events.TrainingFailed
    | events.TrainingCancelled
    | ChildEnded
)
"""What the trainer says of a training."""

Verdicts = (
    events.AuditPlanned
    | events.SpanTaken
    | events.SpanRepeated
    | events.AuditDeclined
    | events.AuditCompleted
    | events.AuditFailed
)
"""What the trainer says in an audit."""


class Trainer(Agent):
    """Trains sessions and takes part in audits: the plan becomes recorded windows, checkpoints and final weights."""

    stands_by = True
    services: ClassVar = (RESOLVE_REQUEST.by(resolve_request),)

    async def begin(self) -> None:
        """Start the zygotes that sessions will probably need, and measure their fingerprints."""
        self.machine = MachineProbe(self.ground)
        turns = self.machine.turns
        self.ground.presence.offer(self.role, lambda: turns.room)
        self.turns = asyncio.Semaphore(process.cores())
        self._warming = asyncio.create_task(self.machine.warm())

    async def end(self) -> None:
        """Cancel what `begin` started and has not finished."""
        self._warming.cancel()

    @on
    async def train(self, ready: DatasetPrepared, wakeup: Wakeup, say: Say[Sayings]) -> None:
        """Train the session whose dataset is ready until it ends; after a restart, continue where its log ends."""
        while True:
            run = SessionRun(wakeup, ready, say, self.machine)
            try:
                while await run.due() and await run.attempt():
                    run.rest()
                return
            except Fenced:
                # Another trainer owns the session now. This one waits, because the other may fall silent too.
                if run.claim.unfit:
                    raise
            finally:
                run.rest()

    @on
    async def cancel(self, asked: CancelRequested, wakeup: Wakeup) -> events.TrainingCancelled | None:
        """Cancel a training that has no dataset yet; one that has its dataset is cancelled by `train`."""
        now = wakeup.now
        if not now.kind.trains or now.training.dataset is not None or now.outcome is not None:
            return None
        return events.TrainingCancelled(segment=now.training.segment.number, step=now.step, reason=asked.reason)

    @on
    @together
    async def audit(self, asked: SessionRequested, wakeup: Wakeup, say: Say[Verdicts]) -> None:
        """Take part in an audit: compute spans that no other trainer computes, then record the verdict."""
        if wakeup.session.kind is not AUDIT or wakeup.now.outcome is not None:
            return
        # Late, because it brings numpy into the host, which most of its life has no use for it.
        from agents.trainer.auditing import Auditing

        await Auditing(wakeup, say, self.turns).run()
