"""A job as seen from inside: its arguments, what it tells, what it is ordered; knows no event loop and no bus.

A job function is `def main(job: Job) -> dict[str, Any] | None`, named "package.module:function". Its process is used
once and ends without exit handlers, so threads that write must be joined before the function returns.
"""

from __future__ import annotations

import importlib
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol, cast

from contracts.errors import InvalidInput
from runtime.jobs.messages import Decoder, Frame, encode, error_data, print_foreign

Order = Frame
RESERVED = frozenset({"begin", "result", "raised"})


class HostGone(SystemExit):
    """The host no longer listens. Not an `Exception`, so that no `except Exception` of a job keeps it running."""


class Job:
    """What a job function is given. `tell` may be called from several threads, `order` from one."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._decoder = Decoder()
        self._orders: deque[Order] = deque()
        self._sending = threading.Lock()
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)
        self._answered = False
        begin = cast(Frame, self.order(wait=True))
        self.function: str = begin.data["function"]
        self.args: dict[str, Any] = begin.data["args"]
        self.log: str | None = begin.data["log"]

    def tell(self, kind: str, /, **data: Any) -> None:
        """Send one frame to the host; waits while the host is behind, and ends the process when the host has gone.

        Floats whose bits matter are sent as hex strings or packed bytes; one that is not finite is refused.
        """
        if kind in RESERVED:
            raise InvalidInput(f"A job cannot tell {kind!r}: the name is taken.", cure="Choose another kind.")
        self._send(kind, data)

    def result(self, data: Mapping[str, Any]) -> None:
        """Give the answer now, when something remains to be done after it; once, and instead of returning it."""
        if self._answered:
            raise InvalidInput("A job gives one result and this one has given it.", cure="Tell the rest with job.tell.")
        self._send("result", data)
        self._answered = True

    @property
    def answered(self) -> bool:
        """Whether the result has been given."""
        return self._answered

    def order(self, *, wait: bool = False, timeout: float | None = None) -> Order | None:
        """The next order of the host, or None when there is none (now, or within `timeout` seconds if `wait`).

        Without `wait` this is one system call of well under 2 us: cheap enough for every step.
        """
        if not self._orders:
            self._listen(0 if not wait else timeout)
        return self._orders.popleft() if self._orders else None

    def wait_for_the_end_of_the_host(self) -> None:
        """Return when the other end of the channel is closed, without reading from it."""
        hang_up = select.poll()
        hang_up.register(self._channel, 0)
        hang_up.poll()

    def _listen(self, timeout: float | None) -> None:
        """Read until there is an order or the time is over; None waits for ever."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._orders:
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            if not self._poll.poll(left):
                return
            try:
                data = self._channel.recv(65536)
            except ConnectionError as error:
                raise HostGone(1) from error
            if not data:
                raise HostGone(1)
            self._orders.extend(self._decoder.feed(data))

    def _send(self, kind: str, data: Mapping[str, Any]) -> None:
        frame = encode(kind, data)
        try:
            with self._sending:
                self._channel.sendall(frame)
        except OSError as error:
            raise HostGone(1) from error

    def failed(self, error: BaseException) -> None:
        """Tell what was raised, in place of a result."""
        self._send("raised", error_data(error))


class Function(Protocol):
    """The protocol of a job function, which "package.module:function" names."""

    def __call__(self, job: Job, /) -> dict[str, Any] | None: ...


def find(name: str) -> Function:
    """Import the function that `name`, "package.module:function", names."""
    module, colon, function = name.partition(":")
    found = getattr(importlib.import_module(module), function, None) if colon else None
    if not callable(found):
        raise InvalidInput(f"{name!r} names no job function.", cure='Name it "package.module:function".')
    return cast(Function, found)


def perform(channel: socket.socket, settle: Callable[[Job], None] | None = None) -> int:
    """Do the one job whose host is at the other end of `channel`; the exit code of its process is returned.

    `settle` runs before the job function is imported. Every exception is told to the host and ends here.
    """
    try:
        job = Job(channel)
        try:
            if settle is not None:
                settle(job)
            answer = find(job.function)(job)
            if answer is not None or not job.answered:
                job.result(answer or {})
        except HostGone:
            raise
        except BaseException as error:  # noqa: BLE001 - the host tells a person, whatever it was
            print_foreign(error)
            job.failed(error)
            return 1
    except HostGone:
        return 1
    finally:
        with suppress(OSError):
            channel.shutdown(socket.SHUT_WR)
    return 0
