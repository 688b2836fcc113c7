"""A job: a function that children run, with a typed argument and result; and what it works with inside of its child.

A job is declared where its callers may import it, without what it needs to run:

    @job(purpose="audit")
    def verify_checkpoint(argument: StoredBlob) -> int:
        from agents.checkpoint_keeper.jobs import reading
        return reading.verify(argument)

`children.run(verify_checkpoint, argument)` gives its result. One that also tells and is ordered takes a `JobContext`
first; what it may tell and be ordered stands in that annotation. Its process is used once and ends without exit
handlers, so threads that write must be joined before the function returns.
"""

from __future__ import annotations

import importlib
import os
import select
import socket
import threading
import time
import typing
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast, overload

from contracts.errors import Failed, InvalidInput, Refused
from runtime.engine import environment
from runtime.jobs.codec import NotOfType, TypeCodec, codec_of
from runtime.jobs.messages import Decoder, Frame, encode, error_data, print_foreign


@dataclass(frozen=True, slots=True)
class Seal:
    """What a job that computes bits sets in its process before anything else, and reads back."""

    threads: int
    profile: str = "exact"


@dataclass(frozen=True, slots=True)
class Profile:
    """What a zygote is sealed with: jobs of equal profiles come from the same one."""

    threads: int = 1
    torch: bool = True
    device: str = "cpu"
    modules: tuple[str, ...] = ()

    @property
    def imports(self) -> tuple[str, ...]:
        """The modules that its jobs find imported."""
        return (("torch", "numpy", "numpy.ctypeslib") if self.torch else ()) + self.modules


