"""The keys of a deployment: made at the first start, admitted by the root in the keyring, rotated and revoked."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from bus.keys import KeyStore, Signer
from bus.port import Log
from contracts.errors import NotFound, Refused
from contracts.event import Event
from contracts.keyring import Key, KeyAdmitted, KeyRevoked, Keyring, KeyringOpened, KeyRotated, keyring_session
from contracts.replies import KeyReply, PersonReply, RevokeReply, RotateReply
from contracts.roles import DESK, GUEST, ROOT, SIGNING
from contracts.signed_command import PERSON, RIGHTS, SignedCommand
from runtime.commands.askers import THE_OWNER, Asker
from runtime.commands.people import People
from runtime.log.follower import LogFollower
from runtime.log.lane_writer import LaneWriter, Provenance
from runtime.views.view import key_lines

if TYPE_CHECKING:
    from contracts.commands import PersonCommand
    from runtime.node.node import Node


def signers(store: KeyStore) -> dict[str, Signer]:
    """Every key of an embedded deployment, made when missing; the root is pinned."""
    found = {role: store.ensure(role) for role in (ROOT, *SIGNING)}
    store.pin(found[ROOT].public)
    return found


async def open_keyring(bus: Log, tail: LogFollower, keys: Mapping[str, Signer], store: KeyStore, source: str) -> str:
    """Open the keyring, admit every role that has no key in it, and carry out rotations that were only prepared.

    Returns the keyring's session; `Refused` when a key of the store is not the one that the keyring names.
    """
    writer, session = await _opened(bus, tail, keys[ROOT], source)
    ring = tail.admission.keyring()
    said: list[KeyAdmitted | KeyRotated] = []
    for role in SIGNING:
        if ring.current(role) is None:
            # A key that has ended is admitted never again.
            key = store.prepare(role) if keys[role].key_id in ring.keys else keys[role]
            said.append(admission(role, key))
    for role in store.awaiting():
        before, after = ring.current(role), store.prepare(role)
        if before is not None and before.public != after.public:
            said.append(KeyRotated(role=role, old=before.id, public=after.public))
    await writer.say(session, said)
    for role in store.awaiting():
        store.promote(role)
    for role in SIGNING:
        current = tail.admission.keyring().current(role)
        if current is not None and current.public != keys[role].public:
            raise Refused(
                f"the key of {role!r} here is {keys[role].key_id}, and the keyring names {current.id}.",
                cure=f"Restore keys/{role}.key; if it is lost: swarm keys rotate {role}, then start again.",
            )
    return session


async def open_passing_keyring(bus: Log, tail: LogFollower, keys: Mapping[str, Signer], source: str) -> str:
    """The same for a generation that ends with this process: it names the keys that the home has now."""
    writer, session = await _opened(bus, tail, keys[ROOT], source)
    said: list[KeyAdmitted | KeyRotated] = []
    for role in SIGNING:
        before = tail.admission.keyring().current(role)
        if before is None:
            said.append(admission(role, keys[role]))
        elif before.public != keys[role].public:
            said.append(KeyRotated(role=role, old=before.id, public=keys[role].public))
    await writer.say(session, said)
    return session


async def _opened(bus: Log, tail: LogFollower, root: Signer, source: str) -> tuple[LaneWriter, str]:
    """The root's writer and the session of the keyring, opened now if it was not."""
    session = keyring_session(root.public, tail.partition)
    writer = LaneWriter(bus, tail, ROOT, lambda: root, source)
    if not tail.admission.keyring().root:
        await writer.say(session, [KeyringOpened(root=root.public, deployment=socket.gethostname())])
    return writer, session


def admission(role: str, key: Signer) -> KeyAdmitted:
    """How the root admits a key of a built-in role."""
    return KeyAdmitted(role=role, public=key.public, may_admit=role == DESK)


class Door(Protocol):
    """Who lets guests in and out; an in-memory swarm has none."""

    async def expel(self, lane: str, reason: str, signed: SignedCommand | None = None) -> None:
        """End every key and right of a guest."""
        ...

    def renew(self, lane: str) -> None:
        """Write a guest's credentials again, with its next key where one was prepared."""
        ...


