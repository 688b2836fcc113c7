"""Answers every session that needs data, with a dataset or with every reason against it. The work is in a job."""

import asyncio
from contextlib import suppress
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import orjson

from agents.data_manager.jobs import prepare_dataset
from bus import subjects
from contracts.data_manager import DatasetPrepared, DatasetRejected
from contracts.errors import NotFound, NotVerified, OutOfMemory, Unreachable, UserCodeFailed
from contracts.fork import Fork
from contracts.operator import SessionRequested
from runtime.home import allowed
from runtime.home.workloads import Workloads
from runtime.jobs import process
from runtime.log.archive import known
from runtime.node.agent import Agent, on
from runtime.node.agent_context import SessionCancelled, Wakeup, unless_cancelled
from runtime.node.capabilities import PREPARE_DATASET, PreparationOrder


class DataManager(Agent):
    """Prepares datasets: reads, checks, splits and writes a source once; sessions with the same data share it."""

    services: ClassVar = (PREPARE_DATASET.by(prepare_dataset),)

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
        order = PreparationOrder(
            data=data,
            store=self.ground.blobs.root / "datasets",
            roots=allowed.roots(home, self.ground.settings, session),
            trusted=tuple(self.ground.settings.trusted_data),
            workloads=Workloads(home.root).needed({"data": data}),
            standing=inherited.root if inherited else None,
        )
        # One at a time prepares the same data, and the others find them; at most so many at once prepare any.
        key = orjson.dumps((order.data, order.workloads), option=orjson.OPT_SORT_KEYS)
        # A lock is remembered as long as a task holds it or waits for it.
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock, self._places:
            dataset = await self._ask(order, session)
        if dataset is None:
            assert inherited is not None  # noqa: S101 - its root was named
            return inherited.model_copy(update={"reused": True})
        if isinstance(dataset, DatasetRejected):
            return dataset
        if fork is None or dataset.root == fork.dataset:
            return dataset
        # A fork goes on with the very rows of its parent, or not at all.
        message = f"the source gives the dataset {dataset.root} now, and {fork.session} was trained on {fork.dataset}"
        cure = "Restore the source as it was, or fork in the home that holds the parent's dataset."
        return DatasetRejected(source=dataset.source, problems=[{"path": "data", "message": message, "cure": cure}])

    async def _ask(self, order: PreparationOrder, session: str) -> DatasetPrepared | DatasetRejected | None:
        log = self.ground.home.session(session) / "preparation.log"
        async with self.ground.children.job(prepare_dataset, order, session=session, log=log) as child:
            async for progress in child:
                # How far a long reading is goes beside the log: it may be lost.
                with suppress(Unreachable):
                    await self.ground.wire.say(subjects.telemetry(session, "preparing"), orjson.dumps(progress))
            return await child.wait()

    def _inherited(self, fork: Fork | None) -> DatasetPrepared | None:
        """What the parent of a fork was told of its dataset, where the parent is known here."""
        parent = known(fork.session, self.ground.tail.histories, self.ground.home) if fork else None
        return parent.state.training.dataset if parent else None
