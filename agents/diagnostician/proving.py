"""One proof: two forks from the bits in which an intervention took effect, waited for and compared.

Restarted, it goes on: everything that it knows is in its session, and the forks' ids follow from its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from agents.diagnostician.proof import proven
from contracts.diagnostician import InterventionProven, ProofFailed, ProofForked
from contracts.errors import InvalidInput, NotFound, NotVerified, Refused, SwarmError
from contracts.session import SessionState
from contracts.trainer import InterventionApplied
from runtime.log.archive import known
from runtime.log.session_log import SessionLog
from runtime.node.agent import Say
from runtime.node.ground import Wakeup
from runtime.node.heeding import first_done, why_cancelled

Sayings = ProofForked | InterventionProven | ProofFailed

QUIET = {"diagnosis.auto_fix": False, "diagnosis.prove": False, "export.formats": [], "export.quantize": []}
"""What a fork of a proof changes besides the intervention: no automatic repair and no export."""


class Proving:
    """The course of one proof; everything that it must know after a crash is in its session."""

    def __init__(self, role: str, case: Wakeup, say: Say[Sayings]) -> None:
        self._role, self._own, self._ground, self._say = role, case.history, case.ground, say
        self._asked = case.session.request

    async def run(self) -> None:
        """Carry out the proof until its session has an outcome: begin both forks, wait for them, compare."""
        try:
            parent = self._parent()
            await self._until_sealed([parent])
            applied = self._applied(parent.state)
            forked = self._own.state.proof or await self._forked(parent, applied)
            forks = [self._ground.history(one) for one in (forked.with_it, forked.without_it)]
            await self._until_sealed(forks)
            forks = [known(one.id, self._ground.tail.histories, self._ground.home) or one for one in forks]
            outcome: Sayings = proven(parent, applied, forked, *forks)
        except _Cancelled as wish:
            begun = self._own.state.proof
            await self._cancel(*((begun.with_it, begun.without_it) if begun else ()))
            outcome = ProofFailed(message=f"cancelled: {wish}.", cure="Ask for the proof again to go on.")
        except _Hopeless as error:
            outcome = ProofFailed(message=error.message, cure=error.cure)
        await self._say(outcome)

    def _parent(self) -> SessionLog:
        return self._ground.history(str(self._asked["session"]))

    def _applied(self, parent: SessionState) -> InterventionApplied:
        found = dict(parent.applied).get(self._asked["intervention"])
        if found is None:
            message = f"{parent.id} has no intervention {self._asked['intervention']!r} any more."
            raise _Hopeless(message, cure=f"See: swarm show {parent.id}")
        return found

    async def _forked(self, parent: SessionLog, applied: InterventionApplied) -> ProofForked:
        """Both forks, once: their ids follow from the proof's."""
        with_it = await self._fork(parent.id, applied.step, applied.segment, "with")
        try:
            without_it = await self._fork(parent.id, applied.step, applied.segment - 1, "without")
        except _Hopeless:
            await self._cancel(with_it)
            raise
        about = {"intervention": self._asked["intervention"], "step": applied.step}
        forked = ProofForked(**about, with_it=with_it, without_it=without_it)
        await self._say(forked)
        return forked

    async def _fork(self, parent: str, step: int, segment: int, name: str) -> str:
        wish = {"session": parent, "step": step, "segment": segment, "set": QUIET, "under": self._own.id}
        wish |= {"asked_by": self._role, "request_id": f"{self._own.id}-{name}"}
        try:
            return await self._ground.ask("fork", wish)
        except (InvalidInput, NotFound, NotVerified, Refused) as error:
            raise _Hopeless(error.message, cure=error.cure) from error

    async def _until_sealed(self, histories: Sequence[SessionLog]) -> None:
        """Return once all of them are; raises `_Cancelled` when a person wants the proof to end before."""
        while not all(self._is_sealed(one) for one in histories):
            if why := why_cancelled(self._own.state):
                raise _Cancelled(why)
            await first_done(*(one.grown(one.size) for one in (self._own, *histories)))

    def _is_sealed(self, history: SessionLog) -> bool:
        found = known(history.id, self._ground.tail.histories, self._ground.home)
        return found is not None and found.state.sealed is not None

    async def _cancel(self, *forks: str) -> None:
        for session in forks:
            await self._ground.cancel(session, "its proof has ended")


class _Cancelled(Exception):
    """A person wants the proof to end."""


class _Hopeless(SwarmError):
    """There is no such fork, and trying again would not make one."""


def is_open(session: SessionState) -> bool:
    """Whether a session is a proof that goes on."""
    return session.kind == "proof" and session.outcome is None
