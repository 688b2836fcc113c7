"""Who may be admitted, by whom, and from when until when a key counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts.envelope import Fact
from contracts.event import Event
from contracts.ids import ZERO, sha256
from contracts.keyring import (
    Key,
    KeyAdmitted,
    KeyRevoked,
    Keyring,
    KeyringOpened,
    KeyRotated,
    advance,
    fingerprint,
    key_id,
    keyring_of,
    keyring_session,
    objection,
)
from tests.contracts.told import fact

ROOT, DESK, TRAINER, ANT, NEW = (sha256(name.encode()) for name in ("root", "desk", "trainer", "ant", "new"))
OPENED = KeyringOpened(root=ROOT, deployment="test")


def said(event: Event, seq: int) -> Fact:
    return fact(event, seq, lane="root", session=keyring_session(ROOT))


def folded(*events: Event) -> Keyring:
    keyring = Keyring()
    for seq, event in enumerate(events, 1):
        keyring = advance(keyring, said(event, seq))
    return keyring


@pytest.fixture
def keyring() -> Keyring:
    return folded(
        OPENED,
        KeyAdmitted(role="desk", public=DESK, may_admit=True),
        KeyAdmitted(role="trainer", public=TRAINER),
        KeyAdmitted(role="guest_ant", public=ANT, guest=True, hears=["resources.summarised"]),
    )


def test_a_key_id_is_the_beginning_of_the_keys_fingerprint() -> None:
    assert key_id(ROOT) == fingerprint(ROOT)[:16]
    assert fingerprint("00" * 32) == "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925"


def test_the_session_derives_from_the_root_and_names_its_partition() -> None:
    assert keyring_session(ROOT) == keyring_session(ROOT) != keyring_session(NEW)
    assert keyring_session(ROOT, "07").startswith("07-")
    assert keyring_of(fingerprint(ROOT)) == keyring_session(ROOT)


def test_the_first_event_brings_the_root(keyring: Keyring) -> None:
    assert (keyring.root, keyring.deployment, keyring.session) == (ROOT, "test", keyring_session(ROOT))
    assert keyring.keys[key_id(ROOT)].role == "root"


def test_the_head_is_the_digest_of_the_last_event(keyring: Keyring) -> None:
    last = said(KeyRevoked(key=key_id(ANT), reason="lost"), 5)
    after = advance(keyring, last)
    assert (after.head, after.seq) == (last.digest, 5)
    assert keyring.head != after.head
    assert Keyring().head == ZERO


def test_an_admitted_key_speaks_from_its_admission_on(keyring: Keyring) -> None:
    key = keyring.current("trainer")
    assert key == Key(key_id(TRAINER), "trainer", TRAINER, since=3)
    assert [key.valid(seq) for seq in (2, 3, 1000)] == [False, True, True]
    assert [guest.hears for guest in keyring.guests()] == [("resources.summarised",)]


def test_rotation_ends_the_old_key_where_the_new_one_begins_and_keeps_its_rights(keyring: Keyring) -> None:
    after = advance(keyring, said(KeyRotated(role="desk", old=key_id(DESK), public=NEW), 9))
    old, new = after.keys[key_id(DESK)], after.current("desk")
    assert new == Key(key_id(NEW), "desk", NEW, since=9, may_admit=True)
    assert [(old.valid(seq), new.valid(seq)) for seq in (8, 9)] == [(True, False), (False, True)]


def test_revocation_ends_a_key_and_leaves_its_past(keyring: Keyring) -> None:
    after = advance(keyring, said(KeyRevoked(key=key_id(ANT), reason="lost"), 9))
    assert after.current("guest_ant") is None
    assert after.guests() == ()
    assert after.keys[key_id(ANT)].valid(8)
    assert keyring.current("guest_ant") is not None


@pytest.mark.parametrize(
    ("lane", "event", "why"),
    [
        ("root", OPENED, "open already"),
        ("desk", KeyAdmitted(role="spy", public=NEW), "guests and nothing else"),
        ("desk", KeyRotated(role="trainer", old=key_id(TRAINER), public=NEW), "guests and nothing else"),
        ("desk", KeyRevoked(key=key_id(TRAINER), reason=""), "guests and nothing else"),
        ("root", KeyAdmitted(role="root", public=NEW), "no role"),
        ("root", KeyAdmitted(role="operator", public=NEW), "no role"),
        ("root", KeyAdmitted(role="ant", public=NEW, guest=True), "begins with 'guest_'"),
        ("root", KeyAdmitted(role="guest_bee", public=NEW), "begins with 'guest_'"),
        ("desk", KeyAdmitted(role="guest_bee", public=NEW, guest=True, may_admit=True), "only the desk"),
        ("root", KeyAdmitted(role="trainer", public=NEW), "has a key already"),
        ("root", KeyAdmitted(role="validator", public=TRAINER), "admitted before"),
        ("root", KeyRotated(role="desk", old=key_id(TRAINER), public=NEW), "not that of 'desk'"),
        ("root", KeyRotated(role="trainer", old=key_id(TRAINER), public=ANT), "admitted before"),
        ("root", KeyRotated(role="trainer", old=key_id(NEW), public=NEW), "not admitted"),
        ("root", KeyRevoked(key=key_id(NEW), reason=""), "not admitted"),
        ("root", KeyRevoked(key=key_id(ROOT), reason=""), "stands as long"),
    ],
)
def test_what_may_not_be_said_is_objected_to(keyring: Keyring, lane: str, event: Event, why: str) -> None:
    assert why in objection(keyring, lane, event)


def test_what_may_be_said_is_not_objected_to(keyring: Keyring) -> None:
    assert objection(Keyring(), "root", OPENED) == ""
    assert objection(keyring, "root", KeyAdmitted(role="validator", public=NEW)) == ""
    assert objection(keyring, "desk", KeyAdmitted(role="guest_bee", public=NEW, guest=True)) == ""
    assert objection(keyring, "root", KeyRotated(role="trainer", old=key_id(TRAINER), public=NEW)) == ""
    assert objection(keyring, "root", KeyRevoked(key=key_id(TRAINER), reason="lost")) == ""


def test_a_guest_that_hears_something_else_is_admitted_again_with_the_same_key(keyring: Keyring) -> None:
    again = KeyAdmitted(role="guest_ant", public=ANT, guest=True, hears=["training.completed"])
    assert objection(keyring, "desk", again) == ""
    after = advance(keyring, said(again, 9))
    assert after.current("guest_ant") == replace(keyring.keys[key_id(ANT)], hears=("training.completed",))
    assert "just that" in objection(after, "desk", again)


def test_before_the_root_nobody_is_admitted() -> None:
    assert objection(Keyring(), "root", KeyAdmitted(role="desk", public=DESK)) == "the keyring is not open yet"
    assert objection(Keyring(), "desk", OPENED) != ""


def test_a_revoked_key_is_never_admitted_again(keyring: Keyring) -> None:
    after = advance(keyring, said(KeyRevoked(key=key_id(TRAINER), reason="lost"), 9))
    assert "admitted before" in objection(after, "root", KeyAdmitted(role="trainer", public=TRAINER))
    assert objection(after, "root", KeyAdmitted(role="trainer", public=NEW)) == ""
