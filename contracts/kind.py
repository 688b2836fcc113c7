"""What a kind of session is, as a value: who carries it, what ends it, which wishes it heeds, and its own fold. Pure.

`contracts.session.SessionState` holds what every session has; what only sessions of one kind have is the state of that
kind. A kind is declared beside its events and listed in `contracts.kinds`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeVar

from contracts.envelope import Fact
from contracts.event import Event
from contracts.operator import CancelRequested, SessionRequested

if TYPE_CHECKING:
    from contracts.session import SessionState

Ended = Literal["completed", "failed", "cancelled"]
State = Literal["requested", "preparing", "training", "paused", "finishing", "completed", "failed", "cancelled"]
ENDED: tuple[Ended, ...] = ("completed", "failed", "cancelled")

T = TypeVar("T")


def having(value: T, **changes: object) -> T:
    """A frozen dataclass without slots, with these fields changed; `dataclasses.replace` takes ten times as long."""
    following = object.__new__(type(value))
    object.__setattr__(following, "__dict__", {**value.__dict__, **changes})
    return following


@dataclass(frozen=True)
class KindState:
    """What sessions of one kind have beside what all have. Immutable, and without slots, for `having`."""

    step: int = 0
    """Up to where its work has come, in steps of the engine."""

    @property
    def total_steps(self) -> int | None:
        """The number of steps that `step` grows to; None while it is not known, and where nothing is computed."""
        return None

    @classmethod
    def begun(cls, genesis: SessionRequested) -> Self:  # noqa: ARG003 - forks look at it
        """The state that a session begins in."""
        return cls()

    @classmethod
    def of(cls, session: SessionState) -> Self:
        """The state of this kind that a session is in; an empty one for a session of another kind."""
        return session.own if isinstance(session.own, cls) else _empty(cls)  # type: ignore[arg-type]


S = TypeVar("S", bound=KindState)


@lru_cache
def _empty(kind: type[S]) -> S:
    return kind()


@dataclass(frozen=True, slots=True)
class Carrier:
    """A role without whose answer to an event (the genesis, or the newest of a class) a session cannot go on."""

    role: str
    answers: type[Event] = SessionRequested


class Reaction(NamedTuple):
    """What an event does to what all sessions have, in a session of one kind."""

    moves: State | None
    obeys: type[Event] | None
    awaits: tuple[str, ...]
    ends: bool


@dataclass(frozen=True, eq=False)
class Kind:
    """A kind of session.

    `ends` names the events that end it, each with the state that the seal then tells, or with a function of session
    and event that chooses it; a failure of a carrier ends every session, as failed. `moves` are events that change the
    state of a session that goes on, `obeys` those that fulfil a wish. `folds` are functions of the kind's own state,
    the event and its fact; they give the state that follows.
    """

    name: str
    state: type[KindState] = field(repr=False)
    carriers: tuple[Carrier, ...] = field(repr=False)
    ends: Mapping[type[Event], Ended | Callable[[SessionState, Any], Ended]] = field(repr=False)
    folds: Mapping[type[Event], Callable[[Any, Any, Fact], KindState]] = field(default_factory=dict, repr=False)
    begins: State = field(default="training", repr=False)
    moves: Mapping[type[Event], State] = field(default_factory=dict, repr=False)
    heeds: tuple[type[Event], ...] = field(default=(), repr=False)
    """Which wishes of people it heeds; others are refused before they are written down."""
    obeys: Mapping[type[Event], type[Event]] = field(default_factory=dict, repr=False)
    owes: Callable[[SessionState], Iterable[Duty]] = field(default=lambda session: (), repr=False)
    """What roles still owe to a session of this kind that has an outcome, answered failures and waivers aside."""
    begets: tuple[str, ...] = field(default=(), repr=False)
    """The commands by which its carrier has children begun. A session that has any waits for them and trains nothing
    itself, so it holds no slot of the queue."""
    trains: bool = field(default=False, repr=False)
    """Whether a model is trained in it: there is a dataset, a claim, and what can be forked and exported."""
    reported: bool = field(default=False, repr=False)
    """Whether a report is written when it is sealed; of others it is asked for."""
    reactions: dict[type[Event], Reaction] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        awaited = [carrier.answers for carrier in self.carriers]
        for event in {*self.ends, *self.moves, *self.obeys, *awaited}:
            self.reactions[event] = Reaction(
                self.moves.get(event),
                self.obeys.get(event),
                tuple(carrier.role for carrier in self.carriers if carrier.answers is event),
                event in self.ends,
            )

    def state_at_end(self, session: SessionState) -> Ended:
        """In which state a session with this outcome has ended."""
        outcome = session.outcome
        ending = self.ends.get(type(outcome), "failed") if outcome else "failed"
        return ending(session, outcome) if callable(ending) else ending


def failed_unless_cancelled(session: SessionState, outcome: Event) -> Ended:
    """The end by an event that does not say itself whether a person had wanted it."""
    return "cancelled" if any(isinstance(wish, CancelRequested) for _, wish in session.wishes) else "failed"


@dataclass(frozen=True, slots=True)
class Duty:
    """An answer that a role still owes; `cause` is the event that waits for it."""

    role: str
    what: str
    cause: str

    @property
    def name(self) -> str:
        """The duty as one word, `WHAT:CAUSE`, by which `duty.waived` names it."""
        return f"{self.what}:{self.cause}"


def owed(session: SessionState) -> tuple[Duty, ...]:
    """The answers that roles still owe to an ended session; empty while it runs, once it is sealed, or when all came.

    Its kind says what is owed. A duty that was waived, or whose role has recorded a failure for it, is not.
    """
    if session.outcome is None or session.sealed is not None:
        return ()
    duties = session.kind.owes(session)
    failed = {(failure.role, failure.heard) for failure in session.failures}
    return tuple(duty for duty in duties if duty.name not in session.waived and (duty.role, duty.cause) not in failed)
