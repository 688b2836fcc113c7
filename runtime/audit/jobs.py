"""The jobs of one audit: children sealed as the claim says, whichever process the audit runs in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.processes.profiles import torch_profile

if TYPE_CHECKING:
    from runtime.processes.children import Children

IDENTITY = "runtime.audit.reexecute:identity"
SPAN = "runtime.audit.reexecute:main"
OPENING = "runtime.audit.opening:main"


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
        given = {**args, "seal": seal_of(self._machine), "workloads": self.workloads}
        # As whatever trained had it.
        profile = torch_profile(self._machine.get("threads", 1), self._machine.get("device", "cpu"))
        async with self.children.job(
            function, given, profile=profile, purpose="audit", session=self._session, log=self._log
        ) as child:
            return await child.wait()


def seal_of(machine: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `runtime.engine.seal.apply` for bits of this machine."""
    return {"threads": machine.get("threads", 1), "profile": "exact"}
