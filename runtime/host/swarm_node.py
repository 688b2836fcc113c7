"""A node with everything that a deployment needs: the handlers of commands, and reports of sealed sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import structlog

from contracts.envelope import Fact
from contracts.errors import SwarmError
from contracts.ledger import SessionSealed
from contracts.roles import DESK
from contracts.signed_command import ASKING
from runtime.commands.askers import Asker
from runtime.commands.commands import Commands
from runtime.home.home import Home
from runtime.jobs.children import Children
from runtime.log.follower import LogFollower
from runtime.node.node import Node

if TYPE_CHECKING:
    from runtime.views.report import WrittenReport

log = structlog.get_logger()


class SwarmNode(Node):
    """Agents, and who answers commands; without the desk's key it asks a desk elsewhere, as any node."""

    @cached_property
    def commands(self) -> Commands:
        """The object that carries out commands in this process."""
        return Commands(self)

    async def submit(self, request: Mapping[str, Any], kind: str, *, asked_by: str, **about: Any) -> str:
        """See `Commands.submit`."""
        if DESK not in self.keys:
            return await super().submit(request, kind, asked_by=asked_by, **about)
        return await self.commands.submit(request, kind, asked_by=asked_by, **about)

    async def ask(self, role: str, verb: str, body: Mapping[str, object]) -> str:
        """Carry out a command and return the id of the session that it begins."""
        if DESK not in self.keys:
            return await super().ask(role, verb, body)
        return str((await self.command(role, verb, body))["session"])

    async def command(self, role: str, verb: str, body: Mapping[str, object]) -> Mapping[str, Any]:
        """Carry out a command of one of the agents of this process."""
        if DESK not in self.keys:
            return await super().command(role, verb, body)
        answer: Mapping[str, Any] = await self.commands.carry_out(verb, body, Asker(role, ASKING[role]))
        return answer


class Reporter:
    """Hears seals of sessions that people read about; a report that is missing at a start is written as well."""

    def __init__(self, tail: LogFollower, home: Home, children: Children, *, root: str = "") -> None:
        self._tail = tail
        self._home = home
        self._children = children
        self._root = root
        self._due: asyncio.Queue[str] = asyncio.Queue()
        tail.listen(self._heard)

    async def run(self) -> None:
        """Write the reports that are due, one after the other, until cancelled."""
        while True:
            session = await self._due.get()
            try:
                await write_report(session, self._home, self._children, root=self._root)
            except SwarmError as error:
                log.warning("the report was not written", session=session, reason=error.message)
            finally:
                self._due.task_done()

    async def settle(self, within: float) -> None:
        """Return when nothing is due, or the time is over."""
        try:
            async with asyncio.timeout(within):
                await self._due.join()
        except TimeoutError:
            log.info("a report is left unwritten", cure="swarm report S")

    def _heard(self, facts: Sequence[Fact]) -> None:
        if not isinstance(facts[-1].event, SessionSealed):
            return
        session = facts[-1].envelope.subject
        lost = not (self._home.sessions / session / "report.md").exists()
        if self._tail.history(session).state.kind.reported and (lost or self._tail.caught_up.is_set()):
            self._due.put_nowait(session)


async def write_report(session: str, home: Home, children: Children, *, root: str = "") -> WrittenReport:
    """Write a session's files from its log; says where they are."""
    # Nothing that draws pages is needed before the first seal, and a swarm is up sooner without.
    from runtime.views.report import ReportOrder, write_files

    order = ReportOrder(session, home.root, root)
    return await children.run(write_files, order, session=session, log=home.session(session) / "report.log")
