"""One trainer's claim on a session: whether it may have it, where training begins, and what is said under it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from agents.trainer.decisions import starting_point
from agents.trainer.jobs import AttemptTask, Repetitions, StateFile
from agents.trainer.machine import MachineProbe
from agents.trainer.repeatability import missing_repetitions, rechecked_until
from contracts.data_manager import DatasetPrepared
from contracts.errors import Fenced, NotFound, NotVerified
from contracts.session import Checkpoint, SessionState
from contracts.trainer import CheckpointRefused, TrainingClaimed, TrainingFailed
from runtime.fork.start import start_state
from runtime.home.workload_file import read_source
from runtime.home.workloads import WorkloadEntry, Workloads
from runtime.jobs.failpoints import failpoint
from runtime.jobs.job import Seal
from runtime.node.agent import Say
from runtime.node.agent_context import Wakeup, unless_cancelled
from runtime.replay.initial_state import InheritedPlan, plan_of
from runtime.replay.jobs import MachineIdentity

if TYPE_CHECKING:
    from agents.trainer.agent import Sayings

T = TypeVar("T")


class SessionClaim:
    """The claim on a session, made once; `epoch` is None before. `now` is the fold, which changes with every event."""

    def __init__(self, wakeup: Wakeup, ready: DatasetPrepared, say: Say[Sayings], machine: MachineProbe) -> None:
        self.epoch: int | None = None
        self.grant: str | None = None
        """The event of the queue that gave the session its slot; None where no queue is kept."""
        self.unfit = False
        """Whether this machine cannot compute the session's bits."""
        self.unusable: set[str] = set()
        """Blobs of checkpoints that were passed over; an attempt removes those that it writes again."""
        self._wakeup = wakeup
        self._ready = ready
        self._say = say
        self._machine = machine
        self._context = wakeup.ground
        self._refusals: list[CheckpointRefused] = []
        self._verified = False
        self._before: int | None = None

    @property
    def now(self) -> SessionState:
        """The fold of the session as of now."""
        return self._wakeup.now

    def is_free(self) -> bool:
        """Whether the session may be claimed: it is unclaimed, ours, or its owner has been silent for too long."""
        if self.epoch is not None or (claim := self.now.training.claim) is None:
            return True
        instance = claim.incarnation.partition("/")[0]
        silent = self._context.presence.instance_silent_seconds("trainer", instance)
        return instance == self._context.instance or silent > self._context.settings.takeover_after_seconds

    async def say(self, *events: Sayings) -> None:
        """Append the events under this trainer's claim; `Fenced` when a newer claim owns the session."""
        await self._say(*events, epoch=self.epoch)

    async def fail(self, code: str, message: str, cure: str, frame: str = "") -> None:
        """Record that the session failed, where and with which cure; `Fenced` when another trainer owns it by now."""
        if not self.is_free():
            raise Fenced("what failed here has an owner elsewhere by now.", cure="Another trainer owns the session.")
        segment, step = self.now.training.segment.number, self.now.step
        await self.say(
            TrainingFailed(segment=segment, step=step, code=code, message=message[:4000], cure=cure, frame=frame)
        )

    async def make(self, *then: Sayings) -> None:
        """Claim the session under the next epoch unless it is claimed already, and append `then` in the same batch."""
        if self.epoch is not None:
            await self.say(*then)
            return
        session = self.now
        workloads = await self._workloads()
        if session.training.claim:
            resolved: Mapping[str, Any] = session.training.claim.resolved
            initial = session.training.claim.initial
        else:
            # Both run code and read files of the user's, which may hang.
            initial = await self._unless_cancelled(self._machine.bring(session))
            resolved = await self._unless_cancelled(self._machine.resolve(session, self._dataset, workloads, initial))
        numeric = {name: resolved[name] for name in ("threads", "device", "precision", "profile")}
        machine = await self._machine.identity(**numeric)
        identity = machine.identity
        if session.training.claim:
            self._refuse_unless_fit(session.training.claim, identity)
        start = await self._start()
        epoch = session.training.claim.epoch + 1 if session.training.claim else 1
        claim = TrainingClaimed(
            epoch=epoch,
            worker=self._context.settings.name,
            incarnation=f"{self._context.instance}/{self._context.incarnation}",
            segment=session.training.segment.number,
            resumed_from=start.written.step if start else session.training.begins,
            dataset=self._ready.root,
            resolved=dict(resolved),
            engine_bits=identity.engine_bits,
            fingerprint=identity.fingerprint,
            families=dict(identity.families),
            environment=dict(machine.environment),
            sources={workload.name: workload.digest for workload in workloads},
            initial=initial,
            grant=self.grant,
        )
        await self._say(claim, *then, epoch=epoch)
        self.epoch = epoch
        failpoint("between-claim-and-child")

    async def _unless_cancelled(self, work: Coroutine[Any, Any, T]) -> T:
        return await unless_cancelled(self._wakeup.history, work)

    def _refuse_unless_fit(self, first: TrainingClaimed, identity: MachineIdentity) -> None:
        """Raise `Fenced` when this machine or this software computes other bits than the first claim's."""
        if first.fingerprint != identity.fingerprint:
            differing = [name for name, seen in identity.families.items() if first.families.get(name) != seen]
            message = f"this machine computes other bits than the first claim's ({', '.join(differing[:5])})."
            raise self._unfit(message, "Leave the session to a machine with the same fingerprint.")
        if first.engine_bits != identity.engine_bits:
            ours = identity.engine_bits
            message = f"this software computes engine bits {ours}, the first claim's {first.engine_bits}."
            raise self._unfit(message, "Leave the session to a machine with the same version.")

    def _unfit(self, message: str, cure: str) -> Fenced:
        self.unfit = True
        return Fenced(message, cure=cure)

    async def _workloads(self) -> Sequence[WorkloadEntry]:
        """The user's code: the claimed version, even when the file has changed since."""
        known, blobs, claim = Workloads(self._context.home.root), self._context.blobs, self.now.training.claim
        if claim is None:
            needed = known.needed(self.now.request)
            for workload in needed:
                await asyncio.to_thread(blobs.put, read_source(Path(workload.path)))
            return needed
        claimed = [known.claimed(name, digest, blobs, trusted=True) for name, digest in claim.sources.items()]
        missing = [reason for _, reason in claimed if reason]
        if missing:
            raise self._unfit(f"this machine has not the {missing[0]}.", "Share the blob store, or: swarm workload add")
        return [workload for workload, _ in claimed if workload]

    # Where training begins, and with what.

    async def _start(self) -> Checkpoint | None:
        """The newest checkpoint whose bytes are present and sound; None for the session's first step.

        Those that are passed over are recorded as `checkpoint.refused` as soon as this trainer has its claim.
        """
        while (start := self.newest()) is not None:
            reason = await self.wrong_with(start)
            if not reason:
                break
            self.unusable.add(start.written.blob)
            earlier = self.newest()
            refusal = CheckpointRefused(
                segment=start.written.segment,
                step=start.written.step,
                blob=start.written.blob,
                reason=reason,
                instead=earlier.written.step if earlier else self.now.training.begins,
            )
            self._refusals.append(refusal)
        if self.epoch is not None and self._refusals:
            refusals, self._refusals = self._refusals, []
            await self.say(*refusals)
        return start

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that an attempt may begin from, as far as is known of their bytes."""
        until, owed = rechecked_until(self._wakeup.history.facts, self.now)
        before = [self._before] if missing_repetitions(self.now) and self._before is not None else []
        return starting_point(self.now, self.unusable, min([*before, *([until + 1] if owed else [])], default=None))

    def begin_before(self, step: int) -> None:
        """Let attempts start from checkpoints before this step while a repetition of user code is owed."""
        self._before = step

    async def wrong_with(self, checkpoint: Checkpoint) -> str:
        """Why a checkpoint's bytes cannot be used; empty when they can."""
        try:
            await asyncio.to_thread(self._context.blobs.check, checkpoint.written.blob)
        except (NotFound, NotVerified) as error:
            return str(error.message)
        return ""

    @property
    def _dataset(self) -> Path:
        """The folder of the prepared dataset in the blob store."""
        folder: Path = self._context.blobs.root / "datasets" / self._ready.root
        return folder

    async def task(self) -> tuple[AttemptTask, Checkpoint | None]:
        """What a training child is given, and the checkpoint at which it begins."""
        start = await self._start()
        for stale in (self._context.home.root / "work" / self._wakeup.history.id).glob("birth-*"):
            # Staged for a repetition by a child that died.
            stale.unlink(missing_ok=True)
        task = await self._task_from(start)
        self._verified = True
        return task, start

    async def task_before(self, step: int) -> AttemptTask:
        """As `task`, from the newest checkpoint that lies not after a step."""
        return await self._task_from(starting_point(self.now, self.unusable, step + 1))

    async def _task_from(self, start: Checkpoint | None) -> AttemptTask:
        session, blobs = self.now, self._context.blobs
        assert session.training.claim is not None  # noqa: S101 - an attempt follows a claim
        resolved = session.training.claim.resolved
        upto = start.written.step if start else session.training.begins
        inherited = InheritedPlan.of(session, blobs)
        state, workloads = await self._state(start), await self._workloads()
        on_path = [seen for seen in session.training.evaluations if seen.step <= upto]
        evaluations = [*inherited.evaluations, *((seen.step, seen.values[seen.metric]) for seen in on_path)]
        births, until = sorted(missing_repetitions(session)), rechecked_until(self._wakeup.history.facts, session)[0]
        repeats = births or session.request["training"].get("recheck", 0)
        folder = self._context.home.work(self._wakeup.history.id) if repeats else Path()
        return AttemptTask(
            plan=plan_of(session, inherited),
            seal=Seal(resolved["threads"], resolved["profile"]),
            device=resolved["device"],
            dataset=self._dataset,
            verify=not self._verified,
            blobs=blobs.root,
            resume=state,
            initial=session.training.claim.initial,
            evaluations=evaluations,
            workloads=workloads,
            repetitions=Repetitions(births, folder, f"birth-{self.epoch}", until),
            memory=self._context.settings.training_memory_bytes or None,
            paused_by_plan=session.training.paused_by_plan,
        )

    async def _state(self, start: Checkpoint | None) -> StateFile | None:
        """The state to begin in: that of a checkpoint, that of a fork's parent, or None for new weights."""
        context, fork = self._context, self.now.fork
        if start is not None:
            blob, root = start.written.blob, start.written.state_root
        elif fork is not None:
            parent = start_state(fork, context.blobs, context.home, context.children)
            blob, root = await self._unless_cancelled(parent)
        else:
            return None
        return StateFile(context.blobs.path(blob), root)
