"""A home with real keys and real signed events, written as a host writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blake3 import blake3

from agents.ledger.ledger_state import LedgerState
from bus import notes
from bus.admission import Admission
from bus.blobs import DirectoryBlobs
from bus.chain import Draft, compose
from bus.files import LogFile
from bus.keys import KeyStore, Signer
from bus.port import Record, StoredRecord
from bus.tree import Tree, leaf_of
from contracts import ids
from contracts.checkpoint_keeper import CheckpointStored
from contracts.envelope import Fact
from contracts.event import Event, pack
from contracts.exporter import ExportDetails, ModelExported
from contracts.fork import Fork
from contracts.keyring import KeyAdmitted, KeyringOpened, keyring_session
from contracts.ledger import LedgerCheckpointed, SessionSealed
from contracts.operator import RULES, KindName, SessionRequested
from contracts.roles import BUILT_IN
from contracts.trainer import (
    CheckpointWritten,
    ControlEvaluated,
    TrainingClaimed,
    TrainingCompleted,
    WindowRecorded,
)
from runtime.bundle.bundle_members import keep_fixed_members, sealed_tree_head
from runtime.home.home import Home
from runtime.log.session_log import SessionLog

TIME = "2026-01-02T03:04:05.000000Z"
ROLES = (*BUILT_IN, "desk", "guest_ant")
REQUEST = {
    "name": "digits",
    "data": {"source": "digits"},
    "model": {"architecture": "linear"},
    "training": {"epochs": 2},
    "export": {"formats": ["onnx"], "quantize": []},
}
DIGEST = blake3(b"weights").hexdigest()


class RecordedHome:
    """Says events as their speakers do and keeps them in the home's files; the stream is a list."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self.home.prepare()
        self.blobs = DirectoryBlobs(self.home.blobs)
        self.stream: list[StoredRecord] = []
        self.facts: dict[str, list[Fact]] = {}
        store = KeyStore(self.home.keys)
        self.signers: dict[str, Signer] = {role: store.ensure(role) for role in ("root", *ROLES)}
        self.root_public = self.signers["root"].public
        self.fingerprint = store.pin(self.root_public)
        self.admission = Admission(root=self.fingerprint)
        self.ring = keyring_session(self.root_public)
        self.say(self.ring, "root", KeyringOpened(root=self.root_public, deployment="test"))
        for role in ROLES:
            if not role.startswith("guest_"):
                public = self.signers[role].public
                self.say(self.ring, "root", KeyAdmitted(role=role, public=public, may_admit=role == "desk"))
        ant = KeyAdmitted(
            role="guest_ant", public=self.signers["guest_ant"].public, guest=True, hears=["session.sealed"]
        )
        self.say(self.ring, "desk", ant)

    def say(self, session: str, lane: str, *events: Event, time: str = TIME) -> list[Fact]:
        """One append: admitted, and written to the session's file."""
        signer = self.signers["desk" if lane == "operator" else lane]
        drafts = [Draft(event, str(ids.new_uuid())) for event in events]
        head = self.admission.head(session, lane)
        records = compose(drafts, session=session, lane=lane, head=head, signer=signer, source="/swarm/test", time=time)
        return self.store(session, *records)

    def store(self, session: str, *records: Record) -> list[Fact]:
        """Append records to the stream and, as far as they were admitted, to the file."""
        arrived: list[StoredRecord] = []
        facts: list[Fact] = []
        for record in records:
            stored = StoredRecord(len(self.stream) + 1, record.subject, record.body, record.headers)
            self.stream.append(stored)
            arrived.append(stored)
            facts += self.admission.admit(stored)
        admitted = {fact.seq for fact in facts}
        with LogFile(self.home.log(session), session) as file:
            file.append(*(one for one in arrived if one.seq in admitted))
        self.facts.setdefault(session, []).extend(facts)
        return facts

    def requested(
        self,
        kind: KindName = "training",
        *,
        session: str = "",
        time: str = TIME,
        fork: Fork | None = None,
        rules: int = RULES,
        **changes: Any,
    ) -> str:
        """A new session with its genesis."""
        session = session or ids.session_id(ids.new_uuid())
        head, parent = self.admission.keyring().head, fork.session if fork else None
        asked = {"request": REQUEST | changes, "asked_by": "test", "parent": parent, "fork": fork, "rules": rules}
        genesis = SessionRequested(kind=kind, keyring=head, **asked)
        self.say(session, "operator", genesis, time=time)
        return session

    def trained(self, *, seal: bool = True) -> str:
        """A session from genesis to seal: two windows, two evaluations, a checkpoint, an exported model."""
        session = self.requested()
        blob = self.blobs.put(b"a checkpoint")
        model = self.blobs.put(b"a model")
        self.say(session, "trainer", claimed())
        for first, last, loss in ((0, 50, 0.5), (50, 100, 0.25)):
            self.say(session, "trainer", window(first, last), evaluated(last, loss))
        self.say(session, "ledger", self.noted(session))
        written = CheckpointWritten(
            segment=1, step=100, reason="final", state_root=DIGEST, weights_digest=DIGEST, blob=blob, bytes=12
        )
        self.say(session, "trainer", written)
        stored = CheckpointStored(segment=1, step=100, blob=blob, state_root=DIGEST, bytes=12, kept_as=["best", "last"])
        self.say(session, "checkpoint_keeper", stored)
        self.say(session, "trainer", completed(blob))
        self.say(session, "exporter", exported(model, blob))
        if seal:
            self.say(session, "ledger", self.seal(session))
        return session

    def noted(self, session: str) -> LedgerCheckpointed:
        """The ledger's signed note over everything said so far."""
        size, root, last_seq, note = self._book(session)
        return LedgerCheckpointed(size=size, root=root, last_seq=last_seq, note=note)

    def seal(self, session: str) -> SessionSealed:
        """The ledger's last word about everything said so far, as the ledger itself composes it."""
        book, ring, history = LedgerState(), LedgerState(), SessionLog(session)
        history.add(self.facts[session])
        for fact in self.facts[session]:
            book = book.advance(fact)
        for fact in self.facts[self.ring]:
            ring = ring.advance(fact)
        said = book.sealed(history.state, ring, keep_fixed_members(self.blobs))
        return self.signed(session, said)

    def signed(self, session: str, said: SessionSealed) -> SessionSealed:
        """The seal with the ledger's note on what it says."""
        return said.model_copy(update={"note": notes.sign(sealed_tree_head(session, said), self.signers["ledger"])})

    def _book(self, session: str) -> tuple[int, str, int, str]:
        tree, seqs = Tree(), [fact.seq for fact in self.facts[session]]
        for seq in seqs:
            tree.append(leaf_of(self.stream[seq - 1]))
        origin = notes.origin(session)
        checkpoint = notes.SignedTreeHead(origin, tree.size, tree.root(), (f"last-seq {seqs[-1]}",))
        return tree.size, tree.root().hex(), seqs[-1], notes.sign(checkpoint, self.signers["ledger"])


