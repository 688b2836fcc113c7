"""Answers every session that needs data, with a dataset or with every reason against it. The work is in a job."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import orjson

from bus import subjects
from contracts.data_manager import DatasetPrepared, DatasetRejected
from contracts.errors import NotFound, NotVerified, OutOfMemory, Unreachable, UserCodeFailed
from contracts.fork import Fork
from contracts.operator import SessionRequested
from runtime.home import allowed
from runtime.home.workloads import Workloads
from runtime.jobs import process
from runtime.jobs.profiles import torch_profile
from runtime.log.archive import known
from runtime.node.agent import Agent, on
from runtime.node.agent_context import SessionCancelled, Wakeup, unless_cancelled

PREPARE = "agents.data_manager.jobs.prepare:main"


class DataManager(Agent):
    """Prepares datasets: reads, checks, splits and writes a source once; sessions with the same data share it."""

    jobs: ClassVar = {"prepare": PREPARE}

    def __init__(self, ground: Any = None) -> None:
        """Who prepares what here, and how many at once."""
        super().__init__(ground)
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self._places = asyncio.Semaphore(max(2, process.cores()))

    @on
    async def prepare(self, asked: SessionRequested, wakeup: Wakeup) -> DatasetPrepared | DatasetRejected | None:
        """Prepare the data of a training or a trial; other kinds of session need none."""
        if not wakeup.session.kind.trains:
            return None
        data = asked.request["data"]
        try:
            answer = await unless_cancelled(wakeup.history, self._prepare(data, wakeup.history.id, asked.fork))
            return answer if wakeup.now.outcome is None else None
        except SessionCancelled:
            return None
        except (NotFound, NotVerified, OutOfMemory, UserCodeFailed) as error:
            if data["source"] != "workload":
                raise
            where = error.path or "data.workload"
            problem = {"path": where, "message": error.message, "cure": error.cure}
            return DatasetRejected(source=data["workload"], problems=[problem])

    async def _prepare(
        self, data: dict[str, object], session: str, fork: Fork | None
    ) -> DatasetPrepared | DatasetRejected:
        home, inherited = self.ground.home, self._inherited(fork)
        args = {
            "standing": inherited.root if inherited else None,
            "data": data,
            "session": session,
            "store": str(self.ground.blobs.root / "datasets"),
            "roots": [str(root) for root in allowed.roots(home, self.ground.settings, session)],
            "trusted": list(self.ground.settings.trusted_data),
            "workloads": [workload.as_json() for workload in Workloads(home.root).needed({"data": data})],
        }
        # One at a time prepares the same data, and the others find them; at most so many at once prepare any.
        key = orjson.dumps((args["data"], args["workloads"]), option=orjson.OPT_SORT_KEYS)
        # A lock is remembered as long as a task holds it or waits for it.
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock, self._places:
            answer = await self._ask(args, session)
        if inherited and "stands" in answer:
            return inherited.model_copy(update={"reused": True})
        if "problems" in answer:
            return DatasetRejected(**answer)
        dataset = DatasetPrepared.model_validate(answer)
        if fork is None or dataset.root == fork.dataset:
            return dataset
        # A fork goes on with the very rows of its parent, or not at all.
        message = f"the source gives the dataset {dataset.root} now, and {fork.session} was trained on {fork.dataset}"
        cure = "Restore the source as it was, or fork in the home that holds the parent's dataset."
        return DatasetRejected(source=dataset.source, problems=[{"path": "data", "message": message, "cure": cure}])

    async def _ask(self, args: Mapping[str, Any], session: str) -> dict[str, Any]:
        log = self.ground.home.session(session) / "preparation.log"
        async with self.ground.children.job(
            PREPARE, args, profile=torch_profile(), purpose="prepare", session=session, log=log
        ) as child:
            async for frame in child:
                # How far a long reading is goes beside the log: it may be lost.
                with suppress(Unreachable):
                    await self.ground.wire.say(subjects.telemetry(session, "preparing"), orjson.dumps(frame.data))
            return child.result or {}

    def _inherited(self, fork: Fork | None) -> DatasetPrepared | None:
        """What the parent of a fork was told of its dataset, where the parent is known here."""
        parent = known(fork.session, self.ground.tail.histories, self.ground.home) if fork else None
        return parent.state.training.dataset if parent else None
