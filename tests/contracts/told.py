"""Sessions told as lists of events, one after the other, without anybody who would say them."""

from __future__ import annotations

from typing import Any

from contracts import envelope
from contracts.checkpoint_keeper import CheckpointCorrupt, CheckpointStored
from contracts.common import HandlerFailed
from contracts.data_manager import DatasetPrepared
from contracts.envelope import Fact
from contracts.event import Event
from contracts.ids import ZERO, sha256
from contracts.operator import RULES, KindName, SessionRequested
from contracts.session import SessionState, advance
from contracts.trainer import (
    CheckpointWritten,
    ControlEvaluated,
    InterventionApplied,
    TrainingClaimed,
    TrainingCompleted,
)
from contracts.validator import CheckpointValidated
from runtime.views.view import event_line

NAME = "00-" + "a" * 26
DIGEST = "d" * 64


def fact(event: Event, n: int, *, lane: str, session: str = NAME, cause: str | None = None) -> Fact:
    """An event as it is written and read again; its place, its sequence and its identity are a number."""
    body = envelope.write(
        event,
        id=str(n),
        session=session,
        lane=lane,
        laneseq=n,
        prev=ZERO,
        source="tests",
        time=envelope.timestamp(),
        cause=cause,
    )
    written, read = envelope.read(body)
    return Fact(n, n, written, read, sha256(body), "signed")


def requested(request: dict[str, Any], kind: KindName = "training") -> SessionRequested:
    """The genesis of a session with this request."""
    return SessionRequested(kind=kind, request=request, keyring="", asked_by="test", rules=RULES)


def line(event: Event, lane: str = "trainer") -> dict[str, Any]:
    """An event as a swarm and the files of a home show it."""
    return dict(event_line(fact(event, 1, lane=lane)))


class Told:
    """A session and what it amounts to after each event that is said in it; an event's identity is its number."""

    def __init__(self, request: dict[str, Any] | None = None) -> None:
        self.now = SessionState(NAME)
        self.facts: list[Fact] = []
        self.say("operator", requested(request or {}))

    def say(self, lane: str, event: Event, cause: str | None = None) -> str:
        """Say an event in a lane and give its identity."""
        n = len(self.facts) + 1
        self.facts.append(fact(event, n, lane=lane, cause=cause))
        self.now = advance(self.now, self.facts[-1])
        return str(n)

    def prepared(self, **splits: int) -> str:
        """A dataset with so many rows in each split stands there."""
        about: Any = dict(
            rows=sum(splits.values()), splits=splits, bytes=1, source="test", facts={"task": "other"}, findings=[]
        )
        return self.say("data_manager", DatasetPrepared(root=DIGEST, source_digest=DIGEST, **about))

    def claimed(self) -> str:
        """A trainer takes the session."""
        where: Any = dict(epoch=1, worker="here", incarnation="1", segment=1, resumed_from=0, dataset=DIGEST)
        bits: Any = dict(resolved={}, engine_bits=1, fingerprint=DIGEST, families={}, environment={}, sources={})
        return self.say("trainer", TrainingClaimed(**where, **bits))

    def written(self, step: int, segment: int = 1, reason: str = "best") -> str:
        """A checkpoint is written."""
        where: Any = dict(segment=segment, step=step, reason=reason, blob=DIGEST, state_root=DIGEST, bytes=1)
        return self.say("trainer", CheckpointWritten(**where, weights_digest=DIGEST))

    def stored(self, step: int, segment: int = 1) -> str:
        """It is stored."""
        where: Any = dict(segment=segment, step=step, blob=DIGEST, state_root=DIGEST, bytes=1)
        return self.say("checkpoint_keeper", CheckpointStored(**where, kept_as=["best"]))

    def corrupt(self, step: int) -> str:
        """It is found broken."""
        return self.say("checkpoint_keeper", CheckpointCorrupt(segment=1, step=step, blob=DIGEST, reason="broken"))

    def validated(self, step: int, cause: str) -> str:
        """It is judged."""
        about: Any = dict(segment=1, step=step, blob=DIGEST, split="val", rows=1, metrics={})
        return self.say("validator", CheckpointValidated(**about, control="reproduced", details={}), cause)

    def evaluated(self, step: int, *, improved: bool, segment: int = 1) -> str:
        """The control metric is known at a step."""
        about: Any = dict(segment=segment, step=step, epoch=1, values={}, metric="val_loss", improved=improved)
        return self.say("trainer", ControlEvaluated(**about, best=1.0, best_step=step, patience_left=1, stop=False))

    def applied(self, step: int, segment: int) -> str:
        """A segment begins."""
        about: Any = dict(proposal="p", segment=segment, step=step, changes={}, by="person")
        return self.say("trainer", InterventionApplied(**about, reproducible=True))

    def failed(self, lane: str, role: str, heard: str) -> str:
        """A handler gives up."""
        return self.say(lane, HandlerFailed(role=role, handler="h", heard=heard, error="no", attempts=3))

    def completed(self, step: int) -> str:
        """Training ends well."""
        about: Any = dict(segment=1, step=step, epochs=1, stopped_early=False, best_step=None, values={})
        return self.say(
            "trainer", TrainingCompleted(**about, weights_digest=DIGEST, state_root=DIGEST, final_blob=DIGEST)
        )
