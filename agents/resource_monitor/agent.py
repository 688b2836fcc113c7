"""The resource monitor: samples the machine while sessions train, warns once per crossing, sums up epochs and the end.

A sample goes out as telemetry and into a file of the session, and once in a minute what the minute used. The log gets
one small event for an epoch, at most one per beat: where epochs are shorter it covers several.
"""

import asyncio
import os
from contextlib import suppress
from dataclasses import dataclass, field

import orjson

from agents.resource_monitor.advice import AdviceBook, advise, situation
from agents.resource_monitor.gates import RANK, Gate, Level, limits, values
from agents.resource_monitor.gpus import GpuReading, Gpus, find_gpus
from agents.resource_monitor.history import MINUTES, SECONDS, BoundedLines
from agents.resource_monitor.machine import MachineReader, MachineReading, processes, size_of
from agents.resource_monitor.notices import Notifier
from agents.resource_monitor.usage import Sample, SwarmProcess, Tally, gpu_errors, sample, seconds_between
from bus import subjects
from contracts.data_manager import DatasetRejected
from contracts.errors import Unreachable
from contracts.resource_monitor import (
    AdviceJudged,
    AlertResource,
    ResourcesAdvised,
    ResourcesAlerted,
    ResourcesMeasured,
    ResourcesSummarised,
)
from contracts.session import SessionState
from contracts.trainer import AttemptEnded, ControlEvaluated, TrainingCancelled, TrainingCompleted, TrainingFailed
from runtime.jobs import process
from runtime.log.session_log import SessionLog
from runtime.node.agent import Agent, every, on
from runtime.node.agent_context import Wakeup

IDLE_BEATS = 5
"""With no training session open, only every fifth beat reads the machine."""

MINUTE = 60.0
"""Seconds that the coarser of the two resolutions sums up."""

End = TrainingCompleted | TrainingFailed | TrainingCancelled | DatasetRejected


@dataclass
class SessionTallies:
    """A session that trains: what it used in all, in this epoch and in this minute, and its files of samples."""

    seconds: BoundedLines
    minutes: BoundedLines
    all: Tally = field(default_factory=Tally)
    epoch: Tally = field(default_factory=Tally)
    minute: Tally = field(default_factory=Tally)
    told: int = 0
    """The last epoch that was told of; the fold has it a moment later."""

    def add(self, session: str, seen: Sample) -> None:
        """Take in one sample."""
        for tally in (self.all, self.epoch, self.minute):
            tally.add(session, seen)

    def measured(self, state: SessionState) -> ResourcesMeasured | None:
        """What the epochs used that were evaluated and that no event tells of yet; the next ones begin here."""
        training = state.training
        newest = training.evaluations[-1] if training.evaluations else None
        told = max(self.told, training.measured[-1].epoch if training.measured else 0)
        if newest is None or newest.epoch <= told or not self.epoch.samples:
            return None
        spent, self.epoch, self.told = self.epoch, Tally(), newest.epoch
        return spent.measured(epoch=newest.epoch, epochs=newest.epoch - told, step=newest.step)