_PASSED_ON = (
    *("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ", "USER", "LD_LIBRARY_PATH", "SWARM_FAILPOINT"),
    # A job on the CPU that asks whether there is a GPU must see as many as a job that trains on one.
    *("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "CUDA_HOME"),
)


def sealed_environment(profile: Profile) -> dict[str, str]:
    """The whole environment of a zygote: what bits depend on is fixed, and little else is let in."""
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    # A debugger there would have no terminal; `--here` runs user code where it has one.
    ours = {"PYTHONUTF8": "1", "PYTHONBREAKPOINT": "0"}
    return environment.sealed(passed_on, profile="exact", threads=profile.threads) | ours


MOST_THREADS = 1024
"""With more, no process is started because a log says so: a claim may say any number."""

_THREADS_PER_CORE, _FEWEST_THREADS = 4, 16
"""Threads that are of use on a core, and as many as any machine may be asked for, to compute what a larger one did."""


def most_threads(cores: int) -> int:
    """With how many threads, at most, a training begins on a machine of so many cores."""
    return min(MOST_THREADS, max(_FEWEST_THREADS, _THREADS_PER_CORE * cores))


def claimed_threads(said: object) -> int:
    """With how many threads to compute what a claim says was computed with so many; 1 where that cannot be."""
    return said if isinstance(said, int) and 1 <= said <= MOST_THREADS else 1


PARTS = ("layers", "losses", "metrics", "models", "optimizers", "samplers", "schedules", "tasks")
ENGINE = (
    *("runtime.engine.loop", "runtime.engine.evaluate", "runtime.engine.fingerprint", "runtime.engine.checkpoint"),
    *(f"runtime.engine.parts.{part}" for part in PARTS),
)
AUDIT = ("runtime.audit.recomputation", "runtime.replay.stepwise")
"""What every fork of an audit would import for itself, and with it most of what training does."""


def torch_profile(threads: int = 1, device: str = "cpu") -> Profile:
    """What trains, evaluates and audits: torch and the engine, imported, untouched. `Refused` for too many threads."""
    if claimed_threads(threads) != threads:
        message = f"no process is started with {threads!r:.40} threads, but with 1 to {MOST_THREADS}."
        raise Refused(message, cure="Leave the session to the machine that claimed it.")
    return Profile(threads=threads, torch=True, device=device, modules=(*ENGINE, *AUDIT))


A = TypeVar("A")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
O = TypeVar("O")  # noqa: E741 - an order


class HostGone(SystemExit):
    """The host no longer listens. Not an `Exception`, so that no `except Exception` of a job keeps it running."""


@dataclass(frozen=True)
class Cancel:
    """The order to end by itself. A job that heeds it names it among its orders."""


class _Signature(NamedTuple):
    """The types of a job: its argument, its result, and by name what it may tell and be ordered."""

    argument: TypeCodec
    result: TypeCodec
    tells: dict[str, TypeCodec]
    orders: dict[str, TypeCodec]


@dataclass(frozen=True, eq=False)
class Job(Generic[A, R_co, T, O]):
    """A function that children run. `purpose` is how people and reports call its process; `profile` seals it.

    The modules `ahead` are those that the function imports when it is called: a zygote imports them before its first
    fork, so that forks find them. They start no threads.
    """

    function: Callable[..., R_co]
    purpose: str
    profile: Callable[[A], Profile] = field(repr=False)
    ahead: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """MODULE:FUNCTION, by which its process finds it."""
        return f"{self.function.__module__}:{self.function.__qualname__}"

    @cached_property
    def signature(self) -> _Signature:
        """The types that the function is annotated with, read once in each process."""
        hints = typing.get_type_hints(self.function)
        result = hints.pop("return")
        *contexts, argument = hints.values()
        tells, orders = typing.get_args(contexts[0]) if contexts else (typing.Never, typing.Never)
        return _Signature(codec_of(argument), codec_of(result), _by_name(tells), _by_name(orders))

    def begin(self, argument: A, log: str | None) -> bytes:
        """The frame with which its process begins."""
        given = self.signature.argument.encode(argument)
        return encode("begin", {"function": self.name, "argument": given, "log": log})

    def run(self, context: JobContext[T, O], argument: A) -> R_co:
        """Call the function as it wants to be called."""
        return self.function(context, argument) if self._converses else self.function(argument)

    @property
    def _converses(self) -> bool:
        return self.function.__code__.co_argcount > 1


def _by_name(kinds: Any) -> dict[str, TypeCodec]:
    if kinds is typing.Never:
        return {}
    return {kind.__name__: codec_of(kind) for kind in typing.get_args(kinds) or (kinds,)}


class _Declare(Protocol):
    """The decorator that `job` gives, which reads the types of a job off its function."""

    @overload
    def __call__(self, function: Callable[[A], R], /) -> Job[A, R, typing.Never, typing.Never]: ...
    @overload
    def __call__(self, function: Callable[[JobContext[T, O], A], R], /) -> Job[A, R, T, O]: ...


def job(
    *, purpose: str, profile: Callable[[Any], Profile] = lambda _: torch_profile(), ahead: tuple[str, ...] = ()
) -> _Declare:
    """Declare a function as a job. `profile` gives what its process is sealed with, for an argument."""
    return cast(_Declare, lambda function: Job(function, purpose, profile, ahead))


class JobContext(Generic[T, O]):
    """What a running job has besides its argument. `tell` may be called from several threads, `order` from one."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._decoder = Decoder()
        self._orders: deque[Frame] = deque()
        self._sending = threading.Lock()
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)
        self._job: Job[Any, Any, T, O] | None = None
        self._begin = cast(Frame, self._next(wait=True)).data
        self.answered = False
        """Whether the result has been given."""

    @property
    def log(self) -> str | None:
        """The file that gets what the job prints."""
        return cast(str | None, self._begin["log"])

    def perform(self) -> None:
        """Find the job that the host has asked for, run it, and give its result."""
        self._job = found = find(self._begin["function"])
        answer = found.run(self, found.signature.argument.decode(self._begin["argument"]))
        if answer is not None or not self.answered:
            self.result(answer)

    def tell(self, value: T) -> None:
        """Send a value to the host; waits while the host is behind, and ends the process when the host has gone."""
        name = type(value).__name__
        codec = self._job.signature.tells.get(name) if self._job else None
        if codec is None:
            raise InvalidInput(f"This job cannot tell {name!r}.", cure="Name it in the annotation of its context.")
        self._send(name, {"value": codec.encode(value)})

    def result(self, value: object) -> None:
        """Give the result now, when something remains to be done after it; once, and instead of returning it."""
        if self.answered:
            raise InvalidInput("A job gives one result and this one has given it.", cure="Tell the rest with `tell`.")
        assert self._job is not None  # noqa: S101 - it runs
        self._send("result", {"value": self._job.signature.result.encode(value)})
        self.answered = True

    def order(self, *, wait: bool = False, timeout: float | None = None) -> O | None:
        """The next order of the host, or None when there is none (now, or within `timeout` seconds if `wait`).

        Without `wait` this is one system call of well under 2 us: cheap enough for every step.
        """
        frame = self._next(wait=wait, timeout=timeout)
        if frame is None:
            return None
        codec = self._job.signature.orders.get(frame.kind) if self._job else None
        if codec is None:
            raise Failed(f"This job knows no order {frame.kind!r}.", cure="Name it in the annotation of its context.")
        return cast(O, codec.decode(frame.data["value"]))

    def wait_for_the_end_of_the_host(self) -> None:
        """Return when the other end of the channel is closed, without reading from it."""
        hang_up = select.poll()
        hang_up.register(self._channel, 0)
        hang_up.poll()

    def failed(self, error: BaseException) -> None:
        """Tell what was raised, in place of a result."""
        self._send("raised", error_data(error))

    def _next(self, *, wait: bool, timeout: float | None = None) -> Frame | None:
        if not self._orders:
            self._listen(0 if not wait else timeout)
        return self._orders.popleft() if self._orders else None

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

    def _send(self, kind: str, data: typing.Mapping[str, object]) -> None:
        frame = encode(kind, data)
        try:
            with self._sending:
                self._channel.sendall(frame)
        except OSError as error:
            raise HostGone(1) from error


def find(name: str) -> Job[Any, Any, Any, Any]:
    """Import the job that `name`, MODULE:FUNCTION, is the name of."""
    module, colon, function = name.partition(":")
    found = getattr(importlib.import_module(module), function, None) if colon else None
    if not isinstance(found, Job):
        raise InvalidInput(f"{name!r} names no job.", cure="Declare the function with `runtime.jobs.job.job`.")
    return found


def perform(channel: socket.socket, settle: Callable[[JobContext[Any, Any]], None] | None = None) -> int:
    """Do the one job whose host is at the other end of `channel`; the exit code of its process is returned.

    `settle` runs before the job is imported. Every exception is told to the host and ends here.
    """
    try:
        context: JobContext[Any, Any] = JobContext(channel)
        try:
            if settle is not None:
                settle(context)
            context.perform()
        except HostGone:
            raise
        except NotOfType as error:
            context.failed(Failed(f"The two ends of a job disagree: {error}.", cure="Restart the swarm."))
            return 1
        except BaseException as error:  # noqa: BLE001 - the host tells a person, whatever it was
            print_foreign(error)
            context.failed(error)
            return 1
    except HostGone:
        return 1
    finally:
        with suppress(OSError):
            channel.shutdown(socket.SHUT_WR)
    return 0
