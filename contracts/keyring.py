"""Who may sign what: the events of a deployment's keyring session and the pure fold over them.

It knows keys as text and never verifies a signature: that is `bus.keys`, asked by `bus.admission`. A key is valid
from the sequence of the event that admitted it up to the one that rotated or revoked it, both counted in the stream
that holds the keyring; every partition holds a keyring session of its own, under the same root.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

from pydantic import Field, StringConstraints

from contracts.envelope import Fact
from contracts.event import Event, Hex64, Payload
from contracts.ids import PARTITION, ZERO, session_id, uuid8
from contracts.roles import DESK, GUEST, OPERATOR, ROOT, Right
from contracts.signed_command import ASKING, PERSON, SignedCommand, unsigned

Role = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,64}$")]
KeyId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]


class KeyringOpened(Event, lane=(DESK, ROOT), wire="keyring.opened", says="keyring of {deployment} opened"):
    """The first word of a deployment, signed by the very key it names."""

    root: Hex64
    deployment: str


def _no_rights(old: Payload) -> Payload:
    return old | {"rights": [], "signed": None}


class KeyAdmitted(Event, lane=(DESK, ROOT), wire="key.admitted", upcasts=[_no_rights], says="key of {role} admitted"):
    """From here on this key speaks for this role; `hears` lists what wakes a guest, and may be said anew for it.

    Since version 2 it may be a person's, with the rights of that person: such a key signs commands, in no lane.
    """

    role: Role
    public: Hex64
    may_admit: bool = False
    guest: bool = False
    hears: list[str] = Field(default_factory=list)
    rights: list[Right] = Field(default_factory=list)
    signed: SignedCommand | None = None


class KeyRotated(Event, lane=(DESK, ROOT), wire="key.rotated", upcasts=[unsigned], says="key of {role} rotated"):
    """The role's old key ends here and this one begins, with the same rights."""

    role: Role
    old: KeyId
    public: Hex64
    signed: SignedCommand | None = None


class KeyRevoked(Event, lane=(DESK, ROOT), wire="key.revoked", upcasts=[unsigned], says="key {key} revoked: {reason}"):
    """From here on nothing signed by this key counts; what it signed before stays."""

    key: KeyId
    reason: str
    signed: SignedCommand | None = None


def key_id(public: str) -> str:
    """The short name of a public key (hex), as signatures write it."""
    return fingerprint(public)[:16]


def fingerprint(public: str) -> str:
    """The SHA-256 of the public key's 32 bytes: what readers pin of a root."""
    return hashlib.sha256(bytes.fromhex(public)).hexdigest()


def keyring_session(root: str, partition: str = PARTITION) -> str:
    """The session in which the keys under this root public key are kept, in one partition."""
    return keyring_of(fingerprint(root), partition)


def keyring_of(pinned: str, partition: str = PARTITION) -> str:
    """The keyring session of the root with this fingerprint."""
    return session_id(uuid8("keyring", pinned), partition)


@dataclass(frozen=True, slots=True)
class Key:
    """A public key, whose it is, and the half-open interval of stream sequences in which it counts."""

    id: str
    role: str
    public: str
    since: int
    until: int | None = None
    may_admit: bool = False
    guest: bool = False
    hears: tuple[str, ...] = ()
    rights: tuple[Right, ...] = ()
    """What it may sign commands for: a person's as admitted, a built-in role's by its name."""

    def valid(self, seq: int) -> bool:
        """Whether the key is valid for a message at this sequence: since <= sequence < until."""
        return self.since <= seq and (self.until is None or seq < self.until)


@dataclass(frozen=True, slots=True)
class Keyring:
    """All keys of a deployment as of one event; `head` is that event's digest, as a genesis names it."""

    session: str = ""
    root: str = ""
    deployment: str = ""
    head: str = ZERO
    seq: int = 0
    keys: Mapping[str, Key] = field(default_factory=dict)

    def current(self, role: str) -> Key | None:
        """The key that speaks for the role now."""
        return next((key for key in self.keys.values() if key.role == role and key.until is None), None)

    def guests(self) -> tuple[Key, ...]:
        """The keys of all guests that are admitted now."""
        return tuple(key for key in self.keys.values() if key.guest and key.until is None)

    def people(self) -> tuple[Key, ...]:
        """The keys of all people who are admitted now."""
        return tuple(key for key in self.keys.values() if key.role.startswith(PERSON) and key.until is None)


