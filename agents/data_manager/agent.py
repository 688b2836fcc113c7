"""Answers every session that needs data: a dataset stands, or every reason why it cannot. The work is in a job."""

from __future__ import annotations

from contextlib import suppress

import orjson

from bus import subjects
from contracts.data_manager import DatasetPrepared, DatasetRejected
from contracts.errors import NotFound, NotVerified, OutOfMemory, Unreachable, UserCodeFailed
from contracts.operator import SessionRequested
from runtime import allowed
from runtime.agent import Agent, on
from runtime.frames import Frame
from runtime.ground import Case
from runtime.profiles import torch_profile
from runtime.workloads import Workloads


class DataManager(Agent):
    """Reads a source, checks, splits and writes it once; sessions with the same data share the dataset."""

    @on
    async def prepare(self, asked: SessionRequested, case: Case) -> DatasetPrepared | DatasetRejected | None:
        """Training and trials need data; other kinds of session are nobody's business here."""
        if asked.kind not in ("training", "trial"):
            return None
        data = asked.request["data"]
        try:
            return await self._prepared(data, case.history.id)
        except (NotFound, NotVerified, OutOfMemory, UserCodeFailed) as error:
            if data["source"] != "workload":
                raise
            where = error.path or "data.workload"
            problem = {"path": where, "message": error.message, "cure": error.cure}
            return DatasetRejected(source=data["workload"], problems=[problem])

    async def _prepared(self, data: dict[str, object], session: str) -> DatasetPrepared | DatasetRejected:
        home = self.ground.home
        args = {
            "data": data,
            "session": session,
            "store": str(self.ground.blobs.root / "datasets"),
            "roots": [str(root) for root in allowed.roots(home, self.ground.settings)],
            "trusted": list(self.ground.settings.trusted_data),
            "workloads": [one.as_json() for one in Workloads(home.root).needed({"data": data})],
        }
        log = home.session(session) / "preparation.log"
        job = "agents.data_manager.jobs.prepare:main"
        children = self.ground.children
        async with children.job(
            job, args, profile=torch_profile(), purpose="prepare", session=session, log=log
        ) as child:
            async for frame in child:
                await self._show(session, frame)
            answer = child.result or {}
        return DatasetRejected(**answer) if "problems" in answer else DatasetPrepared.model_validate(answer)

    async def _show(self, session: str, frame: Frame) -> None:
        """Say how far a long reading is; nobody needs to hear it."""
        with suppress(Unreachable):
            await self.ground.wire.say(subjects.telemetry(session, "preparing"), orjson.dumps(frame.data))
