"""The fold of a session: its state after each of its events. What is still owed at the end is in `contracts.kind`.

Restart, resume, the command line, the page, `show --at` and audits all run `advance`. It is pure: no clock, no
I/O. What sessions of one kind alone have is folded by that kind (`contracts.kind`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from contracts.common import HandlerFailed
from contracts.envelope import Fact
from contracts.event import Event
from contracts.fork import Fork
from contracts.growing import GrowingSet, GrowingTable
from contracts.hyperparameter_specialist import SearchCompleted
from contracts.kind import ENDED, Ended, Kind, KindState, State, having
from contracts.kinds import kinds
from contracts.ledger import DutyWaived, SessionSealed
from contracts.operator import (
    CancelRequested,
    ExportRequested,
    PauseRequested,
    RedriveRequested,
    ResumeRequested,
    SessionRequested,
)
from contracts.roles import GUEST
from contracts.trainer import TrainingCompleted
from contracts.training import TRAINING, Checkpoint, Segment, TrainingState, counts

__all__ = ["ENDED", "Checkpoint", "Ended", "Segment", "Session", "SessionState", "State", "advance", "counts"]


@dataclass(frozen=True)
class SessionState:
    """A session as of one event. Immutable; `advance` gives the next, quickly, which is why there are no slots."""

    id: str
    genesis: SessionRequested | None = None
    genesis_id: str = ""
    kind: Kind = TRAINING
    """The kind that the genesis names; before it, and when this software does not know the kind, a training."""
    own: KindState = field(default_factory=TrainingState)
    """The state of its kind; readers take it typed, as `TrainingState.of(session)`."""
    requested_at: str = ""
    updated_at: str = ""
    ended_at: str = ""
    events: int = 0
    last_seq: int = 0
    state: State = "requested"
    wishes: tuple[tuple[str, Event], ...] = ()
    """Those to cancel, pause and resume, until they are obeyed, with the ids of their events."""
    export_wishes: tuple[tuple[str, ExportRequested], ...] = ()
    awaited: Mapping[str, str] = field(default_factory=dict)
    """By role that carries it, the event that the role must answer, because the session cannot go on without it."""
    failures: GrowingTable[str, HandlerFailed] = field(default_factory=GrowingTable)
    """By their events, the failures of roles; guests owe nothing, so theirs are not remembered."""
    outcome: Event | None = None
    outcome_id: str = ""
    waived: frozenset[str] = frozenset()
    answered: GrowingSet = field(default_factory=GrowingSet)
    sealed: SessionSealed | None = None

    @property
    def training(self) -> TrainingState:
        """What was trained in it; empty when its kind trains nothing."""
        return TrainingState.of(self)

    @property
    def request(self) -> dict[str, Any]:
        """The request as the genesis holds it, with every default filled in; empty before the genesis."""
        return self.genesis.request if self.genesis else {}

    @property
    def fork(self) -> Fork | None:
        """In whose bits it began, when it is a fork."""
        return self.genesis.fork if self.genesis else None

    @property
    def step(self) -> int:
        """Up to where its work has come."""
        return self.own.step

    @property
    def weights_digest(self) -> str | None:
        """The digest of the final weights, or of the last window's."""
        if isinstance(self.outcome, TrainingCompleted):
            return self.outcome.weights_digest
        last = self.training.last_window
        return last.weights_digest if last else None

    @property
    def metrics(self) -> dict[str, float]:
        """The control metric and the validator's figures for the best checkpoint, flat."""
        figures: dict[str, float] = {}
        best = self.training.best or (self.training.evaluations[-1] if self.training.evaluations else None)
        if best:
            figures |= best.values
        kept = self.training.checkpoint("best") or self.training.checkpoint("last")
        if kept and kept.validated:
            prefix = "test_" if kept.validated.split == "test" else "val_"
            judged = {f"{prefix}{name}": value for name, value in kept.validated.metrics.items()}
            figures |= {name: value for name, value in judged.items() if name not in figures}
        if isinstance(self.outcome, TrainingCompleted):
            figures |= {name: value for name, value in self.outcome.values.items() if name.startswith("test_")}
        if isinstance(self.outcome, SearchCompleted) and self.outcome.best_value is not None:
            figures["best_value"] = self.outcome.best_value
        return figures

    def answers(self, role: str, cause: str) -> bool:
        """Whether a role has said anything that was caused by this event."""
        return f"{role}:{cause}" in self.answered


