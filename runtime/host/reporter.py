"""Has children write the report of every sealed session, one at a time. It may be late or fail: nothing waits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from contracts.envelope import Fact
from contracts.errors import SwarmError
from contracts.ledger import SessionSealed
from runtime.home.home import Home
from runtime.jobs.children import Children
from runtime.jobs.profiles import torch_profile
from runtime.log.follower import LogFollower
from runtime.views.report import JOB

log = structlog.get_logger()

KINDS = ("training", "search")
"""Sessions that people read about; a search's trials and exports are asked for: swarm report."""


class Reporter:
    """Hears seals; a report that is missing at a start is written as well."""

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
                await write(session, self._home, self._children, root=self._root)
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
        if self._tail.history(session).state.kind in KINDS and (lost or self._tail.caught_up.is_set()):
            self._due.put_nowait(session)


async def write(session: str, home: Home, children: Children, *, root: str = "") -> dict[str, object]:
    """Write a session's files from its log; says where they are."""
    args = {"session": session, "home": str(home.root), "root": root}
    log_file = home.session(session) / "report.log"
    profile = torch_profile()
    async with children.job(JOB, args, profile=profile, purpose="report", session=session, log=log_file) as child:
        return await child.wait()
