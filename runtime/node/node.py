"""Agents at work on one connection: a tail, writers and supervisors; what they ask for is asked of a desk elsewhere."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Protocol

import orjson
import structlog

from bus import notes, subjects
from bus.admission import Admission
from bus.blobs import DirectoryBlobs
from bus.keys import KeyStore, Signer
from bus.port import Log, Wakes, Wire
from bus.signed_commands import ask_signed
from contracts.envelope import Fact
from contracts.errors import Refused, SwarmError, Unreachable, error_of
from contracts.event import Event
from contracts.keyring import fingerprint
from contracts.operator import RedriveRequested
from contracts.roles import ANYBODY
from runtime.home.home import Home
from runtime.home.settings import Settings
from runtime.jobs.children import Children
from runtime.log import copies, follower, lane_writer
from runtime.node.agent import Agent
from runtime.node.agent_context import AgentContext
from runtime.node.presence import BEAT, Presence
from runtime.node.supervisor import Supervisor, is_cancelled

log = structlog.get_logger()


_DRAIN_SECONDS = 20.0


class Bus(Log, Wakes, Wire, Protocol):
    """All that a node needs of a connection."""


class Node:
    """Everything in one process that reads the log and speaks into it."""

    def __init__(
        self,
        bus: Bus,
        settings: Settings,
        keys: Mapping[str, Signer],
        *,
        instance: str,
        root: str = "",
        keep_copies: bool = True,
        find_key: lane_writer.Find | None = None,
        children: Children | None = None,
    ) -> None:
        self.bus = bus
        self.settings = settings
        self.home = home = Home(settings.home)
        # One process writes the files of a home; processes beside it only read the log.
        self.copies = copies.Copies(home) if keep_copies else None
        self.tail = follower.LogFollower(
            bus,
            Admission(root=root),
            copy=self.copies.keep if self.copies else None,
            places=self.copies.places if self.copies else None,
        )
        self.keys = lane_writer.SigningKeys(keys, find_key or KeyStore(home.keys).holding, self.tail.admission)
        self.children = children or Children(stall_after=settings.stall_after_seconds)
        self.supervisors: dict[str, Supervisor] = {}
        self.instance = instance
        store, beat = DirectoryBlobs(home.blobs), min(BEAT, settings.takeover_after_seconds / 3)
        self.presence = Presence(bus, instance, store.identity() if home.blobs.is_dir() else "", beat)
        self.source = f"/swarm/{instance}"
        self.draining = asyncio.Event()
        self._scribes: dict[str, lane_writer.LaneWriter] = {}
        self.ground = AgentContext(
            home=home,
            settings=settings,
            tail=self.tail,
            wire=bus,
            blobs=store,
            children=self.children,
            presence=self.presence,
            instance=instance,
            incarnation=secrets.token_hex(4),
            draining=self.draining,
            sign_note=self._sign_note,
            submit=self.submit,
            ask=self.ask,
            command=self.command,
            speak=self._speak,
        )

    def writer(self, lane: str, role: str | None = None) -> lane_writer.LaneWriter:
        """The one writer of a lane in this process, signing with the key of `role`."""
        if lane not in self._scribes:
            signer = partial(self.keys.__getitem__, role or lane)
            self._scribes[lane] = lane_writer.LaneWriter(self.bus, self.tail, lane, signer, f"{self.source}/{lane}")
        return self._scribes[lane]

    async def follow(self, tasks: asyncio.TaskGroup, *, after: int = 0) -> None:
        """Start reading the log and keeping copies; returns once the present is reached."""
        tasks.create_task(self.tail.run(after=after), name="tail")
        if self.copies:
            tasks.create_task(self.copies.run(), name="copies")
        await self.tail.caught_up.wait()
        self.tail.listen(self.keys.hear)
        self.keys.catch_up()

    def employ(self, tasks: asyncio.TaskGroup, agents: Mapping[str, type[Agent]]) -> None:
        """Start these agents, each supervised on its own, and everybody's heartbeats."""
        self.tail.listen(self._redrive)
        tasks.create_task(self.presence.hear(), name="presence")
        tasks.create_task(self.presence.beat(), name="heartbeats")
        for lane, kind in agents.items():
            supervisor = Supervisor(kind(self.ground), self.ground, self.writer(lane), self.bus)
            self.supervisors[lane] = supervisor
            tasks.create_task(self._supervise(supervisor), name=lane)

    async def ready(self) -> None:
        """Return when every agent of the node is ready for wake-ups."""
        await asyncio.gather(*(one.ready.wait() for one in self.supervisors.values()))

    def agents(self) -> list[dict[str, Any]]:
        """Name, readiness, process and lag of every agent here."""
        pid = os.getpid()
        return [
            {"name": name, "ready": one.ready.is_set(), "pid": pid, "lag": one.lag}
            for name, one in self.supervisors.items()
        ]

    @asynccontextmanager
    async def working(self) -> AsyncIterator[asyncio.TaskGroup]:
        """The group of all tasks of the node; on leaving they are cancelled, children ended, and copies are on disk."""
        try:
            async with asyncio.TaskGroup() as tasks:
                yield tasks
                raise _EndedError  # noqa: TRY301 - the only way to end a task group from inside
        except* _EndedError:
            pass
        finally:
            await self.children.close()
            if self.copies:
                self.copies.close()

    async def drain(self, busy: Callable[[], bool]) -> None:
        """Let long work reach a place from which it can be taken up again: while it is `busy`, 20 seconds at most."""
        self.draining.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while busy():  # noqa: ASYNC110 - children tell nobody
                    await asyncio.sleep(0.02)

    async def _supervise(self, supervisor: Supervisor) -> None:
        """Keep one agent running: what ends it is logged and tried again, ever more slowly, and touches no other."""
        wait = 0.5
        while True:
            try:
                await supervisor.run()
            except* SwarmError as group:
                log.warning("agent stopped", role=supervisor.role, errors=[str(one) for one in group.exceptions])
            except* Exception as group:
                log.error("agent crashed", role=supervisor.role, exc_info=group)
            if is_cancelled():
                raise asyncio.CancelledError
            await asyncio.sleep(wait)
            wait = min(2 * wait, 30.0)

    def _redrive(self, facts: list[Fact]) -> None:
        """A person wants a failure tried again: whichever process has that agent hears so from the log."""
        for fact in facts:
            if isinstance(fact.event, RedriveRequested):
                for supervisor in self.supervisors.values():
                    supervisor.redrive(self.tail.history(fact.envelope.subject), fact.event.failure)

    def _sign_note(self, checkpoint: notes.SignedTreeHead) -> str:
        return notes.sign(checkpoint, self.keys["ledger"])

    async def submit(self, request: Mapping[str, Any], kind: str, *, asked_by: str, **about: Any) -> str:
        """Request a trial from a process that cannot sign for the desk; `about` as `Commands.submit` takes it."""
        if kind != "trial":
            raise Refused(f"an agent alone requests trials, no session of kind {kind!r}.", cure="Use a client.")
        return await self.ask(asked_by, "trial", {"request": dict(request), **about})

    async def ask(self, role: str, verb: str, body: Mapping[str, object]) -> str:
        """The session that a command begins; the desk that carries it out is another process, which is waited for."""
        while True:
            try:
                reply = await self.command(role, verb, body)
            except Unreachable:
                await asyncio.sleep(1.0)
            else:
                break
        await self.tail.reached(reply["seq"])
        return str(reply["session"])

    async def command(self, role: str, verb: str, body: Mapping[str, object]) -> Mapping[str, Any]:
        """The reply of a desk elsewhere to a command that a role of this process signs."""
        root = fingerprint(self.tail.admission.keyring().root)
        reply = orjson.loads(await ask_signed(self.bus, self.keys[role], root, verb, body, timeout=60.0))
        if "error" in reply:
            raise error_of(reply["error"])
        answer: Mapping[str, Any] = reply
        return answer

    async def _speak(self, role: str, session: str, event: Event, cause: str) -> tuple[Fact, ...]:
        return await self.writer(role).say(session, [event], lane_writer.Provenance(cause, cause))


class _EndedError(Exception):
    """The way out of a node's task group in good order."""


def wake_subjects(kind: type[Agent]) -> list[str]:
    """The filters of everything that wakes an agent."""
    found = set[str]()
    for event in kind.hears():
        lanes: Iterable[str | None] = [lane for lane in event.said_in if lane != ANYBODY]
        for lane in lanes or [None]:
            found.update(subjects.waking(event.wire, lane))
    return sorted(found)
