"""A home with real folds, blobs and children, in which a handler can be called as the supervisor would."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bus.blobs import DirectoryBlobs
from bus.memory import MemoryBus
from contracts import envelope
from contracts.envelope import Fact
from contracts.event import Event
from contracts.fork import Fork
from contracts.ids import ZERO, new_uuid, session_id
from contracts.operator import RULES, SessionRequested
from contracts.request import read_request
from runtime.home.home import Home
from runtime.jobs.children import Children
from runtime.log.session_log import SessionLog
from runtime.node.agent import Agent
from runtime.node.agent_context import Wakeup


class Place:
    """One home and the sessions that its agents know of."""

    def __init__(self, root: Path, children: Children, *, data_roots: Sequence[str] = ()) -> None:
        home = Home(root / ".swarm")
        home.prepare()
        self.histories: dict[str, SessionLog] = {}
        self.blobs = DirectoryBlobs(home.blobs)
        self.ground: Any = SimpleNamespace(
            home=home,
            blobs=self.blobs,
            children=children,
            wire=MemoryBus(),
            settings=SimpleNamespace(data_roots=tuple(data_roots), trusted_data=()),
            tail=SimpleNamespace(histories=self.histories),
        )

    def session(self, request: dict[str, Any], *, kind: str = "training", fork: Fork | None = None) -> SessionLog:
        """A session that begins with this request, resolved."""
        history = SessionLog(session_id(new_uuid()))
        self.histories[history.id] = history
        resolved = read_request(request).resolved() if kind in ("training", "trial") else request
        genesis = SessionRequested(kind=kind, request=resolved, keyring="", asked_by="test", rules=RULES, fork=fork)
        tell(history, "operator", genesis)
        return history

    async def react(self, agent: Agent, handler: str, history: SessionLog, fact: Fact) -> list[Any]:
        """Wake a handler with a fact and append its answer in its lane; gives the events of the answer."""
        position = fact.position
        while not history.facts[position - 1].closes:
            position += 1
        case = Wakeup(fact, history.states[position], history, self.ground, position)
        answer = await getattr(agent, handler)(fact.event, case)
        events = [answer] if isinstance(answer, Event) else list(answer or ())
        tell(history, type(agent).role, *events, cause=fact.id)
        return events


def tell(history: SessionLog, lane: str, *events: Event, cause: str | None = None, time: str = "") -> list[Fact]:
    """Admit events as one batch."""
    facts = []
    for number, event in enumerate(events):
        seq = history.size + number + 1
        body = envelope.write(
            event,
            id=f"{history.id}-{seq}",
            session=history.id,
            lane=lane,
            laneseq=seq,
            prev=ZERO,
            source="tests",
            time=time or envelope.timestamp(),
            cause=cause,
        )
        written, read = envelope.read(body)
        facts.append(Fact(seq, seq, written, read, ZERO, "signed" if event is events[-1] else ""))
    history.add(facts)
    return facts


def fork_of(parent: SessionLog, step: int, **about: Any) -> Fork:
    """A fork of a session that only has a beginning."""
    unchanged = {"root": None, "size": 0, "sealed": False, "segment": 1, "resolved": {}, "changes": [], "set": {}}
    state = {"weights_digest": ZERO, "state_root": None, "blob": None, "dataset": ZERO}
    lists = {"rows_without": 0, "evaluations": [], "without": []}
    return Fork(session=parent.id, step=step, **(unchanged | state | lists | about))


def of(kind: type[Event], events: Iterable[Any]) -> list[Any]:
    """The events of one kind."""
    return [event for event in events if isinstance(event, kind)]
