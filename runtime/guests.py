"""Strangers in the swarm: keys, a user on the server, a durable and a place in the keyring for a guest agent."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import orjson

from bus import nkeys, subjects
from bus.jetstream import JetStreamAdmin
from bus.keys import KeyStore
from bus.rights import seed_file
from bus.server import EmbeddedServer
from contracts.errors import InvalidInput
from contracts.keyring import DESK, KeyAdmitted
from runtime.scribe import Occasion

if TYPE_CHECKING:
    from runtime.crew import Crew

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,30}[a-z0-9])?")


class Guests:
    """Admits guest agents while the swarm runs."""

    def __init__(self, crew: Crew, admin: JetStreamAdmin, server: EmbeddedServer) -> None:
        self._crew = crew
        self._admin = admin
        self._server = server

    async def admit(self, body: dict[str, Any]) -> dict[str, Any]:
        """{"name": ..., "hears": [event names]} -> where its keys are; doing it again changes what it hears."""
        name, hears = str(body.get("name") or ""), [str(one) for one in body.get("hears") or ()]
        if not _NAME.fullmatch(name):
            raise InvalidInput(f"{name!r} is no name for an agent.", cure="Use a-z, 0-9, '_' and '-'.", path="name")
        lane = f"{subjects.GUEST}{name}"
        home = self._crew.home
        user = nkeys.keep(seed_file(home.seeds, lane))
        await self._server.admit(self._server.users.with_guest(name, user.public))
        wakes = [one for event in hears for one in subjects.waking(event)]
        await self._admin.consumer(lane, wakes or [subjects.lane_everywhere(lane)])
        signer = KeyStore(home.keys).ensure(lane)
        await self._admit_key(lane, signer.public, hears)
        return {"name": name, "lane": lane, "creds": self._write_creds(name, user.seed), "key": signer.key_id}

    async def _admit_key(self, lane: str, public: str, hears: list[str]) -> None:
        ring = self._crew.tail.admission.keyring()
        current = ring.current(lane)
        if current is not None and current.public == public:
            return
        admitted = KeyAdmitted(role=lane, public=public, guest=True, hears=hears)
        await self._crew.scribe(DESK).say(ring.session, [admitted], Occasion())

    def _write_creds(self, name: str, seed: str) -> str:
        folder = self._crew.home.keys / "guests"
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / f"{name}.json"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(orjson.dumps({"url": self._server.url, "seed": seed, "name": name}))
        return str(path)