def advance(session: SessionState, fact: Fact) -> SessionState:
    """The session after one more admitted event; the given one stays as it is. Unknown events only count."""
    envelope, event = fact.envelope, fact.event
    lane, cause, meaning = envelope.lane, envelope.causationid, type(event)
    # As `having`, whose call is dearer: this runs once per event.
    following, state = _new(SessionState), session.__dict__.copy()
    _set(following, "__dict__", state)
    state["events"] += 1
    state["last_seq"] = fact.seq
    if not state["requested_at"]:
        state["requested_at"] = envelope.time
    # A guest's time is any text that fits. Guests owe nothing here, and say as much as they like: what is remembered of
    # them must not grow with it.
    if lane[:_GUEST] != GUEST:
        state["updated_at"] = envelope.time
        if cause:
            state["answered"] = state["answered"].marked(f"{lane}:{cause}")
    own = state["kind"].folds.get(meaning)
    if own is not None:
        state["own"] = own(state["own"], event, fact)
    return _turned(following, event, fact) if meaning in _TURNING else following


_new, _set, _GUEST = object.__new__, object.__setattr__, len(GUEST)


def _turned(session: SessionState, event: Event, fact: Fact) -> SessionState:
    """The session after an event that changes what every session has, in each or in those of its kind."""
    fold = _FOLDS.get(type(event))
    if fold is not None:
        session = fold(session, event, fact)
    reaction = session.kind.reactions.get(type(event))
    if reaction is None:
        return session
    changes: dict[str, object] = {}
    if reaction.moves is not None:
        changes["state"] = reaction.moves
    if reaction.obeys is not None:
        changes["wishes"] = tuple((id, wish) for id, wish in session.wishes if not isinstance(wish, reaction.obeys))
    if reaction.awaits:
        changes["awaited"] = {**session.awaited, **dict.fromkeys(reaction.awaits, fact.id)}
    session = having(session, **changes)
    return _ended(session, event, fact) if reaction.ends else session


def _ended(session: SessionState, event: Event, fact: Fact) -> SessionState:
    if session.outcome is not None:
        return session
    return having(session, outcome=event, outcome_id=fact.id, state="finishing")


def _requested(session: SessionState, event: SessionRequested, fact: Fact) -> SessionState:
    kind = kinds()[event.kind]
    begun = kind.state.begun(event)
    return having(session, genesis=event, genesis_id=fact.id, kind=kind, own=begun, state=kind.begins)


def _wished(session: SessionState, event: Event, fact: Fact) -> SessionState:
    return having(session, wishes=(*session.wishes, (fact.id, event)))


def _resumed(session: SessionState, event: ResumeRequested, fact: Fact) -> SessionState:
    """A pause that nobody has carried out, since nobody has begun, is taken back and leaves nothing to carry out."""
    if session.training.claim is None and any(isinstance(wish, PauseRequested) for _, wish in session.wishes):
        return having(session, wishes=tuple(one for one in session.wishes if not isinstance(one[1], PauseRequested)))
    return _wished(session, event, fact)


def _handler_failed(session: SessionState, event: HandlerFailed, fact: Fact) -> SessionState:
    if fact.lane.startswith(GUEST):
        return session
    failed = having(session, failures=session.failures.having(fact.id, event))
    return _ended(failed, event, fact) if session.awaited.get(event.role) == event.heard else failed


def _redriven(session: SessionState, event: RedriveRequested, fact: Fact) -> SessionState:
    seen = session.failures.get(event.failure)
    if seen is None:
        return session
    answered = session.answered - {f"{seen.role}:{seen.heard}"}
    return having(session, failures=session.failures.without(event.failure), answered=answered)


def _sealed(session: SessionState, event: SessionSealed, fact: Fact) -> SessionState:
    return having(session, sealed=event, state=session.kind.state_at_end(session), ended_at=fact.envelope.time)


_FOLDS: dict[type[Event], Callable[[SessionState, Any, Fact], SessionState]] = {
    SessionRequested: _requested,
    CancelRequested: _wished,
    PauseRequested: _wished,
    ResumeRequested: _resumed,
    ExportRequested: lambda s, e, f: having(s, export_wishes=(*s.export_wishes, (f.id, e))),
    RedriveRequested: _redriven,
    HandlerFailed: _handler_failed,
    DutyWaived: lambda s, e, f: having(s, waived=s.waived | {e.duty}),
    SessionSealed: _sealed,
}

_TURNING = frozenset[type[Event]]({*_FOLDS, *(event for kind in kinds().values() for event in kind.reactions)})


Session = SessionState
"""The name under which guests and readers of logs have imported it."""
