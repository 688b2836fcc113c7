"""Sessions read from the files of a home, with no swarm up: admitted and folded exactly as a running host does it.

What a file says before anything in it is verified is here too: when the session began, on which machine it likely was.
"""

import gc
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import NamedTuple

import orjson

from bus import fast_admission, files, subjects
from bus.admission import Admission
from bus.decode import Reason, Void, place
from bus.keys import KeyStore
from bus.port import StoredRecord
from bus.records import RecordPlaces, RecordReader, StoredRecords
from contracts.errors import NotFound, NotVerified, SwarmError
from contracts.ids import PARTITION
from contracts.keyring import Keyring
from contracts.queue import QueueOpened, queue_session
from contracts.roles import OPERATOR, ROOT, TRAINER
from contracts.trainer import TrainingClaimed
from runtime.home.home import Home
from runtime.jobs.garbage import collection_paused
from runtime.jobs.job import claimed_threads
from runtime.log.session_log import SessionLog, release


@dataclass(frozen=True)
class StoredSession:
    """One session as its file holds it."""

    history: SessionLog
    stored: Sequence[StoredRecord]
    voids: tuple[Void, ...]
    admission: Admission
    torn_bytes: int


_LONGEST_LINE, _FIELDS = 1000, 5

LONG_FILE = 32 << 20
"""Bytes of a file from which on windows are kept by place: to hold them typed takes five times as many."""

_LONG = 10_000
"""Events above which a session takes a noticeable time to be looked through for cycles."""


class SessionStart(NamedTuple):
    """When a session was requested, and what for; sorts by time, which ids do not."""

    requested_at: str
    session: str
    kind: str
    seq: int = 0
    """The place of its genesis in the stream of its partition."""


class _FileHead(NamedTuple):
    """What the first record of a session's file says, if it is there yet."""

    whole: bool
    opens_keyring: bool = False
    opens_queue: bool = False
    begun: SessionStart | None = None


def newest(begun: Iterable[SessionStart], kind: str = "training") -> str:
    """The newest session of a kind: of those in a server's stream, the last one in it; clocks do not count.

    A session that was trained without a server is in no lasting stream; it is compared by its time.
    """
    of_kind = [one for one in begun if one.kind == kind]
    if not of_kind:
        cure = "Start one: swarm run REQUEST" if kind == "training" else "List them: swarm sessions"
        raise NotFound(f"there is no {kind} session yet.", cure=cure)
    streamed = [one for one in of_kind if subjects.partition(one.session) == PARTITION]
    others = [one for one in of_kind if subjects.partition(one.session) != PARTITION]
    return max([*sorted(streamed, key=lambda one: one.seq)[-1:], *others]).session


def resolve_name(name: str, home: Home, ids: list[str], begun: Callable[[], Iterable[SessionStart]]) -> str:
    """The session that a name means among those of a home.

    A name is `last` (the newest training), `last-KIND` (`last-search`, `last-audit`, ...), an id, a unique beginning of
    one, or the `request_id` under which a session was asked for.
    """
    last, _, kind = name.partition("-")
    if last == "last":
        starts = list(begun())
        if name == "last" or kind in {one.kind for one in starts}:
            return newest(starts, kind or "training")
    return home.find(name, ids)


