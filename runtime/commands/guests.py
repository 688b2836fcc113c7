"""Guest agents: keys, a user on the server, a place in the keyring, and a limit on how much a guest may say."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson
import structlog

from bus import nkeys, subjects
from bus.decode import Reason, Void
from bus.disk import make_directory, write_file
from bus.jetstream import JetStreamAdmin
from bus.keys import KeyStore
from bus.port import Log, StoredRecord
from bus.rights import ROLES, seed_file
from contracts.errors import InvalidInput, Refused, SwarmError, Unreachable
from contracts.keyring import KeyAdmitted, KeyRevoked
from contracts.replies import AdmitReply
from contracts.roles import DESK, ROOT
from runtime.home.home import Home
from runtime.log.lane_writer import Provenance

if TYPE_CHECKING:
    from pathlib import Path

    from contracts.commands import AdmitCommand
    from contracts.signed_command import SignedCommand
    from runtime.commands.askers import Asker
    from runtime.node.broker import Broker
    from runtime.node.node import Node


BURST_SECONDS = 100.0
"""A guest may say at once what it may say in so many seconds: answers to a backlog come together."""

VOID = 100.0
"""What a message that was not admitted costs on top: honest guests have only a few of them."""

BESIDE = 0.05
"""What a message beside the log costs: it fills nothing, and a guest may let every event of a busy swarm pass."""

SHARE = 1 / 16
"""The share of the log's budget that one guest may fill, from its admission on."""

_BYTES = 1024.0


@dataclass
class Allowance:
    """What a guest may still say now; it grows with time, up to a burst."""

    per_second: float
    left: float
    at: float

    def take(self, cost: float, now: float) -> bool:
        """Use some of it; False once it is used up."""
        self.left = min(self.per_second * BURST_SECONDS, self.left + (now - self.at) * self.per_second) - cost
        self.at = now
        return self.left >= 0


@dataclass(frozen=True)
class GuestTotals:
    """How many bytes each guest has stored up to a message, as a host has counted them before."""

    seq: int = 0
    stored: Mapping[str, int] = field(default_factory=dict)


class RateLimit:
    """Sees every message that guests have stored, admitted or not: a message costs one, and one more per KiB."""

    def __init__(
        self, per_second: float, clock: Callable[[], float] = time.monotonic, budget: float = math.inf
    ) -> None:
        """`budget` is how many bytes one guest may store in all."""
        self._per_second = per_second
        self._clock = clock
        self._budget = budget
        self._stored: dict[str, int] = {}
        self._allowances: dict[str, Allowance] = {}
        self._named: asyncio.Queue[str] = asyncio.Queue()
        self._known: set[str] = set()

    def see(self, stored: StoredRecord) -> None:
        """Count one message; it costs nothing unless it is a guest's."""
        lane = subjects.guest_of(stored.subject)
        if not lane:
            return
        self._stored[lane] = self._stored.get(lane, 0) + _size(stored)
        self._charge(lane, 1 + len(stored.body) / _BYTES)

    def see_void(self, subject: str) -> None:
        """Count one message that was not admitted, besides what it cost already."""
        if lane := subjects.guest_of(subject):
            self._charge(lane, VOID)

    def see_beside(self, subject: str, body: bytes) -> None:
        """Count what a guest says beside the log: heartbeats, which also let events pass, and dead letters."""
        role = subject.split(".")[2]
        if role.startswith(subjects.GUEST):
            self._charge(role, BESIDE + len(body) / _BYTES)

    @property
    def stored(self) -> dict[str, int]:
        """By lane, the bytes that each guest has stored since it was admitted, as far as they are counted."""
        return dict(self._stored)

    async def count(self, log: Log, admitted: Mapping[str, int], upto: int, before: GuestTotals) -> None:
        """Count what the log holds up to a message and `see` has not been shown, for it was stored in another life.

        `admitted` has the guests of today and where each was admitted last: what was stored before does not count.
        Of the log only what guests stored behind what is counted already is read.
        """
        found = {lane: before.stored.get(lane, 0) for lane, since in admitted.items() if since <= before.seq}
        async with log.read(subjects.GUESTS, after=before.seq) as messages:
            async for stored in messages:
                if stored.seq > upto:
                    break
                lane = subjects.guest_of(stored.subject)
                if stored.seq > admitted.get(lane, upto):
                    found[lane] = found.get(lane, 0) + _size(stored)
        for lane, size in found.items():
            self._stored[lane] = self._stored.get(lane, 0) + size
            self._charge(lane, 0)

    def _charge(self, lane: str, cost: float) -> None:
        now, burst = self._clock(), self._per_second * BURST_SECONDS
        allowance = self._allowances.setdefault(lane, Allowance(self._per_second, burst, now))
        is_within = allowance.take(cost, now) and self._stored.get(lane, 0) <= self._budget
        if not is_within and lane not in self._known:
            self._known.add(lane)
            self._named.put_nowait(lane)

    def forget(self, lane: str) -> None:
        """Forget what a guest has used, because its owner has admitted it again."""
        self._known.discard(lane)
        self._allowances.pop(lane, None)
        self._stored.pop(lane, None)

    async def floods(self) -> AsyncIterator[str]:
        """The lanes of guests that said too much, for ever, each once."""
        while True:
            yield await self._named.get()


