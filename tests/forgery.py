"""A session told by somebody who has every key, record by record, and who need not keep to any rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from bus import notes, subjects
from bus.blobs import digest_of
from bus.chain import Draft, Head, compose
from bus.keys import HEADER, Signer, new_signer
from bus.port import StoredRecord
from bus.records import frame, title
from bus.tree import Tree, leaf_of
from contracts.event import Event
from contracts.ids import new_uuid, session_id, sha256
from contracts.keyring import KeyAdmitted, KeyringOpened, fingerprint, keyring_session
from contracts.ledger import LedgerCheckpointed, SessionSealed
from contracts.operator import RULES, SessionRequested
from contracts.roles import ANYBODY
from runtime.bundle import bundle_members
from runtime.bundle.bundle_members import sealed_tree_head
from runtime.bundle.container import write_container

TIME = "2026-01-02T03:04:05.000000Z"
ROLES = ("desk", "trainer", "validator", "ledger")
GUESTS = ("guest_ant", "guest_bee")

Edit = Callable[[dict[str, Any]], object]


class Word(Event, lane=ANYBODY, wire="word.said"):
    """An event that nobody has a schema for."""

    text: str


class Story:
    """A keyring and a session that begin as they should; what is said then is up to the caller."""

    def __init__(self) -> None:
        self.signers = {role: new_signer(role) for role in ("root", *ROLES, *GUESTS)}
        self.signers["operator"] = self.signers["desk"]
        self.root = self.signers["root"].public
        self.ring_session, self.session = keyring_session(self.root), session_id(new_uuid())
        self.ring: list[StoredRecord] = []
        self.log: list[StoredRecord] = []
        self.seq = 0
        self.heads: dict[tuple[str, str], Head] = {}
        self.keys(KeyringOpened(root=self.root, deployment="test"))
        for role in ROLES:
            self.keys(KeyAdmitted(role=role, public=self.signers[role].public, may_admit=role == "desk"))
        for role in GUESTS:
            self.keys(KeyAdmitted(role=role, public=self.signers[role].public, guest=True), lane="desk")

    @property
    def fingerprint(self) -> str:
        """The root's, as readers pin it."""
        return fingerprint(self.root)

    def begin(self, rules: int = RULES) -> None:
        """Genesis, and a word of everybody."""
        self.say("operator", self.genesis(rules))
        for lane in ("trainer", "validator", "guest_ant", "trainer"):
            self.say(lane, Word(text="so"))

    def genesis(self, rules: int = RULES) -> SessionRequested:
        """As the front desk would say it now."""
        head = sha256(self.ring[-1].body)
        return SessionRequested(kind="training", request={}, keyring=head, asked_by="me", rules=rules)

    def keys(self, event: Event, lane: str = "root", **how: Any) -> None:
        """One event of the keyring."""
        self.say(lane, event, session=self.ring_session, **how)

    def say(
        self,
        lane: str,
        *events: Event,
        session: str = "",
        signer: Signer | None = None,
        edit: Edit | None = None,
        raw: Callable[[bytes], bytes] = bytes,
        ids: list[str] | None = None,
        header: Callable[[str], str] = str,
        subject: Callable[[str], str] = str,
        skip: int = 0,
    ) -> None:
        """One append, chained and signed as it must be but for what is asked; `edit` and `raw` change its last body.

        `skip` sequences are left out before its last record. A `header` that is empty is no header.
        """
        session = session or self.session
        signer = signer or self.signers[lane]
        head = self.heads.get((session, lane), Head())
        names = ids or [str(new_uuid()) for _ in events]
        drafts = [Draft(event, name) for event, name in zip(events, names, strict=True)]
        records = compose(drafts, session=session, lane=lane, head=head, signer=signer, source="/forger", time=TIME)
        body, last = records[-1].body, records[-1]
        if edit:
            said = orjson.loads(body)
            edit(said)
            body = orjson.dumps(said)
        body = raw(body)
        signature = header(signer.sign(body))
        records[-1] = replace(
            last, subject=subject(last.subject), body=body, headers={HEADER: signature} if signature else {}
        )
        for record in records:
            self.seq += 1 + (skip if record is records[-1] else 0)
            self._stored(session).append(StoredRecord(self.seq, record.subject, record.body, record.headers))
        laneseq = orjson.loads(body)["laneseq"] if edit else head.laneseq + len(records)
        self.heads[session, lane] = Head(laneseq, sha256(body))

    def _stored(self, session: str) -> list[StoredRecord]:
        return self.ring if session == self.ring_session else self.log

    def root_over(self, size: int) -> str:
        """The root of the ledger's tree over the first records."""
        return _root(self.log[:size])

    def note(self, edit: Callable[[dict[str, Any]], object] = lambda _said: None, signer: Signer | None = None) -> None:
        """The ledger's note over everything said so far; `edit` changes what it and its event say."""
        size = len(self.log)
        said: dict[str, Any] = {
            "size": size,
            "root": self.root_over(size),
            "last_seq": self.log[size - 1].seq,
            "origin": notes.origin(self.session),
            "extensions": None,
            "event": {},
        }
        edit(said)
        lines = said["extensions"] or (f"last-seq {said['last_seq']}",)
        checkpoint = notes.SignedTreeHead(said["origin"], said["size"], bytes.fromhex(said["root"]), lines)
        note = notes.sign(checkpoint, signer or self.signers["ledger"])
        told = {name: said[name] for name in ("size", "root", "last_seq")} | said["event"]
        self.say("ledger", LedgerCheckpointed(**told, note=note))

    def sealed(self) -> SessionSealed:
        """The seal as the ledger must say it now, without its note."""
        lanes = {subjects.parse(one.subject).lane: sha256(one.body) for one in self.log}
        return SessionSealed(
            size=len(self.log),
            root=self.root_over(len(self.log)),
            last_seq=self.log[-1].seq,
            lanes=lanes,
            keyring=orjson.loads(self.log[0].body)["data"]["keyring"],
            keyring_size=len(self.ring),
            keyring_root=_root(self.ring),
            members={name: digest_of(content) for name, content in bundle_members.fixed_members().items()},
            note="",
        )

    def seal(self, signer: Signer | None = None, **changes: Any) -> None:
        """Say the seal, with these changes under a note that says the same."""
        self.say("ledger", self.noted(self.sealed().model_copy(update=changes), signer))

    def noted(self, said: SessionSealed, signer: Signer | None = None) -> SessionSealed:
        """The seal with the note that belongs to it."""
        note = notes.sign(sealed_tree_head(self.session, said), signer or self.signers["ledger"])
        return said.model_copy(update={"note": note})

    def file(self) -> bytes:
        """The session's file."""
        return title(self.session) + b"".join(map(frame, self.log))

    def keyring_file(self) -> bytes:
        """The keyring's."""
        return title(self.ring_session) + b"".join(map(frame, self.ring))

    def bundle(self, path: Path) -> Path:
        """Write what would be its bundle, whatever is in it."""
        texts = bundle_members.fixed_members()
        fixed = [(bundle_members.MARKER, bundle_members.marker(self.session, ())), (bundle_members.LOG, self.file())]
        write_container(
            path,
            [
                *fixed,
                (bundle_members.KEYRING, self.keyring_file()),
                *((name, texts[name]) for name in bundle_members.FIXED_MEMBERS),
            ],
        )
        return path


def _root(records: list[StoredRecord]) -> str:
    tree = Tree()
    for one in records:
        tree.append(leaf_of(one))
    return tree.root().hex()
