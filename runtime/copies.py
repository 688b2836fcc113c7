"""Keeps the home's own copy of every admitted event, and brings it to disk continuously. It admits nothing itself."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from bus.files import LogFile
from bus.port import Stored
from contracts.errors import Full, SwarmError
from runtime.failpoints import failpoint
from runtime.home import Home

log = structlog.get_logger()

_MOST_OPEN = 64
_PAUSE = 0.02


class Copies:
    """One open log file per session that speaks; the oldest are closed when there are many."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._files: dict[str, LogFile] = {}
        self._dirty: set[str] = set()
        self._news = asyncio.Event()
        self.problem: SwarmError | None = None

    def keep(self, session: str, messages: list[Stored]) -> None:
        """Append admitted messages to the session's file; a full disk is remembered and said, and stops nothing."""
        failpoint("between-event-and-host-log")
        try:
            self._open(session).append(*messages)
        except Full as error:
            if self.problem is None:
                log.error("the copy of the log cannot be written", session=session, reason=error.message)
            self.problem = error
            return
        self.problem = None
        self._dirty.add(session)
        self._news.set()

    async def run(self) -> None:
        """Sync what was written, for ever; many appends share one sync."""
        while True:
            await self._news.wait()
            self._news.clear()
            dirty, self._dirty = self._dirty, set()
            for session in dirty:
                file = self._files.get(session)
                if file is not None:
                    with contextlib.suppress(SwarmError):
                        await asyncio.to_thread(file.sync)
            await asyncio.sleep(_PAUSE)

    def close(self) -> None:
        """Bring everything to disk."""
        for file in self._files.values():
            with contextlib.suppress(SwarmError):
                file.close()
        self._files.clear()

    def _open(self, session: str) -> LogFile:
        file = self._files.get(session)
        if file is None:
            self._home.session(session)
            file = self._files[session] = LogFile(self._home.log(session), session)
            while len(self._files) > _MOST_OPEN:
                oldest = next(iter(self._files))
                if oldest in self._dirty:
                    break
                self._files.pop(oldest).close()
        return file
