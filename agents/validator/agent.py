"""Has checkpoints judged in children while training goes on, or after it. It judges and never steers."""

from __future__ import annotations

from typing import Any

from agents.validator.choosing import Task, is_gone, tasks
from contracts.checkpoint_keeper import CheckpointStored
from contracts.errors import NotFound, NotVerified, OutOfMemory, UserCodeFailed
from contracts.validator import CheckpointValidated, ValidationFailed
from runtime.agent import Agent, on
from runtime.ground import Case
from runtime.processes.profiles import torch_profile
from runtime.workloads import Workloads


class Validator(Agent):
    """Every best and every final checkpoint is judged on the validation split; the best one also on the test split."""

    @on
    async def judge(self, kept: CheckpointStored, case: Case) -> list[CheckpointValidated | ValidationFailed] | None:
        """One verdict per split; None for checkpoints that are kept for other reasons."""
        asked = tasks(kept, case.session, case.history.facts[: case.position])
        return [await self._verdict(task, case) for task in asked if not is_gone(task.written, case.now)] or None

    async def _verdict(self, task: Task, case: Case) -> CheckpointValidated | ValidationFailed:
        segment, step, blob = task.written.segment, task.written.step, task.written.blob
        try:
            answer = await self._judged(task, case)
        except (NotFound, NotVerified, OutOfMemory, UserCodeFailed) as error:
            return ValidationFailed(segment=segment, step=step, blob=blob, code=error.code, message=str(error))
        about = {"segment": segment, "step": step, "blob": blob, "split": task.split}
        return CheckpointValidated.model_validate(about | answer)

    async def _judged(self, task: Task, case: Case) -> dict[str, Any]:
        session, home = case.session, self.ground.home
        args = task.as_json() | {
            "blobs": str(self.ground.blobs.root),
            "workloads": [one.as_json() for one in Workloads(home.root).needed(session.request)],
        }
        resolved = args["claim"]["resolved"]
        log = home.session(session.id) / "validation.log"
        async with self.ground.children.job(
            "agents.validator.jobs.judge:main",
            args,
            profile=torch_profile(resolved["threads"], resolved["device"]),
            purpose="evaluate",
            session=session.id,
            log=log,
        ) as child:
            answer: dict[str, Any] = await child.wait()
            return answer
