"""The ledger: signs a note of each session's events, waives duties of silent roles, and seals ended sessions."""

import asyncio
from contextlib import suppress

from agents.ledger.ledger_state import LedgerState, unanswered
from contracts.errors import NotVerified
from contracts.kind import Duty, owed
from contracts.ledger import DutyWaived, LedgerCheckpointed, SessionSealed
from contracts.operator import SessionRequested
from runtime.bundle.bundle_members import keep_fixed_members, sealed_tree_head
from runtime.jobs.failpoints import failpoint
from runtime.log.session_log import SessionLog
from runtime.node.agent import Agent, Say, on
from runtime.node.agent_context import AgentContext, Wakeup

Sayings = LedgerCheckpointed | DutyWaived | SessionSealed

_LOOK_AGAIN = 5.0
"""Seconds after which a session that could not be sealed is looked at again without news."""

_AT_LEAST = 0.05
"""Seconds between two looks at the open sessions."""

_GLANCE = 0.1
"""The same while a guest may still answer: that it has nothing to say is no event."""


class Ledger(Agent):
    """Keeps a tree over every session until it is sealed."""

    @on
    async def keep(self, begun: SessionRequested, wakeup: Wakeup, say: Say[Sayings]) -> None:
        """Sign notes about one session as it grows, waive what roles cannot answer, and seal it."""
        await LedgerRun(self.ground, wakeup.history, say).run()


class LedgerRun:
    """The ledger's work on one session; everything that it must know after a restart is in the log."""

    def __init__(self, context: AgentContext, history: SessionLog, say: Say[Sayings]) -> None:
        self._context, self._history, self._say = context, history, say

    async def run(self) -> None:
        """Return once the session is sealed."""
        history, settings = self._history, self._context.settings
        due, patience = _now() + settings.ledger_every_seconds, None
        while history.state.sealed is None:
            size, unsigned = history.size, self._state().unsigned
            wait = max(_AT_LEAST, due - _now()) if unsigned else None
            if history.state.outcome is not None:
                wait = _LOOK_AGAIN
                if (silence := await self._owed_silence()) is not None:
                    wait = max(_AT_LEAST, settings.waive_after_seconds - silence)
                else:
                    patience = patience or _now() + settings.guest_patience_seconds
                    if await self._awaits_guests(patience):
                        wait = _GLANCE
                    elif await self._seal():
                        return
            elif unsigned >= settings.ledger_every_events or (unsigned > 0 and _now() >= due):
                await self._say(self._signed_head)
                due = _now() + settings.ledger_every_seconds
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await history.grown(size)

    async def _owed_silence(self) -> float | None:
        """How long the most silent of the roles that owe an answer has been silent; None when none owes any.

        What roles owe that have been silent for too long is waived.
        """
        seconds = self._context.presence.silent_seconds
        silent = [
            duty
            for duty in owed(self._history.state)
            if seconds(duty.role) >= self._context.settings.waive_after_seconds
        ]
        if silent:
            await self._say(*(_waiver(duty, seconds(duty.role)) for duty in silent))
        return max((seconds(duty.role) for duty in owed(self._history.state)), default=None)

    async def _awaits_guests(self, until: float) -> bool:
        """Whether a guest that is there may still answer; once patience is at an end, its answer is waived."""
        presence, guests = self._context.presence, self._context.tail.admission.keyring().guests()
        there = [guest for guest in guests if presence.heard(guest.role)]
        duties = unanswered(self._history.state, self._history.facts, there)
        missing = [duty for duty in duties if not presence.passed(duty.role, duty.cause)]
        if missing and _now() < until:
            return True
        if missing:
            await self._say(*(_waiver(duty, self._context.settings.guest_patience_seconds) for duty in missing))
        return False

    async def _seal(self) -> bool:
        """Append the seal; False when another role appended first, so that the seal is void and must be made again."""
        failpoint("before-seal")
        fixed = await asyncio.to_thread(keep_fixed_members, self._context.blobs)

        def sealed() -> SessionSealed:
            tail = self._context.tail
            ring = tail.history(tail.keyring).derived(LedgerState())
            seal = self._state().sealed(self._history.state, ring, fixed)
            return seal.model_copy(update={"note": self._context.sign_note(sealed_tree_head(self._history.id, seal))})

        try:
            await self._say(sealed)
        except NotVerified:
            # Another role spoke between the last look and the seal, which is void then; the next one covers it.
            return False
        failpoint("after-seal")
        return True

    def _signed_head(self) -> LedgerCheckpointed:
        state = self._state()
        return state.checkpointed(self._context.sign_note(state.tree_head(self._history.id)))

    def _state(self) -> LedgerState:
        return self._history.derived(LedgerState())


def _waiver(duty: Duty, seconds: float) -> DutyWaived:
    return DutyWaived(role=duty.role, duty=duty.name, silent_seconds=round(seconds, 1))


def _now() -> float:
    return asyncio.get_running_loop().time()
