"""Kills a swarm on purpose and judges what is left: the core of the kill tests and of `benchmarks/chaos.py`.

An `Arena` is one home and every process that was ever started for it, known by a TMPDIR of their own. What is judged
is read from outside: the files of the home, the stream of the server, the table of processes.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bus import nkeys
from bus.admission import Admission
from bus.blobs import DirectoryBlobs
from bus.decode import Reason
from bus.jetstream import connect
from bus.keys import KeyStore
from bus.port import StoredRecord
from bus.rights import seed_file
from bus.subjects import EVERYTHING
from contracts.common import HandlerFailed
from contracts.envelope import Fact
from contracts.errors import SwarmError, Unreachable
from contracts.ids import sha256
from contracts.request import read_request
from contracts.trainer import CheckpointWritten, ControlEvaluated, WindowRecorded
from runtime import audit
from runtime.commands.client import SwarmClient
from runtime.home.home import Home
from runtime.home.settings import load
from runtime.jobs.failpoints import NAMES
from runtime.log.archive import Archive
from tests.harness import crew, small_request, until_ended

KINDS = ("host", "server", "child", "zygote", "all")
LONG = small_request(training={"epochs": 80, "batch_size": 64}, early_stopping={"enabled": False})
"""A training of a few seconds, long enough to be disturbed in the middle."""

MODELS: Mapping[str, dict[str, Any]] = {
    name: small_request(
        model=model,
        training={"epochs": epochs, "batch_size": 32, "accumulate": 2, "ema": {"decay": 0.9}},
        early_stopping={"enabled": True, "patience": 40},
        **more,
    )
    for name, epochs, model, more in (
        ("mlp", 80, {"architecture": "mlp", "hidden": [32], "dropout": 0.1}, {}),
        (
            "cnn",
            60,
            {"architecture": "cnn", "channels": [8, 16], "dropout": 0.1},
            {"augment": [{"type": "shift"}, {"type": "noise"}]},
        ),
        ("transformer", 60, {"architecture": "transformer", "width": 16, "heads": 2, "layers": 1}, {}),
    )
}
"""One of each kind, with everything on that has a memory: accumulation, averaged weights, early stopping, repairs."""

EXPLAINED = (Reason.STALE_SEAL, Reason.LATE)
"""Voids that the design knows: a seal that somebody overtook, a word after the seal."""

_PATIENCE = 120.0
_ROOT = Path(__file__).parents[1]
"""The code that is tried is the one beside this file."""


class Process(NamedTuple):
    """A row of the table of processes."""

    pid: int
    parent: int
    words: tuple[str, ...]

    @property
    def kind(self) -> str:
        """host, server, zygote, or other; a job looks like the zygote it was forked from."""
        if "up" in self.words and "-d" not in self.words:
            return "host"
        if self.words and self.words[0].endswith("nats-server"):
            return "server"
        return "zygote" if "runtime.jobs.zygote" in self.words else "other"


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The object on the last line of stdout."""
        return json.loads(self.out.strip().splitlines()[-1]) if self.out.strip() else {}

    @property
    def error(self) -> dict[str, Any]:
        """The error that the command answered with."""
        return self.json.get("error", {})


@dataclass(frozen=True)
class Result:
    """What a session came to, as far as bits are concerned."""

    state: str
    weights: str | None
    path: tuple[tuple[str, int, int, str], ...]