class Archive:
    """The sessions of one home. `root` pins the root key's fingerprint instead of the home's own pin."""

    def __init__(self, home: Home, root: str = "") -> None:
        self._home = home
        self.root = root or KeyStore(home.keys).pinned()
        self._rings: dict[str, tuple[int, StoredSession | None]] = {}
        self._starts: dict[str, _FileHead] = {}

    def ids(self) -> list[str]:
        """The sessions that are neither keyrings nor queues, oldest first."""
        heads = ((one, self._start(one)) for one in self._home.session_ids())
        return [session for session, head in heads if not (head.opens_keyring or head.opens_queue)]

    def lines(self, session: str) -> fast_admission.FileLines | fast_admission.PlacedLines:
        """The lines of the session's file, of a long one by place.

        Raises `NotFound`, and `NeedsFullAdmission` for lines that we would write otherwise.
        """
        path = self._path(session)
        if path.stat().st_size < LONG_FILE:
            return fast_admission.FileLines(path.read_bytes(), session)
        return fast_admission.PlacedLines(RecordPlaces(path, session))

    def _path(self, session: str) -> Path:
        path = self._home.log(session)
        if not path.exists():
            where = str(self._home.root)
            raise NotFound(f"there is no session {session!r} in {where!r}.", cure="List them: swarm sessions")
        return path

    def read(self, session: str) -> StoredSession:
        """Everything in the session's file; `NotFound` without a file, `NotVerified` for a damaged one."""
        path = self._path(session)
        ring = self.ring(subjects.partition(session))
        if ring is not None and ring.history.id == session:
            return ring
        return _read(path, session, Admission(self._keyring, root=self.root))

    def history(self, session: str) -> SessionLog:
        """As `read`, without the records that it was made of."""
        path = self._path(session)
        ring = self.ring(subjects.partition(session))
        if ring is not None and ring.history.id == session:
            return ring.history
        return _history(path, session, Admission(self._keyring, root=self.root))

    def ring(self, partition: str) -> StoredSession | None:
        """The keyring session of a partition, read again when it has grown; None when the home has none."""
        size, kept = self._rings.get(partition, (-1, None))
        if size < 0 or (kept is not None and self._home.log(kept.history.id).stat().st_size != size):
            rings = (_read(self._home.log(one), one, Admission(root=self.root)) for one in self._ring_ids(partition))
            kept = next((ring for ring in rings if ring.history.size), None)
            size = self._home.log(kept.history.id).stat().st_size if kept else 0
            self._rings[partition] = size, kept
        return kept

    def queues(self, partition: str) -> list[tuple[str, Path]]:
        """The logs of the queue of a partition with their files, in order, if the home has every one from the first."""
        numbered = ((one, self._home.log(one)) for one in (queue_session(self.root, partition, n) for n in count()))
        return list(takewhile(lambda log: log[1].exists(), numbered))

    def ring_opening(self, partition: str) -> bytes:
        """The body that begins a keyring of this partition, whichever root it names: nothing has verified it."""
        first = next((_first(self._home.log(session)) for session in self._ring_ids(partition)), None)
        return first[1] if first else b""

    def _ring_ids(self, partition: str) -> Iterator[str]:
        """The sessions of a partition whose files begin as a keyring does."""
        sessions = (one for one in self._home.session_ids() if subjects.partition(one) == partition)
        return (session for session in sessions if self._start(session).opens_keyring)

    def _keyring(self, partition: str) -> Keyring:
        ring = self.ring(partition)
        return ring.admission.keyring(partition) if ring else Keyring()

    def begun(self, besides: Container[str] = ()) -> list[SessionStart]:
        """When each session began, by its first record alone, which nothing has verified yet."""
        found = [self._start(one).begun for one in self.ids() if one not in besides]
        return [one for one in found if one is not None]

    def _start(self, session: str) -> _FileHead:
        """How a session's file begins: its first record never changes, so it is read once."""
        found = self._starts.get(session)
        if found is None:
            found = _start(self._home.log(session), session)
            if found.whole:
                self._starts[session] = found
        return found


class CachedArchive(Archive):
    """An archive for one look at a session: what is read of it is read once, however often it is asked for."""

    def __init__(self, home: Home, root: str = "") -> None:
        super().__init__(home, root)
        self._known: dict[str, StoredSession] = {}

    def read(self, session: str) -> StoredSession:
        """As `Archive.read`."""
        if session not in self._known:
            self._known[session] = super().read(session)
        return self._known[session]


def known(session: str, histories: Mapping[str, SessionLog], home: Home) -> SessionLog | None:
    """A session as it is in memory, else as its file has it: those that ended long ago are only there."""
    found = histories.get(session)
    if (found is None or not found.size) and home.log(session).exists():
        return Archive(home).read(session).history
    return found


def _read(path: Path, session: str, admission: Admission) -> StoredSession:
    placed = _placed(path, session, admission)
    if placed is not None:
        history, places = placed
        return StoredSession(history, StoredRecords(places, history.size), (), admission, 0)
    reading = files.read(path)
    at_once = _at_once(reading, session, admission)
    if at_once is None:
        return admit_file(reading, session, admission)
    history, lines = at_once
    stored = tuple(lines.stored(position) for position in range(1, history.size + 1))
    return StoredSession(history, stored, (), admission, 0)


def _history(path: Path, session: str, admission: Admission) -> SessionLog:
    """The same without what it was read from, which is given back in pieces."""
    placed = _placed(path, session, admission)
    if placed is not None:
        return placed[0]
    reading = files.read(path)
    at_once = _at_once(reading, session, admission)
    if at_once is not None:
        history, lines = at_once
        release(lines.heads, lines.bodies)
        return history
    kept = admit_file(reading, session, admission)
    history, stored = kept.history, [*kept.stored]
    del kept
    release(stored)
    return history


