"""The resource monitor: samples the machine while sessions train, warns once per crossing, sums up at the end."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

import orjson

from agents.resource_monitor.gates import RANK, Gate, Level, limits, values
from agents.resource_monitor.machine import Gpus, MachineReader, MachineReading, find_gpus, processes, size_of
from agents.resource_monitor.usage import Sample, SwarmProcess, Tally, sample, seconds_between
from bus import subjects
from contracts.data_manager import DatasetRejected
from contracts.errors import Unreachable
from contracts.resource_monitor import ResourcesSummarised
from contracts.trainer import TrainingCancelled, TrainingCompleted, TrainingFailed
from runtime.log.session_log import SessionLog
from runtime.node.agent import Agent, every, on
from runtime.node.agent_context import Wakeup

IDLE_BEATS = 5
"""With no training session open, only every fifth beat reads the machine."""

End = TrainingCompleted | TrainingFailed | TrainingCancelled | DatasetRejected


class ResourceMonitor(Agent):
    """Knows what the machine gave to each session. Its samples are telemetry; only crossings and sums are facts."""

    async def begin(self) -> None:
        """Find the GPUs; what was sampled before a restart is gone, and the summaries say so."""
        settings = self.ground.settings
        self._machine = MachineReader(self.ground.home.root)
        self._gpus: Gpus | None = await asyncio.to_thread(find_gpus)
        known = limits(min_free_disk=settings.min_free_disk_bytes, store_bytes=settings.store_bytes)
        self._gates = {limit.resource: Gate(limit) for limit in known}
        self._told: dict[str, dict[str, Level]] = {}
        self._tallies: dict[str, Tally] = {}
        self._before: tuple[MachineReading, tuple[SwarmProcess, ...]] | None = None
        self._latest: Sample | None = None
        self._store: int | None = None
        self._beats = 0

    async def end(self) -> None:
        """Close the driver of the GPUs."""
        if self._gpus is not None:
            self._gpus.close()

    @on
    async def summarise(self, ended: End, wakeup: Wakeup) -> ResourcesSummarised | None:
        """Say what the session cost, from the samples that this process took."""
        if not wakeup.session.kind.trains:
            return None
        tally = self._tallies.get(wakeup.history.id, Tally())
        now = self._machine.read()
        return tally.summary(
            seconds=seconds_between(wakeup.session.requested_at, wakeup.fact.envelope.time),
            memory_total=now.memory_total,
            disk_free=now.disk_free,
        )

    @every(1.0)
    async def watch(self) -> None:
        """Take a sample and add it to every session that trains."""
        running = self._running()
        self._beats += 1
        if not running and self._beats % IDLE_BEATS:
            return
        seen = self._sample()
        if seen is None:
            return
        for resource, value in values(seen, self._store).items():
            self._gates[resource] = self._gates[resource].after(value)
        self._latest = seen
        self._forget({history.id for history in self.ground.tail.open_sessions()})
        for history in running:
            self._tallies.setdefault(history.id, Tally()).add(history.id, seen)
            await self._publish(history, seen)

    @every(1.0)
    async def warn(self) -> None:
        """Tell every running session of each crossing, once. Apart from sampling, which waits for no bus."""
        if self._latest is None:
            return
        for history in self._running():
            # What an earlier process told the session: the last level of each resource.
            earlier: dict[str, Level] = {alert.resource: alert.level for alert in history.state.training.alerts}
            told = self._told.setdefault(history.id, earlier)
            for gate in self._gates.values():
                resource, before = gate.limit.resource, told.get(gate.limit.resource, "")
                alert = gate.alert()
                if alert is not None and RANK[gate.level] > RANK[before]:
                    await self.ground.speak(self.role, history.id, alert, history.state.genesis_id)
                told[resource] = gate.level

    @every(30.0)
    async def weigh(self) -> None:
        """Measure the embedded server's store while any session trains."""
        store = self.ground.home.root / "nats"
        if self._running() and store.is_dir():
            self._store = await asyncio.to_thread(size_of, store)

    def _running(self) -> list[SessionLog]:
        return [
            history
            for history in self.ground.tail.open_sessions()
            if history.state.kind.trains
            and history.state.outcome is None
            and history.state.state in ("preparing", "training")
        ]

    def _sample(self) -> Sample | None:
        """What happened since the last reading; None at the first."""
        now = self._machine.read()
        running = {child.pid: child for child in self.ground.children.running()}
        members = tuple(
            SwarmProcess(running[used.pid].purpose, running[used.pid].session, used) for used in processes(running)
        )
        # The host itself works for no session, and is none of the other programs either.
        members += tuple(SwarmProcess("host", "", used) for used in processes({os.getpid()} - running.keys()))
        before, self._before = self._before, (now, members)
        if before is None:
            return None
        return sample(before[0], now, before[1], members, self._gpus.read() if self._gpus else ())

    async def _publish(self, history: SessionLog, seen: Sample) -> None:
        if history.state.state != "training":
            return
        body = seen.telemetry(history.id) | {"step": history.state.step}
        with suppress(Unreachable):
            # A sample that no listener could hear is of no use later.
            await self.ground.wire.say(subjects.telemetry(history.id, "resources"), orjson.dumps(body))

    def _forget(self, known: set[str]) -> None:
        for memory in (self._tallies, self._told):
            for session in memory.keys() - known:
                del memory[session]
