"""This machine: what it computes, measured in children, and how many sessions train on it at once.

Which sessions of a swarm may train is decided in the queue; a turn is what this machine has left for one of them. It
is kept in memory only: after a restart every session asks again.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from agents.trainer.jobs import MachineProfile, ProfileQuery, measure_profile, resolve_request
from contracts.errors import SwarmError
from contracts.queue import NO_NEEDS, Demand, TrainerRoom
from contracts.session import SessionState
from runtime.home import allowed
from runtime.home.workloads import WorkloadEntry
from runtime.jobs import process, resources
from runtime.jobs.job import Seal
from runtime.node.agent_context import AgentContext
from runtime.node.capabilities import ResolveOrder
from runtime.node.presence import TrainingRoom
from runtime.replay import initial_state

_MOST_IDENTITIES = 64
"""Answers that are remembered, the newest: every number of threads that a request names has one."""


class MachineProbe:
    """Asks children what this machine computes, and keeps answers that cannot change while the zygote lives."""

    def __init__(self, context: AgentContext) -> None:
        self._context = context
        self._identities: dict[ProfileQuery, MachineProfile] = {}
        room = TrainerRoom(memory_bytes=resources.total_bytes(), devices=resources.devices())
        self.turns = Turns(context.settings.trainings or default_slots(process.cores(), room), room)
        self._one_at_a_time = asyncio.Lock()

    async def warm(self) -> None:
        """Measure what small sessions will ask for; the swarm does not wait for it."""
        # What fails here fails again, and is recorded, in the session that needs it.
        with suppress(SwarmError):
            await self.identity(threads=1)

    async def identity(
        self, *, threads: int, device: str = "cpu", precision: str = "fp32", profile: str = "exact"
    ) -> MachineProfile:
        """What this machine computes under one sealed profile, and its environment."""
        asked = ProfileQuery(Seal(threads, profile), device, precision)
        async with self._one_at_a_time:
            if asked not in self._identities:
                if len(self._identities) >= _MOST_IDENTITIES:
                    del self._identities[next(iter(self._identities))]
                self._identities[asked] = await self._context.children.run(measure_profile, asked)
            return self._identities[asked]

    async def bring(self, session: SessionState) -> str | None:
        """The blob of the weights that the session's request names, read from their file now; None when it has none."""
        context = self._context
        roots = allowed.roots(context.home, context.settings, session.id)
        return await initial_state.bring_weights(session.request, roots, context.blobs, session.id, context.children)

    async def resolve(
        self, session: SessionState, dataset: Path, workloads: Sequence[WorkloadEntry], initial: str | None
    ) -> Mapping[str, Any]:
        """Every `auto` of the session's request as a number."""
        blobs = self._context.blobs.root
        order = ResolveOrder(
            request=session.request,
            dataset=dataset,
            blobs=blobs,
            room=blobs,
            device=session.request["training"]["device"],
            workloads=workloads,
            initial=initial,
            inherited=session.fork.resolved if session.fork else None,
        )
        return await self._context.children.run(resolve_request, order)


_RESERVE = 512 << 20
"""Bytes of memory that must be free before another training child starts beside a running one."""

_PER_DEVICE = 4
"""Sessions that share an accelerator, unless they say that they need one: a small model leaves most of it idle."""

_LOOK_AGAIN = 1.0
"""Seconds between two looks at the free memory, of which no event tells."""

Place = tuple[bool, int, str]
"""The sort key of a session that waits for a machine: begun sessions first, then by the request's place in the log."""


def place(session: SessionState, requested: int) -> Place:
    """A session's place among those that wait for a machine."""
    return (session.training.claim is None, requested, session.id)


def default_slots(cores: int, room: TrainerRoom) -> int:
    """How many sessions train at once on a machine: one per core, as far as memory and accelerators hold them."""
    most = cores
    if room.memory_bytes is not None:
        most = min(most, room.memory_bytes // _RESERVE)
    if room.devices:
        most = min(most, room.devices * _PER_DEVICE)
    return max(1, most)


class Turns:
    """The turns of one process, whose machine has this room: at most `most` sessions train at once."""

    def __init__(
        self, most: int, room: TrainerRoom | None = None, *, free: Callable[[], int | None] = resources.free_bytes
    ) -> None:
        self._most = most
        self._all = room or TrainerRoom()
        self._free = free
        self._training: dict[str, Demand] = {}
        self._waiting: dict[str, Place] = {}
        self._needs: dict[str, Demand] = {}
        self._changed = asyncio.Event()

    @property
    def room(self) -> TrainingRoom:
        """How many sessions train here at once, and those that train here or wait for this machine."""
        waiting = sorted(session for session in self._waiting if self._needs[session].fits(self._all))
        return TrainingRoom(self._most, (*sorted(self._training), *waiting), self._all.memory_bytes, self._all.devices)

    def ask(self, session: str, where: Place, needs: Demand = NO_NEEDS) -> None:
        """Wait for a turn; a session that asks again keeps its place, and one that has its turn keeps that."""
        if session not in self._training:
            self._waiting[session], self._needs[session] = where, needs

    def take(self, session: str) -> bool:
        """Take a turn if this session is next and there is room; True means that it holds the turn until `leave`.

        One that needs more than others have left here is passed over: the queue sees to it that it has its turn.
        """
        if session in self._training:
            return True
        all_memory, devices = self._all.memory_bytes, self._all.devices
        held = sum(needs.memory_bytes for needs in self._training.values())
        left = TrainerRoom(
            memory_bytes=None if all_memory is None else max(0, all_memory - held),
            devices=max(0, devices - sum(needs.devices for needs in self._training.values())),
        )
        suiting = [one for one in self._waiting if self._needs[one].fits(left)]
        first = min(suiting, key=self._waiting.__getitem__, default="")
        if first != session or len(self._training) >= self._most:
            return False
        # The first always starts, as waiting would free nothing.
        free = self._free() if self._training else None
        if free is not None and free < _RESERVE:
            return False
        del self._waiting[session]
        self._training[session] = self._needs.pop(session)
        self._tell()
        return True

    def leave(self, session: str) -> None:
        """Give back the turn, or wait no more."""
        if session in self._waiting or session in self._training:
            for held in (self._waiting, self._needs, self._training):
                held.pop(session, None)
            self._tell()

    async def changed(self) -> None:
        """Return when a turn was given back, or after a while: memory may have become free without any event."""
        changed = self._changed
        try:
            async with asyncio.timeout(_LOOK_AGAIN):
                await changed.wait()
        except TimeoutError:
            return

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