def claimed() -> TrainingClaimed:
    return TrainingClaimed(
        epoch=1,
        worker="here",
        incarnation="a",
        segment=1,
        resumed_from=0,
        dataset=DIGEST,
        resolved={"steps_total": 100},
        engine_bits=1,
        fingerprint=DIGEST,
        families={},
        environment={},
        sources={},
    )


def window(first: int, last: int) -> WindowRecorded:
    return WindowRecorded(
        segment=1,
        first=first,
        last=last,
        losses=pack(b"\x00\x00\x80\x3f" * (last - first)),
        gradient_norm=1.5,
        learning_rate=0.001,
        index_digest="i",
        weights_digest=DIGEST,
        finite=True,
        layer_names=[],
        layer_figures="",
    )


def evaluated(step: int, loss: float) -> ControlEvaluated:
    return ControlEvaluated(
        segment=1,
        step=step,
        epoch=step // 50,
        values={"val_loss": loss, "val_accuracy": 1 - loss},
        metric="val_loss",
        improved=True,
        best=loss,
        best_step=step,
        patience_left=10,
        stop=False,
    )


def completed(blob: str, loss: float = 0.25) -> TrainingCompleted:
    return TrainingCompleted(
        segment=1,
        step=100,
        epochs=2,
        stopped_early=False,
        best_step=100,
        weights_digest=DIGEST,
        state_root=DIGEST,
        final_blob=blob,
        values=evaluated(100, loss).values,
    )


def exported(model: str, checkpoint: str) -> ModelExported:
    return ModelExported(
        format="onnx",
        quantize="",
        checkpoint="best",
        checkpoint_step=100,
        checkpoint_blob=checkpoint,
        blob=model,
        bytes=7,
        filename="model.onnx",
        opset=20,
        parity={"max_abs": 1e-7},
        rows_compared=64,
        details=ExportDetails(),
    )
