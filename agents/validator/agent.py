"""Has checkpoints judged in children while training goes on, or after it. It judges and never steers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from agents.validator.tasks import (
    ControlComparison,
    JudgedState,
    SplitFigures,
    Task,
    compare_control,
    differing_values,
    is_gone,
    judge,
    tasks,
    tasks_at_end,
)
from contracts.checkpoint_keeper import CheckpointStored
from contracts.errors import NotFound, NotVerified, OutOfMemory, UserCodeFailed
from contracts.trainer import TrainingCompleted
from contracts.validator import CheckpointValidated, ValidationFailed
from runtime.home.workloads import Workloads
from runtime.node.agent import Agent, on
from runtime.node.agent_context import Wakeup
from runtime.replay.audit_runner import AuditJobs
from runtime.replay.audit_subject import machine_of
from runtime.replay.jobs import IdentityQuery

Judgement = CheckpointValidated | ValidationFailed


class Validator(Agent):
    """Every best and every final checkpoint is judged on the validation split; the best one also on the test split."""

    @on
    async def judge(self, kept: CheckpointStored, wakeup: Wakeup) -> list[Judgement] | None:
        """One verdict per split; None for checkpoints that are kept for other reasons."""
        return await self._verdicts(tasks(kept, wakeup.session, wakeup.history.facts[: wakeup.position]), wakeup)

    @on
    async def judge_end(self, ended: TrainingCompleted, wakeup: Wakeup) -> list[Judgement] | None:
        """What has become the end without another checkpoint: training was ended where there is a planned one."""
        return await self._verdicts(tasks_at_end(wakeup.session, wakeup.history.facts[: wakeup.position]), wakeup)

    async def _verdicts(self, asked: Sequence[Task], wakeup: Wakeup) -> list[Judgement] | None:
        return [await self._verdict(task, wakeup) for task in asked if not is_gone(task.written, wakeup.now)] or None

    async def _verdict(self, task: Task, wakeup: Wakeup) -> Judgement:
        segment, step, blob = task.written.segment, task.written.step, task.written.blob
        try:
            answer = await self._judged(task, wakeup)
        except (NotFound, NotVerified, OutOfMemory, UserCodeFailed) as error:
            return ValidationFailed(segment=segment, step=step, blob=blob, code=error.code, message=str(error))
        control, control_details = await self._compared(task, answer.values, wakeup)
        about = {"segment": segment, "step": step, "blob": blob, "split": task.split, "rows": answer.rows}
        metrics = {name.removeprefix(f"{task.split}_"): value for name, value in answer.values.items()}
        said = {
            "metrics": metrics,
            "control": control,
            "details": {**answer.details.model_dump(), "control": control_details},
        }
        return CheckpointValidated.model_validate(about | said)

    async def _compared(self, task: Task, values: Mapping[str, str], wakeup: Wakeup) -> ControlComparison:
        """The values beside the recorded ones; what bits this machine computes is measured only where they differ."""
        recorded = {name: value.hex() for name, value in task.recorded.items()}
        wrong, machine, here = differing_values(recorded, values), machine_of(task.claim), None
        if wrong:
            jobs = AuditJobs(self.ground.children, machine, wakeup.session.id, self._log(wakeup))
            here = await jobs.machine(IdentityQuery(machine.device, machine.precision))
        return compare_control(recorded, wrong, task.claim, here)

    def _log(self, wakeup: Wakeup) -> Path:
        folder: Path = self.ground.home.session(wakeup.session.id)
        return folder / "validation.log"

    async def _judged(self, task: Task, wakeup: Wakeup) -> SplitFigures:
        session, written = wakeup.session, task.written
        judged = JudgedState(
            blobs=self.ground.blobs.root,
            blob=written.blob,
            state_root=written.state_root,
            split=task.split,
            request=task.request,
            dataset=task.dataset,
            resolved=task.claim.resolved,
            changes=task.changes,
            step=written.step,
            workloads=Workloads(self.ground.home.root).needed(session.request),
        )
        return await self.ground.children.run(judge, judged, session=session.id, log=self._log(wakeup))
