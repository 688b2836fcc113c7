"""One trainer's way through one session: attempts in children, windows into the log, decisions at grid steps.

Everything that steers is read from the fold; what this object remembers can be lost at any moment.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import orjson

from agents.trainer.decisions import Decision, judged, next_decision, stale_proposals
from agents.trainer.inbox import Inbox, frames_of
from agents.trainer.machine import Machine, seal_of
from agents.trainer.path import Recorded, key_range, starting_point
from contracts.common import ChildEnded
from contracts.data_manager import DatasetPrepared
from contracts.errors import ChildDied, Fenced, Full, NotFound, NotVerified, SwarmError, UserCodeFailed
from contracts.event import SPOKEN, Event
from contracts.operator import CancelRequested, ResumeRequested
from contracts.session import Checkpoint, Session
from contracts.trainer import (
    AttemptEnded,
    CheckpointRefused,
    CheckpointWritten,
    ControlEvaluated,
    DivergenceFound,
    InterventionApplied,
    InterventionDeclined,
    JudgementWaived,
    TrainingCancelled,
    TrainingClaimed,
    TrainingCompleted,
    TrainingFailed,
    TrainingPaused,
    TrainingResumed,
    WindowRecorded,
    WindowsReproduced,
)
from runtime.agent import Say
from runtime.child import Child
from runtime.failpoints import failpoint
from runtime.frames import Frame
from runtime.ground import Case
from runtime.profiles import torch_profile
from runtime.workloads import Workloads

Sayings = (
    TrainingClaimed
    | WindowRecorded
    | ControlEvaluated
    | CheckpointWritten
    | CheckpointRefused
    | AttemptEnded
    | WindowsReproduced
    | DivergenceFound
    | InterventionApplied
    | InterventionDeclined
    | JudgementWaived
    | TrainingPaused
    | TrainingResumed
    | TrainingCompleted
    | TrainingFailed
    | TrainingCancelled
    | ChildEnded
)

MOST_DEATHS = 3
"""Children of one course that may die without a new window before the session fails."""


class Course:
    """The trainer's work on one session."""

    def __init__(self, case: Case, ready: DatasetPrepared, say: Say[Sayings], machine: Machine) -> None:
        self.case = case
        self.epoch: int | None = None
        self._ready = ready
        self._voice = say
        self._machine = machine
        self._ground = case.ground
        self._unusable: set[str] = set()
        self._refusals: list[CheckpointRefused] = []
        self._deaths = 0
        self._verified = False

    @property
    def now(self) -> Session:
        """The session at this moment."""
        return self.case.now

    async def until_resumed(self) -> None:
        """Wait for a person's wish to go on, or to end."""
        while True:
            wishes = [wish for _, wish in self.now.wishes]
            if any(isinstance(wish, CancelRequested) for wish in wishes):
                await self._claim()
                await self._end(TrainingCancelled(segment=self.now.segment.number, step=self.now.step))
                return
            if any(isinstance(wish, ResumeRequested) for wish in wishes):
                await self._claim()
                return
            await self.case.history.grown(self.case.history.size)

    async def attempt(self) -> bool:
        """Train in one child until something ends it; True when another attempt is due."""
        try:
            await self._claim()
            return await Attempt(self, await self._arguments()).run()
        except Fenced:
            raise
        except ChildDied as error:
            return await self._after_death(error)
        except NotVerified as error:
            return await self._without_checkpoint(error)
        except UserCodeFailed as error:
            await self._fail("user-code-failed", error.message, error.cure, error.path)
        except Full as error:
            await self._fail("disk-full", error.message, error.cure)
        except SwarmError as error:
            await self._fail(error.code, error.message, error.cure)
        return False

    async def say(self, *events: Sayings) -> None:
        """Append under this course's claim."""
        await self._voice(*events, epoch=self.epoch)

    async def _end(self, event: Sayings) -> None:
        await self.say(event)

    async def _fail(self, code: str, message: str, cure: str, frame: str = "") -> None:
        segment, step = self.now.segment.number, self.now.step
        await self.say(
            TrainingFailed(segment=segment, step=step, code=code, message=message[:4000], cure=cure, frame=frame)
        )

    async def _after_death(self, error: ChildDied) -> bool:
        self._deaths += 1
        if self._deaths < MOST_DEATHS:
            return True
        await self._fail("child-died", f"{error.message} This happened {self._deaths} times in a row.", error.cure)
        return False

    async def _without_checkpoint(self, error: NotVerified) -> bool:
        """Another attempt when it is the checkpoint that does not hold; anything else will not hold the next time."""
        start = starting_point(self.now, self._unusable)
        if start is not None and await self._wrong_with(start):
            return True
        await self._fail(error.code, error.message, error.cure)
        return False

    async def _start(self) -> Checkpoint | None:
        """The newest checkpoint whose bytes are there and sound; those passed over are told once there is a claim."""
        while (start := starting_point(self.now, self._unusable)) is not None:
            reason = await self._wrong_with(start)
            if not reason:
                break
            self._unusable.add(start.written.blob)
            earlier = starting_point(self.now, self._unusable)
            refusal = CheckpointRefused(
                segment=start.written.segment,
                step=start.written.step,
                blob=start.written.blob,
                reason=reason,
                instead=earlier.written.step if earlier else 0,
            )
            self._refusals.append(refusal)
        if self.epoch is not None and self._refusals:
            told, self._refusals = self._refusals, []
            await self.say(*told)
        return start

    async def _wrong_with(self, kept: Checkpoint) -> str:
        """Why a checkpoint's bytes cannot be used; nothing when they can."""
        try:
            await asyncio.to_thread(self._ground.blobs.check, kept.written.blob)
        except (NotFound, NotVerified) as error:
            return str(error.message)
        return ""

    @property
    def unusable(self) -> set[str]:
        """Blobs of checkpoints passed over; one that is written again may be used again."""
        return self._unusable

    def alive(self) -> None:
        """A window has been computed: whatever killed earlier children was passed."""
        self._deaths = 0

    async def _claim(self) -> None:
        if self.epoch is not None:
            return
        await self._until_free()
        session = self.now
        dataset = str(self.dataset)
        named = self._workloads()
        resolved = session.claim.resolved if session.claim else None
        if resolved is None:
            resolved = await self._machine.resolve(session, dataset, named)
        who = await self._machine.identity(
            threads=resolved["threads"],
            device=resolved["device"],
            precision=resolved["precision"],
            profile=resolved["profile"],
        )
        if session.claim and session.claim.fingerprint != who["fingerprint"]:
            differing = [name for name, seen in who["families"].items() if session.claim.families.get(name) != seen]
            raise Fenced(
                f"this machine computes other bits than the first claim's ({', '.join(differing[:5])}).",
                cure="Leave the session to a machine with the same fingerprint.",
            )
        start = await self._start()
        epoch = session.claim.epoch + 1 if session.claim else 1
        claim = TrainingClaimed(
            epoch=epoch,
            worker=self._ground.settings.name,
            incarnation=f"{self._ground.instance}/{self._ground.incarnation}",
            segment=session.segment.number,
            resumed_from=start.written.step if start else 0,
            dataset=self._ready.root,
            resolved=resolved,
            engine_bits=who["engine_bits"],
            fingerprint=who["fingerprint"],
            families=who["families"],
            environment=who["environment"],
            sources={one["name"]: one["digest"] for one in named},
        )
        await self._voice(claim, epoch=epoch)
        self.epoch = epoch
        failpoint("between-claim-and-child")

    def _workloads(self) -> list[dict[str, str]]:
        return [one.as_json() for one in Workloads(self._ground.home.root).needed(self.now.request)]

    async def _until_free(self) -> None:
        """A claim of this home's earlier life is taken over at once, another machine's after it fell silent."""
        while (claim := self.now.claim) is not None:
            instance, _, incarnation = claim.incarnation.partition("/")
            mine = instance == self._ground.instance
            silent = self._ground.presence.instance_silent_seconds("trainer", instance)
            if mine or silent > self._ground.settings.takeover_after_seconds or self.now.outcome:
                if mine and incarnation == self._ground.incarnation:
                    self.epoch = claim.epoch
                return
            await asyncio.sleep(1)

    @property
    def dataset(self) -> Any:
        """Where the prepared data stand."""
        return self._ground.blobs.root / "datasets" / self._ready.root

    async def _arguments(self) -> tuple[dict[str, Any], Checkpoint | None]:
        start = await self._start()
        session = self.now
        assert session.claim is not None  # noqa: S101 - an attempt follows a claim
        resolved = session.claim.resolved
        upto = start.written.step if start else 0
        path = [seen for seen in session.evaluations if seen.step <= upto]
        changes = [{"step": one.begins, **one.changes} for one in session.segments[1:]]
        args = {
            "plan": {"request": session.request, "resolved": resolved, "changes": changes},
            "seal": seal_of(resolved["threads"], resolved["profile"]),
            "dataset": str(self.dataset),
            "verify": not self._verified,
            "blobs": str(self._ground.blobs.root),
            "resume": None,
            "evaluations": [[seen.step, seen.values[seen.metric].hex()] for seen in path],
            "workloads": self._workloads(),
        }
        if start is not None:
            place = self._ground.blobs.path(start.written.blob)
            args["resume"] = {"path": str(place), "state_root": start.written.state_root}
        self._verified = True
        return args, start