def advance(keyring: Keyring, fact: Fact) -> Keyring:
    """The keyring after one admitted event of its session."""
    keyring = replace(keyring, head=fact.digest, seq=fact.seq)
    match fact.event:
        case KeyringOpened(root=root, deployment=deployment):
            key = Key(key_id(root), ROOT, root, fact.seq, may_admit=True)
            opened = replace(keyring, session=fact.envelope.subject, root=root, deployment=deployment)
            return _with(opened, key)
        case KeyAdmitted() as new if key_id(new.public) in keyring.keys:
            return _with(keyring, replace(keyring.keys[key_id(new.public)], hears=tuple(new.hears)))
        case KeyAdmitted() as new:
            rights = tuple(new.rights) if new.role.startswith(PERSON) else ASKING.get(new.role, ())
            key = Key(
                key_id(new.public),
                new.role,
                new.public,
                fact.seq,
                may_admit=new.may_admit,
                guest=new.guest,
                hears=tuple(new.hears),
                rights=rights,
            )
            return _with(keyring, key)
        case KeyRotated(old=old, public=public):
            before = keyring.keys[old]
            after = replace(before, id=key_id(public), public=public, since=fact.seq)
            return _with(keyring, replace(before, until=fact.seq), after)
        case KeyRevoked(key=revoked):
            return _with(keyring, replace(keyring.keys[revoked], until=fact.seq))
    return keyring


def _with(keyring: Keyring, *keys: Key) -> Keyring:
    return replace(keyring, keys={**keyring.keys, **{key.id: key for key in keys}})


def objection(keyring: Keyring, lane: str, event: Event) -> str:
    """Why this may not be said in this lane of the keyring session; empty when it may."""
    if isinstance(event, KeyringOpened) == bool(keyring.root):
        return "the keyring is open already" if keyring.root else "the keyring is not open yet"
    if lane == DESK and not (isinstance(event, KeyAdmitted) and event.guest):
        return "the desk may admit guests and nothing else"
    if isinstance(event, KeyAdmitted):
        return _against_admission(keyring, event)
    if isinstance(event, KeyRotated):
        before = keyring.keys.get(event.old)
        if before and before.role != event.role:
            return f"key {event.old!r} is not that of {event.role!r}"
        return _against_ending(keyring, event.old) or _against_key(keyring, event.public)
    return _against_ending(keyring, event.key) if isinstance(event, KeyRevoked) else ""


def _against_admission(keyring: Keyring, new: KeyAdmitted) -> str:
    if new.role in (ROOT, OPERATOR, GUEST):
        return f"{new.role!r} is no role that a key can have"
    if new.guest != new.role.startswith(GUEST):
        return f"guests, and only guests, have a role that begins with {GUEST!r}: {new.role!r}"
    if new.may_admit and new.role != DESK:
        return f"only the desk may admit others, not {new.role!r}"
    current = keyring.current(new.role)
    if current and current.guest and current.public == new.public:
        return "" if current.hears != tuple(new.hears) else f"{new.role!r} is admitted already, to hear just that"
    if current:
        return f"{new.role!r} has a key already; the root rotates it"
    return _against_key(keyring, new.public)


def _against_ending(keyring: Keyring, old: str) -> str:
    key = keyring.keys.get(old)
    if key is None or key.until is not None:
        return f"key {old!r} is not admitted"
    return "the root key stands as long as its keyring" if key.role == ROOT else ""


def _against_key(keyring: Keyring, public: str) -> str:
    return f"key {key_id(public)!r} was admitted before" if key_id(public) in keyring.keys else ""
