"""What `swarm doctor` looks at: one small function per thing, each a finding with a cure. It changes nothing."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import stat
import sys
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from contracts.errors import NotFound, SwarmError, count_of
from contracts.roles import BUILT_IN
from runtime.home.home import LAYOUT, Home
from runtime.home.settings import FIELDS, Settings
from runtime.log.archive import Archive

if TYPE_CHECKING:
    from runtime.commands.client import SwarmClient

T = TypeVar("T")
PACKAGES = ("agents", "contracts", "bus", "runtime")
MEMORY_FILES = frozenset({"tmpfs", "ramfs"})

_ANEW = "Have it completed from the store: swarm down, then swarm doctor --repair, then swarm up -d"

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One thing that was looked at: how it is, and what to do about it."""

    level: Level
    what: str
    message: str
    cure: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def checkup(home: Home, settings: Settings) -> Iterator[CheckResult]:
    """Every finding; a check that itself breaks is a finding too, and stops no other."""
    for check in CHECKS:
        try:
            yield from check(home, settings)
        except SwarmError as error:
            yield CheckResult("fail", check.__name__.strip("_"), error.message, error.cure)
        except OSError as error:
            cure = "See who owns the folder and its permissions."
            yield CheckResult("fail", check.__name__.strip("_"), f"{error.strerror}: {error.filename}", cure)


def _python(home: Home, settings: Settings) -> Iterator[CheckResult]:
    yield CheckResult("ok", "python", ".".join(map(str, sys.version_info[:3])))


def _torch(home: Home, settings: Settings) -> Iterator[CheckResult]:
    try:
        found = metadata.version("torch")
    except metadata.PackageNotFoundError:
        yield CheckResult("fail", "torch", "is not installed", "pip install 'torch>=2.13,<2.14'")
        return
    if found.split(".")[:2] == ["2", "13"]:
        yield CheckResult("ok", "torch", found)
    else:
        cure = "pip install 'torch>=2.13,<2.14'"
        yield CheckResult("warn", "torch", f"{found} is not the version that is tested", cure)


def _server(home: Home, settings: Settings) -> Iterator[CheckResult]:
    from bus.server import find_binary, version

    if settings.url:
        yield CheckResult("ok", "server", f"uses {settings.url}")
        return
    binary = find_binary()
    yield CheckResult("ok", "server", f"nats-server {'.'.join(map(str, version(binary)))} at {binary}")


def _packages(home: Home, settings: Settings) -> Iterator[CheckResult]:
    """Whether each package is ours: another of that name may be installed, or lie in the folder worked in."""
    ours = Path(__file__).resolve().parents[2]
    here = Path.cwd()
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        found = Path(spec.origin).resolve().parent.parent if spec and spec.origin else None
        beside = here / name
        if found != ours:
            cure = (
                "Install stigmergy-swarm into an environment of its own (python -m venv .venv), or rename the folder."
            )
            yield CheckResult("fail", "packages", f"{name!r} is loaded from {found}, not from {ours}", cure)
        elif here.resolve() != ours and (beside.is_dir() or beside.with_suffix(".py").exists()):
            cure = f"Rename it, or work in another folder: `python` started here would import it as {name!r}."
            yield CheckResult("warn", "packages", f"{beside} has the name of one of ours", cure)
    if (here / "tests" / "__init__.py").exists() and here.resolve() != ours:
        yield CheckResult("ok", "packages", "tests/__init__.py here is harmless: nothing of ours is called tests")
    yield CheckResult("ok", "packages", f"{', '.join(PACKAGES)} come from {ours}")


def _environment(home: Home, settings: Settings) -> Iterator[CheckResult]:
    """Environment variables that look like settings and are none: they would be ignored without a word."""
    known = [f"SWARM_{name.upper()}" for name in FIELDS]
    for name in sorted(os.environ):
        if name.startswith("SWARM_") and name not in (*known, "SWARM_FAILPOINT"):
            near = get_close_matches(name, known, 1)
            cure = f"Did you mean {near[0]}?" if near else "Unset it; see: swarm config schema settings"
            yield CheckResult("warn", "environment", f"{name} is no setting", cure)


