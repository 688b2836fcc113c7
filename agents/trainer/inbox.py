"""One bounded queue of what an attempt waits for: frames of its child, growth of the session, the host's draining."""

import asyncio
from typing import Any, Self

from agents.trainer.jobs import TrainingNews, TrainingOrder
from runtime.jobs.child import Child
from runtime.node.agent_context import Wakeup

TrainingChild = Child[int, TrainingNews, TrainingOrder]


class _Grown:
    """The type of `GROWN`: the session has new events, or the host drains."""


GROWN = _Grown()
News = TrainingNews | _Grown

MOST_FRAMES = 2048
"""What the child told that is kept while the log is away; with more the child blocks, which changes no bit."""

LARGEST_BATCH = 200


def told_of(news: list[News]) -> list[TrainingNews]:
    """What the child told among the news, in its order."""
    return [item for item in news if not isinstance(item, _Grown)]


class Inbox:
    """Collects news while its context is open; `take` raises the child's error after its last frame was taken."""

    def __init__(self, child: TrainingChild, wakeup: Wakeup) -> None:
        self._child = child
        self._wakeup = wakeup
        self._frames: asyncio.Queue[TrainingNews | BaseException | None] = asyncio.Queue(MOST_FRAMES)
        self._grown = asyncio.Event()
        self._arrived = asyncio.Event()
        self._pumps: list[asyncio.Task[Any]] = []
        self._over = False

    async def __aenter__(self) -> Self:
        waits = (self._pump_frames(), self._pump_growth(), self._wakeup.ground.draining.wait())
        self._pumps = [asyncio.create_task(wait) for wait in waits]
        self._pumps[-1].add_done_callback(lambda _: self._wake(self._grown))
        # What the log said before this attempt is looked at first.
        self.look()
        return self

    async def __aexit__(self, *_: object) -> None:
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def take(self, timeout: float | None = None) -> list[News]:
        """Everything that has arrived; waits for at least one item. After `timeout` seconds it is `[GROWN]`."""
        if self._frames.empty() and not self._grown.is_set():
            self._arrived.clear()
            try:
                # Not wait_for: before Python 3.12 it can swallow a cancellation.
                async with asyncio.timeout(timeout):
                    await self._arrived.wait()
            except TimeoutError:
                return [GROWN]
        news: list[News] = []
        if self._grown.is_set():
            self._grown.clear()
            news.append(GROWN)
        return news + self._take_frames()

    async def rest(self) -> list[News]:
        """All news until the child has ended; raises the child's error when it did not end well."""
        news: list[News] = []
        while not self._over:
            news += await self.take()
        return news

    def look(self) -> None:
        """Make `take` return, because something other than a frame or an event needs attention."""
        self._wake(self._grown)

    def _take_frames(self) -> list[News]:
        news: list[News] = []
        while not self._frames.empty() and len(news) < LARGEST_BATCH:
            item = self._frames.get_nowait()
            if item is None:
                self._over = True
            elif not isinstance(item, BaseException):
                news.append(item)
            elif news:
                # TrainingNewss before the error are handled first; the error comes with the next take.
                self._frames.put_nowait(item)
                self._wake()
                break
            else:
                raise item
        return news

    async def _pump_frames(self) -> None:
        end: BaseException | None = None
        try:
            async for frame in self._child:
                await self._frames.put(frame)
                self._wake()
        except Exception as error:  # noqa: BLE001 - raised again by `take`
            end = error
        await self._frames.put(end)
        self._wake()

    async def _pump_growth(self) -> None:
        history = self._wakeup.history
        while True:
            await history.grown(history.size)
            self._wake(self._grown)

    def _wake(self, flag: asyncio.Event | None = None) -> None:
        if flag is not None:
            flag.set()
        self._arrived.set()
