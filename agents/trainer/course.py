"""One trainer's work on one session: it waits for its turn, claims, runs attempts, and records how the session ends.

Decisions are read from the fold; what this object remembers may be lost at any moment without harm. When a host dies
between an append and its acknowledgement, the next claim begins at the newest checkpoint, and `agents.trainer.path`
compares what is computed again with what the log has.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from agents.trainer import births
from agents.trainer.attempt import Attempt
from agents.trainer.machine import MachineProbe, seal_of
from agents.trainer.path import starting_point
from agents.trainer.turns import place
from contracts.common import ChildEnded
from contracts.data_manager import DatasetPrepared
from contracts.errors import ChildDied, Fenced, Full, NotFound, NotVerified, OutOfMemory, SwarmError, UserCodeFailed
from contracts.operator import CancelRequested, PauseRequested, ResumeRequested
from contracts.session import Checkpoint, SessionState
from contracts.trainer import (
    AttemptEnded,
    BirthAudited,
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
from runtime.fork.start import start_state
from runtime.home.workload_file import read_source
from runtime.home.workloads import Workloads
from runtime.jobs.failpoints import failpoint
from runtime.node.agent import Say
from runtime.node.agent_context import CancelledError, Wakeup, first_done, unless_cancelled, wish_to_cancel
from runtime.replay.initial_state import InheritedPlan, plan_of

T = TypeVar("T")

Sayings = (
    TrainingClaimed
    | WindowRecorded
    | ControlEvaluated
    | CheckpointWritten
    | CheckpointRefused
    | AttemptEnded
    | WindowsReproduced
    | DivergenceFound
    | BirthAudited
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
"""Children that may die one after another without a new window before the session fails."""

_ROOM = 4
"""After a full disk, training is tried again once so many checkpoints of the largest size fit."""

_LOOK_AGAIN = 0.5
"""Seconds between two looks at the free disk space."""


class SessionRun:
    """Trains one session: `due` waits until this trainer may, `attempt` trains until something ends it."""

    def __init__(self, case: Wakeup, ready: DatasetPrepared, say: Say[Sayings], machine: MachineProbe) -> None:
        self.case = case
        self.epoch: int | None = None
        self.unfit = False
        """Whether this machine cannot compute the session's bits."""
        self._ready = ready
        self._voice = say
        self._machine = machine
        self._ground = case.ground
        self._unusable: set[str] = set()
        self._refusals: list[CheckpointRefused] = []
        self._deaths = 0
        self._cramped = 0
        self._verified = False
        self._before: int | None = None

    @property
    def now(self) -> SessionState:
        """The fold of the session as of now; it changes with every admitted event."""
        return self.case.now

    async def due(self) -> bool:
        """Wait until this trainer may train: no other one owns the session and no person has paused it.

        False when the session has ended. Cancels, pauses and resumes are carried out here while it waits.
        """
        while self.now.outcome is None:
            wishes = {type(wish) for _, wish in self.now.wishes}
            if not self._is_free():
                self.rest()
                await asyncio.sleep(min(1.0, self._ground.settings.takeover_after_seconds / 3))
            elif CancelRequested in wishes:
                await self.cancel()
            elif self._paused_between_attempts(wishes):
                await self._claim(TrainingPaused(by="person", segment=self.now.segment.number, step=self.now.step))
            elif self.now.pause is None or self.now.pause.by != "person":
                if await self._turn():
                    return True
            elif ResumeRequested in wishes:
                await self._claim(TrainingResumed(segment=self.now.segment.number, step=self.now.step))
            else:
                await self.case.history.grown(self.case.history.size)
        return False

    async def _turn(self) -> bool:
        """Whether this session may train now; if not, wait until a turn is free or the session has changed."""
        turns, history = self._machine.turns, self.case.history
        turns.ask(history.id, place(self.now, history.facts[0].seq))
        # After a restart all sessions ask before any is answered.
        await asyncio.sleep(0)
        if not self._ground.draining.is_set() and turns.take(history.id):
            return True
        await first_done(turns.changed(), history.grown(history.size))
        return False

    def rest(self) -> None:
        """Give the turn back, so that another session of this process may train."""
        self._machine.turns.leave(self.case.history.id)

    def _paused_between_attempts(self, wishes: set[type]) -> bool:
        """Whether a pause was asked for and the child that should have obeyed it died: the next one might hang too."""
        return PauseRequested in wishes and self.now.claim is not None and self._deaths > 0

    async def cancel(self) -> None:
        """Record that the session was cancelled at its last recorded step; claim it first if any trainer ever did."""
        wish = wish_to_cancel(self.now)
        reason = wish.reason if wish else ""
        cancelled = TrainingCancelled(segment=self.now.segment.number, step=self.now.step, reason=reason)
        await (self.say(cancelled) if self.now.claim is None else self._claim(cancelled))

    async def attempt(self) -> bool:
        """Claim the session and train in one child until something ends it; True when another attempt is due.

        Raises `Fenced` when another trainer owns the session. Other errors end in an event or in a new attempt.
        """
        try:
            await self._claim()
            return await Attempt(self, await self._arguments()).run()
        except Fenced:
            raise
        except CancelledError:
            return True  # another attempt is due as far as this one knows; whether it is to be, `due` says
        except ChildDied as error:
            return await self._after_death(error)
        except NotVerified as error:
            return await self._without_checkpoint(error)
        except (OutOfMemory, UserCodeFailed) as error:
            await self.fail(error.code, error.message, error.cure, error.path)
        except Full as error:
            return await self._until_room(error)
        except SwarmError as error:
            await self.fail(error.code, error.message, error.cure)
        return False

    async def _until_room(self, error: Full) -> bool:
        """Record that the disk is full and wait until there is room or a cancel; then another attempt is due."""
        waits = f"{error.message} Training goes on from its last checkpoint when there is room."
        await self.say(ChildEnded(purpose="train", code=1, signal=None, max_rss_bytes=0, message=waits))
        size = max((one.written.bytes for one in self.now.checkpoints), default=1 << 20)
        # A quota or a lack of inodes does not show in what is free, so each try without a new window waits longer.
        patience = asyncio.get_running_loop().time() + _LOOK_AGAIN * 2 ** min(self._cramped, 7)
        self._cramped += 1
        while patience > asyncio.get_running_loop().time() or self._free() < _ROOM * size:
            if wish_to_cancel(self.now):
                break
            await asyncio.sleep(_LOOK_AGAIN)
        return True

    def _free(self) -> int:
        return shutil.disk_usage(self._ground.blobs.root).free

    async def say(self, *events: Sayings) -> None:
        """Append the events under this trainer's claim; `Fenced` when a newer claim owns the session."""
        await self._voice(*events, epoch=self.epoch)

    async def fail(self, code: str, message: str, cure: str, frame: str = "") -> None:
        """Record that the session failed, where and with which cure; `Fenced` when another trainer owns it by now."""
        if not self._is_free():
            raise Fenced("what failed here has an owner elsewhere by now.", cure="Another trainer owns the session.")
        segment, step = self.now.segment.number, self.now.step
        await self.say(
            TrainingFailed(segment=segment, step=step, code=code, message=message[:4000], cure=cure, frame=frame)
        )

    async def _after_death(self, error: ChildDied) -> bool:
        self._deaths += 1
        wished = any(isinstance(wish, CancelRequested | PauseRequested) for _, wish in self.now.wishes)
        if wished or self._deaths < MOST_DEATHS:
            return True
        await self.fail("child-died", f"{error.message} This happened {self._deaths} times in a row.", error.cure)
        return False

    async def _without_checkpoint(self, error: NotVerified) -> bool:
        """Whether a damaged checkpoint explains the error, so that an earlier one may do; else the session fails."""
        start = self._newest()
        if start is not None and await self._wrong_with(start):
            return True
        await self.fail(error.code, error.message, error.cure)
        return False

    async def _start(self) -> Checkpoint | None:
        """The newest checkpoint whose bytes are present and sound; None for the session's first step.

        Those that are passed over are recorded as `checkpoint.refused` as soon as this trainer has its claim.
        """
        while (start := self._newest()) is not None:
            reason = await self._wrong_with(start)
            if not reason:
                break
            self._unusable.add(start.written.blob)
            earlier = self._newest()
            refusal = CheckpointRefused(
                segment=start.written.segment,
                step=start.written.step,
                blob=start.written.blob,
                reason=reason,
                instead=earlier.written.step if earlier else self.now.begins,
            )
            self._refusals.append(refusal)
        if self.epoch is not None and self._refusals:
            told, self._refusals = self._refusals, []
            await self.say(*told)
        return start

    def _newest(self) -> Checkpoint | None:
        before = self._before if births.owed(self.now) else None
        return starting_point(self.now, self._unusable, before)

    def begin_before(self, step: int) -> None:
        """Let attempts start from checkpoints before this step while a repetition of user code is owed."""
        self._before = step

    async def _wrong_with(self, kept: Checkpoint) -> str:
        """Why a checkpoint's bytes cannot be used; empty when they can."""
        try:
            await asyncio.to_thread(self._ground.blobs.check, kept.written.blob)
        except (NotFound, NotVerified) as error:
            return str(error.message)
        return ""

    @property
    def unusable(self) -> set[str]:
        """Blobs of checkpoints that were passed over; an attempt removes those that it writes again."""
        return self._unusable

    def alive(self) -> None:
        """Note that a window was computed: deaths and full disks before it no longer count."""
        self._deaths = self._cramped = 0

    async def _claim(self, *then: Sayings) -> None:
        """Claim the session under the next epoch unless it is claimed already, and append `then` in the same batch."""
        if self.epoch is not None:
            await self.say(*then)
            return
        session = self.now
        named = await self._workloads()
        if session.claim:
            resolved, initial = session.claim.resolved, session.claim.initial
        else:
            # Both run code and read files of the user's, which may hang.
            initial = await self._heeding(self._machine.bring(session))
            resolved = await self._heeding(self._machine.resolve(session, str(self.dataset), named, initial))
        who = await self._machine.identity(
            threads=resolved["threads"],
            device=resolved["device"],
            precision=resolved["precision"],
            profile=resolved["profile"],
        )
        if session.claim:
            self._refuse_unless_fit(session.claim, who)
        start = await self._start()
        epoch = session.claim.epoch + 1 if session.claim else 1
        claim = TrainingClaimed(
            epoch=epoch,
            worker=self._ground.settings.name,
            incarnation=f"{self._ground.instance}/{self._ground.incarnation}",
            segment=session.segment.number,
            resumed_from=start.written.step if start else session.begins,
            dataset=self._ready.root,
            resolved=resolved,
            engine_bits=who["engine_bits"],
            fingerprint=who["fingerprint"],
            families=who["families"],
            environment=who["environment"],
            sources={one["name"]: one["digest"] for one in named},
            initial=initial,
        )
        await self._voice(claim, *then, epoch=epoch)
        self.epoch = epoch
        failpoint("between-claim-and-child")

    async def _heeding(self, work: Coroutine[Any, Any, T]) -> T:
        return await unless_cancelled(self.case.history, work)

    def _refuse_unless_fit(self, first: TrainingClaimed, who: dict[str, Any]) -> None:
        """Raise `Fenced` when this machine or this software computes other bits than the first claim's."""
        if first.fingerprint != who["fingerprint"]:
            differing = [name for name, seen in who["families"].items() if first.families.get(name) != seen]
            message = f"this machine computes other bits than the first claim's ({', '.join(differing[:5])})."
            raise self._unfit(message, "Leave the session to a machine with the same fingerprint.")
        if first.engine_bits != who["engine_bits"]:
            message = f"this software computes engine bits {who['engine_bits']}, the first claim's {first.engine_bits}."
            raise self._unfit(message, "Leave the session to a machine with the same version.")

    def _unfit(self, message: str, cure: str) -> Fenced:
        self.unfit = True
        return Fenced(message, cure=cure)

    async def _workloads(self) -> list[dict[str, str]]:
        """The user's code as jobs take it: the claimed version, even when the file has changed since."""
        known, blobs, claim = Workloads(self._ground.home.root), self._ground.blobs, self.now.claim
        if claim is None:
            named = known.needed(self.now.request)
            for one in named:
                await asyncio.to_thread(blobs.put, read_source(Path(one.path)))
            return [one.as_json() for one in named]
        found = [known.claimed(name, digest, blobs, trusted=True) for name, digest in claim.sources.items()]
        missing = [reason for _, reason in found if reason]
        if missing:
            raise self._unfit(f"this machine has not the {missing[0]}.", "Share the blob store, or: swarm workload add")
        return [one.as_json() for one, _ in found if one]

    def _is_free(self) -> bool:
        """Whether the session may be claimed: it is unclaimed, ours, or its owner has been silent for too long."""
        if self.epoch is not None or (claim := self.now.claim) is None:
            return True
        instance = claim.incarnation.partition("/")[0]
        silent = self._ground.presence.instance_silent_seconds("trainer", instance)
        return instance == self._ground.instance or silent > self._ground.settings.takeover_after_seconds

    @property
    def dataset(self) -> Any:
        """The folder of the prepared dataset in the blob store."""
        return self._ground.blobs.root / "datasets" / self._ready.root

    async def _arguments(self) -> tuple[dict[str, Any], Checkpoint | None]:
        start = await self._start()
        session = self.now
        assert session.claim is not None  # noqa: S101 - an attempt follows a claim
        resolved = session.claim.resolved
        upto = start.written.step if start else session.begins
        path = [seen for seen in session.evaluations if seen.step <= upto]
        heritage = InheritedPlan.of(session, self._ground.blobs)
        seen = [*heritage.evaluations, *((one.step, one.values[one.metric]) for one in path)]
        args = {
            "plan": plan_of(session, heritage),
            "seal": seal_of(resolved["threads"], resolved["profile"]),
            "dataset": str(self.dataset),
            "verify": not self._verified,
            "blobs": str(self._ground.blobs.root),
            "resume": await self._state(start),
            "initial": session.claim.initial,
            "evaluations": [[step, value.hex()] for step, value in seen],
            "workloads": await self._workloads(),
            "birth": self._birth(),
        }
        self._verified = True
        return args, start

    def _birth(self) -> dict[str, Any]:
        """Which repetitions of user code are owed, and where the child puts what they need."""
        owed = sorted(births.owed(self.now))
        folder = self._ground.home.work(self.case.history.id) if owed else ""
        return {"owed": owed, "folder": str(folder), "name": f"birth-{self.epoch}"}

    async def _state(self, start: Checkpoint | None) -> dict[str, str] | None:
        """The state to begin in: that of a checkpoint, that of a fork's parent, or None for new weights."""
        if start is not None:
            blob, root = start.written.blob, start.written.state_root
        elif self.now.fork is not None:
            ground = self._ground
            blob, root = await self._heeding(start_state(self.now.fork, ground.blobs, ground.home, ground.children))
        else:
            return None
        return {"path": str(self._ground.blobs.path(blob)), "state_root": root}
