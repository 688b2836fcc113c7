"""Records checkpoints as stored once they were read back; records what is not needed as pruned, then deletes it."""

from contextlib import suppress
from datetime import datetime

from agents.checkpoint_keeper.jobs import WrittenState, verify
from contracts.checkpoint_keeper import CheckpointCorrupt, CheckpointPromoted, CheckpointPruned, CheckpointStored
from contracts.errors import NotFound, NotVerified
from contracts.session import Checkpoint, SessionState
from contracts.trainer import CheckpointRefused, CheckpointWritten
from contracts.validator import CheckpointValidated, ValidationFailed
from runtime.jobs.failpoints import failpoint
from runtime.log import retention
from runtime.node.agent import Agent, on
from runtime.node.agent_context import Wakeup

_TICK = 0.02
"""File systems stamp with the kernel's clock, up to this much behind; reading a checkpoint back takes longer."""

Kept = CheckpointStored | CheckpointPromoted | CheckpointPruned | CheckpointCorrupt


class CheckpointKeeper(Agent):
    """Keeps best, last and anchors of every session within the request's limits."""

    @on
    async def keep(self, written: CheckpointWritten, wakeup: Wakeup) -> list[Kept]:
        """Record a sound checkpoint as stored, with its roles by the rules, and prune what they no longer keep."""
        try:
            size = await self._verified(written, wakeup)
        except (NotFound, NotVerified) as error:
            segment, step, blob = written.segment, written.step, written.blob
            return [CheckpointCorrupt(segment=segment, step=step, blob=blob, reason=str(error))]
        # The present counts, not the moment of writing: what has been pruned since must not be pruned again.
        now, place = wakeup.now, (written.segment, written.step)
        stored = CheckpointStored(
            segment=written.segment,
            step=written.step,
            blob=written.blob,
            state_root=written.state_root,
            bytes=size,
            kept_as=retention.roles(now).get(place, []),
        )
        let_go = [_pruned(kept) for kept in retention.prunable(now, handled=wakeup.fact.id)]
        said = any(kept.stored and retention.place(kept) == place for kept in now.training.checkpoints)
        if (
            said
            or now.training.best is None
            or now.training.best.step != written.step
            or not now.training.on_path(*place)
        ):
            return [stored, *let_go]
        # The news that this is the best on the path is said once.
        promoted = CheckpointPromoted(segment=written.segment, step=written.step, blob=written.blob)
        return [stored, promoted, *let_go]

    @on
    async def doubt(self, refused: CheckpointRefused, wakeup: Wakeup) -> CheckpointCorrupt | None:
        """A trainer could not begin from it: read it back once more, and say so when it is broken."""
        usable = [kept for kept in _holding(refused.blob, wakeup.now) if kept.usable]
        if not usable:
            return None
        try:
            await self._verified(usable[-1].written, wakeup)
        except (NotFound, NotVerified) as error:
            # It was written again since and has replaced what was broken.
            if len(_holding(refused.blob, wakeup.now)) > len(_holding(refused.blob, wakeup.session)):
                return None
            segment, step = refused.segment, refused.step
            return CheckpointCorrupt(segment=segment, step=step, blob=refused.blob, reason=str(error))
        return None

    @on
    async def tidy(self, judged: CheckpointValidated | ValidationFailed, wakeup: Wakeup) -> list[CheckpointPruned]:
        """What only waited to be judged may go; an ended session is left as it is."""
        if wakeup.now.outcome is not None:
            return []
        return [_pruned(kept) for kept in retention.prunable(wakeup.now)]

    @on
    async def let_go(self, gone: CheckpointPruned, wakeup: Wakeup) -> None:
        """Delete the bytes of what was said to be pruned, unless another checkpoint or session has the same."""
        failpoint("between-ack-and-effect")
        blobs, session = self.ground.blobs, wakeup.history.id
        begun = wakeup.now.training.claim.initial if wakeup.now.training.claim else None
        if gone.blob == begun or any(kept.usable for kept in _holding(gone.blob, wakeup.now)):
            return
        retention.release_blob(blobs.root, gone.blob, session)
        if self._is_elsewhere(gone.blob, wakeup):
            return
        pruned = datetime.fromisoformat(wakeup.fact.envelope.time).timestamp()
        # Not when it was written again after it was pruned: this handler runs again at every start.
        with suppress(FileNotFoundError):
            if blobs.path(gone.blob).stat().st_mtime <= pruned - _TICK:
                blobs.remove(gone.blob)

    async def _verified(self, written: CheckpointWritten, wakeup: Wakeup) -> int:
        blobs, session = self.ground.blobs.root, wakeup.history.id
        wanted = WrittenState(blobs, session, written.blob, written.step, written.state_root, written.weights_digest)
        return await self.ground.children.run(verify, wanted, session=session)

    def _is_elsewhere(self, blob: str, wakeup: Wakeup) -> bool:
        """Whether another session has this very blob, or may be about to: a trainer stores it before it says so."""
        if retention.holders(self.ground.blobs.root, blob):
            return True
        others = (other for other in self.ground.tail.histories.values() if other.id != wakeup.history.id)
        return any(
            any(kept.usable and kept.written.blob == blob for kept in other.state.training.checkpoints)
            or (other.state.fork is not None and other.state.fork.blob == blob)
            or (other.state.outcome is None and retention.same_trajectory(wakeup.now, other.state))
            for other in others
        )


def _holding(blob: str, session: SessionState) -> list[Checkpoint]:
    return [kept for kept in session.training.checkpoints if kept.written.blob == blob]


def _pruned(kept: Checkpoint) -> CheckpointPruned:
    written = kept.written
    return CheckpointPruned(segment=written.segment, step=written.step, blob=written.blob, freed_bytes=written.bytes)
