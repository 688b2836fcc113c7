"""The ledger: notes what has been said in a session so far, waives what nobody will answer, and seals the end."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from agents.ledger.book import Book
from contracts.errors import NotVerified
from contracts.ledger import DutyWaived, LedgerCheckpointed, SessionSealed
from contracts.operator import SessionRequested
from contracts.session import Duty, owed
from runtime.agent import Agent, Say, on
from runtime.failpoints import failpoint
from runtime.ground import Case

Sayings = LedgerCheckpointed | DutyWaived | SessionSealed

_LOOK_AGAIN = 5.0
"""Seconds after which silence of a role that owes something is looked at again."""


class Ledger(Agent):
    """Keeps the books of every session until it is sealed."""

    @on
    async def keep(self, begun: SessionRequested, case: Case, say: Say[Sayings]) -> None:
        """From genesis to seal."""
        due = self._next_note()
        while case.now.sealed is None:
            seen = case.history.size
            if case.now.outcome is not None:
                if await self._finish(case, say):
                    return
            elif self._noteworthy(case, due):
                await self._note(case, say)
                due = self._next_note()
            await self._until_news(case, seen, due)

    async def _finish(self, case: Case, say: Say[Sayings]) -> bool:
        """Seal when nothing is owed any more; waive what a silent role owes."""
        duties = owed(case.now)
        waived = [duty for duty in duties if self._silent(duty)]
        if waived:
            await say(*(self._waiver(duty) for duty in waived))
        if owed(case.now):
            return False
        failpoint("before-seal")
        book = case.history.derived(Book())
        note = self.ground.sign_note(book.checkpoint(case.history.id))
        try:
            await say(book.sealed(case.now, note))
        except NotVerified:
            # Somebody spoke between the last look and the seal, which is void then; the next one covers it.
            return False
        failpoint("after-seal")
        return True

    async def _note(self, case: Case, say: Say[Sayings]) -> None:
        book = case.history.derived(Book())
        await say(book.checkpointed(self.ground.sign_note(book.checkpoint(case.history.id))))

    def _noteworthy(self, case: Case, due: float) -> bool:
        unnoted = case.history.derived(Book()).unnoted
        late = asyncio.get_running_loop().time() >= due
        return bool(unnoted >= self.ground.settings.ledger_every_events or (unnoted > 0 and late))

    def _next_note(self) -> float:
        return asyncio.get_running_loop().time() + float(self.ground.settings.ledger_every_seconds)

    def _silent(self, duty: Duty) -> bool:
        return bool(self.ground.presence.silent_seconds(duty.role) >= self.ground.settings.waive_after_seconds)

    def _waiver(self, duty: Duty) -> DutyWaived:
        return DutyWaived(
            role=duty.role, duty=duty.name, silent_seconds=round(self.ground.presence.silent_seconds(duty.role), 1)
        )

    async def _until_news(self, case: Case, seen: int, due: float) -> None:
        wait: float | None = _LOOK_AGAIN
        if case.now.outcome is None:
            unnoted = case.history.derived(Book()).unnoted
            wait = max(0.05, due - asyncio.get_running_loop().time()) if unnoted else None
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await case.history.grown(seen)
