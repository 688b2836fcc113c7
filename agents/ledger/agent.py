"""The ledger: signs a note of each session's events, waives duties of silent roles, and seals ended sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from agents.ledger.book import Book
from agents.ledger.courtesy import unanswered
from contracts.duties import Duty, owed
from contracts.errors import NotVerified
from contracts.ledger import DutyWaived, LedgerCheckpointed, SessionSealed
from contracts.operator import SessionRequested
from runtime.bundle.bundle_members import keep_fixed_members, sealed_tree_head
from runtime.jobs.failpoints import failpoint
from runtime.node.agent import Agent, Say, on
from runtime.node.agent_context import Wakeup

Sayings = LedgerCheckpointed | DutyWaived | SessionSealed

_LOOK_AGAIN = 5.0
"""Seconds after which a session that could not be sealed is looked at again without news."""

_AT_LEAST = 0.05
"""Seconds between two looks at the open sessions."""

_GLANCE = 0.1
"""The same while a guest may still answer: that it has nothing to say is no event."""


class Ledger(Agent):
    """Keeps the books of every session until it is sealed."""

    @on
    async def keep(self, begun: SessionRequested, case: Wakeup, say: Say[Sayings]) -> None:
        """Keep the books of one session: sign notes as it grows, waive what roles cannot answer, and seal it."""
        due, patience = self._next_note(), None
        while case.now.sealed is None:
            seen, wait = case.history.size, self._until_note(case, due)
            if case.now.outcome is not None:
                wait = _LOOK_AGAIN
                if await self._owing(case, say):
                    wait = self._until_silent(case)
                else:
                    patience = patience or _now() + self.ground.settings.guest_patience_seconds
                    if await self._awaiting_guests(case, say, patience):
                        wait = _GLANCE
                    elif await self._seal(case, say):
                        return
            elif self._noteworthy(case, due):
                await self._note(case, say)
                due = self._next_note()
            await self._until_news(case, seen, wait)

    async def _owing(self, case: Wakeup, say: Say[Sayings]) -> bool:
        """Whether a role still owes an answer; what a silent role owes is waived."""
        waived = [duty for duty in owed(case.now) if self._silent(duty)]
        if waived:
            await say(*(self._waiver(duty, self.ground.presence.silent_seconds(duty.role)) for duty in waived))
        return bool(owed(case.now))

    async def _awaiting_guests(self, case: Wakeup, say: Say[Sayings], until: float) -> bool:
        """Whether a guest that is there may still answer; once patience is at an end, its answer is waived."""
        presence, guests = self.ground.presence, self.ground.tail.admission.keyring().guests()
        there = [guest for guest in guests if presence.heard(guest.role)]
        found = unanswered(case.now, case.history.facts, there)
        missing = [duty for duty in found if not presence.passed(duty.role, duty.cause)]
        if missing and _now() < until:
            return True
        if missing:
            seconds = self.ground.settings.guest_patience_seconds
            await say(*(self._waiver(duty, seconds) for duty in missing))
        return False

    async def _seal(self, case: Wakeup, say: Say[Sayings]) -> bool:
        """Append the seal; False when another role appended first, so that the seal is void and must be made again."""
        failpoint("before-seal")
        furniture = await asyncio.to_thread(keep_fixed_members, self.ground.blobs)
        try:
            await say(lambda: self._sealed(case, furniture))
        except NotVerified:
            # Another role spoke between the last look and the seal, which is void then; the next one covers it.
            return False
        failpoint("after-seal")
        return True

    def _sealed(self, case: Wakeup, furniture: Mapping[str, str]) -> SessionSealed:
        ring = self.ground.tail.history(self.ground.tail.keyring).derived(Book())
        seal = case.history.derived(Book()).sealed(case.now, ring, furniture)
        return seal.model_copy(update={"note": self.ground.sign_note(sealed_tree_head(case.history.id, seal))})

    async def _note(self, case: Wakeup, say: Say[Sayings]) -> None:
        await say(lambda: self._checkpointed(case))

    def _checkpointed(self, case: Wakeup) -> LedgerCheckpointed:
        book = case.history.derived(Book())
        return book.checkpointed(self.ground.sign_note(book.checkpoint(case.history.id)))

    def _noteworthy(self, case: Wakeup, due: float) -> bool:
        unnoted = case.history.derived(Book()).unnoted
        return bool(unnoted >= self.ground.settings.ledger_every_events or (unnoted > 0 and _now() >= due))

    def _next_note(self) -> float:
        return _now() + float(self.ground.settings.ledger_every_seconds)

    def _until_note(self, case: Wakeup, due: float) -> float | None:
        return max(_AT_LEAST, due - _now()) if case.history.derived(Book()).unnoted else None

    def _silent(self, duty: Duty) -> bool:
        return bool(self.ground.presence.silent_seconds(duty.role) >= self.ground.settings.waive_after_seconds)

    def _until_silent(self, case: Wakeup) -> float:
        """Seconds until the first role that owes something will have been silent for too long, if it stays silent."""
        longest = max((self.ground.presence.silent_seconds(duty.role) for duty in owed(case.now)), default=0.0)
        return max(_AT_LEAST, float(self.ground.settings.waive_after_seconds) - longest)

    def _waiver(self, duty: Duty, seconds: float) -> DutyWaived:
        return DutyWaived(role=duty.role, duty=duty.name, silent_seconds=round(seconds, 1))

    async def _until_news(self, case: Wakeup, seen: int, wait: float | None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await case.history.grown(seen)


def _now() -> float:
    return asyncio.get_running_loop().time()
