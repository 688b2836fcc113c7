"""The home of a swarm on one machine: its files and folders, its lock, and what its host writes about itself.

<home>/: nats/ keys/ blobs/ sessions/ID/ work/ instance host.json host.log. All but logs, keys and blobs can be rebuilt.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import orjson

from bus.disk import make_directory, write_file, write_once
from contracts.errors import NO_ROOM, Full, InvalidInput, NewerThanCode, NotFound, Refused, SwarmError
from contracts.ids import session_for
from runtime.jobs import process

NOBODY_ELSE = 0o077
"""The umask of every process that writes into a home."""

PRIVATE = 0o700
"""The mode of a home's folders: only the owner reads it, because it holds keys, rows and models."""

OPENED = "opened.json"
"""In the folder of a session: which folders its owner has opened to it."""

_OURS = frozenset(
    {"layout", "keys", "settings.toml", "workloads.json", "sessions", "blobs"}
    | {"lock", "here.lock", "host.log", "host.json"}
)
"""Of these at least one lies in every home, also in one that was never started."""

LAYOUT = 1
"""The version of the folders; a home written by newer code is refused."""


@dataclass(frozen=True)
class HostRecord:
    """What the running host wrote down: how to reach it, and which process it is."""

    pid: int
    start_time: int
    url: str
    server_pid: int | None
    creds: str
    instance: str
    incarnation: str
    ready: bool = False
    agents: list[dict[str, object]] = field(default_factory=list)
    children: list[dict[str, object]] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        """Whether that process still runs, and not another one under its number."""
        return process.alive(self.pid, self.start_time)


