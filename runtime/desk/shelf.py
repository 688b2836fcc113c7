"""Every session that a host can lay its hands on: the open and newest in memory, the others in the home's files."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import orjson

from contracts.errors import InvalidInput
from contracts.operator import SessionRequested
from runtime.home import Home
from runtime.records.archive import Archive, Begun, newest_training
from runtime.records.history import History
from runtime.records.tail import Tail
from runtime.shown import view

_MOST_KEPT = 4
"""Sealed sessions of the files that stay at hand: whoever reads one asks for it page by page."""

PAGE = 100


class Shelf:
    """Finds sessions by name and lists them; what is sealed changes no more, and is read once."""

    def __init__(self, home: Home, tail: Tail) -> None:
        self._home = home
        self._tail = tail
        self._kept: OrderedDict[str, History] = OrderedDict()
        self._told: dict[str, dict[str, Any]] = {}

    def find(self, name: str) -> History:
        """The session that an id, a unique beginning of one, or `last` names."""
        if not name:
            raise InvalidInput("no session is named.", cure='Send {"session": "..."}.', path="session")
        live = self._live()
        if name in live:
            return live[name]
        archive = self._archive()
        if name == "last":
            name = newest_training([*self._begun(live), *archive.begun(besides=live)])
        session = self._home.find(name, sorted({*live, *archive.ids()}))
        return live.get(session) or self._read(session)

    def genesis(self, session: str) -> SessionRequested | None:
        """How a session began; None when there is none of that id."""
        live = self._live().get(session)
        if live is None and not self._home.log(session).exists():
            return None
        return (live or self._read(session)).state.genesis

    async def page(self, after: str, most_bytes: int) -> tuple[list[dict[str, Any]], bool]:
        """Summaries of the sessions behind one, oldest first, as many as fit; and whether those are all."""
        order = self._order()
        rest = order[order.index(after) + 1 :] if after in order else order
        page: list[dict[str, Any]] = []
        size = 0
        for session in rest[:PAGE]:
            told = await self._summary(session)
            size += len(orjson.dumps(told))
            if page and size > most_bytes:
                break
            page.append(told)
        return page, len(page) == len(rest)

    def _live(self) -> dict[str, History]:
        return {one.id: one for one in self._tail.histories.values() if one.state.genesis}

    def _begun(self, live: dict[str, History]) -> Iterator[Begun]:
        return (Begun(one.state.requested_at, one.id, one.state.kind) for one in live.values())

    def _order(self) -> list[str]:
        """Every session by when it began: ids do not sort by time, least of all those that derive from a request_id."""
        live, archive = self._live(), self._archive()
        begun = [*self._begun(live), *archive.begun(besides=live)]
        when = dict.fromkeys([*live, *archive.ids()], "") | {one.session: one.requested_at for one in begun}
        return sorted(when, key=lambda session: (when[session], session))

    async def _summary(self, session: str) -> dict[str, Any]:
        if session not in self._told:
            live = self._live().get(session)
            if live is not None:
                told = view.summary(live.state, self._home.blobs)
            else:
                # A long file takes a while, and the host has other things to do.
                told = await asyncio.to_thread(self._archive().summary, session)
            if not told["sealed"]:
                return told
            self._told[session] = told
        return self._told[session]

    def _read(self, session: str) -> History:
        if session in self._kept:
            self._kept.move_to_end(session)
            return self._kept[session]
        history = self._archive().read(session).history
        if history.state.sealed:
            self._kept[session] = history
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return history

    def _archive(self) -> Archive:
        """What the files hold now; made anew, because keyrings grow."""
        return Archive(self._home)
