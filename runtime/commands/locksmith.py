"""Rotates and revokes keys of roles: the root signs what the owner asks for, while the swarm works."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from bus.keys import KeyStore
from contracts.errors import InvalidInput, NotFound, Refused
from contracts.event import GUEST, ROOT, Event
from contracts.keyring import Key, KeyRevoked, Keyring, KeyRotated
from runtime.log.lane_writer import Provenance
from runtime.node.deployment import admission
from runtime.views.view import key_lines

if TYPE_CHECKING:
    from runtime.node.node import Node

Body = dict[str, Any]


class Door(Protocol):
    """Who lets guests in and out; an in-memory swarm has none."""

    async def expel(self, lane: str, reason: str) -> None:
        """End every key and right of a guest."""
        ...

    def renew(self, lane: str) -> None:
        """Write a guest's credentials again, with its next key where one was prepared."""
        ...


class KeyCommands:
    """Rotates and revokes, one request after the other. A key is on disk before the log names it."""

    def __init__(self, crew: Node) -> None:
        self.guests: Door | None = None
        self._crew = crew
        self._store = KeyStore(crew.home.keys)
        self._one_at_a_time = asyncio.Lock()

    async def listed(self, body: Body) -> Body:
        """Every key that there was, with its interval."""
        return {"keys": key_lines(self._crew.tail.history(self._ring.session).facts)}

    async def rotate(self, body: Body) -> Body:
        """{"role": ...}: a new key for a role or a guest, from here on; who runs goes on with it."""
        role = str(body.get("role") or "")
        async with self._one_at_a_time:
            self._refuse_without_root()
            old = in_force(self._ring, role)
            new = self._store.prepare(old.role)
            self._renew(old)
            await self._say(KeyRotated(role=old.role, old=old.id, public=new.public))
            self._store.promote(old.role)
            self._renew(old)
        return {"role": old.role, "old": old.id, "key": new.key_id}

    async def revoke(self, body: Body) -> Body:
        """{"key": ..., "reason": ...}: a key, or a guest's, counts no more; a built-in role goes on with a new one."""
        named, reason = str(body.get("key") or ""), str(body.get("reason") or "")
        if not reason:
            raise InvalidInput("a revocation needs a reason.", cure="Say why: --reason TEXT", path="reason")
        async with self._one_at_a_time:
            self._refuse_without_root()
            old = in_force(self._ring, named)
            if old.guest:
                if self.guests is None:
                    raise Refused("this host does not own the server's configuration.", cure="Ask the one that does.")
                await self.guests.expel(old.role, reason)
                return {"role": old.role, "old": old.id, "key": None}
            new = self._store.prepare(old.role)
            await self._say(KeyRevoked(key=old.id, reason=reason), admission(old.role, new))
            self._store.promote(old.role)
        return {"role": old.role, "old": old.id, "key": new.key_id}

    @property
    def _ring(self) -> Keyring:
        return self._crew.tail.admission.keyring()

    def _renew(self, key: Key) -> None:
        if key.guest and self.guests is not None:
            self.guests.renew(key.role)

    def _refuse_without_root(self) -> None:
        if ROOT not in self._crew.keys:
            raise Refused("this host does not hold the root key.", cure="Ask the host whose home has keys/root.key.")

    async def _say(self, *events: Event) -> None:
        await self._crew.writer(ROOT).say(self._ring.session, events, Provenance())


def in_force(ring: Keyring, name: str) -> Key:
    """The key in force that a role, a guest or an id (or its beginning) names; `Refused` if it cannot be ended."""
    roles = [key for key in ring.keys.values() if key.role in (name, f"{GUEST}{name}") and key.until is None]
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
