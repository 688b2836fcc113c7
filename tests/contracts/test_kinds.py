"""Kinds of sessions and roles, as values that the rest follows."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

import agents
from bus.decode import decode
from bus.port import StoredRecord
from bus.subjects import FactSubject
from contracts import audit, diagnostician, envelope, exporter, trainer
from contracts import hyperparameter_specialist as searches
from contracts.data_manager import DatasetRejected
from contracts.envelope import Fact
from contracts.event import Event, Unknown
from contracts.ids import ZERO
from contracts.kinds import kinds
from contracts.ledger import SessionSealed
from contracts.operator import RULES, CancelRequested, SessionRequested
from contracts.roles import BUILT_IN
from contracts.session import SessionState, advance
from tests.contracts.told import NAME, fact

ROOT = Path(agents.__file__).parent


def test_every_agent_has_its_line_and_every_kind_its_name_and_its_carriers() -> None:
    assert sorted(BUILT_IN) == sorted(path.parent.name for path in ROOT.glob("*/agent.py"))
    for name, kind in kinds().items():
        assert kind.name == name
        assert {carrier.role for carrier in kind.carriers} <= set(BUILT_IN)
        assert all({*event.said_in} <= {carrier.role for carrier in kind.carriers} for event in kind.ends)


def begun(kind: str) -> SessionState:
    genesis = SessionRequested(kind=kind, request={}, keyring="", asked_by="t", rules=RULES)
    return advance(SessionState(NAME), fact(genesis, 1, lane="operator"))


def sealed(session: SessionState, *said: Event) -> SessionState:
    seal = SessionSealed(
        size=1, root=ZERO, last_seq=1, lanes={}, keyring="", keyring_size=0, keyring_root=ZERO, members={}, note=""
    )
    for event in (*said, seal):
        session = advance(session, fact(event, session.events + 1, lane=next(iter(event.said_in))))
    return session


CANCEL = CancelRequested(asked_by="me")
NO_SPAN = trainer.AuditFailed(message="no")
NO_FILE = exporter.ExportRefused(format="onnx", quantize="", checkpoint="best", code="x", message="m")
NO_PROOF = diagnostician.ProofFailed(message="no")
ENDS = [
    ("training", [trainer.TrainingCancelled(segment=1, step=1)], "cancelled"),
    ("trial", [DatasetRejected(source="s", problems=[])], "failed"),
    ("search", [searches.SearchCancelled(reason="r", trials=1)], "cancelled"),
    ("search", [searches.SearchFailed(message="cancelled: enough.")], "cancelled"),
    ("search", [searches.SearchFailed(message="no trial has a value")], "failed"),
    ("audit", [NO_SPAN], "failed"),
    ("audit", [CANCEL, NO_SPAN], "cancelled"),
    ("proof", [NO_PROOF], "failed"),
    ("proof", [CANCEL, NO_PROOF], "cancelled"),
    (
        "export",
        [NO_FILE],
        "failed",
    ),
]


@pytest.mark.parametrize(("kind", "said", "state"), ENDS)
def test_the_kind_says_in_which_state_an_event_ends_its_session(kind: str, said: list[Event], state: str) -> None:
    assert sealed(begun(kind), *said).state == state


def test_what_ends_a_session_of_another_kind_ends_none_of_this_one() -> None:
    session = sealed(begun("training"), NO_PROOF, NO_SPAN)
    assert session.outcome is None
    assert audit.AuditState.of(session) == audit.AuditState()


def test_a_genesis_of_a_kind_that_is_not_known_is_kept_and_not_folded() -> None:
    known = fact(SessionRequested(kind="audit", request={}, keyring="", asked_by="t", rules=RULES), 1, lane="operator")
    written = orjson.loads(envelope.write(
        known.event, id="1", session=NAME, lane="operator", laneseq=1, prev=ZERO, source="t", time=envelope.timestamp()
    ))  # fmt: skip
    written["data"]["kind"] = "seance"
    message = decode(StoredRecord(1, "", orjson.dumps(written), {}), FactSubject(NAME, "operator", "session.requested"))
    assert isinstance(message.event, Unknown)
    assert message.event.data["kind"] == "seance"
    session = advance(SessionState(NAME), Fact(1, 1, message.envelope, message.event, ZERO, "s"))
    assert (session.state, session.genesis, session.events) == ("requested", None, 1)
