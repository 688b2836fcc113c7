"""The test vectors of docs/log-format.md, computed by the code that the page describes.

    python tests/vectors.py      writes them into the page

Keys are fixed and public: nothing that they sign counts anywhere.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus import notes
from bus.chain import START, Draft, Head, compose
from bus.keys import HEADER, Signer
from bus.port import StoredRecord
from bus.records import frame, title
from bus.tree import Tree, headers_digest, leaf_hash, leaf_of
from contracts.ids import session_id, sha256, uuid8
from contracts.keyring import KeyAdmitted, KeyringOpened, fingerprint, keyring_session
from runtime.bundle import bundle_members, container

PAGE = Path(__file__).parents[1] / "docs" / "log-format.md"
BEGIN, END = "<!-- vectors: python tests/vectors.py -->\n", "<!-- end of vectors -->\n"
TIME = "2026-01-02T03:04:05.000000Z"


def signer(role: str, byte: int) -> Signer:
    """The key whose secret is 32 times one byte."""
    return Signer(role, Ed25519PrivateKey.from_private_bytes(bytes([byte]) * 32))


def keyring() -> tuple[str, list[StoredRecord], dict[str, Signer]]:
    """A keyring of two appends: the root opens it, then admits the ledger and the desk in one."""
    keys = {role: signer(role, n) for n, role in enumerate(("root", "ledger", "desk"), 1)}
    root = keys["root"]
    session = keyring_session(root.public)
    admitted = [
        KeyAdmitted(role=role, public=keys[role].public, may_admit=role == "desk") for role in ("ledger", "desk")
    ]
    stored: list[StoredRecord] = []
    head = START
    for events in ([KeyringOpened(root=root.public, deployment="example")], admitted):
        drafts = [Draft(event, str(uuid8("vector", len(stored) + n))) for n, event in enumerate(events)]
        made = compose(drafts, session=session, lane="root", head=head, signer=root, source="/example", time=TIME)
        stored += [StoredRecord(len(stored) + n, one.subject, one.body, one.headers) for n, one in enumerate(made, 1)]
        head = Head(len(stored), sha256(stored[-1].body))
    return session, stored, keys


def container_hex() -> str:
    """A container of two members."""
    with tempfile.TemporaryDirectory() as folder:
        container.write_container(Path(folder) / "c", [("a", b"hello\n"), ("b", b"")])
        return (Path(folder) / "c").read_bytes().hex()


def rows() -> list[tuple[str, str]]:
    """Every vector: what it is, and its text."""
    session, stored, keys = keyring()
    root, tree, grown = keys["root"], Tree(), []
    for one in stored:
        tree.append(leaf_of(one))
        grown.append(tree.root().hex())
    other = session_id(uuid8("vector"))
    note = notes.sign(notes.SignedTreeHead(notes.origin(other), 3, tree.root(), ("last-seq 3",)), keys["ledger"])
    return [
        ("root secret", "01" * 32),
        ("root public", root.public),
        ("root fingerprint", fingerprint(root.public)),
        ("root key id", root.key_id),
        ("keyring session", session),
        *((f"body {n}", one.body.decode()) for n, one in enumerate(stored, 1)),
        *((f"SHA-256 of body {n}", sha256(one.body)) for n, one in enumerate(stored, 1)),
        ("signature header 1", stored[0].headers[HEADER]),
        ("signature header 3", stored[2].headers[HEADER]),
        ("leaf 1", leaf_of(stored[0]).decode().rstrip("\n")),
        ("headers digest 1", headers_digest(stored[0].headers)),
        ("headers digest 2 (no header)", headers_digest({})),
        *((f"leaf hash {n}", leaf_hash(leaf_of(one)).hex()) for n, one in enumerate(stored, 1)),
        *((f"root over {n}", one) for n, one in enumerate(grown, 1)),
        ("ledger public", keys["ledger"].public),
        ("note", note.rstrip("\n")),
        ("first line of the log", title(session).decode().rstrip("\n")),
        ("record 2", frame(stored[1]).decode().rstrip("\n")),
        ("SHA-256 of the log", sha256(title(session) + b"".join(map(frame, stored)))),
        ("members digest of {a: 00..00, b: 11..11}", bundle_members.members_digest({"b": "1" * 64, "a": "0" * 64})),
        ("BLAKE3 of 3000 zero bytes", blake3(bytes(3000)).hexdigest()),
        ("container of a = hello and a line feed, b = nothing, in hex", container_hex()),
    ]


def text() -> str:
    """The vectors as they stand in the page."""
    return "".join(f"\n{name}\n\n```\n{value}\n```\n" for name, value in rows()) + "\n"


def replaced(page: str) -> str:
    """The page with these vectors in it."""
    return re.sub(f"(?s)(?<={re.escape(BEGIN)}).*(?={re.escape(END)})", lambda _: text(), page)


if __name__ == "__main__":
    PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
