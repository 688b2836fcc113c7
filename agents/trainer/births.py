"""The birth audit of user code: beside the training child, fresh ones repeat what it has lived, and both are compared.

What is owed follows from the fold, so the trainer that takes a session over repeats what has no recorded verdict yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from contracts.errors import ChildDied, SwarmError
from contracts.session import SessionState
from contracts.trainer import BirthAudited, TrainingFailed
from runtime.engine.stretch import Difference, StepTrace, compare
from runtime.jobs.profiles import torch_profile
from runtime.node.agent_context import Wakeup

JOB = "agents.trainer.jobs.birth:main"
TRIES = 3
"""Children that may die over one repetition before the session fails."""

_TASK, _PLACE = ("plan", "staged", "evaluations", "last"), ("seal", "dataset", "workloads")
"""What a repetition is given of the training; what came out there is not among it."""

Verdict = tuple[BirthAudited | TrainingFailed, ...]


def is_workload(session: SessionState) -> bool:
    """Whether it trains code of the user's."""
    return bool(session.request["model"]["architecture"] == "workload")


def owed(session: SessionState) -> set[str]:
    """The repetitions that the log still lacks: "window" and "evaluation" for user code, none for built-in models."""
    if not is_workload(session):
        return set()
    done = {"window"} if session.births else set()
    return {"window", "evaluation"} - done - {"evaluation" for one in session.births if one.evaluated}


class RepeatabilityCheck:
    """The repetitions of one attempt; those that run end with it. `arrived` is called when one has its verdict."""

    def __init__(self, case: Wakeup, arguments: Mapping[str, Any], arrived: Callable[[], None]) -> None:
        self._case = case
        self._args = arguments
        self._arrived = arrived
        self._running: list[asyncio.Task[Verdict]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    @property
    def pending(self) -> bool:
        """Whether a verdict is still to come, or to be said."""
        return bool(self._running)

    def begin(self, lived: Mapping[str, Any]) -> None:
        """Repeat in a child what the training child reported of one window, and compare."""
        task = asyncio.create_task(self._judged(lived))
        task.add_done_callback(lambda _: self._arrived())
        self._running.append(task)

    def verdicts(self) -> Verdict:
        """The events for repetitions that were compared since the last call; each is returned once."""
        done = [task for task in self._running if task.done()]
        self._running = [task for task in self._running if task not in done]
        return tuple(event for task in done for event in task.result())

    async def _judged(self, lived: Mapping[str, Any]) -> Verdict:
        try:
            found = await self._compared(lived)
        except SwarmError as error:
            return (self._failure(lived, error.as_json(), error.path),)
        finally:
            _forget(lived)
        said = BirthAudited(
            segment=lived["segment"],
            first=lived["first"],
            last=lived["last"],
            evaluated=lived["evaluated"],
            difference=found.what if found else "",
            tensor=found.tensor if found else "",
            suspects=list(found.suspects) if found else [],
        )
        return (said, self._failure(lived, found.error().as_json())) if found else (said,)

    async def _compared(self, lived: Mapping[str, Any]) -> Difference | None:
        """What came out otherwise; compared here, where no code of the user's has ever run."""
        answer = await self._repeated(lived)
        return compare(StepTrace.from_json(lived["stretch"]), StepTrace.from_json(answer.get("stretch") or {}))

    async def _repeated(self, lived: Mapping[str, Any]) -> dict[str, Any]:
        """The job's answer; a death may be an accident, three in a row are none."""
        for _ in range(TRIES - 1):
            try:
                return await self._asked(lived)
            except ChildDied:
                continue
        return await self._asked(lived)

    async def _asked(self, lived: Mapping[str, Any]) -> dict[str, Any]:
        case, resolved = self._case, self._args["plan"]["resolved"]
        args = {name: lived[name] for name in _TASK} | {name: self._args[name] for name in _PLACE}
        log = case.ground.home.session(case.history.id) / "birth.log"
        profile = torch_profile(resolved["threads"], resolved["device"])
        children, session = case.ground.children, case.history.id
        async with children.job(JOB, args, profile=profile, purpose="audit", session=session, log=log) as child:
            return await child.wait()

    def _failure(self, lived: Mapping[str, Any], error: Mapping[str, str], frame: str = "") -> TrainingFailed:
        return TrainingFailed(
            segment=lived["segment"],
            step=lived["last"],
            code=error["code"],
            message=error["message"][:4000],
            cure=error["cure"],
            frame=frame,
        )


def _forget(lived: Mapping[str, Any]) -> None:
    Path(lived["staged"]).unlink(missing_ok=True)
