"""Who is there: heartbeats said and heard. Silence is counted from when this process could have heard anything."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from bus import subjects
from bus.port import Wire
from contracts.errors import Refused, Unreachable
from contracts.queue import TrainerRoom

BEAT = 5.0
"""Seconds between two heartbeats."""

PRESENT = 3 * BEAT
"""A role that has not been heard for so long is not there."""

_INSTANCES, _GUEST_INSTANCES = 1000, 8
"""How many instances of one built-in role, and of one guest, are kept in mind. Nobody beats under another's role, so
what one makes up costs the others nothing."""

_PASSED = 1000
"""How many events about which one role has nothing to say are kept in mind."""


class TrainingRoom(NamedTuple):
    """How many sessions an instance trains at once, and which ones it has in hand: those it trains or is about to.

    `memory_bytes` (None where nobody says) and `devices` are all that its machine has for them.
    """

    slots: int = 0
    sessions: tuple[str, ...] = ()
    memory_bytes: int | None = None
    devices: int = 0

    @property
    def machine(self) -> TrainerRoom:
        """All that its machine has for those whom it trains."""
        return TrainerRoom(memory_bytes=self.memory_bytes, devices=self.devices)


NO_ROOM = TrainingRoom()
_MOST_SLOTS, _MOST_IN_HAND, _MOST_MEMORY, _MOST_DEVICES = 10_000, 1000, 1 << 50, 1024
"""What is believed of one instance: more slots are none, more sessions are cut off, more memory is not known."""


class InstancePresence(NamedTuple):
    """One instance that was heard: role, name, seconds since its last heartbeat, blob store, room for trainings."""

    role: str
    instance: str
    seconds: float
    store: str
    room: TrainingRoom = NO_ROOM


class _Sign(NamedTuple):
    """When an instance was heard last, what it calls its blob store, and its room for trainings."""

    at: float
    store: str
    room: TrainingRoom = NO_ROOM


@dataclass
class Presence:
    """The last sign of life of every role, by the local clock."""

    wire: Wire
    instance: str
    store: str = ""
    """What the blob store here is called: roles that share work must share it."""
    beat_seconds: float = BEAT
    connected_at: float = field(default_factory=time.monotonic)
    _seen: dict[str, dict[str, _Sign]] = field(default_factory=dict)
    """By role, and then by instance, the one heard longest ago first."""
    _mine: set[str] = field(default_factory=set)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _passed: dict[str, deque[str]] = field(default_factory=dict)
    _rooms: dict[str, Callable[[], TrainingRoom]] = field(default_factory=dict)
    _listeners: list[Callable[[], None]] = field(default_factory=list)

    def listen(self, listener: Callable[[], None]) -> None:
        """Call a function when an agent of this process begins or ends, or another instance has more or fewer slots."""
        self._listeners.append(listener)

    def offer(self, role: str, room: Callable[[], TrainingRoom]) -> None:
        """Tell with every heartbeat of this role what room for trainings there is here."""
        self._rooms[role] = room

    def here(self, role: str) -> None:
        """An agent of this process runs; everybody hears so at once."""
        self._mine.add(role)
        self._arrived.set()
        self._tell()

    def gone(self, role: str) -> None:
        """Note that an agent of this process has stopped: it is silent from now on."""
        self._mine.discard(role)
        self._tell()

    def silent_seconds(self, role: str) -> float:
        """Seconds since an instance of the role was heard, or since the connection; 0 while one runs here."""
        if role in self._mine:
            return 0.0
        return time.monotonic() - max([*self._heard(role), self.connected_at])

    def heard(self, role: str) -> bool:
        """Whether an instance of the role was really heard within the time after which it would count as silent."""
        now = time.monotonic()
        return role in self._mine or any(now - at < PRESENT for at in self._heard(role))

    def passed(self, role: str, event: str) -> bool:
        """Whether the role has announced beside the log that it has nothing to say about an event."""
        return event in self._passed.get(role, ())

    def instance_silent_seconds(self, role: str, instance: str) -> float:
        """Seconds since one instance of a role was heard, or since the connection."""
        if instance == self.instance and role in self._mine:
            return 0.0
        sign = self._seen.get(role, {}).get(instance)
        return time.monotonic() - max(sign.at if sign else 0.0, self.connected_at)

    def listening_seconds(self) -> float:
        """Seconds since this process connected, and so could have heard other instances."""
        return time.monotonic() - self.connected_at

    def roster(self) -> list[InstancePresence]:
        """Every instance that was heard, those of this process included."""
        now = time.monotonic()
        mine = [InstancePresence(role, self.instance, 0.0, self.store, self._room(role)) for role in sorted(self._mine)]
        others = [
            InstancePresence(role, instance, now - sign.at, sign.store, sign.room)
            for role, instances in sorted(self._seen.items())
            for instance, sign in sorted(instances.items())
            if instance != self.instance
        ]
        return mine + others

    async def beat(self) -> None:
        """Send heartbeats of this process's agents until cancelled."""
        while True:
            self._arrived.clear()
            for role in sorted(self._mine):
                await self._say(role, self._room(role))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.beat_seconds):
                    await self._arrived.wait()

    async def let_pass(self, role: str, event: str) -> None:
        """Announce beside the log that the role heard an event and has nothing to say about it."""
        await self._say(role, passed=event)

    async def hear(self) -> None:
        """Listen to all heartbeats until cancelled; a guest has no right to, and returns at once."""
        with contextlib.suppress(Refused):
            async with self.wire.hear(subjects.heartbeats()) as beats:
                async for subject, body in beats:
                    self._take(subject, body)

    async def _say(self, role: str, room: TrainingRoom = NO_ROOM, **more: str) -> None:
        offered = room._asdict() if room.slots else {}
        # Being cut off is not being dead: others count silence from their own reconnection.
        with contextlib.suppress(Unreachable):
            body = orjson.dumps({"role": role, "store": self.store, **offered, **more})
            await self.wire.say(subjects.heartbeat(role, self.instance), body)

    def _room(self, role: str) -> TrainingRoom:
        return self._rooms[role]() if role in self._rooms else NO_ROOM

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()

    def _heard(self, role: str) -> list[float]:
        return [sign.at for sign in self._seen.get(role, {}).values()]

    def _take(self, subject: str, body: bytes) -> None:
        _, _, role, instance, _ = subject.split(".")
        said: Any = None
        with contextlib.suppress(orjson.JSONDecodeError):
            said = orjson.loads(body)
        said = said if isinstance(said, dict) else {}
        instances = self._seen.setdefault(role, {})
        before = instances.pop(instance, None)
        store = said.get("store", before.store if before else "")
        room = before.room if before else NO_ROOM
        if "slots" in said and not role.startswith(subjects.GUEST):
            room = _room_of(said)
        instances[instance] = _Sign(time.monotonic(), store[:64] if isinstance(store, str) else "", room)
        if room._replace(sessions=()) != (before.room if before else NO_ROOM)._replace(sessions=()):
            self._tell()
        if len(instances) > (_GUEST_INSTANCES if role.startswith(subjects.GUEST) else _INSTANCES):
            del instances[next(iter(instances))]
        if isinstance(said.get("passed"), str):
            self._passed.setdefault(role, deque(maxlen=_PASSED)).append(said["passed"][:64])


def _room_of(said: Mapping[str, Any]) -> TrainingRoom:
    """The room that a heartbeat tells of; none where that cannot be."""
    slots, sessions = said.get("slots"), said.get("sessions")
    memory, devices = said.get("memory_bytes"), said.get("devices", 0)
    if not isinstance(slots, int) or not isinstance(sessions, list) or not 0 < slots <= _MOST_SLOTS:
        return NO_ROOM
    return TrainingRoom(
        slots,
        tuple(one[:64] for one in sessions[:_MOST_IN_HAND] if isinstance(one, str)),
        memory if type(memory) is int and 0 <= memory <= _MOST_MEMORY else None,
        devices if type(devices) is int and 0 <= devices <= _MOST_DEVICES else 0,
    )
