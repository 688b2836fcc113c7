"""Answers every session that needs data: a dataset stands, or every reason why it cannot. The work is in a job."""

from __future__ import annotations

from contextlib import suppress

import orjson

from bus import subjects
from contracts.data_manager import DatasetPrepared, DatasetRejected
from contracts.errors import NotFound, NotVerified, OutOfMemory, Unreachable, UserCodeFailed
from contracts.fork import Fork
from contracts.operator import SessionRequested
from runtime import allowed
from runtime.agent import Agent, on
from runtime.ground import Case
from runtime.heeding import CancelledError, unless_cancelled
from runtime.processes.frames import Frame
from runtime.processes.profiles import torch_profile
from runtime.records.archive import known
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
            found = await unless_cancelled(case.history, self._prepared(data, case.history.id, asked.fork))
            return found if case.now.outcome is None else None
        except CancelledError:
            return None
        except (NotFound, NotVerified, OutOfMemory, UserCodeFailed) as error:
            if data["source"] != "workload":
                raise
            where = error.path or "data.workload"
            problem = {"path": where, "message": error.message, "cure": error.cure}
            return DatasetRejected(source=data["workload"], problems=[problem])

    async def _prepared(
        self, data: dict[str, object], session: str, fork: Fork | None
    ) -> DatasetPrepared | DatasetRejected:
        home, inherited = self.ground.home, self._inherited(fork)
        args = {
            "standing": inherited.root if inherited else None,
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
        if inherited and "stands" in answer:
            return inherited.model_copy(update={"reused": True})
        found = DatasetRejected(**answer) if "problems" in answer else DatasetPrepared.model_validate(answer)
        return _same(found, fork) if fork and isinstance(found, DatasetPrepared) else found

    def _inherited(self, fork: Fork | None) -> DatasetPrepared | None:
        """What the parent of a fork was told of its dataset, where the parent is known here."""
        parent = known(fork.session, self.ground.tail.histories, self.ground.home) if fork else None
        return parent.state.dataset if parent else None

    async def _show(self, session: str, frame: Frame) -> None:
        """Say how far a long reading is; nobody needs to hear it."""
        with suppress(Unreachable):
            await self.ground.wire.say(subjects.telemetry(session, "preparing"), orjson.dumps(frame.data))


def _same(found: DatasetPrepared, fork: Fork) -> DatasetPrepared | DatasetRejected:
    """A fork goes on with the very rows of its parent, or not at all."""
    if found.root == fork.dataset:
        return found
    message = f"the source gives the dataset {found.root} now, and {fork.session} was trained on {fork.dataset}"
    cure = "Restore the source as it was, or fork in the home that holds the parent's dataset."
    return DatasetRejected(source=found.source, problems=[{"path": "data", "message": message, "cure": cure}])
