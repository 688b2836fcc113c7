"""Every session that a host can lay its hands on: the open and newest in memory, the others in the home's files."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress

import orjson
import structlog

from contracts.envelope import Fact
from contracts.errors import InvalidInput
from contracts.ledger import SessionSealed
from contracts.operator import SessionRequested
from contracts.replies import SessionReply
from runtime.home.home import Home
from runtime.log import follower, session_log
from runtime.log.archive import SessionStart, resolve_name
from runtime.views import view
from runtime.views.summaries import Summaries

log = structlog.get_logger()

_MOST_KEPT = 4
"""Sessions read from files that are kept in memory, because clients ask for a session page by page."""

_MOST_TOLD = 10_000
"""Summaries of sealed sessions that stay at hand."""

_MOST_READ = 20_000
"""A session of more events is not read for its summary when it is sealed, only when sessions are listed."""

_Stamp = tuple[int, int]
"""Size and time of a file: as long as both are the same, it has not grown."""

PAGE = 100


class SessionIndex:
    """Finds sessions by name and lists them. Files are read in threads and one at a time, for the host has other things
    to do meanwhile; what has not changed is read once."""

    def __init__(self, home: Home, tail: follower.LogFollower) -> None:
        self._home = home
        self._tail = tail
        self._archive = Summaries(home)
        self._at_files = asyncio.Lock()
        self._kept: OrderedDict[str, tuple[_Stamp, session_log.SessionLog]] = OrderedDict()
        self._remains: list[session_log.DetachedLog] = []
        """Of what is at hand no longer, as long as a command still uses it."""
        self._told: OrderedDict[str, SessionReply] = OrderedDict()

    async def find(self, name: str) -> session_log.SessionLog:
        """The session that a name means, see `resolve_name`."""
        if not name:
            raise InvalidInput("no session is named.", cure='Send {"session": "..."}.', path="session")
        live = self._live()
        if name in live:
            return live[name]
        ids, begun = await self._in_files()
        live = self._live()
        starts = [*self._begun(live), *(one for one in begun if one.session not in live)]
        session = resolve_name(name, self._home, sorted({*live, *ids}), lambda: starts)
        return live.get(session) or await self._read(session)

    async def genesis(self, session: str) -> SessionRequested | None:
        """How a session began; None when there is none of that id."""
        live = self._live().get(session)
        if live is None and not self._home.log(session).exists():
            return None
        return (live or await self._read(session)).state.genesis

    async def page(self, after: str, most_bytes: int) -> tuple[list[SessionReply], bool]:
        """Summaries of the sessions behind one, oldest first, as many as fit; and whether those are all."""
        order = await self._order()
        rest = order[order.index(after) + 1 :] if after in order else order
        page: list[SessionReply] = []
        size = 0
        for session in rest[:PAGE]:
            told = await self._summary(session)
            size += len(orjson.dumps(told))
            if page and size > most_bytes:
                break
            page.append(told)
        return page, len(page) == len(rest)

    async def summarise(self) -> None:
        """Until cancelled, write each session's summary beside its log once it is sealed: lists read these files."""
        due: asyncio.Queue[str] = asyncio.Queue()

        def heard(facts: list[Fact]) -> None:
            if isinstance(facts[-1].event, SessionSealed) and facts[-1].position <= _MOST_READ:
                due.put_nowait(facts[-1].envelope.subject)

        self._tail.listen(heard)
        while True:
            session = await due.get()
            try:
                async with self._at_files:
                    await asyncio.to_thread(self._archive.summary, session)
            except Exception as error:
                log.error("the summary of a session was not kept", session=session, exc_info=error)

    def _live(self) -> dict[str, session_log.SessionLog]:
        return {one.id: one for one in self._tail.histories.values() if one.state.genesis}

    def _begun(self, live: dict[str, session_log.SessionLog]) -> Iterator[SessionStart]:
        return (
            SessionStart(one.state.requested_at, one.id, one.state.kind.name, one.facts[0].seq)
            for one in live.values()
            if one.facts
        )

    async def _order(self) -> list[str]:
        """Every session by when it began: ids do not sort by time, least of all those that derive from a request_id."""
        ids, begun = await self._in_files()
        live = self._live()
        when = dict.fromkeys([*live, *ids], "") | {one.session: one.requested_at for one in begun}
        when |= {one.session: one.requested_at for one in self._begun(live)}
        return sorted(when, key=lambda session: (when[session], session))

    async def _in_files(self) -> tuple[list[str], list[SessionStart]]:
        """The sessions of the home's files and how they began: of what was there before, nothing is read again."""
        async with self._at_files:
            return await asyncio.to_thread(lambda: (self._archive.ids(), self._archive.begun()))

    async def _summary(self, session: str) -> SessionReply:
        if session in self._told:
            self._told.move_to_end(session)
            return self._told[session]
        live = self._live().get(session)
        if live is not None:
            told = view.summary(live.state, self._home.blobs, self._tail.queue)
            await asyncio.sleep(0)
        else:
            async with self._at_files:
                told = await asyncio.to_thread(self._archive.summary, session)
        if told["sealed"]:
            self._told[session] = told
            while len(self._told) > _MOST_TOLD:
                self._told.popitem(last=False)
        return told

    async def _read(self, session: str) -> session_log.SessionLog:
        async with self._at_files:
            return await asyncio.to_thread(self._read_at_once, session)

    def _read_at_once(self, session: str) -> session_log.SessionLog:
        stamp = self._stamp(session)
        known = self._kept.pop(session, None)
        if known is None or known[0] != stamp:
            self._put_away(known)
            known = stamp, self._archive.history(session)
        self._kept[session] = known
        while len(self._kept) > _MOST_KEPT:
            self._put_away(self._kept.popitem(last=False)[1])
        self._remains = [one for one in self._remains if not one.release()]
        return known[1]

    def _put_away(self, known: tuple[_Stamp, session_log.SessionLog] | None) -> None:
        if known is not None:
            self._remains.append(session_log.DetachedLog(known[1]))

    def _stamp(self, session: str) -> _Stamp:
        with suppress(FileNotFoundError):
            seen = self._home.log(session).stat()
            return seen.st_size, seen.st_mtime_ns
        return 0, 0