def _size(stored: StoredRecord) -> int:
    return len(stored.subject) + len(stored.body)


log = structlog.get_logger()

_PAUSE = 1.0
"""Seconds until a server that is away is asked again."""


def credentials(home: Home, name: str) -> Path:
    """The file with the credentials of a guest: everything that it needs to connect from any machine."""
    return home.keys / "guests" / f"{name}.json"


class Guests:
    """Admits guest agents while the swarm runs, and turns out those that flood it."""

    def __init__(self, node: Node, admin: JetStreamAdmin, broker: Broker) -> None:
        self._node = node
        self._admin = admin
        self._broker = broker
        self._keys = KeyStore(node.home.keys)
        self._one_at_a_time = asyncio.Lock()
        self._is_counted = False
        self._remembered: dict[str, int] = {}
        self._limit = RateLimit(node.settings.guest_events_per_second, budget=SHARE * node.settings.store_bytes)

    async def admit(self, wish: AdmitCommand, by: Asker) -> AdmitReply:
        """Keys, a user and a lane for a guest; doing it again changes what it hears."""
        name, hears = wish.name, sorted(set(wish.hears))
        if name in ROLES:
            raise InvalidInput(f"{name!r} is the name of a built-in role.", cure="Choose another.", path="name")
        lane = f"{subjects.GUEST}{name}"
        wakes = [one for event in hears for one in subjects.waking(event)]
        async with self._one_at_a_time:
            user = nkeys.keep(seed_file(self._node.home.seeds, lane))
            signer = self._keys.ensure(lane)
            self._limit.forget(lane)
            await self._broker.let_in(name, user)
            await self._admin.consumer(lane, wakes or [subjects.lane_everywhere(lane)])
            ring = self._node.tail.admission.keyring()
            current = ring.current(lane)
            if current is None or (current.public, current.hears) != (signer.public, tuple(hears)):
                admitted = KeyAdmitted(role=lane, public=signer.public, guest=True, hears=hears, signed=by.kept())
                await self._node.writer(DESK).say(ring.session, [admitted], Provenance())
            path = self._write_credentials(name, lane, user.seed)
        return {"name": name, "lane": lane, "creds": str(path), "key": signer.key_id}

    async def watch(self) -> None:
        """Revoke the key of a guest that floods the swarm: no open session could be sealed while it continues."""
        self._node.tail.look_on(self._limit.see)
        self._node.tail.look_on_voids(self._see_void)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._count(self._node.tail.seq), name="guests' shares")
            for beside in (subjects.heartbeats(), subjects.DEAD_LETTERS):
                tasks.create_task(self._listen(beside), name=f"rate limit of {beside}")
            async for lane in self._limit.floods():
                log.error("a guest floods the swarm and is turned out", lane=lane)
                try:
                    await self.expel(lane, "it flooded the swarm")
                except SwarmError as error:
                    log.error("the guest is still there", lane=lane, reason=error.message)
                    self._limit.forget(lane)

    async def _listen(self, beside: str) -> None:
        try:
            async with self._node.bus.hear(beside) as heard:
                async for subject, body in heard:
                    self._limit.see_beside(subject, body)
        except Refused as error:
            log.warning("what guests say beside the log is not counted", subjects=beside, reason=error.message)

    async def _count(self, upto: int) -> None:
        """Count what guests stored before this host looked on."""
        ring = self._node.tail.admission.keyring()
        guests = {key.role for key in ring.guests()}
        admitted = {
            fact.event.role: fact.seq
            for fact in self._node.tail.history(ring.session).facts
            if isinstance(fact.event, KeyAdmitted) and fact.event.role in guests
        }
        counted = GuestTotals(*self._node.home.guests_stored())
        while True:
            try:
                await self._limit.count(self._node.bus, admitted, upto, counted)
            except Unreachable:
                await asyncio.sleep(_PAUSE)
            except SwarmError as error:
                log.warning("what guests stored before is not counted", reason=error.message)
                return
            else:
                self._is_counted = True
                return

    def remember(self) -> None:
        """Write down what each guest has stored, so that the next host need not read it in the log."""
        stored = self._limit.stored
        if self._is_counted and stored != self._remembered:
            self._node.home.remember_guests(self._node.tail.seq, stored)
            self._remembered = stored

    def _see_void(self, void: Void) -> None:
        # Who answers while a session is being sealed comes too late and has done nothing wrong.
        if void.reason is not Reason.LATE:
            self._limit.see_void(void.subject)

    async def expel(self, lane: str, reason: str, signed: SignedCommand | None = None) -> None:
        """No key of this guest counts from here on, and the server knows it no more; its past stays."""
        ring = self._node.tail.admission.keyring()
        key = ring.current(lane)
        async with self._one_at_a_time:
            name = lane.removeprefix(subjects.GUEST)
            await self._broker.let_out(name)
            for path in (seed_file(self._node.home.seeds, lane), credentials(self._node.home, name)):
                path.unlink(missing_ok=True)
            self._keys.forget(lane)
            if key is not None:
                revoked = KeyRevoked(key=key.id, reason=reason, signed=signed)
                await self._node.writer(ROOT).say(ring.session, [revoked], Provenance())

    def follow_the_server(self) -> None:
        """Write the credentials of all guests again when the server's address has changed."""
        for path in sorted((self._node.home.keys / "guests").glob("*.json")):
            with contextlib.suppress(orjson.JSONDecodeError, KeyError, SwarmError):
                if orjson.loads(path.read_bytes())["url"] != self._broker.url:
                    self.renew(f"{subjects.GUEST}{path.stem}")

    def renew(self, lane: str) -> None:
        """Write a guest's credentials again, with its next key where one was prepared."""
        path = credentials(self._node.home, lane.removeprefix(subjects.GUEST))
        found = orjson.loads(path.read_bytes())
        self._write_credentials(found["name"], lane, found["seed"])

    def _write_credentials(self, name: str, lane: str, seed: str) -> Path:
        path = credentials(self._node.home, name)
        make_directory(path.parent, 0o700)
        found = {
            "name": name,
            "url": self._broker.url,
            "seed": seed,
            "key": self._keys.pem(lane).decode(),
            "root": self._keys.pinned(),
        }
        if lane in self._keys.awaiting():
            found["next"] = self._keys.pem_to_follow(lane).decode()
        write_file(path, orjson.dumps(found, option=orjson.OPT_INDENT_2))
        return path
