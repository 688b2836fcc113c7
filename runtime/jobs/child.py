"""One running job as the host sees it: its frames, its orders, its end; it does not say where the job runs."""

import signal
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import anyio

from contracts.common import signal_name
from contracts.errors import ChildDied, InvalidInput, SwarmError, UserCodeFailed
from runtime.jobs import messages, process
from runtime.jobs.codec import UNKNOWN, NotOfType, TypeCodec
from runtime.jobs.job import Cancel, Job
from runtime.jobs.messages import Decoder, Frame, encode

R = TypeVar("R")
T = TypeVar("T")
O = TypeVar("O")  # noqa: E741 - an order


@dataclass(frozen=True, slots=True)
class Exit:
    """How a job's process ended. Both numbers are None when its end was not observed."""

    code: int | None
    signal: int | None
    max_rss_bytes: int


@dataclass(slots=True)
class Fate:
    """What is known of one job's process: written by the zygote's link that forked it, awaited by its `Child`."""

    pid: int | None = None
    refusal: str = ""
    exit: Exit | None = None
    begun: anyio.Event = field(default_factory=anyio.Event)
    ended: anyio.Event = field(default_factory=anyio.Event)


class Channel:
    """The host's end of a job's socket; a slow reader makes the job wait, and no cancellation loses data."""

    def __init__(self, end: socket.socket) -> None:
        end.settimeout(0)
        self._socket = end
        self._outgoing = bytearray()
        self._sending = anyio.Lock()

    async def send(self, data: bytes) -> None:
        """Raises OSError when the job has gone."""
        self._outgoing += data
        async with self._sending:
            while self._outgoing:
                try:
                    del self._outgoing[: self._socket.send(self._outgoing)]
                except BlockingIOError:
                    await anyio.wait_writable(self._socket)

    async def receive(self) -> bytes:
        """What has arrived; nothing when the job has closed its end."""
        while True:
            try:
                return self._socket.recv(262_144)
            except BlockingIOError:
                with suppress(anyio.ClosedResourceError):
                    await anyio.wait_readable(self._socket)
            except OSError:
                return b""

    @property
    def unread(self) -> bool:
        """Whether something has arrived that was not taken yet."""
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def cease(self, how: int) -> None:
        """End the reading side, although another process may still hold the job's end of the connection."""
        with suppress(OSError):
            self._socket.shutdown(how)

    def close(self) -> None:
        """Close the connection: the job reads its end, and readers here stop waiting."""
        anyio.notify_closing(self._socket)
        self._socket.close()