class ResourceMonitor(Agent):
    """Knows what the machine gave to each session. Its samples are telemetry; only crossings and sums are facts."""

    async def begin(self) -> None:
        """Find the GPUs; what was sampled before a restart is gone, and the summaries say so."""
        settings = self.ground.settings
        self._machine = MachineReader(self.ground.home.root, settings.network_bytes_per_second)
        self._gpus: Gpus | None = await asyncio.to_thread(find_gpus)
        known = limits(
            min_free_disk=settings.min_free_disk_bytes, store_bytes=settings.store_bytes, others=settings.alerts
        )
        self._gates = {limit.resource: Gate(limit) for limit in known}
        self._told: dict[str, dict[str, Level]] = {}
        self._notifier = Notifier(settings.notify)
        self._notified: dict[tuple[str, AlertResource], Level] = {}
        """By receiver and resource, the level that it knows of."""
        self._errors = 0
        self._watched: dict[str, SessionTallies] = {}
        self._before: tuple[MachineReading, tuple[SwarmProcess, ...]] | None = None
        self._latest: Sample | None = None
        self._store: int | None = None
        self._beats = 0

    async def end(self) -> None:
        """Close the driver of the GPUs, and send no more notices."""
        await self._notifier.close()
        if self._gpus is not None:
            self._gpus.close()

    @on
    async def summarise(
        self, ended: End, wakeup: Wakeup
    ) -> list[ResourcesSummarised | ResourcesAdvised | AdviceJudged | ResourcesMeasured]:
        """Say what the session cost, from the samples that this process took, and what its last epochs did.

        A completed training is also told what it could do better, and what the advice was worth that it took.
        """
        if not wakeup.session.kind.trains:
            return []
        watched = self._watched.get(wakeup.history.id)
        now = self._machine.read()
        summary = (watched.all if watched else Tally()).summary(
            seconds=seconds_between(wakeup.session.requested_at, wakeup.fact.envelope.time),
            memory_total=now.memory_total,
            disk_free=now.disk_free,
        )
        last = watched.measured(wakeup.session) if watched else None
        # Trials of a search are many, and their options are the search's.
        advised = isinstance(ended, TrainingCompleted) and wakeup.session.kind.reported
        advice = self._advise(wakeup, summary) if advised else []
        return [summary, *advice, *([last] if last else [])]

    def _advise(self, wakeup: Wakeup, used: ResourcesSummarised) -> list[ResourcesAdvised | AdviceJudged]:
        attempts = [fact.event for fact in wakeup.history.telling((AttemptEnded,))]
        seen = situation(
            wakeup.session,
            [attempt for attempt in attempts if isinstance(attempt, AttemptEnded)],
            used,
            cores=process.cores(),
        )
        if seen is None:
            return []
        book = AdviceBook(self.ground.home.root / "advice.jsonl")
        judged, given = list(book.judge(seen)), list(advise(seen))
        book.keep(wakeup.history.id, seen, given)
        return [*given, *judged]

    @every(1.0)
    async def watch(self) -> None:
        """Take a sample and add it to every session that trains."""
        running = self._running()
        self._beats += 1
        if not running and self._beats % IDLE_BEATS:
            return
        seen = self._sample(await asyncio.to_thread(self._gpus.read) if self._gpus else [])
        if seen is None:
            return
        self._errors += gpu_errors(self._latest.gpus if self._latest else (), seen.gpus)
        for resource, (value, swarm) in values(seen, self._store, self._errors).items():
            self._gates[resource] = self._gates[resource].after(value, swarm)
        self._latest = seen
        self._forget({history.id for history in self.ground.tail.open_sessions()})
        for history in running:
            watched = self._watched.get(history.id)
            if watched is None:
                folder = self.ground.home.session(history.id) / "resources"
                files = BoundedLines(folder, SECONDS), BoundedLines(folder, MINUTES)
                watched = self._watched[history.id] = SessionTallies(*files)
            watched.add(history.id, seen)
            if history.state.state == "training":
                await self._publish(history, watched, seen)

    @every(1.0)
    async def measure(self) -> None:
        """Tell every running session what the epochs that have ended used. Apart from sampling, as warnings are."""
        for history in self._running():
            watched = self._watched.get(history.id)
            measured = watched.measured(history.state) if watched else None
            if measured is not None:
                # It is among the newest facts, so the search begins at the end.
                causes = (fact.id for fact in reversed(history.facts) if isinstance(fact.event, ControlEvaluated))
                await self.ground.speak(self.role, history.id, measured, next(causes))

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
                    self._notify(history, alert)
                told[resource] = gate.level
        for (label, about), level in self._notified.items():
            self._notified[label, about] = min(level, self._gates[about].level, key=RANK.__getitem__)

    def _notify(self, history: SessionLog, alert: ResourcesAlerted) -> None:
        """Have the receivers told whose labels the session's request names: of each crossing once, of any session."""
        named = history.state.request.get("notify") or ()
        for label in dict.fromkeys(named if isinstance(named, list | tuple) else ()):
            box = self._notifier.boxes.get(label) if isinstance(label, str) else None
            known = RANK[self._notified.get((label, alert.resource), "")]
            if box is None or RANK[alert.level] <= known or RANK[alert.level] < RANK[box.receiver.level]:
                continue
            self._notified[label, alert.resource] = alert.level
            about = {"session": history.id, "machine": self.ground.settings.name}
            self._notifier.tell(label, orjson.dumps(about | alert.model_dump(mode="json")))

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

    def _sample(self, gpus: list[GpuReading]) -> Sample | None:
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
        return sample(before[0], now, before[1], members, gpus)

    async def _publish(self, history: SessionLog, watched: SessionTallies, seen: Sample) -> None:
        step = history.state.step
        line = orjson.dumps(seen.telemetry(history.id) | {"step": step})
        watched.seconds.add(line)
        messages = {"resources": line}
        if watched.minute.seconds >= MINUTE:
            minute, watched.minute = watched.minute, Tally()
            messages["resources_minute"] = orjson.dumps({"uptime": seen.uptime, **minute.figures(), "step": step})
            watched.minutes.add(messages["resources_minute"])
        with suppress(Unreachable):
            # A sample that no listener could hear is of no use later.
            for kind, body in messages.items():
                await self.ground.wire.say(subjects.telemetry(history.id, kind), body)

    def _forget(self, known: set[str]) -> None:
        for memory in (self._watched, self._told):
            for session in memory.keys() - known:
                del memory[session]