def _home(home: Home, settings: Settings) -> Iterator[CheckResult]:
    if not home.root.exists():
        parent = next(one for one in home.root.parents if one.exists())
        if os.access(parent, os.W_OK):
            yield CheckResult("ok", "home", f"{home.root} will be made by `swarm up`")
        else:
            yield CheckResult("fail", "home", f"{parent} cannot be written to", "Choose another home with --home.")
        return
    if not os.access(home.root, os.W_OK | os.X_OK):
        yield CheckResult("fail", "home", f"{home.root} cannot be written to", "Choose another home with --home.")
        return
    layout = (home.root / "layout").read_text().strip() if (home.root / "layout").exists() else str(LAYOUT)
    if not layout.isdigit() or int(layout) > LAYOUT:
        message = f"{home.root} has layout {layout!r}, this software knows {LAYOUT}"
        yield CheckResult("fail", "home", message, "Update stigmergy, or choose another home with --home.")
    else:
        yield CheckResult("ok", "home", f"{home.root}, layout {layout}")


def _disk(home: Home, settings: Settings) -> Iterator[CheckResult]:
    place = next(one for one in (home.root, *home.root.parents) if one.exists())
    free = shutil.disk_usage(place).free
    kind = _filesystem(place)
    shown = f"{free / 2**30:.1f} GiB free" + (f" on {kind}" if kind else "")
    if free < settings.min_free_disk_bytes:
        cure = "Free space, or move the home with --home."
        yield CheckResult("fail", "disk", f"{shown}: new sessions are refused", cure)
    elif free < settings.store_bytes:
        yield CheckResult("warn", "disk", f"{shown}, less than the log may grow to", "Free space before long sessions.")
    else:
        yield CheckResult("ok", "disk", shown)
    if kind in MEMORY_FILES:
        yield CheckResult("warn", "disk", f"the home is on {kind}: a power cut loses it", "Choose a home on a disk.")


def _filesystem(place: Path) -> str:
    """The type of file system under a path; empty where the system does not say."""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    mounts = [line.split()[1:3] for line in lines]
    fitting = [(len(at), kind) for at, kind in mounts if place.resolve().is_relative_to(at)]
    return max(fitting)[1] if fitting else ""


def _keys(home: Home, settings: Settings) -> Iterator[CheckResult]:
    from bus.keys import KeyStore

    if not home.keys.exists():
        yield CheckResult("ok", "keys", "will be made by the first `swarm up`")
        return
    open_ones = [
        one for one in (home.keys, *home.keys.rglob("*")) if one.suffix != ".pub" and one.stat().st_mode & 0o077
    ]
    for one in open_ones:
        mode = stat.S_IMODE(one.stat().st_mode)
        cure = f"chmod go-rwx {one}; if others may have read it: swarm keys rotate ROLE"
        yield CheckResult("fail", "keys", f"{one} can be read by others (mode {mode:04o})", cure)
    pinned = KeyStore(home.keys).pinned()
    if not pinned:
        cure = "`swarm up` pins it; until then a verdict says `root: unanchored`."
        yield CheckResult("warn", "keys", "no root key is pinned", cure)
    elif not open_ones:
        yield CheckResult("ok", "keys", f"private; root {pinned[:16]}")


def _host(home: Home, settings: Settings) -> Iterator[CheckResult]:
    from bus.server import recorded_server

    if incident := home.incident():
        yield CheckResult("fail", "host", incident["message"], incident["cure"])
    host, left = home.host(), recorded_server(home.root)
    if host is not None and host.alive:
        level: Level = "ok" if host.ready else "warn"
        yield CheckResult(level, "host", f"runs with pid {host.pid}" + ("" if host.ready else ", but is not ready"))
        return
    if left is not None and left.alive():
        message = f"a server that a dead host left over still runs (pid {left.pid})"
        yield CheckResult("fail", "host", message, "End it: swarm down; `swarm up` does so too.")
        return
    ended = f"; pid {host.pid} ended without good-bye" if host else ""
    yield CheckResult("ok", "host", f"none runs{ended}")


def _logs(home: Home, settings: Settings) -> Iterator[CheckResult]:
    """Whether every session's file is whole, and holds only facts."""
    archive, sound = Archive(home), 0
    running = home.host()
    for session in home.session_ids():
        try:
            kept = archive.read(session)
        except SwarmError as error:
            yield CheckResult("fail", "logs", error.message, error.cure)
            continue
        if kept.voids:
            void = kept.voids[0]
            message = f"{session}: record {void.seq} is no fact ({void.reason}: {void.detail})"
            yield CheckResult("fail", "logs", message, f"Keep the file as evidence: swarm audit {session}")
        elif kept.torn_bytes and not (running and running.alive):
            message = f"{session}: its last {count_of(kept.torn_bytes, 'byte is', 'bytes are')} no record"
            yield CheckResult("warn", "logs", message, _ANEW)
        else:
            sound += 1
    files = count_of(len(list(home.session_ids())), "file")
    yield CheckResult("ok", "logs", f"{sound} of {files} whole, with nothing but facts")


