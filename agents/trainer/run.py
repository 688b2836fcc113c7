"""One trainer's work on one session: it waits for its turn, trains in children, and records how the session ends.

Decisions are read from the fold; what this object remembers may be lost at any moment without harm. When a host dies
between an append and its acknowledgement, the next claim begins at the newest checkpoint, and what is computed again
is compared with what the log has.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from signal import SIGKILL
from typing import TYPE_CHECKING, Literal

from agents.trainer.claim import SessionClaim
from agents.trainer.decisions import Decision, hopeless_proposals, judged, next_decision, non_finite_weights
from agents.trainer.inbox import Inbox, TrainingChild, told_of
from agents.trainer.jobs import (
    ChangePlan,
    Hold,
    HoldNotice,
    Leave,
    PlanEnd,
    RepetitionEnd,
    SetupEnd,
    StagedWindow,
    TrainingNews,
    train_plan,
)
from agents.trainer.machine import MachineProbe, place
from agents.trainer.remedies import ProposalLapse, RowNaming
from agents.trainer.repeatability import (
    RecordedPath,
    RepeatabilityCheck,
    divergence_failure,
    missing_repetitions,
)
from agents.trainer.seconds_limit import SecondsLimit
from contracts import trainer as events
from contracts.common import ChildEnded
from contracts.data_manager import DatasetPrepared
from contracts.errors import ChildDied, Fenced, Full, NotVerified, OutOfMemory, SwarmError, UserCodeFailed
from contracts.event import Event
from contracts.operator import CancelRequested, PauseRequested, ResumeRequested
from contracts.queue import NO_NEEDS
from contracts.request.training import diagnosis_of
from contracts.session import SessionState
from runtime.engine.parts.levers import CutBatch
from runtime.jobs import resources
from runtime.jobs.failpoints import failpoint
from runtime.node.agent import Say
from runtime.node.agent_context import PATIENCE, SessionCancelled, Wakeup, first_done, wish_to_cancel

if TYPE_CHECKING:
    from agents.trainer.agent import Sayings

MOST_DEATHS = 3
"""Children that may die one after another without a new window before the session fails."""

MOST_STARVED = 2
"""Of these, those that the system may end for want of memory: once a neighbour may have had it."""

_ROOM = 4
"""After a full disk, training is tried again once so many checkpoints of the largest size fit."""

_NOBODY_TO_ASK = "Make training.batch_size smaller and training.accumulate larger by as much: no diagnostician answers."

_LOOK_AGAIN = 0.5
"""Seconds between two looks at the free disk space."""


_PAUSED_BY: Mapping[str, Literal["person", "plan", "drain"]] = {"pause": "person", "rest": "plan", "drain": "drain"}


@dataclass
class _ChildState:
    """What is known of the child of one attempt: the step it began at, where it holds, what it finished with."""

    first: int = 0
    recorded: RecordedPath = field(default_factory=RecordedPath)
    seconds: Mapping[str, float] = field(default_factory=dict)
    ordered_to_hold: bool = False
    give_up_at: float | None = None
    held: int | None = None
    planned: bool = False
    """Whether it holds because the plan pauses there."""
    finished: PlanEnd | None = None
    begun: bool = False
    """Whether its model was built and its state restored."""
    starved: bool = False
    """Whether it ended because memory ran out when it had begun."""


class SessionRun:
    """Trains one session: `due` waits until this trainer may, `attempt` trains in one child until something ends it."""

    def __init__(self, wakeup: Wakeup, ready: DatasetPrepared, say: Say[Sayings], machine: MachineProbe) -> None:
        self.claim = SessionClaim(wakeup, ready, say, machine)
        self._wakeup = wakeup
        self._context = wakeup.ground
        self._turns = machine.turns
        self._deaths = 0
        self._full_disks = 0
        self._frame = ""
        """The line of the user's code at which memory ran out last."""
        self._lapse = ProposalLapse(diagnosis_of(wakeup.session.request))
        self._limit = SecondsLimit(wakeup)
        self._state = _ChildState()

    @property
    def now(self) -> SessionState:
        """The fold of the session as of now; it changes with every admitted event."""
        return self._wakeup.now

    # Whether this trainer may train.

    async def due(self) -> bool:
        """Wait until this trainer may train: no other one owns the session, it has a slot, and it is not paused.

        False when the session has ended. Cancels, pauses and resumes are carried out here while it waits.
        """
        while self.now.outcome is None:
            wishes = {type(wish) for _, wish in self.now.wishes}
            segment, step = self.now.training.segment.number, self.now.step
            if not self.claim.is_free():
                self.rest()
                await asyncio.sleep(min(1.0, self._context.settings.takeover_after_seconds / 3))
            elif CancelRequested in wishes:
                await self._cancel()
            elif PauseRequested in wishes and self.now.training.claim is None:
                # Nobody has it, so nobody pauses it: it does not begin before a person lets it.
                self.rest()
                await self._wakeup.history.grown(self._wakeup.history.size)
            elif PauseRequested in wishes and (self._deaths or self.now.training.exhausted):
                # The child that should have obeyed the pause died: the next one might hang too, or has to wait.
                await self.claim.make(events.TrainingPaused(by="person", segment=segment, step=step))
            elif (paused := self.now.training.pause is not None and self.now.training.pause.by != "drain") and (
                ResumeRequested not in wishes
            ):
                await self._wakeup.history.grown(self._wakeup.history.size)
            elif await self._turn():
                if not paused:
                    return True
                await self.claim.make(events.TrainingResumed(segment=segment, step=step, grant=self.claim.grant))
        return False

    async def _turn(self) -> bool:
        """Whether this session has a slot in the queue, where one is kept, and a turn of this machine.

        If not, wait until the queue, the turns or the session have changed.
        """
        history, tail = self._wakeup.history, self._context.tail
        queue, log, needs = tail.queue, tail.queue_log, NO_NEEDS
        if queue is not None and log is not None:
            slot = queue.slots.get(history.id)
            if slot is None:
                self.rest()
                await first_done(log.grown(log.size), history.grown(history.size))
                return False
            self.claim.grant, needs = slot.grant, slot.needs
        self._turns.ask(history.id, place(self.now, history.facts[0].seq), needs)
        # After a restart all sessions ask before any is answered.
        await asyncio.sleep(0)
        if not self._context.draining.is_set() and self._turns.take(history.id):
            return True
        await first_done(self._turns.changed(), history.grown(history.size))
        return False

    def rest(self) -> None:
        """Give the turn back, so that another session of this process may train."""
        self._turns.leave(self._wakeup.history.id)

    async def _cancel(self) -> None:
        """Record that the session was cancelled at its last recorded step; claim it first if any trainer ever did."""
        wish = wish_to_cancel(self.now)
        reason = wish.reason if wish else ""
        cancelled = events.TrainingCancelled(
            segment=self.now.training.segment.number, step=self.now.step, reason=reason
        )
        await (self.claim.say(cancelled) if self.now.training.claim is None else self.claim.make(cancelled))

    # One attempt, and what follows from how it ends.

    async def attempt(self) -> bool:
        """Claim the session and train in one child until something ends it; True when another attempt is due.

        Raises `Fenced` when another trainer owns the session. Other errors end in an event or in a new attempt.
        """
        try:
            await self.claim.make()
            if (exhausted := self.now.training.exhausted) is not None:
                return await self._relieve(*exhausted)
            return await self._train()
        except Fenced:
            raise
        except SessionCancelled:
            return True  # another attempt is due as far as this one knows; whether it is to be, `due` says
        except SwarmError as error:
            return await self._after(error)

    async def _after(self, error: SwarmError) -> bool:
        """What follows from the error with which an attempt ended: True when another one is due."""
        match error:
            case ChildDied():
                return await self._died(error)
            case Full():
                return await self._until_room(error)
            case OutOfMemory() if self._state.starved:
                return await self._ran_out(error)
            case NotVerified() if (start := self.claim.newest()) is not None and await self.claim.wrong_with(start):
                # A damaged checkpoint explains the error, so an earlier one may do.
                return True
        frame = error.path if isinstance(error, OutOfMemory | UserCodeFailed) else ""
        await self.claim.fail(error.code, error.message, error.cure, frame)
        return False

    async def _died(self, error: ChildDied) -> bool:
        """Count the death of a child; True when another attempt is due."""
        self._deaths += 1
        if any(isinstance(wish, CancelRequested | PauseRequested) for _, wish in self.now.wishes):
            return True
        if self._state.starved and self._deaths >= MOST_STARVED:
            return await self._ran_out(error)
        if self._deaths < MOST_DEATHS:
            return True
        message = f"{error.message} This happened {self._deaths} times in a row."
        await self.claim.fail("child-died", message, error.cure)
        return False

    async def _ran_out(self, error: SwarmError) -> bool:
        """Record that memory ran out; True when it is to be decided how to go on, else the session has failed."""
        if self._lapse.wanted.mode == "off":
            await self.claim.fail(OutOfMemory.code, error.message, error.cure, error.path)
            return False
        training, self._deaths, self._frame = self.now.training, 0, error.path
        assert training.claim is not None  # noqa: S101 - nothing is trained without one
        batch, accumulate, evaluated = (training.claim.resolved[name] for name in CutBatch.SIZES)
        if cuts := [one[CutBatch.name] for one in training.changes() if CutBatch.name in one]:
            batch, accumulate, evaluated = CutBatch.read(cuts[-1]).sizes(batch, accumulate, evaluated)
        await self.claim.say(
            events.MemoryExhausted(
                segment=training.segment.number,
                step=self.now.step,
                batch=batch,
                accumulate=accumulate,
                evaluated=evaluated,
                message=error.message[:1000],
                limit=self._context.settings.training_memory_bytes or None,
            )
        )
        return True

    async def _relieve(self, id: str, exhausted: events.MemoryExhausted) -> bool:
        """Wait, without a child, for what is decided about memory that ran out, and begin the segment that follows.

        True when another attempt is due, or a person wants something else; where nothing is to be done the session
        fails, as it does when no diagnostician answers.
        """
        self.rest()
        history, draining = self._wakeup.history, self._context.draining
        while self.now.outcome is None:
            training = self.now.training
            if any(isinstance(wish, CancelRequested | PauseRequested) for _, wish in self.now.wishes):
                return True
            if draining.is_set():
                paused = events.TrainingPaused(by="drain", segment=training.segment.number, step=self.now.step)
                await self.claim.say(paused)
                return True
            if await self._decline_hopeless():
                continue
            if (decision := next_decision(self.now)) is not None:
                await self.claim.say(self._applied(decision, self.now.step))
                failpoint("between-ack-and-apply")
                return True
            told = next((seen for _, seen in training.diagnoses if id in seen.evidence), None)
            if told is not None and not training.waiting_proposals():
                await self.claim.fail(OutOfMemory.code, told.message, told.cure, self._frame)
            elif told is None and self._context.presence.silent_seconds("diagnostician") >= (
                self._context.settings.waive_after_seconds
            ):
                await self.claim.fail(OutOfMemory.code, exhausted.message, _NOBODY_TO_ASK, self._frame)
            else:
                lapse = self._lapse.seconds(self.now)
                wait = asyncio.sleep(_LOOK_AGAIN if lapse is None else lapse)
                await first_done(history.grown(history.size), draining.wait(), wait)
        return False

    async def _decline_hopeless(self) -> bool:
        """Decline what cannot be followed, or nobody has decided about; whether there was such a proposal."""
        if hopeless := {**self._lapse.lapsed(self.now), **dict(hopeless_proposals(self.now))}:
            declined = (events.InterventionDeclined(proposal=id, reason=why) for id, why in hopeless.items())
            await self.claim.say(*declined)
        return bool(hopeless)

    async def _until_room(self, error: Full) -> bool:
        """Record that the disk is full and wait until there is room or a cancel; then another attempt is due."""
        waits = f"{error.message} Training goes on from its last checkpoint when there is room."
        await self.claim.say(ChildEnded(purpose="train", code=1, signal=None, max_rss_bytes=0, message=waits))
        size = max((kept.written.bytes for kept in self.now.training.checkpoints), default=1 << 20)
        # A quota or a lack of inodes does not show in what is free, so each try without a new window waits longer.
        loop, disk = asyncio.get_running_loop(), self._context.blobs.root
        patience = loop.time() + _LOOK_AGAIN * 2 ** min(self._full_disks, 7)
        self._full_disks += 1
        while patience > loop.time() or shutil.disk_usage(disk).free < _ROOM * size:
            if wish_to_cancel(self.now):
                break
            await asyncio.sleep(_LOOK_AGAIN)
        return True

    # The child: what it tells becomes events, and decisions take effect where it holds.

    async def _train(self) -> bool:
        """Train until the child has left; True when the session needs another attempt."""
        self._state = _ChildState()
        self._limit.begin()
        task, start = await self.claim.task()
        first = start.written.step if start else self.now.training.begins
        recorded = RecordedPath.of(self._wakeup.history.facts, self.now, first, self.claim.unusable)
        self._state = _ChildState(first, recorded)
        session, log = self._wakeup.history.id, self._context.home.session(self._wakeup.history.id) / "training.log"
        ended_so_far = resources.killed_for_memory()
        async with (
            self._context.children.job(train_plan, task, session=session, log=log) as child,
            Inbox(child, self._wakeup) as inbox,
            RepeatabilityCheck(self._wakeup, task, inbox.look) as self._repetitions,
            RowNaming(self._wakeup, self.claim, inbox.look) as self._naming,
        ):
            try:
                return await self._follow(child, inbox)
            except SessionCancelled:
                child.kill("was asked to hold for a cancel and did not")
                await self.claim.say(self._attempt_ended(self.now.step))
                raise
            except OutOfMemory:
                # Smaller parts of a step help no model that does not fit.
                self._state.starved = self._state.begun
                raise
            except ChildDied:
                if (end := child.exit) is not None and self.now.outcome is None:
                    message = f"the training child (pid {child.pid}) {child.ending}"
                    code, signal, most = end.code, end.signal, end.max_rss_bytes
                    struck = signal == SIGKILL and resources.killed_for_memory() > ended_so_far
                    self._state.starved = struck and self._state.begun
                    await self.claim.say(
                        ChildEnded(purpose="train", code=code, signal=signal, max_rss_bytes=most, message=message)
                    )
                raise

    async def _follow(self, child: TrainingChild, inbox: Inbox) -> bool:
        """Append what the child tells and do what is decided, until it leaves; True when another attempt is due."""
        while True:
            waits = self._state.held is not None or self._state.finished is not None
            # Where windows are rechecked, a training child waits for the one that repeats them.
            child.resting = waits or self._repetitions.pending
            until = [self._lapse.seconds(self.now), self._limit.left(self.now)]
            timeout = 1.0 if self._state.finished else min((one for one in until if one is not None), default=None)
            if self._state.give_up_at is not None and self._state.held is None:
                timeout = max(0.0, self._state.give_up_at - asyncio.get_running_loop().time())
            await self._append(told_of(await inbox.take(timeout=timeout)))
            verdicts = self._repetitions.verdicts()
            await self.claim.say(*chain.from_iterable(verdicts), *self._naming.answers(self.now))
            if self.now.outcome is not None:
                return False
            for _ in verdicts:
                await child.order(RepetitionEnd())
            await self._decline_hopeless()
            draining = self._context.draining.is_set()
            spent = self._state.finished is None and self._limit.left(self.now) == 0
            decision = next_decision(self.now, draining=draining, planned=self._state.planned, spent=spent)
            again: bool | None = None
            if decision is None:
                if self._state.finished and not self._repetitions.pending and not self._naming.pending:
                    again = await self._end(child)
            elif self._state.held is None:
                await self._hold(child, decision)
            else:
                again = await self._act(decision, child, inbox)
            if again is not None:
                return again

    async def _hold(self, child: TrainingChild, decision: Decision) -> None:
        """Order the child to hold; `SessionCancelled` when one that is to be cancelled does not: user code may hang."""
        if not self._state.ordered_to_hold:
            self._state.ordered_to_hold = True
            await child.order(Hold())
        if decision.kind == "cancel":
            now = asyncio.get_running_loop().time()
            if self._state.give_up_at is None:
                self._state.give_up_at = now + PATIENCE
            if now >= self._state.give_up_at:
                raise SessionCancelled

    async def _append(self, news: list[TrainingNews]) -> None:
        """Append what the log lacks, compare what it has, and note where the child holds or that it has finished."""
        fresh: list[Event] = []
        for told in news:
            match told:
                case StagedWindow():
                    self._repetitions.begin(told)
                case SetupEnd():
                    self._state.begun = True
                case HoldNotice(step, seconds, planned):
                    self._state.seconds, self._state.held, self._state.planned = seconds, step, planned
                case PlanEnd():
                    self._state.seconds, self._state.finished = told.seconds, told
                case events.TrainingProfiled():
                    # An attempt that begins at the first step again measures again, and the first measurement stays.
                    fresh += [told] if self.now.training.profile is None else []
                case _:
                    fresh += await self._compare(told)
        if fresh:
            # Deaths and full disks before a new window no longer count.
            self._deaths = self._full_disks = 0
            await self.claim.say(*fresh)  # type: ignore[arg-type]

    async def _compare(self, event: events.Computed) -> list[Event]:
        """What is to be appended of a computed event; a difference from the log is recorded and ends the session."""
        verdict = self._state.recorded.take(event)
        if isinstance(event, events.CheckpointWritten):
            self.claim.unusable.discard(event.blob)
            if wrong := self._repetitions.checkpoint_difference(event):
                await self.claim.say(wrong, self._repetitions.failure(wrong))
                return []
        if isinstance(verdict, events.DivergenceFound):
            await self.claim.say(verdict, divergence_failure(verdict, self.now))
        if verdict is not True:
            return []
        count, self._state.recorded.reproduced = self._state.recorded.reproduced, 0
        if not count:
            return [event]
        _, upto, _ = events.place_of(event)
        segment = self.now.training.segment.number
        return [events.WindowsReproduced(segment=segment, first=self._state.first, last=upto, count=count), event]

    async def _act(self, decision: Decision, child: TrainingChild, inbox: Inbox) -> bool | None:
        """Carry out a decision while the child holds.

        None when this child continues; else whether another attempt is due."""
        segment, step = self.now.training.segment.number, self._state.held or 0
        match decision.kind:
            case "cancel":
                cancelled = events.TrainingCancelled(segment=segment, step=step, reason=decision.reason)
                await self.claim.say(self._attempt_ended(step), cancelled)
                return False
            case "pause" | "rest" | "drain":
                await child.order(Leave(keep=True))
                await self._append(told_of(await inbox.rest()))
                failpoint("between-drain-and-event")
                by = _PAUSED_BY[decision.kind]
                paused = events.TrainingPaused(by=by, segment=segment, step=step)
                await self.claim.say(self._attempt_ended(step), paused)
                return by != "drain"
            case "end" | "intervene":
                return await self._intervene(decision, child, step)

    async def _intervene(self, decision: Decision, child: TrainingChild, step: int) -> bool | None:
        applied = self._applied(decision, step) if decision.kind == "intervene" else self._limit.reached(self.now, step)
        back = decision.proposal is not None and decision.proposal.rewind_to is not None
        await self.claim.say(*([self._attempt_ended(step)] if back else []), applied)
        failpoint("between-ack-and-apply")
        if back:
            return True
        await child.order(ChangePlan(applied.step, applied.changes))
        self._state.ordered_to_hold, self._state.held, self._state.finished = False, None, None
        return None

    def _applied(self, decision: Decision, step: int) -> events.InterventionApplied:
        """The event with which a decision takes effect: at `step`, or where it goes back to."""
        proposal = decision.proposal
        assert proposal is not None  # noqa: S101 - that is what intervening means
        return events.InterventionApplied(
            proposal=decision.cause,
            by=proposal.rule,
            segment=self.now.training.segment.number + 1,
            step=step if proposal.rewind_to is None else proposal.rewind_to,
            changes=proposal.changes,
            reproducible=proposal.automatic and not proposal.waits,
        )

    def _attempt_ended(self, step: int) -> events.AttemptEnded:
        """The event that ends this attempt, with the seconds that the child reported when it last held."""
        epoch, segment, child = self.claim.epoch or 0, self.now.training.segment.number, self._state
        return events.AttemptEnded(
            epoch=epoch, segment=segment, first=child.first, step=step, seconds=dict(child.seconds)
        )

    async def _end(self, child: TrainingChild) -> bool | None:
        """After the last step: complete the session once its last window is judged; None while that is waited for.

        The judgement of a diagnostician that is silent for too long is waived.
        True when no window of user code was repeated although an attempt from an earlier checkpoint would allow it."""
        if "window" in missing_repetitions(self.now) and self._state.first > 0:
            self.claim.begin_before(self._state.first)
            return True
        step = self._state.finished.step if self._state.finished else 0
        mode = self._lapse.wanted.mode
        if mode in ("fix", "propose") and not judged(self.now, step):
            if self._context.presence.silent_seconds("diagnostician") < self._context.settings.waive_after_seconds:
                return None
            await self.claim.say(events.JudgementWaived(segment=self.now.training.segment.number, step=step))
        if waiting := self.now.training.waiting_proposals():
            # Who has asked to decide is waited for; nobody else's training ends later because of a proposal.
            if mode == "propose":
                return None
            reason = "the training ended before anybody decided"
            await self.claim.say(*(events.InterventionDeclined(proposal=id, reason=reason) for id, _ in waiting))
        await self._complete(child)
        return False

    async def _complete(self, child: TrainingChild) -> None:
        session, end = self.now, self._state.finished
        assert end is not None  # noqa: S101 - that is what completes it
        final = [kept for kept in session.training.path_checkpoints() if kept.written.step == end.step]
        if not final:
            await self.claim.fail("non-finite", *non_finite_weights(session, end.step))
            return
        kept, last = final[-1].written, session.training.evaluations[-1] if session.training.evaluations else None
        completed = events.TrainingCompleted(
            segment=session.training.segment.number,
            step=end.step,
            epochs=last.epoch if last else 0,
            stopped_early=end.stopped_early,
            best_step=last.best_step if last else None,
            weights_digest=kept.weights_digest,
            state_root=kept.state_root,
            final_blob=kept.blob,
            values=last.values if last else {},
        )
        failpoint("before-completion")
        await self.claim.say(self._attempt_ended(end.step), completed)
        await child.order(Leave(keep=False))
