"""Secrets that only their owner can read, signatures that have one spelling."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bus.keys import HEADER, KeyStore, Signer, new_signer, split, verify, verify_raw
from contracts.errors import InvalidInput, NotFound, NotVerified, Refused
from contracts.keyring import fingerprint, key_id


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "home" / "keys")


def test_a_key_is_loaded_as_it_was_created(store: KeyStore) -> None:
    created, loaded = store.create("trainer"), store.load("trainer")
    assert (loaded.role, loaded.public, loaded.key_id) == ("trainer", created.public, key_id(created.public))
    verify(created.public, b"body", loaded.sign(b"body"))


def test_secrets_are_readable_by_their_owner_alone(store: KeyStore) -> None:
    store.create("trainer")
    assert store.directory.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in store.directory.iterdir()] == ["trainer.key"]
    assert (store.directory / "trainer.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_secret_that_others_can_read_is_refused_with_the_cure(store: KeyStore, mode: int) -> None:
    store.create("trainer")
    path = store.directory / "trainer.key"
    path.chmod(mode)
    with pytest.raises(Refused, match="can be read by others") as refused:
        store.load("trainer")
    assert f"chmod 600 {path}" in refused.value.cure


def test_a_directory_that_others_can_read_is_refused_with_the_cure(store: KeyStore) -> None:
    store.create("trainer")
    store.directory.chmod(0o755)
    with pytest.raises(Refused, match="others") as refused:
        store.load("trainer")
    assert f"chmod 700 {store.directory}" in refused.value.cure


def test_a_key_is_never_overwritten(store: KeyStore) -> None:
    first = store.create("trainer")
    with pytest.raises(Refused, match="exists already"):
        store.create("trainer")
    assert store.load("trainer").public == first.public
    assert len(list(store.directory.iterdir())) == 1


def test_all_who_race_to_create_a_key_get_the_same_one(store: KeyStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        publics = {signer.public for signer in pool.map(store.ensure, ["trainer"] * 16)}
    assert publics == {store.load("trainer").public}


def test_a_missing_key_is_not_found(store: KeyStore) -> None:
    with pytest.raises(NotFound, match="no key for 'trainer'"):
        store.load("trainer")


def test_a_damaged_key_is_named(store: KeyStore) -> None:
    store.create("trainer")
    (store.directory / "trainer.key").write_bytes(b"not a key")
    with pytest.raises(NotVerified, match=r"trainer\.key"):
        store.load("trainer")


@pytest.mark.parametrize("role", ["", "../trainer", "Trainer", "a.b"])
def test_a_role_cannot_name_a_file_elsewhere(store: KeyStore, role: str) -> None:
    with pytest.raises(InvalidInput):
        store.create(role)


def test_the_roles_with_keys_are_listed(store: KeyStore) -> None:
    assert store.roles() == ()
    store.create("validator")
    store.create("guest_ant")
    assert store.roles() == ("guest_ant", "validator")


def test_the_pinned_root_is_read_back_and_no_other_takes_its_place(store: KeyStore) -> None:
    root, other = new_signer("root"), new_signer("root")
    assert store.pinned() == ""
    assert store.pin(root.public) == store.pin(root.public) == store.pinned() == fingerprint(root.public)
    with pytest.raises(Refused, match="pins root"):
        store.pin(other.public)


def test_a_pin_that_is_no_fingerprint_is_refused(store: KeyStore) -> None:
    store.pin(new_signer("root").public)
    (store.directory / "root.pub").write_text("anything\n")
    with pytest.raises(NotVerified):
        store.pinned()


def test_a_signer_never_shows_its_secret(store: KeyStore) -> None:
    signer = store.create("trainer")
    assert repr(signer) == f"Signer('trainer', {signer.key_id})"


def test_a_known_answer_holds() -> None:
    """The secret and public key of RFC 8032, 7.1, test 1, over a body: the format as others must reproduce it."""
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    signature = "fyyOXk-DogBYWpHMdtnFvZCN_hsOySK04XsUT2NozKnXDtuNp1pOpHMupfPBCYhov2a0xHOPQOaJaTvlEUuwAg"
    verify(public, b"{}", f"21fe31dfa154a261:{signature}")
    assert HEADER == "Swarm-Sig"


def test_another_body_another_key_and_another_signature_do_not_verify() -> None:
    signer, other = new_signer("a"), new_signer("b")
    header = signer.sign(b"body")
    for public, body, text in (
        (signer.public, b"Body", header),
        (other.public, b"body", header),
        (other.public, b"body", f"{other.key_id}:{header[17:]}"),
        (signer.public, b"body", other.sign(b"body")),
    ):
        with pytest.raises(NotVerified):
            verify(public, body, text)


def test_a_signature_has_one_spelling() -> None:
    signer = new_signer("a")
    header = signer.sign(b"body")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = header[:-1] + alphabet[alphabet.index(header[-1]) ^ 1]
    assert base64.urlsafe_b64decode(twin[17:] + "==") == split(header)[1]
    for text in (header + "==", header.upper(), f" {header}", header + "\n", twin):
        with pytest.raises(NotVerified):
            verify(signer.public, b"body", text)


def test_a_note_cannot_be_passed_off_as_an_events_signature() -> None:
    signer = new_signer("a")
    with pytest.raises(InvalidInput):
        signer.sign_raw(b"stigmergy/sig/1\n" + bytes(32))
    verify_raw(signer.public, b"note", signer.sign_raw(b"note"))


def test_a_public_key_that_is_none_verifies_nothing() -> None:
    signer: Signer = new_signer("a")
    with pytest.raises(NotVerified):
        verify_raw("ff" * 32, b"note", signer.sign_raw(b"note"))