class Home:
    """Paths and the lock; cheap to make, touches the disk only when asked."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._lock: int | None = None

    @property
    def keys(self) -> Path:
        """Signing keys and, below `nats/`, the seeds of the bus; 0700."""
        return self.root / "keys"

    @property
    def seeds(self) -> Path:
        """The folder with the seeds by which identities connect to the bus."""
        return self.keys / "nats"

    @property
    def blobs(self) -> Path:
        """The folder of the blob store, which several homes may share."""
        return self.root / "blobs"

    @property
    def sessions(self) -> Path:
        """The folder with one folder per session."""
        return self.root / "sessions"

    @property
    def lock_file(self) -> Path:
        """What the host holds, and names in its refusal when another does."""
        return self.root / "lock"

    @property
    def _layout(self) -> Path:
        return self.root / "layout"

    @property
    def host_log(self) -> Path:
        """Where a background host writes."""
        return self.root / "host.log"

    @property
    def creds(self) -> Path:
        """The file that lets a client on this machine in; named by `status --json`."""
        return self.root / "client.json"

    def person(self, name: str) -> Path:
        """The file with everything that a person needs to ask from any machine."""
        return self.keys / "people" / f"{name}.json"

    def session(self, session: str) -> Path:
        """The folder of a session, made when missing."""
        path = self.sessions / session
        make_directory(path, PRIVATE)
        return path

    def open_to(self, session: str, folders: Iterable[Path]) -> None:
        """Allow the request of a session to name files in these folders, for every process and for each attempt."""
        listed = orjson.dumps([str(folder) for folder in folders])
        write_file(self.session(session) / OPENED, listed)

    def opened_to(self, session: str) -> list[Path]:
        """The folders that are open to this session alone."""
        with suppress(FileNotFoundError, NotADirectoryError, orjson.JSONDecodeError):
            listed = orjson.loads((self.sessions / session / OPENED).read_bytes()) if session else []
            return [Path(folder) for folder in listed]
        return []

    def log(self, session: str) -> Path:
        """The continuous copy of a session's admitted events."""
        return self.sessions / session / "log"

    def work(self, session: str) -> Path:
        """A scratch folder for jobs; what counts leaves it as a blob."""
        path = self.root / "work" / session
        make_directory(path, PRIVATE)
        return path

    def check(self) -> None:
        """Refuse what is no home, and one that newer code has written; one that is not there yet is fine."""
        if self.root.exists() and not self.root.is_dir():
            raise Refused(f"the home {str(self.root)!r} is a file.", cure="Choose another with --home.")
        held = {path.name for path in self.root.iterdir()} if self.root.is_dir() else set()
        if held and not held & _OURS:
            some = ", ".join(map(repr, sorted(held)[:3]))
            raise Refused(
                f"the folder {str(self.root)!r} is no home: it holds other files ({some}).",
                cure="Name a folder that is empty or not there yet, such as .swarm in it, with --home.",
                path=str(self.root),
            )
        layout = self._layout.read_text().strip() if self._layout.exists() else str(LAYOUT)
        if not layout.isdigit() or int(layout) > LAYOUT:
            raise NewerThanCode(
                f"the home {str(self.root)!r} has layout {layout!r}; this software knows {LAYOUT}.",
                cure="Update stigmergy, or choose another home with --home.",
            )

    def prepare(self, shared_blobs: str = "") -> None:
        """Create the folders; refuses as `check` does, and a home that cannot be written.

        Blobs may lie in a folder that several homes share; that one keeps the mode that its owner gave it.
        """
        self.check()
        try:
            make_directory(self.root, PRIVATE)
            if shared_blobs:
                self._share_blobs(Path(shared_blobs).absolute())
            for folder in (self.blobs, self.sessions, self.keys, self.seeds):
                make_directory(folder, PRIVATE)
            for folder in (self.root, self.blobs, self.sessions, self.keys, self.seeds):
                if not folder.is_symlink():
                    folder.chmod(PRIVATE)
            if not self._layout.exists():
                self._write("layout", f"{LAYOUT}\n".encode())
        except OSError as error:
            message = f"cannot make the home {str(self.root)!r}: {error.strerror}."
            if error.errno in NO_ROOM:
                raise Full(message, cure="Free space, or choose another home with --home.") from None
            raise Refused(message, cure="Choose another home with --home.") from None
        if not os.access(self.root, os.W_OK):
            cure = "Choose another home with --home."
            raise Refused(f"the home {str(self.root)!r} cannot be written to.", cure=cure, path=str(self.root))

    def _share_blobs(self, shared: Path) -> None:
        """Use another folder for the blobs of this home; refused when blobs are here already, since none is moved."""
        shared.mkdir(parents=True, exist_ok=True)
        if self.blobs.resolve() == shared.resolve():
            return
        if self.blobs.is_symlink():
            self.blobs.unlink()
        try:
            self.blobs.rmdir()
        except FileNotFoundError:
            pass
        except OSError:
            raise Refused(
                f"{str(self.blobs)!r} holds blobs already, and the setting `blobs` names {str(shared)!r}.",
                cure="Move them there and remove the folder, or leave the setting out.",
            ) from None
        self.blobs.symlink_to(shared)

    def instance(self) -> str:
        """A name for this home that survives restarts and is its own, also among homes that share keys."""
        path = self.root / "instance"
        if not path.exists():
            with suppress(FileExistsError):
                write_once(path, f"hm-{secrets.token_hex(6)}".encode())
        return path.read_text()

    def lock(self) -> int:
        """Hold the home alone; the descriptor is handed to the server, so that a store has one server."""
        descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise Refused(
                f"the home {str(self.root)!r} is held by another host.",
                cure="Use it: swarm status; or end it: swarm down",
                path=str(self.lock_file),
            ) from None
        self._lock = descriptor
        with suppress(OSError):  # a full disk keeps nobody from holding the home
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} {process.start_time(os.getpid())}".encode(), 0)
        return descriptor

    def holds(self) -> bool:
        """Whether the lock held belongs to the present folder, which may have been removed and made again."""
        if self._lock is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._lock), self.lock_file.stat())
        except OSError:
            return False

    def holder(self) -> tuple[int, int] | None:
        """Pid and start time of the process that took the lock last; None when that is not known."""
        try:
            pid, started = self.lock_file.read_text().split()
            return int(pid), int(started)
        except (OSError, ValueError):
            return None

    def holder_lives(self) -> bool:
        """Whether the host that took the lock last still runs; if not, only its server can hold the lock now."""
        holder = self.holder()
        return holder is None or process.alive(*holder)

    def unlock(self) -> None:
        """Close the descriptor; a process that inherited it keeps the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def record(self, host: HostRecord) -> None:
        """Write which host holds this home."""
        self._write("host.json", orjson.dumps(asdict(host)))

    def forget(self) -> None:
        """Remove the record of the host, which ends in good order."""
        (self.root / "host.json").unlink(missing_ok=True)

    def remember_tail(self, seq: int) -> None:
        """From where the log must be read at the next start; only a shortcut, made again when it is lost."""
        path = self.root / "tail"
        if not path.exists() or path.read_text() != str(seq):
            self._write("tail", str(seq).encode())

    def forget_tail(self) -> None:
        """Have the next start read the log from its beginning, and so write every file that lacks something."""
        (self.root / "tail").unlink(missing_ok=True)

    def remember_guests(self, seq: int, stored: Mapping[str, int]) -> None:
        """How many bytes each guest has stored up to a message; counted in the log again when it is lost."""
        self._write("guests.json", orjson.dumps({"seq": seq, "stored": dict(stored)}))

    def guests_stored(self) -> tuple[int, dict[str, int]]:
        """What was remembered; 0 and nothing to count it in the log."""
        with suppress(FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            found = orjson.loads((self.root / "guests.json").read_bytes())
            return int(found["seq"]), {str(lane): int(size) for lane, size in found["stored"].items()}
        return 0, {}

    def note_incident(self, error: SwarmError) -> None:
        """Write down why the host does not start, for `swarm up` and `swarm doctor` to show."""
        self._write("incident.json", orjson.dumps(error.as_json()))

    def incident(self) -> dict[str, str] | None:
        """What was written down; None when the last start found nothing of that kind."""
        with suppress(FileNotFoundError, orjson.JSONDecodeError):
            found: dict[str, str] = orjson.loads((self.root / "incident.json").read_bytes())
            return found
        return None

    def forget_incident(self) -> None:
        """Remove what was written down, because the host has started."""
        (self.root / "incident.json").unlink(missing_ok=True)

    def _write(self, name: str, content: bytes) -> None:
        write_file(self.root / name, content)

    def tail_after(self) -> int:
        """What was remembered; 0 to read everything."""
        with suppress(FileNotFoundError, ValueError):
            return int((self.root / "tail").read_text())
        return 0

    def host(self) -> HostRecord | None:
        """The host that was last recorded, alive or not."""
        path = self.root / "host.json"
        with suppress(FileNotFoundError, NotADirectoryError, orjson.JSONDecodeError, TypeError):
            return HostRecord(**orjson.loads(path.read_bytes()))
        return None

    def session_ids(self) -> Iterator[str]:
        """The sessions that have files here, oldest first (ids sort by time)."""
        if self.sessions.exists():
            yield from sorted(one.name for one in self.sessions.iterdir() if (one / "log").exists())

    def find(self, name: str, known: list[str] | None = None) -> str:
        """The session that an id, a `request_id`, or a unique beginning (with or without the partition) names."""
        ids = known if known is not None else list(self.session_ids())
        if name in ids:
            return name
        requested = {session_for(name, partition) for partition in {one.partition("-")[0] for one in ids}}
        found = sorted(requested.intersection(ids)) or [
            one for one in ids if one.startswith(name) or one.partition("-")[2].startswith(name)
        ]
        if not found:
            raise NotFound(f"there is no session {name!r}.", cure="List them: swarm sessions")
        if len(found) > 1:
            message = f"{name!r} fits {len(found)} sessions: {', '.join(found[:4])}."
            raise InvalidInput(message, cure="Give more of the id.")
        return found[0]

    def free_bytes(self) -> int:
        """Room left on the disk of the home."""
        return shutil.disk_usage(self.root).free
