"""The base class of agents: signatures of handlers are the wiring. `runtime.node.supervisor` delivers and retries.

    class Validator(Agent):
        @on
        async def judge(self, kept: CheckpointStored, wakeup: Wakeup) -> CheckpointValidated: ...

The type of the first parameter is the subscription. A *reaction* speaks by its return type: everything it returns is
one atomic batch, the answer to what it heard. A *course* is long: it takes a parameter annotated `Say[A | B]` and
speaks whenever it has something to say; it is started again after a restart and finds its place in the fold.
Wiring errors are raised when the class is defined.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, Union, get_args, get_origin

from contracts.envelope import Fact
from contracts.errors import SwarmError
from contracts.event import Event

if TYPE_CHECKING:
    from runtime.node.agent_context import AgentContext
    from runtime.node.capabilities import Service

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])
Spoken_contra = TypeVar("Spoken_contra", bound=Event, contravariant=True)


class WiringError(SwarmError):
    """A handler whose signature cannot be a subscription."""

    code = "wiring"
    exit_code = 2


class Say(Protocol[Spoken_contra]):
    """How a course appends: the events of one call are stored all or none; the call returns when they are stored."""

    async def __call__(
        self, *events: Spoken_contra | Callable[[], Spoken_contra], epoch: int | None = None, cause: str | None = None
    ) -> tuple[Fact, ...]:
        """Append the events as one batch, under a claim if one is given, and wait until they are in the fold.

        They are caused by what woke the course, or by the event named. What several instances of a role say of one
        cause is told apart by its number alone: one of several looks at what comes back. An event that holds a
        signature is given as what makes it, for it is made again when keys change meanwhile.
        """
        ...


@dataclass(frozen=True, slots=True)
class Handler:
    """One handler of an agent class: the events that it hears, those that it may say, and whether it is a course."""

    name: str
    hears: tuple[type[Event], ...]
    says: tuple[type[Event], ...]
    wakeup: str
    say: str
    together: bool = False
    """Whether every instance of the role runs it, and not only the instance that is woken."""

    @property
    def course(self) -> bool:
        """Whether it is a course: it says events while it runs instead of returning them."""
        return bool(self.say)


@dataclass(frozen=True, slots=True)
class Rhythm:
    """One method called again and again while the agent runs."""

    name: str
    seconds: float


def on(method: F) -> F:
    """Mark a method as a handler; what it hears and says is read from its annotations."""
    method.__handler__ = True  # type: ignore[attr-defined]
    return method


def together(method: F) -> F:
    """Mark a handler, beside `on`, that every instance of the role runs, because they share the work out themselves."""
    method.__together__ = True  # type: ignore[attr-defined]
    return method


def every(seconds: float) -> Callable[[F], F]:
    """Mark a method that is called with this pause between calls, for what no event causes."""

    def mark(method: F) -> F:
        method.__rhythm__ = seconds  # type: ignore[attr-defined]
        return method

    return mark


class Agent:
    """Base class of built-in agents and guests. State that must survive a restart is a fold, never an attribute."""

    role: ClassVar[str] = ""
    stands_by: ClassVar[bool] = False
    """Whether every instance begins the courses that another one was woken for, to go on when that one falls silent."""
    services: ClassVar[Sequence[Service]] = ()
    """The jobs of its package that serve capabilities, for whoever asks for those: see `roster.job_for`."""
    handlers: ClassVar[tuple[Handler, ...]] = ()
    rhythms: ClassVar[tuple[Rhythm, ...]] = ()

    def __init__(self, ground: Any = None) -> None:
        self.ground: AgentContext = ground

    def __init_subclass__(cls, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        if "role" not in cls.__dict__:
            cls.role = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
        methods = [(name, getattr(cls, name)) for name in dir(cls) if not name.startswith("__")]
        cls.handlers = tuple(_wire(cls, name, method) for name, method in methods if hasattr(method, "__handler__"))
        cls.rhythms = tuple(Rhythm(name, one.__rhythm__) for name, one in methods if hasattr(one, "__rhythm__"))

    @classmethod
    def hears(cls) -> tuple[type[Event], ...]:
        """Every event type that wakes this agent."""
        return tuple(dict.fromkeys(event for handler in cls.handlers for event in handler.hears))

    @classmethod
    def says(cls) -> tuple[type[Event], ...]:
        """Every event type that its handlers declare."""
        return tuple(dict.fromkeys(event for handler in cls.handlers for event in handler.says))

    async def begin(self) -> None:
        """Prepare what handlers need, such as a warm zygote; called once before the first event."""

    async def end(self) -> None:
        """Release what `begin` prepared; called once when the agent stops, unless its process is killed."""


def _wire(cls: type[Agent], name: str, method: Callable[..., Any]) -> Handler:
    where = f"{cls.__name__}.{name}"
    if not inspect.iscoroutinefunction(method):
        raise WiringError(f"{where} is not a coroutine.", cure="Write `async def`.")
    try:
        hints = typing.get_type_hints(method)
    except NameError as error:
        cure = "Import event types at run time, not under TYPE_CHECKING."
        raise WiringError(f"{where}: {error}.", cure=cure) from None
    parameters = [parameter for parameter in inspect.signature(method).parameters if parameter != "self"]
    hears = _events(hints.get(parameters[0])) if parameters else ()
    if not hears:
        raise WiringError(f"{where} hears nothing.", cure="Annotate its first parameter with an event type.")
    say = next((p for p in parameters[1:] if get_origin(hints.get(p)) is Say), "")
    wakeup = next((p for p in parameters[1:] if p != say), "")
    says = _events(get_args(hints[say])[0]) if say else _events(hints.get("return"))
    return Handler(name, tuple(hears), tuple(says), wakeup, say, hasattr(method, "__together__"))


def _events(hint: Any) -> tuple[type[Event], ...]:
    """The event types inside an annotation such as `A | B | None` or `list[A]`."""
    if isinstance(hint, type) and issubclass(hint, Event):
        return (hint,)
    if get_origin(hint) in (Union, types.UnionType, list, tuple, Iterable):
        return tuple(event for part in get_args(hint) for event in _events(part))
    return ()