def _store(home: Home, settings: Settings) -> Iterator[CheckResult]:
    """Whether the files hold all that the running swarm does."""
    host = home.host()
    if host is None or not host.alive:
        return
    held = {one["session"]: one["events"] for one in _ask(settings, lambda swarm: swarm.sessions())}
    archive, short = Archive(home), 0
    for session, events in held.items():
        try:
            have = archive.read(session).history.size if home.log(session).exists() else 0
        except SwarmError:
            continue  # told among the logs
        if have < events:
            short += 1
            message = f"{session}: the file holds {count_of(have, 'event')}, the swarm {events}"
            yield CheckResult("fail", "store", message, _ANEW)
    if not short:
        known = count_of(len(held), "session")
        yield CheckResult("ok", "store", f"the files hold every event that the swarm has, of {known}")


def _sharers(home: Home, settings: Settings) -> Iterator[CheckResult]:
    """Whether agents of this swarm on other machines use the same blob store as this host."""
    from bus.blobs import DirectoryBlobs
    from runtime.node.presence import PRESENT

    host = home.host()
    if not home.blobs.exists() or not (settings.url or (host is not None and host.alive)):
        return
    ours = DirectoryBlobs(home.blobs).identity()
    there = [
        one
        for one in _ask(settings, lambda swarm: swarm.command("status"))["roster"]
        if one["store"] and one["seen"] < PRESENT
    ]
    apart = [one for one in there if one["store"] != ours and one["name"] in BUILT_IN]
    for one in apart:
        message = f"{one['name']} {one['instance']} uses another store: nobody here can take over from it"
        cure = f"Let it use {home.blobs.resolve()} too: SWARM_BLOBS=DIR, or blobs in settings.toml."
        yield CheckResult("fail", "sharers", message, cure)
    if not apart:
        yield CheckResult("ok", "sharers", f"{count_of(len(there), 'agent uses', 'agents use')} one store")


def _ask(settings: Settings, question: Callable[[SwarmClient], Coroutine[Any, Any, T]]) -> T:
    """What the running swarm answers."""
    from runtime.commands.client import SwarmClient

    async def ask() -> T:
        async with SwarmClient.connect(settings) as swarm:
            return await question(swarm)

    return asyncio.run(ask())


def _blobs(home: Home, settings: Settings) -> Iterator[CheckResult]:
    """Whether the store can be read and written, and what a sealed session still needs is there."""
    from bus.blobs import DirectoryBlobs

    if not home.blobs.exists():
        yield CheckResult("ok", "blobs", "none yet")
        return
    if not os.access(home.blobs, os.R_OK | os.W_OK | os.X_OK):
        yield CheckResult("fail", "blobs", f"{home.blobs} cannot be read and written", "Correct its permissions.")
        return
    missing = list(_missing(home, DirectoryBlobs(home.blobs)))
    for session, what in missing[:5]:
        cure = "Copy it from a store that has it; an earlier checkpoint is used instead."
        yield CheckResult("warn", "blobs", f"{session}: {what} is not in {home.blobs}", cure)
    if not missing:
        yield CheckResult("ok", "blobs", f"{home.blobs} holds what the sessions name")


def _missing(home: Home, blobs: Any) -> Iterator[tuple[str, str]]:
    archive = Archive(home)
    for session in archive.ids():
        try:
            state = archive.read(session).history.state
        except (NotFound, SwarmError):
            continue
        for kept in state.training.checkpoints:
            if kept.usable and not blobs.has(kept.written.blob):
                yield session, f"the checkpoint of step {kept.written.step}"
        if state.training.dataset and not (blobs.root / "datasets" / state.training.dataset.root).is_dir():
            yield session, f"dataset {state.training.dataset.root}"


CHECKS: tuple[Callable[[Home, Settings], Iterator[CheckResult]], ...] = (
    _python,
    _torch,
    _server,
    _packages,
    _environment,
    _home,
    _disk,
    _keys,
    _host,
    _logs,
    _store,
    _sharers,
    _blobs,
)
