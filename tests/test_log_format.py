"""The page on the format tells the truth: its vectors are computed, and both verifiers read what they describe."""

from __future__ import annotations

from bus.admission import Admission
from bus.notes import verify
from runtime.bundle import verify_bundle
from tests.vectors import PAGE, keyring, replaced, rows


def test_the_vectors_of_the_page_are_those_of_the_code():
    page = PAGE.read_text(encoding="utf-8")
    assert page == replaced(page), "write them anew: python tests/vectors.py"


def test_the_vectors_are_admitted():
    session, stored, keys = keyring()
    admission = Admission()
    assert len([fact for one in stored for fact in admission.admit(one)]) == 3
    assert not list(admission.voids)
    assert admission.keyring().session == session
    assert verify(dict(rows())["note"] + "\n", keys["ledger"].public).size == 3


def test_the_other_verifier_computes_the_same_vectors():
    session, stored, keys = keyring()
    told = dict(rows())
    records = [verify_bundle.Record(one.seq, one.subject, one.headers.get("Swarm-Sig", ""), one.body) for one in stored]
    assert [one.leaf.hex() for one in records] == [told[f"leaf hash {n}"] for n in (1, 2, 3)]
    assert [root.hex() for root in verify_bundle.roots_of(one.leaf for one in records)][1:] == [
        told[f"root over {n}"] for n in (1, 2, 3)
    ]
    assert verify_bundle.keyring_session(keys["root"].public, "00") == session == told["keyring session"]
    assert verify_bundle.blake3(bytes(3000)) == told["BLAKE3 of 3000 zero bytes"]
    ledger = verify_bundle.Key(keys["ledger"].public, "ledger", 0)
    assert verify_bundle.signed_by(told["note"] + "\n", [ledger])
    members = {"a": "0" * 64, "b": "1" * 64}
    assert verify_bundle.members_digest(members) == told["members digest of {a: 00..00, b: 11..11}"]
    raw = bytes.fromhex(told["container of a = hello and a line feed, b = nothing, in hex"])
    assert {name: bytes(one) for name, one in verify_bundle.members_of(memoryview(raw)).items()} == {
        "a": b"hello\n",
        "b": b"",
    }
