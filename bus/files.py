"""The continuous file copy of a session's log, open for appending; it outlives the broker. Format: `bus.records`."""

import fcntl
import hashlib
import os
from array import array
from bisect import bisect_left
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Self

from bus.disk import make_directory, room_for, write_all, write_once
from bus.port import StoredRecord
from bus.records import RecordReader, Torn, frame, title
from contracts.errors import InvalidInput, NotVerified, Refused

_DIGEST = 32


def read(path: Path) -> RecordReader:
    """The records of a session's file, each as it was appended."""
    return RecordReader(path)


class LogFile:
    """The file of one session, open for appending by one process at a time.

    `append` is safe against the death of this process, `sync` against that of the machine. After a failed `sync` the
    file takes nothing more: what the disk holds is unknown until it is opened, and so read, again.
    """

    def __init__(self, path: Path, session: str) -> None:
        """Open or create the file; a torn tail is moved to `NAME.torn`. `Refused` when it is open already."""
        self.path = path
        self.torn: Torn | None = None
        self._broken = False
        self._syncing = Lock()
        self._seqs = array("Q")
        self._digests = bytearray()
        self._synced = 0
        with room_for(path):
            if not path.exists():
                make_directory(path.parent)
                with suppress(FileExistsError):
                    # A file is never there without its whole first line.
                    write_once(path, title(session))
            self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        try:
            self._lock()
            self._size = self._resume(session)
        except BaseException:
            os.close(self._descriptor)
            raise

    def append(self, *records: StoredRecord) -> None:
        """Write the records that are not there yet, all or none.

        One that is there already must be equal, byte for byte, else `NotVerified`: the broker and the file
        disagree, which is an incident. `Full` when there is no room; the file is then as before.
        """
        if self._broken or self._descriptor < 0:
            what = "failed to reach the disk" if self._broken else "is closed"
            raise Refused(f"{self.path} {what}.", cure="Open it again.", path=str(self.path))
        fresh: list[tuple[int, bytes]] = []
        for stored in records:
            if stored.seq <= self.last_seq:
                self._compare(stored.seq, frame(stored))
            elif fresh and stored.seq <= fresh[-1][0]:
                raise InvalidInput(f"message {stored.seq} does not follow message {fresh[-1][0]}.")
            else:
                fresh.append((stored.seq, frame(stored)))
        if fresh:
            self._write(b"".join(framed for _, framed in fresh))
            for seq, framed in fresh:
                self._remember(seq, framed)

    def sync(self) -> int:
        """Return once everything appended before this call is on disk: the sequence of its last record.

        It may run in a thread of its own, beside appends.
        """
        with self._syncing:
            last = self.last_seq
            if last != self._synced and not self._broken and self._descriptor >= 0:
                try:
                    with room_for(self.path):
                        os.fdatasync(self._descriptor)
                except BaseException:
                    self._broken = True
                    raise
                self._synced = last
            return self._synced

    @property
    def last_seq(self) -> int:
        """The sequence of the last record; 0 when there is none."""
        return self._seqs[-1] if self._seqs else 0

    @property
    def synced_seq(self) -> int:
        """The sequence up to which a power cut takes nothing."""
        return self._synced

    def __len__(self) -> int:
        return len(self._seqs)

    def close(self) -> None:
        """Bring everything to disk and let the file go; closing twice is fine."""
        try:
            self.sync()
        finally:
            with self._syncing:
                descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"{self.path} is open already.", cure="Run one host per home.") from None

    def _resume(self, session: str) -> int:
        reading = RecordReader(self.path)
        if reading.session != session:
            raise NotVerified(f"{self.path} is the log of {reading.session}, not of {session}.", path=str(self.path))
        for stored in reading:
            self._remember(stored.seq, reading.frame)
        if reading.torn:
            self.torn = reading.torn
            _keep(self.path.with_name(f"{self.path.name}.torn"), reading.rest())
            os.ftruncate(self._descriptor, reading.offset)
        # What an earlier process wrote may still be on its way to the disk.
        os.fdatasync(self._descriptor)
        self._synced = self.last_seq
        return reading.offset

    def _write(self, data: bytes) -> None:
        try:
            with room_for(self.path):
                write_all(self._descriptor, data)
        except BaseException:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(data)

    def _remember(self, seq: int, framed: bytes) -> None:
        self._seqs.append(seq)
        self._digests += hashlib.sha256(framed).digest()

    def _compare(self, seq: int, framed: bytes) -> None:
        at = bisect_left(self._seqs, seq)
        known = self._seqs[at] == seq
        if not known or self._digests[at * _DIGEST : (at + 1) * _DIGEST] != hashlib.sha256(framed).digest():
            what = "differs from the one" if known else "is not among those"
            raise NotVerified(
                f"message {seq} {what} in {self.path}, which ends with message {self.last_seq}.",
                cure="The store was changed or set back, or the file was; both are evidence: swarm audit S",
                path=str(self.path),
            )


def _keep(path: Path, content: bytes) -> None:
    """Put what is set aside behind what was set aside before."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        with room_for(path):
            write_all(descriptor, content)
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
