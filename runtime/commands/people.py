"""People: admitted to the keyring by the root, with rights, a user on the server and a key that signs their commands.

The host writes a person's credentials into one file and keeps no other copy of their secrets: who moves the file away
is the only one who can sign. What the server has to know of people, their public keys and rights, is `people.json`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from bus import nkeys
from bus.disk import make_directory, write_file
from bus.keys import KeyStore, Signer, new_signer, pem_of, read_private, signer_of
from bus.rights import PEOPLE, PersonUser, people_of
from contracts.errors import Refused, SwarmError
from contracts.keyring import Key, KeyAdmitted, KeyRevoked, KeyRotated
from contracts.replies import PersonReply
from contracts.roles import ROOT, Right
from contracts.signed_command import PERSON, SignedCommand
from runtime.log.lane_writer import Provenance

if TYPE_CHECKING:
    from runtime.node.broker import Broker
    from runtime.node.node import Node


class People:
    """Admits people, gives them new keys and turns them out; whoever calls does one thing at a time."""

    def __init__(self, node: Node) -> None:
        self.broker: Broker | None = None
        """The server that is to know them; None on a bus in memory."""
        self._node = node
        self._home = node.home

    async def admit(self, name: str, rights: tuple[Right, ...], signed: SignedCommand | None) -> PersonReply:
        """A key, a user on the server and a credentials file for somebody new; `Refused` for a name that is taken."""
        known = self._node.tail.admission.keyring().current(PERSON + name)
        if known is not None:
            message = f"{name!r} is admitted already, with the rights {', '.join(known.rights)}."
            cure = f"For other rights: swarm person revoke {name}, then again. A new key: swarm keys rotate {name}"
            raise Refused(message, cure=cure)

        async def say(key: Signer) -> None:
            await self._say(KeyAdmitted(role=PERSON + name, public=key.public, rights=list(rights), signed=signed))

        key = await self._issue(name, rights, say)
        creds = str(self._home.person(name))
        return {"name": name, "role": PERSON + name, "rights": list(rights), "creds": creds, "key": key.key_id}

    async def renew(self, old: Key, signed: SignedCommand | None) -> Signer:
        """New secrets in a new credentials file; what the old key signed stays."""

        async def say(key: Signer) -> None:
            await self._say(KeyRotated(role=old.role, old=old.id, public=key.public, signed=signed))

        return await self._issue(old.role.removeprefix(PERSON), old.rights, say)

    async def expel(self, key: Key, reason: str, signed: SignedCommand | None) -> None:
        """The server knows this person no more, and no command that the key signs is taken."""
        name = key.role.removeprefix(PERSON)
        await self._say(KeyRevoked(key=key.id, reason=reason, signed=signed))
        await self._let_out(name)
        for path in (self._home.person(name), self._next(name)):
            path.unlink(missing_ok=True)

    async def settle(self) -> None:
        """At the start: finish what an earlier host has begun, and have the server forget who is not admitted."""
        ring = self._node.tail.admission.keyring()
        for path in sorted((self._home.keys / "people").glob("*.next")):
            current = ring.current(PERSON + path.stem)
            if current is not None and self._public(path) == current.public:
                path.replace(self._home.person(path.stem))
            else:
                path.unlink(missing_ok=True)
        admitted = {key.role.removeprefix(PERSON): key for key in ring.people()}
        for name in people_of(self._home.seeds):
            if name not in admitted:
                await self._let_out(name)
        for path in sorted((self._home.keys / "people").glob("*.json")):
            with contextlib.suppress(orjson.JSONDecodeError, TypeError, SwarmError):
                found = orjson.loads(read_private(path)) | {"url": self._url}
                write_file(path, orjson.dumps(found, option=orjson.OPT_INDENT_2))

    @property
    def _url(self) -> str:
        return self.broker.url if self.broker is not None else ""

    async def _issue(self, name: str, rights: tuple[Right, ...], say: Callable[[Signer], Awaitable[None]]) -> Signer:
        """Fresh secrets, on disk before the keyring names their public part."""
        user, key, path = nkeys.mint(), new_signer(PERSON + name), self._next(name)
        make_directory(path.parent, 0o700)
        found = {
            "person": name,
            "rights": list(rights),
            "url": self._url,
            "seed": user.seed,
            "key": pem_of(key),
            "root": KeyStore(self._home.keys).pinned(),
        }
        write_file(path, orjson.dumps(found, option=orjson.OPT_INDENT_2))
        if self.broker is not None:
            await self.broker.let_person_in(name, user, rights)
        self._note(name, PersonUser(user.public, rights))
        await say(key)
        path.replace(self._home.person(name))
        return key

    async def _let_out(self, name: str) -> None:
        if self.broker is not None:
            await self.broker.let_person_out(name)
        self._note(name, None)

    def _note(self, name: str, user: PersonUser | None) -> None:
        """Write down what the server has to know of a person, or that there is nobody of that name."""
        known = {**people_of(self._home.seeds), name: user}
        said = {one: {"public": of.public, "rights": of.rights} for one, of in known.items() if of is not None}
        make_directory(self._home.seeds, 0o700)
        write_file(self._home.seeds / PEOPLE, orjson.dumps(said, option=orjson.OPT_INDENT_2))

    async def _say(self, event: KeyAdmitted | KeyRotated | KeyRevoked) -> None:
        session = self._node.tail.admission.keyring().session
        await self._node.writer(ROOT).say(session, [event], Provenance())

    def _next(self, name: str) -> Path:
        return self._home.person(name).with_suffix(".next")

    def _public(self, path: Path) -> str:
        try:
            return signer_of(PERSON + path.stem, str(orjson.loads(read_private(path))["key"]).encode(), path).public
        except (orjson.JSONDecodeError, KeyError, TypeError, SwarmError):
            return ""
