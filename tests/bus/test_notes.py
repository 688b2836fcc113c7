"""Checkpoints are C2SP signed notes, and there is one way to write each."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus.keys import Signer, new_signer
from bus.notes import SignedTreeHead, key_hash, origin, parse, sign, verify
from contracts.errors import InvalidInput, NotVerified

SEED = bytes(range(32))
CHECKPOINT = SignedTreeHead(origin("00-abc"), 42, bytes(32), ("last-seq 57",))


@pytest.fixture
def ledger() -> Signer:
    return Signer("ledger", Ed25519PrivateKey.from_private_bytes(SEED))


def test_a_note_reads_back_as_what_was_signed(ledger: Signer) -> None:
    note = sign(CHECKPOINT, ledger)
    assert verify(note, ledger.public) == parse(note) == CHECKPOINT
    assert CHECKPOINT.extension("last-seq") == "57"
    assert CHECKPOINT.extension("other") == ""


def test_a_note_is_written_line_by_line_as_the_specification_says(ledger: Signer) -> None:
    note = sign(CHECKPOINT, ledger)
    text, signature = note.split("\n\n")
    assert text == f"stigmergy/00-abc\n42\n{'A' * 43}=\nlast-seq 57"
    dash, name, blob = signature.rstrip("\n").split(" ")
    assert (dash, name) == ("—", "stigmergy/00-abc")
    raw = base64.b64decode(blob)
    assert len(raw) == 68
    assert raw[:4] == key_hash("stigmergy/00-abc", ledger.public)
    key = Ed25519PrivateKey.from_private_bytes(SEED).public_key()
    key.verify(raw[4:], f"{text}\n".encode())


@pytest.mark.parametrize(
    "verifier",
    [
        "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ],
)
def test_the_key_hash_is_that_of_published_verifiers(verifier: str) -> None:
    name, short, encoded = verifier.split("+", 2)
    assert key_hash(name, base64.b64decode(encoded)[1:].hex()).hex() == short


def test_another_key_does_not_verify(ledger: Signer) -> None:
    with pytest.raises(NotVerified, match="another key"):
        verify(sign(CHECKPOINT, ledger), new_signer("ledger").public)


def test_every_changed_character_is_noticed(ledger: Signer) -> None:
    note = sign(CHECKPOINT, ledger)
    for at, character in enumerate(note):
        for other in {chr(ord(character) ^ 1), chr(ord(character) ^ 4), "\n", "A", "="} - {character}:
            with pytest.raises(NotVerified):
                verify(note[:at] + other + note[at + 1 :], ledger.public)
        with pytest.raises(NotVerified):
            verify(note[:at] + note[at + 1 :], ledger.public)
        with pytest.raises(NotVerified):
            verify(note[:at] + "1" + note[at:], ledger.public)


@pytest.mark.parametrize("note", ["", "\n\n", "a\n1\n\n— a b\n", "stigmergy/x\n007\n", "x" * 200])
def test_what_is_no_note_is_refused(note: str, ledger: Signer) -> None:
    with pytest.raises(NotVerified):
        verify(note, ledger.public)


@pytest.mark.parametrize(
    "checkpoint",
    [
        SignedTreeHead("two words", 1, bytes(32)),
        SignedTreeHead("a+b", 1, bytes(32)),
        SignedTreeHead("", 1, bytes(32)),
        SignedTreeHead("a", -1, bytes(32)),
        SignedTreeHead("a", 1, bytes(31)),
        SignedTreeHead("a", 1, bytes(32), ("",)),
        SignedTreeHead("a", 1, bytes(32), ("one\ntwo",)),
    ],
)
def test_what_cannot_be_written_in_one_way_is_not_signed(checkpoint: SignedTreeHead, ledger: Signer) -> None:
    with pytest.raises(InvalidInput):
        sign(checkpoint, ledger)
