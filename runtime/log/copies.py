"""Keeps the home's own copy of every admitted event, and brings it to disk continuously. It admits nothing itself."""

import asyncio
import contextlib

import structlog

from bus.disk import room_for
from bus.files import LogFile
from bus.port import StoredRecord
from bus.records import RecordPlaces
from contracts.errors import Full, NotVerified, Refused, SwarmError
from runtime.home.home import Home
from runtime.jobs.failpoints import failpoint

log = structlog.get_logger()

_MOST_OPEN = 64
_PAUSE = 0.02
_TRY_AGAIN = 2.0


class Copies:
    """One open log file per session that speaks; the oldest are closed when there are many."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._files: dict[str, LogFile] = {}
        self._dirty: set[str] = set()
        self._news = asyncio.Event()
        self._waiting: dict[str, list[StoredRecord]] = {}
        self._doubtful: set[str] = set()
        self.problem: SwarmError | None = None

    def keep(self, session: str, messages: list[StoredRecord]) -> None:
        """Append admitted messages to the session's file; a full disk is said, the messages wait, nothing stops."""
        failpoint("between-event-and-host-log")
        if session in self._doubtful:
            return
        messages = [*self._waiting.pop(session, ()), *messages]
        try:
            self._open(session).append(*messages)
        except (Full, Refused) as error:
            if self.problem is None:
                log.error("the copy of the log cannot be written", session=session, reason=error.message)
            self.problem = error
            self._waiting[session] = messages
            self._let_go(session)
            return
        except NotVerified as error:
            # One file in doubt stops nothing else; it stays as it is, for it is evidence.
            log.error("a copy of the log goes on no more", session=session, reason=error.message, cure=error.cure)
            self._doubtful.add(session)
            self._let_go(session)
            return
        if self.problem is not None and not self._waiting:
            log.info("the copy of the log is complete again")
            self.problem = None
        self._dirty.add(session)
        self._news.set()

    def places(self, session: str) -> RecordPlaces | None:
        """The places of the records in a session's file, found as far as they are wanted; None where in doubt."""
        if session in self._doubtful:
            return None
        with contextlib.suppress(SwarmError, OSError):
            return RecordPlaces(self._home.log(session), session, upto=1)
        return None

    def missing(self) -> int | None:
        """The first message that waits to be written: a restart must read it again. None when nothing waits."""
        return min((messages[0].seq for messages in self._waiting.values()), default=None)

    async def run(self) -> None:
        """Sync what was written, for ever; many appends share one sync, and what waits for room is tried again."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TRY_AGAIN if self._waiting else None):
                    await self._news.wait()
            self._news.clear()
            for session in list(self._waiting):
                self.keep(session, [])
            dirty, self._dirty = self._dirty, set()
            for session in dirty:
                file = self._files.get(session)
                if file is not None:
                    with contextlib.suppress(SwarmError):
                        await asyncio.to_thread(file.sync)
            await asyncio.sleep(_PAUSE)

    def close(self) -> None:
        """Bring everything to disk."""
        for session in list(self._waiting):
            self.keep(session, [])
        for file in self._files.values():
            with contextlib.suppress(SwarmError):
                file.close()
        self._files.clear()

    def _let_go(self, session: str) -> None:
        """A file that failed to reach the disk is opened, and so read, again."""
        file = self._files.pop(session, None)
        if file is not None:
            with contextlib.suppress(SwarmError):
                file.close()

    def _open(self, session: str) -> LogFile:
        file = self._files.get(session)
        if file is None:
            with room_for(self._home.log(session)):
                self._home.session(session)
            file = self._files[session] = LogFile(self._home.log(session), session)
            while len(self._files) > _MOST_OPEN:
                oldest = next(iter(self._files))
                if oldest in self._dirty:
                    break
                self._files.pop(oldest).close()
        return file