class KeyCommands:
    """Rotates and revokes, one request after the other. A key is on disk before the log names it."""

    def __init__(self, node: Node) -> None:
        self.guests: Door | None = None
        self._node = node
        self._store = KeyStore(node.home.keys)
        self.people = People(node)
        self.one_at_a_time = asyncio.Lock()
        """What keys sign is said, and keys end, one after the other."""

    def listed(self) -> list[KeyReply]:
        """Every key that there was, with its interval."""
        return key_lines(self._node.tail.history(self._ring.session).facts)

    async def rotate(self, role: str, by: Asker = THE_OWNER) -> RotateReply:
        """A new key for a role, a guest or a person, from here on; who runs goes on with it."""
        async with self.one_at_a_time:
            self._refuse_without_root()
            by.still_counts(self._ring)
            old = in_force(self._ring, role)
            if old.role.startswith(PERSON):
                new = await self.people.renew(old, by.kept())
                return {"role": old.role, "old": old.id, "key": new.key_id}
            new = self._store.prepare(old.role)
            self._renew(old)
            await self._say(KeyRotated(role=old.role, old=old.id, public=new.public, signed=by.kept()))
            self._store.promote(old.role)
            self._renew(old)
        return {"role": old.role, "old": old.id, "key": new.key_id}

    async def revoke(self, named: str, reason: str, by: Asker = THE_OWNER) -> RevokeReply:
        """A key, or a guest's or a person's, counts no more; a built-in role goes on with a new one."""
        async with self.one_at_a_time:
            self._refuse_without_root()
            by.still_counts(self._ring)
            old = in_force(self._ring, named)
            if old.role.startswith(PERSON):
                await self.people.expel(old, reason, by.kept())
                return {"role": old.role, "old": old.id, "key": None}
            if old.guest:
                if self.guests is None:
                    raise Refused("this host does not own the server's configuration.", cure="Ask the one that does.")
                await self.guests.expel(old.role, reason, by.kept())
                return {"role": old.role, "old": old.id, "key": None}
            new = self._store.prepare(old.role)
            await self._say(KeyRevoked(key=old.id, reason=reason, signed=by.kept()), admission(old.role, new))
            self._store.promote(old.role)
        return {"role": old.role, "old": old.id, "key": new.key_id}

    async def admit_person(self, wish: PersonCommand, by: Asker) -> PersonReply:
        """Admit somebody who is not in the keyring, with these rights."""
        async with self.one_at_a_time:
            self._refuse_without_root()
            by.still_counts(self._ring)
            rights = tuple(right for right in RIGHTS if right in wish.rights)
            return await self.people.admit(wish.name, rights, by.kept())

    @property
    def _ring(self) -> Keyring:
        return self._node.tail.admission.keyring()

    def _renew(self, key: Key) -> None:
        if key.guest and self.guests is not None:
            self.guests.renew(key.role)

    def _refuse_without_root(self) -> None:
        if ROOT not in self._node.keys:
            raise Refused("this host does not hold the root key.", cure="Ask the host whose home has keys/root.key.")

    async def _say(self, *events: Event) -> None:
        await self._node.writer(ROOT).say(self._ring.session, events, Provenance())


def in_force(ring: Keyring, name: str) -> Key:
    """The key in force that a role, a guest, a person or an id (or its beginning) names; `Refused` if none can end."""
    names = (name, f"{GUEST}{name}", f"{PERSON}{name}")
    roles = [key for key in ring.keys.values() if key.role in names and key.until is None]
    found = roles or [key for key in ring.keys.values() if len(name) >= 4 and key.id.startswith(name)]
    if len(found) != 1:
        what = "no key" if not found else "more than one key"
        raise NotFound(f"{what} is that of {name!r}, or called so.", cure="See: swarm keys", path="key")
    (key,) = found
    if key.until is not None:
        raise Refused(f"key {key.id} of {key.role!r} has ended already.", cure="See: swarm keys")
    if key.role == ROOT:
        cure = "A new root is a new deployment: take another home; what this one signed stays verifiable."
        raise Refused("the root key stands as long as its keyring.", cure=cure)
    return key
