"""A real swarm in processes of its own, and strangers on its server: what they may do, and what they try."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bus import nkeys, subjects
from bus.admission import Admission
from bus.chain import Draft, Head, compose
from bus.frames import publication
from bus.jetstream import JetStreamBus, connect
from bus.keys import Signer, new_signer, signer_of
from bus.port import Record
from contracts.envelope import Fact, timestamp
from contracts.event import Event
from contracts.ids import new_uuid
from runtime.commands.client import SwarmClient
from runtime.home import settings

SOURCE = Path(__file__).parents[2]
FOOTPRINT = SOURCE / "examples" / "footprint" / "footprint.py"


class RumourSpread(Event, wire="rumour.spread"):
    """What strangers say when it does not matter what."""

    text: str = ""


@dataclass(frozen=True)
class Place:
    """The home of a running swarm."""

    home: Path

    def command(self, *words: str, code: int | None = 0, **options: Any) -> Any:
        """The JSON object that a `swarm` command prints."""
        options = {"env": environment(self.home), "timeout": 120, **options}
        done = subprocess.run(program(*words), capture_output=True, text=True, check=False, **options)
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def swarm(self) -> contextlib.AbstractAsyncContextManager[SwarmClient]:
        """A client of it."""
        return SwarmClient.connect(settings.load(home=str(self.home)))

    def audited(self, session: str) -> str:
        """The verdict on a session's log, from the files alone."""
        verdict = self.command("audit", session, code=None)
        return str(verdict["verdict"]) if "verdict" in verdict else str(verdict)

    @contextlib.contextmanager
    def running(self, *words: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
        """`swarm agent run ...` in a process of its own, from when it hears until the block ends."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        pipes["env"] = environment(self.home) | options.pop("env", {})
        process = subprocess.Popen(program("agent", "run", *words), **pipes, **options)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert '"lane"' in line, line
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            process.communicate(timeout=90)


def program(*words: str) -> list[str]:
    """A command of the product."""
    return [sys.executable, "-P", "-m", "runtime.cli.start", *words, "--json"]


def environment(home: Path) -> dict[str, str]:
    """Where it finds the code under test and its home."""
    return os.environ | {"SWARM_HOME": str(home), "PYTHONPATH": str(SOURCE)}


@contextlib.contextmanager
def place(home: Path, *words: str) -> Iterator[Place]:
    """A swarm that is up until the block ends."""
    found = Place(home)
    found.command("up", "-d", *words)
    try:
        yield found
    finally:
        found.command("down")


class Stranger:
    """A guest of evil intent: it has credentials, reads everything, and sends what it likes."""

    def __init__(self, bus: JetStreamBus, lane: str, signer: Signer, root: str) -> None:
        self.bus, self.lane, self.signer = bus, lane, signer
        self.admission = Admission(root=root)
        self.facts: list[Fact] = []
        self._read = 0

    async def look(self) -> list[Fact]:
        """Read on to the present; all facts so far."""
        async with self.bus.read(subjects.EVERYTHING, after=self._read) as messages:
            async for stored in messages:
                self._read = stored.seq
                self.facts += self.admission.admit(stored)
        return self.facts

    async def until(self, session: str, name: str, seconds: float = 60.0) -> Fact:
        """The first event of that name in the session."""
        async with asyncio.timeout(seconds):
            while True:
                for fact in await self.look():
                    if fact.envelope.subject == session and fact.name == name:
                        return fact
                await asyncio.sleep(0.02)

    def head(self, session: str) -> Head:
        """Where its lane stands."""
        return self.admission.head(session, self.lane)

    def records(self, session: str, *drafts: Draft | Event, head: Head | None = None, **changes: Any) -> list[Record]:
        """One append of its own, chained and signed as it should be unless `changes` say otherwise."""
        made = [one if isinstance(one, Draft) else Draft(one, str(new_uuid())) for one in drafts]
        return compose(
            made,
            session=session,
            lane=changes.get("lane", self.lane),
            head=head or self.head(session),
            signer=changes.get("signer", self.signer),
            source="/stranger",
            time=timestamp(),
        )

    async def say(self, session: str, *drafts: Draft | Event) -> int:
        """An append as an honest guest makes it; returns where it is stored."""
        await self.look()
        lane = subjects.lane(session, self.lane)
        return await self.bus.append(self.records(session, *drafts), lane=lane, after=self.head(session).stored)

    async def shout(self, subject: str, body: bytes = b"{}", *, reply: str = "", headers: bytes = b"") -> None:
        """Publish raw, without waiting for an answer."""
        await self.bus._link.send(publication(subject, reply, headers, body))

    async def store(self, record: Record) -> None:
        """Store raw in its own lane, expecting nothing."""
        await self.bus._link.ask_all(lambda reply: _stored(record, reply), (record.subject,), 5.0)


def _stored(record: Record, reply: str) -> bytes:
    from bus import frames

    head = frames.head(frames.fields(record.headers)) if record.headers else b""
    return publication(record.subject, reply, head, record.body)


@contextlib.asynccontextmanager
async def stranger(found: Place, name: str, *, hears: tuple[str, ...] = ()) -> AsyncIterator[Stranger]:
    """A guest that the swarm has admitted, in the hands of the test."""
    async with found.swarm() as swarm:
        made = await swarm.command("admit", name=name, hears=list(hears))
    creds = json.loads(Path(made["creds"]).read_text())
    lane = made["lane"]
    signer = signer_of(lane, creds["key"].encode(), Path(made["creds"]))
    async with connect(creds["url"], lane, nkeys.from_seed(creds["seed"])) as bus:
        found = Stranger(bus, lane, signer, creds["root"])
        # What is there is read now: a session that is asked for next does not wait until a stranger has read it.
        await found.look()
        yield found


def forger(lane: str) -> Signer:
    """A key that nobody has admitted."""
    return new_signer(lane)
