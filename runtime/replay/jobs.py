"""The jobs of one audit: children sealed as the claim says, whichever process the audit runs in.

Children that compute may run code of the user's. They tell; what they tell is compared here, outside of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import ChildDied, OutOfMemory, SwarmError
from runtime.jobs.profiles import claimed_threads, torch_profile
from runtime.replay.compared import Divergence, SpanComparison

if TYPE_CHECKING:
    from runtime.jobs.child import Child
    from runtime.jobs.children import Children
    from runtime.jobs.frames import Frame

IDENTITY = "runtime.replay.reexecute:identity"
SPAN = "runtime.replay.reexecute:main"


class Jobs:
    """Runs one job after the other, or several at once; `machine` is what `material.machine_of` gives."""

    def __init__(
        self, children: Children, machine: Mapping[str, Any], session: str, log: Path, workloads: list[dict[str, str]]
    ) -> None:
        self.children = children
        self.workloads = workloads
        self._machine = machine
        self._session = session
        self._log = log

    async def run(self, function: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """One job to its end, and what it answers."""
        async with self._job(function, args) as child:
            return await child.wait()

    async def opened(self, function: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """As `run`, for a job that opens an audit; its question about this machine is answered by another job."""
        async with self._job(function, args) as child:
            async for frame in child:
                if frame.kind == "identify":
                    child.resting = True
                    jobs = Jobs(self.children, self._machine, self._session, self._log, frame.data["workloads"])
                    found, unread = await jobs.identified(frame.data["about"])
                    await child.order("identified", found=found, unread=unread)
                    child.resting = False
            return child.result or {}

    async def identified(self, about: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """This machine beside a claim; and what of the claim cannot be read here, or does not load."""
        try:
            return await self.run(IDENTITY, about), []
        except (ChildDied, OutOfMemory):
            raise  # of the machine: nothing is known of the claim
        except SwarmError as error:
            if about["plan"] is None:
                raise
            unread = f"what the claim resolves the request to (here that ends with: {error.message[:500]})"
            return await self.run(IDENTITY, {**about, "plan": None}), [unread]

    async def span(self, args: Mapping[str, Any], span: Mapping[str, Any]) -> dict[str, Any]:
        """A whole span computed again: `steps`, and the first `divergence`, which may be that something is missing."""
        return await self.compared(SPAN, args, span)

    async def compared(self, function: str, args: Mapping[str, Any], span: Mapping[str, Any]) -> dict[str, Any]:
        """As `run`, of a job that computes steps of a span; what it tells of them is held here against the records.

        In the answer `divergence` is the first, or None, and `steps` says how many were computed. The job is ended at
        a divergence, and gives no other answer then.
        """
        comparison = SpanComparison(span)
        async with self._job(function, args) as child:
            async for frame in child:
                if frame.kind == "settled":
                    await child.order("go")
                elif found := _heard(comparison, frame):
                    return {"divergence": found, "steps": comparison.steps}
            answer = child.result or {}
        left = comparison.left() if function == SPAN else None
        return answer | {"divergence": left, "steps": comparison.steps}

    def _job(self, function: str, args: Mapping[str, Any]) -> AbstractAsyncContextManager[Child]:
        given = {**args, "seal": seal_of(self._machine), "workloads": self.workloads}
        # As it was where the session was trained.
        profile = torch_profile(claimed_threads(self._machine.get("threads")), self._machine.get("device", "cpu"))
        return self.children.job(
            function, given, profile=profile, purpose="audit", session=self._session, log=self._log
        )


def _heard(comparison: SpanComparison, frame: Frame) -> Divergence | None:
    match frame.kind:
        case "computed":
            return comparison.computed(frame.data)
        case "begun_window":
            return comparison.begun_window(frame.data)
        case "ended":
            comparison.ended(frame.data)
    return None


def seal_of(machine: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `runtime.engine.seal.apply` for bits of this machine."""
    return {"threads": claimed_threads(machine.get("threads")), "profile": "exact"}
