"""Files of an audited session made once more, where the bits are those of the machine that trained."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from contracts.errors import NotVerified, SwarmError
from contracts.exporter import ExportRepeated
from runtime.audit.exports import Remade, remake
from runtime.home.workloads import Workloads
from runtime.node.agent_context import AgentContext
from runtime.replay.audit_runner import IDENTITY, AuditJobs


class Again:
    """One audit's exports."""

    def __init__(self, ground: AgentContext, session: str, machine: Mapping[str, Any]) -> None:
        self._ground = ground
        self._session = session
        self._machine = machine
        self._folder = ground.home.work(session) / "exports"

    async def all(self, orders: list[dict[str, Any]]) -> list[ExportRepeated]:
        """Every file of a session, and what of it is not as it was, or why it cannot be made here."""
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            problem, workloads = await self._stands_in_the_way(), self._workloads(orders[0])
        except SwarmError as error:
            problem, workloads = error.message, []
        try:
            return [await self._made(n, order, workloads, problem) for n, order in enumerate(orders)]
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _made(
        self, number: int, order: dict[str, Any], workloads: list[dict[str, str]], problem: str
    ) -> ExportRepeated:
        remade, work = Remade(missing=problem), self._folder / f"export-{number}"
        if not problem:
            work.mkdir()
            blobs, children = self._ground.blobs, self._ground.children
            remade = await remake(order, blobs, workloads, children, work, self._session)
        said = {"divergence": remade.divergence, "problem": remade.missing, "differing": remade.differing}
        return ExportRepeated(export=order["export"], filename=order["filename"], **said)

    def _workloads(self, order: Mapping[str, Any]) -> list[dict[str, str]]:
        """The code that was claimed, where it is the code that is known here."""
        needed = Workloads(self._ground.home.root).needed(order["order"]["request"])
        for one in needed:
            if order.get("sources", {}).get(one.name, one.digest) != one.digest:
                raise NotVerified(f"workload {one.name!r} of the exporter's machine is not the one that was claimed.")
        return [one.as_json() for one in needed]

    async def _stands_in_the_way(self) -> str:
        """That this machine computes other bits than the one that trained."""
        jobs = AuditJobs(self._ground.children, self._machine, self._session, self._folder / "identity.log", [])
        args = {"device": self._machine["device"], "precision": self._machine["precision"], "plan": None}
        found = await jobs.run(IDENTITY, args)
        same = found["fingerprint"] == self._machine["fingerprint"]
        return "" if same else "the exporter's machine computes other bits than the one that trained"