def _placed(path: Path, session: str, admission: Admission) -> tuple[SessionLog, RecordPlaces] | None:
    """What `fold` gives of a long file, its windows kept by place; None for a short one and for an unusual one."""
    if path.stat().st_size < LONG_FILE:
        return None
    ring = admission.keyring(subjects.partition(session))
    with collection_paused():
        try:
            places = RecordPlaces(path, session)
            history = SessionLog(session, places)
            standing = fast_admission.admit_runs(
                fast_admission.PlacedLines(places), fast_admission.AdmissionInputs(session, ring), history.add
            )
        except (fast_admission.NeedsFullAdmission, NotVerified):
            return None
    admission.resume(session, standing)
    return history, places


def _at_once(
    reading: RecordReader, session: str, admission: Admission
) -> tuple[SessionLog, fast_admission.FileLines] | None:
    """What `fold` gives, in a small part of the time; None when anything about the records is out of the ordinary."""
    ring = admission.keyring(subjects.partition(session))
    history = SessionLog(session)
    with collection_paused():
        try:
            lines = fast_admission.FileLines(reading.data, session)
            whole = fast_admission.admit_session(lines, fast_admission.AdmissionInputs(session, ring))
        except fast_admission.NeedsFullAdmission:
            return None
        history.add(whole.kept)
        if history.size > _LONG:
            # Nothing in it is ever looked through for cycles, for that stops a whole host: there are none.
            gc.freeze()
    admission.resume(session, whole.state())
    return history, lines


def admit_file(reading: RecordReader, session: str, admission: Admission) -> StoredSession:
    """The session as its records have it; `NotVerified` when they are damaged or another session's."""
    if reading.session != session:
        message = f"{reading.path} is the log of {reading.session}, not of {session}."
        raise NotVerified(message, cure="Move it to where it belongs.", path=str(reading.path))
    history, stored = SessionLog(session), []
    for one in reading:
        stored.append(one)
        where = place(one.subject)
        if where and where.session != session:
            foreign = f"it is of another session, {where.session}"
            admission.voids.add(Void(one.seq, one.subject, Reason.SUBJECT, foreign, session))
            continue
        history.add(admission.admit(one))
    admission.finish(session)
    torn = reading.torn.size if reading.torn else 0
    return StoredSession(history, tuple(stored), tuple(admission.voids), admission, torn)


def _start(path: Path, session: str) -> _FileHead:
    try:
        first = _first(path)
        if first is None:
            return _FileHead(whole=False)
        lane, name = subjects.parse(first[0])[1:]
        # No session but a keyring begins with an event of the root.
        keyring, queue = lane == ROOT, (lane, name) == (OPERATOR, QueueOpened.wire)
        return _FileHead(whole=True, opens_keyring=keyring, opens_queue=queue, begun=_begun(*first[1:], session))
    except SwarmError:
        return _FileHead(whole=True)


def _begun(body: bytes, seq: int, session: str) -> SessionStart | None:
    try:
        said = orjson.loads(body)
        return SessionStart(str(said["time"]), session, str(said["data"]["kind"]), seq)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None


def _first(path: Path) -> tuple[str, bytes, int] | None:
    """Subject, body and sequence of the first record, without reading the rest; None when there is none."""
    with path.open("rb") as file:
        file.readline(_LONGEST_LINE)
        head = file.readline(_LONGEST_LINE).split(b" ")
        if len(head) < _FIELDS or not (head[0].isdigit() and head[2].isdigit()):
            return None
        return head[1].decode(errors="replace"), file.read(int(head[2])), int(head[0])


_CLAIM = subjects.fact("00-session", TRAINER, TrainingClaimed.wire).rpartition("00-session")[2]


def likely_machine(log: Path) -> dict[str, object]:
    """The threads and the device that the session was likely trained with; nothing where that makes no sense."""
    with suppress(SwarmError, ValueError, KeyError, TypeError, AttributeError):
        for stored in files.read(log):
            if stored.subject.endswith(_CLAIM):
                resolved = orjson.loads(stored.body)["data"]["resolved"]
                return {"threads": claimed_threads(resolved["threads"]), "device": str(resolved["device"])}
    return {}