class Child(Generic[R, T, O]):
    """A job that runs. Iterate over it for what it tells; the end of the iteration is the end of the job.

    The iteration raises `UserCodeFailed` (or the error of ours that the job raised) and `ChildDied`. What a job tells
    that may run code of the user's is of the types that it declares, or `UserCodeFailed` is raised.
    """

    def __init__(
        self,
        job: Job[Any, R, T, O],
        fate: Fate,
        channel: Channel,
        kill: Callable[[], None],
        session: str,
        log: Path | None,
    ) -> None:
        self._job = job
        self._fate = fate
        self._channel = channel
        self._kill = kill
        self._decoder = Decoder()
        self._arrived: deque[Frame] = deque()
        self._killed = ""
        self.told = 0
        self.resting = False
        """True while the job is expected to wait for an order, so that its silence is no stall; its owner sets it."""
        self.purpose = job.purpose
        self.session = session
        self.log = log
        self.answered = False
        """Whether the job has given its result."""
        self.result: R | None = None
        self.raised: dict[str, Any] | None = None

    @property
    def pid(self) -> int:
        """The process that the job runs in."""
        return self._fate.pid or 0

    @property
    def waits(self) -> bool:
        """Whether the job waits for its host: for an order, or for its words to be read."""
        return self.resting or bool(self._arrived) or self._channel.unread

    @property
    def exit(self) -> Exit | None:
        """How it ended; None while it runs."""
        return self._fate.exit

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        while True:
            while self._arrived:
                frame = self._arrived.popleft()
                if frame.kind == "raised":
                    self.raised = frame.data
                elif frame.kind == "result":
                    self.result = cast(R, self._value(self._job.signature.result, frame))
                    self.answered = True
                else:
                    return cast(T, self._value(self._job.signature.tells.get(frame.kind), frame))
            data = await self._channel.receive()
            if not data:
                await self._conclude()
                raise StopAsyncIteration
            self._take(data)

    async def wait(self) -> R:
        """Let the job run to its end, pass over what it tells, and give its result."""
        async for _ in self:
            pass
        return cast(R, self.result)

    async def order(self, order: O | Cancel) -> None:
        """Send an order to the job, which finds it when it looks; `ChildDied` when it has ended."""
        kind = type(order).__name__
        codec = self._job.signature.orders.get(kind)
        if codec is None:
            raise InvalidInput(f"{self._name} knows no order {kind!r}.", cure="Order what the job names.")
        try:
            await self._channel.send(encode(kind, {"value": codec.encode(order)}))
        except OSError as error:
            raise ChildDied(f"{self._name} has ended and cannot be ordered to {kind!r}.", cure=self._see_log) from error

    def _value(self, codec: TypeCodec | None, frame: Frame) -> object:
        try:
            return (codec or UNKNOWN).decode(frame.data.get("value"))
        except NotOfType as error:
            self.kill()
            message = "the process that ran the workload told something that no computation gives"
            cure = f"Look for code that changes Stigmergy's own functions ({error})."
            raise UserCodeFailed(message, cure=cure) from None

    async def cancel(self, grace: float = 10.0) -> None:
        """Order `Cancel`, give the job `grace` seconds to end by itself, then kill it; returns when it has ended.

        Somebody must be iterating meanwhile when the job has much to tell, or it waits for a reader until it is killed.
        """
        with suppress(ChildDied):
            await self.order(Cancel())
        with anyio.move_on_after(grace):
            await self._fate.ended.wait()
        if self.exit is None:
            self.kill()
            await self._fate.ended.wait()

    def kill(self, why: str = "was ended by its host before it gave a result") -> None:
        """End the job now, by SIGKILL, with everything that it started."""
        if self.exit is None:
            self._killed = self._killed or why
            self._kill()

    async def ended(self) -> None:
        """Return when the job's process has ended, or when its end can no longer be observed."""
        await self._fate.ended.wait()

    def hang_up(self) -> None:
        """Hear and order nothing any more; the job sees the end of its pipe."""
        self._channel.close()

    async def release(self) -> None:
        """End the job if it still runs and give back what it held; nothing can interrupt this."""
        with anyio.CancelScope(shield=True):
            self.kill()
            self.hang_up()
            await self.ended()

    def _take(self, data: bytes) -> None:
        self.told += len(data)
        try:
            self._arrived.extend(self._decoder.feed(data))
        except SwarmError:
            self.kill()
            raise

    async def _conclude(self) -> None:
        await self._fate.ended.wait()
        if self.raised is not None:
            raise messages.error_from_data(self.raised, "" if self.log is None or not self.session else self.log.name)
        if self.answered:
            return
        end, cure = self.exit, self._see_log
        if not self._killed and (end is None or (end.code is None and end.signal is None)):
            cure = "Start the job again."
        elif not self._killed and end is not None and end.signal == signal.SIGKILL:
            cure = f"The kernel does that when memory runs out: free some or make the batch smaller. {cure}"
        raise ChildDied(f"{self._name} {self.ending}.", cure=cure)

    @property
    def ending(self) -> str:
        """How it ended without a result, as the rest of a sentence: by what signal or code, in how much memory."""
        end = self.exit
        if self._killed:
            return self._killed
        if end is None or (end.code is None and end.signal is None):
            return "died with the zygote that it was forked from"
        memory = f"its memory peaked at {end.max_rss_bytes / 2**20:.0f} MiB"
        if end.signal == signal.SIGKILL:
            return f"was ended by SIGKILL from outside; {memory}"
        if end.signal:
            return f"crashed with {signal_name(end.signal)}; {memory}"
        return f"ended with code {end.code} and gave no result; {memory}"

    @property
    def _name(self) -> str:
        session = f" of session {self.session}" if self.session else ""
        return f"The {self.purpose} job{session} (pid {self.pid})"

    @property
    def _see_log(self) -> str:
        return f"What it printed is in {self.log}." if self.log else "Give the job a log file to see what it printed."


# Frames already received survive a shutdown for reading on Linux; elsewhere they would be thrown away.
CEASE_AT_EXIT = socket.SHUT_RD if process.LINUX else None
