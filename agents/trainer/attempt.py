"""One child from its start to its end: what it reports becomes events, and decisions take effect where it holds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

import orjson

from agents.trainer.births import RepeatabilityCheck, is_workload, owed
from agents.trainer.decisions import Decision, hopeless_proposals, judged, next_decision
from agents.trainer.inbox import Inbox, frames_of
from agents.trainer.path import RecordedPath, key_range
from contracts.common import ChildEnded
from contracts.errors import ChildDied, NotRepeatable
from contracts.event import SPOKEN, Event
from contracts.session import Checkpoint, SessionState
from contracts.trainer import (
    AttemptEnded,
    CheckpointWritten,
    Computed,
    DivergenceFound,
    InterventionApplied,
    InterventionDeclined,
    JudgementWaived,
    TrainingCancelled,
    TrainingCompleted,
    TrainingFailed,
    TrainingPaused,
    WindowsReproduced,
)
from runtime.jobs.child import Child
from runtime.jobs.failpoints import failpoint
from runtime.jobs.frames import Frame
from runtime.jobs.profiles import torch_profile
from runtime.node.agent_context import PATIENCE, CancelledError

if TYPE_CHECKING:
    from agents.trainer.course import SessionRun


class Attempt:
    """Runs one training child from a checkpoint until the session ends, the child dies or another attempt is due."""

    def __init__(self, course: SessionRun, arguments: tuple[dict[str, Any], Checkpoint | None]) -> None:
        self._course = course
        self._args, start = arguments
        case = course.case
        step = start.written.step if start else course.now.begins
        self._recorded = RecordedPath.of(case.history.facts, course.now, step, course.unusable)
        self._seconds: dict[str, float] = {}
        self._from = step
        self._holding = False
        self._overdue: float | None = None
        self._held: int | None = None
        self._finished: dict[str, Any] | None = None

    async def run(self) -> bool:
        """Train until the child has left; True when the session needs another attempt."""
        case, claim = self._course.case, self._course.now.claim
        assert claim is not None  # noqa: S101 - an attempt follows a claim
        resolved = claim.resolved
        log = case.ground.home.session(case.history.id) / "training.log"
        async with (
            case.ground.children.job(
                "agents.trainer.jobs.train:main",
                self._args,
                profile=torch_profile(resolved["threads"], resolved["device"]),
                purpose="train",
                session=case.history.id,
                log=log,
            ) as child,
            Inbox(child, case) as inbox,
            RepeatabilityCheck(case, self._args, inbox.look) as self._births,
        ):
            try:
                return await self._follow(child, inbox)
            except CancelledError:
                child.kill("was asked to hold for a cancel and did not")
                await self._course.say(self._ended(self._course.now.step))
                raise
            except ChildDied:
                if child.exit is not None:
                    await self._note_death(child)
                raise

    async def _follow(self, child: Child, inbox: Inbox) -> bool:
        while True:
            child.resting = self._held is not None or self._finished is not None
            news = await inbox.take(timeout=self._patience())
            await self._append(frames_of(news))
            await self._course.say(*self._births.verdicts())
            if self._course.now.outcome is not None:
                return False
            hopeless = hopeless_proposals(self._course.now)
            if hopeless:
                await self._course.say(*(InterventionDeclined(proposal=id, reason=why) for id, why in hopeless))
            draining = self._course.case.ground.draining.is_set()
            decision = next_decision(self._course.now, draining=draining)
            if decision is None:
                if self._finished and not self._births.pending:
                    if self._unrepeated():
                        self._course.begin_before(self._from)
                        return True
                    if await self._may_complete():
                        await self._complete(child)
                        return False
                continue
            if self._held is None:
                await self._hold(child)
                self._give_up_at_last(decision)
                continue
            again = await self._act(decision, child, inbox)
            if again is not None:
                return again

    def _patience(self) -> float | None:
        """Seconds to wait for news before the state is looked at in any case; None waits until news comes."""
        if self._overdue is not None and self._held is None:
            return max(0.0, self._overdue - asyncio.get_running_loop().time())
        return 1.0 if self._finished else None

    def _give_up_at_last(self, decision: Decision) -> None:
        """Raise `CancelledError` when a cancelled child has not reached a grid step in time: user code may hang."""
        now = asyncio.get_running_loop().time()
        if decision.kind != "cancel":
            return
        if self._overdue is None:
            self._overdue = now + PATIENCE
        if now >= self._overdue:
            raise CancelledError

    async def _hold(self, child: Child) -> None:
        if not self._holding:
            self._holding = True
            await child.order("hold")

    async def _append(self, frames: list[Frame]) -> None:
        """Append what the log lacks, compare what it has, and note where the child holds or that it has finished."""
        fresh: list[Event] = []
        for frame in frames:
            if frame.kind == "lived":
                self._births.begin(frame.data)
                continue
            if frame.kind in ("held", "finished"):
                self._note(frame)
                continue
            event = SPOKEN[frame.kind].model_validate_json(orjson.dumps(frame.data["data"]))
            fresh += await self._new(event)
        if fresh:
            self._course.alive()
            await self._course.say(*fresh)  # type: ignore[arg-type]

    def _note(self, frame: Frame) -> None:
        self._seconds = frame.data["seconds"]
        if frame.kind == "finished":
            self._finished = frame.data
        else:
            self._held = frame.data["step"]

    async def _new(self, event: Event) -> list[Event]:
        assert isinstance(event, Computed)  # noqa: S101 - all it tells
        verdict = self._recorded.take(event)
        if isinstance(event, CheckpointWritten):
            self._course.unusable.discard(event.blob)
        if verdict is True:
            return [*self._reproduced(event), event]
        if isinstance(verdict, DivergenceFound):
            of_theirs = f" {NotRepeatable.RULES}" if is_workload(self._course.now) else ""
            failure = TrainingFailed(
                segment=verdict.segment,
                step=verdict.last,
                code="divergence",
                message=f"{verdict.field} of steps {verdict.first}..{verdict.last} came out differently.",
                cure=f"Find the first difference: swarm audit {self._course.now.id} --mode bisect.{of_theirs}",
            )
            await self._course.say(verdict, failure)
        return []

    def _reproduced(self, event: Event) -> list[Event]:
        count, self._recorded.reproduced = self._recorded.reproduced, 0
        if not count:
            return []
        upto = key_range(event)[0]
        segment = self._course.now.segment.number
        return [WindowsReproduced(segment=segment, first=self._from, last=upto, count=count)]

    async def _act(self, decision: Decision, child: Child, inbox: Inbox) -> bool | None:
        """Carry out a decision while the child holds.

        None when this child continues; else whether another attempt is due."""
        session, step = self._course.now, self._held or 0
        segment = session.segment.number
        match decision.kind:
            case "cancel":
                cancelled = TrainingCancelled(segment=segment, step=step, reason=decision.reason)
                await self._course.say(self._ended(step), cancelled)
                return False
            case "pause" | "drain":
                await self._leave(child, inbox)
                failpoint("between-drain-and-event")
                by: Literal["person", "drain"] = "person" if decision.kind == "pause" else "drain"
                await self._course.say(self._ended(step), TrainingPaused(by=by, segment=segment, step=step))
                return decision.kind == "pause"
            case "intervene":
                return await self._intervene(decision, child, step)

    def _ended(self, step: int) -> AttemptEnded:
        """The event that ends this attempt, with the seconds that the child reported when it last held."""
        segment, epoch = self._course.now.segment.number, self._course.epoch or 0
        return AttemptEnded(epoch=epoch, segment=segment, first=self._from, step=step, seconds=self._seconds)

    async def _leave(self, child: Child, inbox: Inbox) -> None:
        await child.order("leave", keep=True)
        await self._append(frames_of(await inbox.rest()))

    async def _intervene(self, decision: Decision, child: Child, step: int) -> bool | None:
        proposal = decision.proposal
        assert proposal is not None  # noqa: S101 - that is what intervening means
        begins = step if proposal.rewind_to is None else proposal.rewind_to
        applied = InterventionApplied(
            proposal=decision.cause,
            by=proposal.rule,
            segment=self._course.now.segment.number + 1,
            step=begins,
            changes=proposal.changes,
            reproducible=proposal.automatic,
        )
        back = proposal.rewind_to is not None
        await self._course.say(*([self._ended(step)] if back else []), applied)
        failpoint("between-ack-and-apply")
        if back:
            return True
        await child.order("change", change={"step": begins, **proposal.changes})
        self._holding, self._held, self._finished = False, None, None
        return None

    def _unrepeated(self) -> bool:
        """Whether no window of user code was repeated although an earlier checkpoint would allow it."""
        return "window" in owed(self._course.now) and self._from > 0

    async def _may_complete(self) -> bool:
        """Whether the diagnostician has judged the last window, or was silent for so long that this is waived."""
        session = self._course.now
        step = self._finished["step"] if self._finished else 0
        if not (session.request.get("diagnosis") or {}).get("auto_fix") or judged(session, step):
            return True
        ground = self._course.case.ground
        if ground.presence.silent_seconds("diagnostician") < ground.settings.waive_after_seconds:
            return False
        await self._course.say(JudgementWaived(segment=session.segment.number, step=step))
        return True

    async def _complete(self, child: Child) -> None:
        session, end = self._course.now, self._finished or {}
        final = [one for one in session.path_checkpoints() if one.written.step == end["step"]]
        if not final:
            await self._course.fail("non-finite", *_not_finite(session, end["step"]))
            return
        kept, last = final[-1].written, session.evaluations[-1] if session.evaluations else None
        completed = TrainingCompleted(
            segment=session.segment.number,
            step=end["step"],
            epochs=last.epoch if last else 0,
            stopped_early=end["stopped_early"],
            best_step=last.best_step if last else None,
            weights_digest=kept.weights_digest,
            state_root=kept.state_root,
            final_blob=kept.blob,
            values=last.values if last else {},
        )
        failpoint("before-completion")
        await self._course.say(self._ended(end["step"]), completed)
        await child.order("leave", keep=False)

    async def _note_death(self, child: Child) -> None:
        end = child.exit
        if end is None or self._course.now.outcome is not None:
            return
        message = f"the training child (pid {child.pid}) {child.ending}"
        await self._course.say(
            ChildEnded(
                purpose="train", code=end.code, signal=end.signal, max_rss_bytes=end.max_rss_bytes, message=message
            )
        )


def _not_finite(session: SessionState, step: int) -> tuple[str, str]:
    """Message and cure for a session whose final weights are not finite."""
    message = f"the weights at step {step} are not finite, so there is nothing to keep."
    cure = "Lower optimizer.learning_rate, or set training.grad_clip and diagnosis.auto_fix."
    found = [seen for _, seen in session.diagnoses if seen.rule == "non_finite" and "step" in seen.figures]
    if not found:
        return message, cure
    first = int(found[-1].figures["step"])
    return (
        f"{message} {found[-1].message}",
        f"{found[-1].cure} Which rows that step saw: swarm trace {session.id} --step {first}",
    )