class Attempt:
    """One child's life."""

    def __init__(self, course: Course, arguments: tuple[dict[str, Any], Checkpoint | None]) -> None:
        self._course = course
        self._args, start = arguments
        case = course.case
        step = start.written.step if start else 0
        self._recorded = Recorded.of(case.history.facts, course.now, step, course.unusable)
        self._seconds: dict[str, float] = {}
        self._from = step
        self._holding = False
        self._held: int | None = None
        self._finished: dict[str, Any] | None = None

    async def run(self) -> bool:
        """Train until the child leaves; True when another attempt is due."""
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
        ):
            try:
                return await self._follow(child, inbox)
            except ChildDied:
                if child.exit is not None:
                    await self._note_death(child)
                raise

    async def _follow(self, child: Child, inbox: Inbox) -> bool:
        while True:
            child.resting = self._held is not None or self._finished is not None
            news = await inbox.take(timeout=1.0 if self._finished else None)
            await self._append(frames_of(news))
            if self._course.now.outcome is not None:
                return False
            stale = stale_proposals(self._course.now)
            if stale:
                reason = "the segment it was made for is over"
                await self._course.say(*(InterventionDeclined(proposal=one, reason=reason) for one in stale))
            draining = self._course.case.ground.draining.is_set()
            decision = next_decision(self._course.now, draining=draining)
            if decision is None:
                if self._finished and await self._may_complete():
                    await self._complete(child)
                    return False
                continue
            if self._held is None:
                await self._hold(child)
                continue
            again = await self._act(decision, child, inbox)
            if again is not None:
                return again

    async def _hold(self, child: Child) -> None:
        if not self._holding:
            self._holding = True
            await child.order("hold")

    async def _append(self, frames: list[Frame]) -> None:
        """Say what is new, compare what is not, notice where the child stands."""
        fresh: list[Event] = []
        for frame in frames:
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
        assert isinstance(event, WindowRecorded | ControlEvaluated | CheckpointWritten)  # noqa: S101 - all it tells
        verdict = self._recorded.take(event)
        if isinstance(event, CheckpointWritten):
            self._course.unusable.discard(event.blob)
        if verdict is True:
            return [*self._reproduced(event), event]
        if isinstance(verdict, DivergenceFound):
            failure = TrainingFailed(
                segment=verdict.segment,
                step=verdict.last,
                code="divergence",
                message=f"{verdict.field} of steps {verdict.first}..{verdict.last} came out differently.",
                cure="The machine or the code is not what it was; compare: swarm show --json",
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
        """Do what was decided at the step at which the child holds; None when the same child goes on."""
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
        """Where this child's time went, as it told when it last held."""
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

    async def _may_complete(self) -> bool:
        """Whether every automatic rule has seen the last window, or nobody is there to apply them."""
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
            message = f"the weights at step {end['step']} are not finite, so there is nothing to keep."
            cure = "Lower optimizer.learning_rate, or set training.grad_clip and diagnosis.auto_fix."
            await self._course._fail("non-finite", message, cure)  # noqa: SLF001 - two parts of one trainer
            return
        kept, last = final[-1].written, session.evaluations[-1] if session.evaluations else None
        best = session.best
        completed = TrainingCompleted(
            segment=session.segment.number,
            step=end["step"],
            epochs=last.epoch if last else 0,
            stopped_early=end["stopped_early"],
            best_step=best.step if best else None,
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
        message = f"the training child (pid {child.pid}) ended before its plan did"
        await self._course.say(
            ChildEnded(
                purpose="train", code=end.code, signal=end.signal, max_rss_bytes=end.max_rss_bytes, message=message
            )
        )