@dataclass
class Arena:
    """One home, its processes, and a witness of everything that its server ever acknowledged."""

    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    witnessed: dict[int, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.home = Home(self.folder / ".swarm")
        self._mark = self.folder / "tmp"
        self._mark.mkdir(parents=True, exist_ok=True)
        self._watching: tuple[str, asyncio.Task[None]] | None = None
        self._marks = 0

    async def swarm(self, *words: str, env: Mapping[str, str] | None = None) -> Ended:
        """Run one command of the command line, with `--json`."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SWARM_")}
        ours = {"TMPDIR": str(self._mark), "SWARM_HOME": str(self.home.root), "PYTHONPATH": str(_ROOT)}
        command = [sys.executable, "-P", "-m", "runtime.cli.start", *words, "--json"]
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self.folder,
            env=kept | ours | self.settings | (env or {}),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return Ended(process.returncode or 0, out.decode(), err.decode())

    async def up(self, *failpoints: str) -> Ended:
        """`swarm up -d`, with these places armed in a host that it starts."""
        env = {"SWARM_FAILPOINT": ",".join(failpoints)} if failpoints else {}
        ended = await self.swarm("up", "-d", env=env)
        if ended.code == 0:
            self._watch(ended.json["server"]["url"])
        return ended

    async def down(self) -> Ended:
        """`swarm down`; nobody watches any more."""
        await self._unwatch()
        return await self.swarm("down")

    def mark(self, place: str) -> Path:
        """A file that is there once the place was passed; a new one for every life."""
        self._marks += 1
        return self._mark / f"{self._marks}-{place.replace(':', '-')}"

    def everything(self) -> list[Process]:
        """Every process that lives now and was started for this home."""
        return list(_marked(str(self._mark)))

    def processes(self) -> list[Process]:
        """Every process that was started for this home, commands of ours and what descends from them excepted."""
        found = {one.pid: one for one in self.everything()}
        ours = _below(os.getpid(), found)
        return [one for one in found.values() if one.pid not in ours]

    def victims(self, kind: str) -> list[int]:
        """The processes of one kind that live now."""
        found = self.processes()
        zygotes = {one.pid for one in found if one.kind == "zygote"}
        jobs = [one.pid for one in found if one.kind == "zygote" and one.parent in zygotes]
        match kind:
            case "all":
                return [one.pid for one in found]
            case "child":
                return jobs
            case "zygote":
                return [pid for pid in zygotes if pid not in jobs]
            case _:
                return [one.pid for one in found if one.kind == kind]

    def kill(self, kind: str, rng: random.Random, number: int = signal.SIGKILL) -> list[int]:
        """Send a signal to one process of that kind, or to all of all kinds; to which, if there is any."""
        victims = self.victims(kind)
        if kind != "all" and victims:
            victims = [rng.choice(sorted(victims))]
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return victims

    async def gone(self, pids: Iterable[int], patience: float = 15.0) -> None:
        """Return when these processes are no more."""
        wanted = set(pids)
        await _until(lambda: wanted.isdisjoint(one.pid for one in self.everything()), patience)

    async def target(self, kind: str, patience: float = 1.0) -> None:
        """Wait a little for a process of that kind; jobs come and go."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while not self.victims(kind):
                    await asyncio.sleep(0.002)

    async def strays(self, patience: float = 15.0) -> list[Process]:
        """Processes that do not belong to the living host, after everybody had time to go."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while self._strays():
                    await asyncio.sleep(0.05)
        return self._strays()

    async def submit(self, request: Mapping[str, Any], request_id: str) -> str:
        """Ask for a session until the answer comes; the id makes that safe."""
        async with self.client() as swarm:
            return await swarm.submit(request, request_id=request_id)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[SwarmClient]:
        """A connection to the front desk."""
        async with SwarmClient.connect(load(home=str(self.home.root))) as swarm:
            yield swarm

    async def ended(self, session: str, patience: float = _PATIENCE) -> dict[str, Any]:
        """The session once it is sealed, with a host that stays up."""
        async with self.client() as swarm:
            return await swarm.wait(session, patience)

    def facts(self, session: str) -> list[Fact]:
        """What the home's own copy of the log holds now."""
        with suppress(SwarmError):
            return Archive(self.home).read(session).history.facts
        return []

    def result(self, session: str) -> Result:
        """The session as the files of the home tell it."""
        kept = Archive(self.home).read(session).history
        state = kept.state
        path = []
        for fact in kept.facts:
            event = fact.event
            if isinstance(event, WindowRecorded) and state.training.on_path(event.segment, event.last):
                path.append((event.wire, event.first, event.last, _said(event)))
            if isinstance(event, ControlEvaluated) and state.training.on_path(event.segment, event.step):
                path.append((event.wire, event.step, event.step, _said(event)))
        return Result(state.state, state.weights_digest, tuple(path))

    async def stored(self) -> list[StoredRecord]:
        """Everything that the server's stream holds, voids included."""
        host = self.home.host()
        if host is None or not host.alive:
            raise Unreachable("no host runs, so nobody serves the stream.")
        async with connect(host.url, "host", self._key()) as bus, bus.read(EVERYTHING) as records:
            return [stored async for stored in records]

    async def judge(self, session: str, undisturbed: Result) -> list[str]:
        """Everything that is not as it must be; the host runs, and the session has ended."""
        found = [*self.problems, *_differences(self.result(session), undisturbed)]
        verdict = audit.check_log(Archive(self.home), session, DirectoryBlobs(self.home.blobs))
        if verdict.verdict != "pass" or verdict.root == audit.UNANCHORED or not verdict.sealed:
            first = verdict.divergences[0].message if verdict.divergences else f"sealed: {verdict.sealed}"
            found.append(f"audit: {verdict.verdict}, root {verdict.root}, {first}")
        found += self._against_stream(session, await self.stored())
        found += [f"left behind: {one}" for one in await self.strays()]
        return found

    def _against_stream(self, session: str, stream: list[StoredRecord]) -> list[str]:
        """What was acknowledged is there, once, in the stream and in the files."""
        found = []
        digests = {one.seq: sha256(one.body) for one in stream}
        lost = [seq for seq, digest in self.witnessed.items() if digests.get(seq) != digest]
        if lost:
            found.append(f"{len(lost)} acknowledged messages are gone or changed, the first is {min(lost)}")
        if [one.seq for one in stream] != list(range(1, len(stream) + 1)):
            found.append("the stream has gaps")
        admission = Admission(root=KeyStore(self.home.keys).pinned())
        facts = [fact for one in stream for fact in admission.admit(one)]
        unexplained = [void for void in admission.voids if void.reason not in EXPLAINED]
        found += [f"void {void.seq}: {void.reason} {void.detail} ({void.subject})" for void in unexplained]
        mine = [(fact.seq, fact.digest) for fact in facts if fact.envelope.subject == session]
        copied = [(fact.seq, fact.digest) for fact in self.facts(session)]
        if mine != copied:
            found.append(f"the file holds {len(copied)} facts, the stream {len(mine)}")
        twice = [id for id, n in Counter(fact.id for fact in facts).items() if n > 1]
        found += [f"event {id} is there more than once" for id in twice]
        failed = [fact.event for fact in facts if isinstance(fact.event, HandlerFailed)]
        return [*found, *(f"handler failed: {one.role}.{one.handler}: {one.error}" for one in failed)]

    def _strays(self) -> list[Process]:
        found = {one.pid: one for one in self.processes()}
        host = self.home.host()
        alive = host is not None and host.alive
        kept = _below(host.pid, found) if host is not None and alive else set()
        return [one for one in found.values() if one.pid not in kept]

    def _key(self) -> nkeys.UserKey:
        return nkeys.read(seed_file(self.home.seeds, "host"))

    def _watch(self, url: str) -> None:
        if self._watching is None or self._watching[0] != url or self._watching[1].done():
            if self._watching is not None:
                self._watching[1].cancel()
            self._watching = url, asyncio.create_task(self._witness(url))

    async def _unwatch(self) -> None:
        if self._watching is not None:
            self._watching[1].cancel()
            await asyncio.gather(self._watching[1], return_exceptions=True)
            self._watching = None

    async def _witness(self, url: str) -> None:
        """Note every stored message as soon as the server gives it; a second version of one is a problem."""
        while True:
            after = max(self.witnessed, default=0)
            with suppress(Unreachable):
                async with (
                    connect(url, "host", self._key()) as bus,
                    bus.read(EVERYTHING, after=after, follow=True) as all,
                ):
                    async for stored in all:
                        digest = sha256(stored.body)
                        if self.witnessed.setdefault(stored.seq, digest) != digest:
                            self.problems.append(f"message {stored.seq} was served in two versions")
            await asyncio.sleep(0.05)


async def undisturbed(folder: Path, request: Mapping[str, Any]) -> Result:
    """What a request comes to when nobody disturbs it; in this process, for how it is run does not matter to bits."""
    arena = Arena(folder)
    async with crew(arena.home.root) as made:
        session = await made.commands.submit(read_request(request).resolved())
        await until_ended(made, session, _PATIENCE)
    return arena.result(session)


async def torment(
    arena: Arena,
    session: str,
    rng: random.Random,
    kills: int,
    *,
    kinds: Iterable[str] = KINDS,
    longest: float = 3.0,
    armed: float = 0.0,
) -> Counter[str]:
    """Up to so many kills at random moments while the session is not over; the host is up at the end.

    With the probability `armed` a host that is started has a failpoint in it as well, counted when it was passed.
    """
    done: Counter[str] = Counter()
    spent = Patience()
    while done.total() < kills and not _is_over(arena, session):
        place = rng.choice(sorted(NAMES)) if rng.random() < armed and not arena.victims("host") else ""
        mark = arena.mark(place)
        rising = asyncio.create_task(arena.up(*([f"{place}:{rng.randint(1, 9)}@{mark}"] if place else [])))
        if place:
            with suppress(TimeoutError):
                await _until(mark.exists, 3.0 + longest)
        if place and not _disarmed(mark):
            done[f"at {place}"] += 1
            spent.note("child" if NAMES[place].startswith("job") else "host")
        else:
            await asyncio.sleep(rng.uniform(0.0, longest))
            fair = [one for one in kinds if one in ("host", "server", "all") or spent.allows(arena, session)]
            kind = rng.choice(fair)
            await arena.target(kind)
            if killed := arena.kill(kind, rng):
                done[kind] += 1
                spent.note(kind)
                await arena.gone(killed)
        ended = await rising
        if ended.code and not done:
            raise AssertionError(ended)
    await risen(arena)
    return done


def _disarmed(mark: Path) -> bool:
    """Whether this came before anybody died at the place: who creates the file is chosen, and now nobody is."""
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


@dataclass
class Patience:
    """Three deaths of a child without a window between them rightly fail a session, so no third is brought about."""

    windows: int = 0
    deaths: int = 0

    def allows(self, arena: Arena, session: str) -> bool:
        """Whether one more child may die now."""
        windows = sum(fact.name == "window.recorded" for fact in arena.facts(session))
        if windows > self.windows:
            self.windows, self.deaths = windows, 0
        return self.deaths < 1

    def note(self, kind: str) -> None:
        """Something was killed; a new host counts from the beginning."""
        self.deaths = 0 if kind in ("host", "all") else self.deaths + (kind in ("child", "zygote"))


async def risen(arena: Arena, tries: int = 3) -> None:
    """`swarm up -d` after a kill, which may have hit what is just starting."""
    for _ in range(tries):
        ended = await arena.up()
        if ended.code == 0:
            return
    raise AssertionError(f"{ended}\n{arena.home.host_log.read_text()[-3000:]}")


@dataclass
class Life:
    """One life of a host in which places are armed; the file of each is there once it was passed."""

    arena: Arena
    host: int
    places: Mapping[str, Path]
    fatal: bool

    async def passed(self, patience: float = 150.0) -> tuple[str, ...]:
        """Return when every place was passed or the host died at one; those that were not passed by then.

        A host that is not dead when every place was passed is killed as well.
        """
        try:
            await _until(lambda: self._is_over(), patience)
        except TimeoutError:
            message = f"never passed: {self._left()}\n{self.arena.home.host_log.read_text()[-3000:]}"
            raise AssertionError(message) from None
        if not self.fatal:
            with suppress(ProcessLookupError):
                os.kill(self.host, signal.SIGKILL)
        await _until(lambda: not self._lives(), patience)
        return self._left()

    def _is_over(self) -> bool:
        return not self._left() or not self._lives()

    def _lives(self) -> bool:
        return self.host in {one.pid for one in self.arena.processes()}

    def _left(self) -> tuple[str, ...]:
        return tuple(place for place, mark in self.places.items() if not mark.exists())


async def risen_with(arena: Arena, *places: str) -> Life:
    """A new host with these places armed; it is ready and has not died yet."""
    await _until(lambda: not arena.victims("host"), 10.0)
    armed = {place: arena.mark(place) for place in places}
    ended = await arena.up(*(f"{place}@{mark}" for place, mark in armed.items()))
    fatal = any(NAMES[place.partition(":")[0]].startswith("host") for place in places)
    if ended.code:
        if not any(mark.exists() for mark in armed.values()):
            raise AssertionError(ended)
        return Life(arena, 0, armed, fatal=True)
    return Life(arena, ended.json["host"]["pid"], armed, fatal)


async def dies_at(arena: Arena, place: str) -> None:
    """A host that dies at this place before it is ready."""
    life = await risen_with(arena, place)
    assert await life.passed() == ()


async def grown(arena: Arena, session: str, by: int = 10, patience: float = 60.0) -> None:
    """Return when the session's file holds so many more facts than now."""
    goal = len(arena.facts(session)) + by
    await _until(lambda: len(arena.facts(session)) >= goal, patience)


async def _until(true: Callable[[], bool], patience: float) -> None:
    async with asyncio.timeout(patience):
        while not true():
            await asyncio.sleep(0.02)


def _is_over(arena: Arena, session: str) -> bool:
    return any(fact.name == "session.sealed" for fact in arena.facts(session)[-1:])


def _said(event: WindowRecorded | ControlEvaluated | CheckpointWritten) -> str:
    return sha256(event.model_dump_json().encode())


def _differences(result: Result, undisturbed: Result) -> list[str]:
    found = []
    if result.state != "completed" and undisturbed.state == "completed":
        found.append(f"the session ended {result.state}")
    if result.weights != undisturbed.weights:
        found.append(f"final weights are {result.weights}, undisturbed {undisturbed.weights}")
    if len(result.path) != len(undisturbed.path):
        found.append(f"the path holds {len(result.path)} windows and evaluations, undisturbed {len(undisturbed.path)}")
    for ours, theirs in zip(result.path, undisturbed.path, strict=False):
        if ours != theirs:
            found.append(f"{ours[:3]} differs from {theirs[:3]} of the undisturbed run")
            break
    return found


def _marked(mark: str) -> Iterable[Process]:
    """Every process whose environment holds the mark."""
    wanted = f"TMPDIR={mark}\0".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            if wanted not in (entry / "environ").read_bytes() + b"\0":
                continue
            words = tuple((entry / "cmdline").read_bytes().decode(errors="replace").split("\0"))
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if fields[0] not in "ZX":
                yield Process(int(entry.name), int(fields[1]), words)


def _below(root: int, found: Mapping[int, Process]) -> set[int]:
    """A process and all that descend from it."""
    members = {root}
    grown = True
    while grown:
        fresh = {one.pid for one in found.values() if one.parent in members} - members
        members |= fresh
        grown = bool(fresh)
    return members
