"""Files of an audited session made once more, where the bits are those of the machine that trained."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from contracts.errors import SwarmError
from contracts.exporter import ExportRepeated
from runtime.audit.exports import made_again
from runtime.audit.jobs import IDENTITY, Jobs
from runtime.ground import Ground
from runtime.workloads import Workloads


class Again:
    """One audit's exports."""

    def __init__(self, ground: Ground, session: str, machine: Mapping[str, Any]) -> None:
        self._ground = ground
        self._session = session
        self._machine = machine
        self._folder = ground.home.work(session) / "exports"

    async def all(self, orders: list[dict[str, Any]]) -> list[ExportRepeated]:
        """Every file of a session, and what of it is not as it was, or why it cannot be made here."""
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            problem, workloads = await self._stands_in_the_way(), self._workloads(orders[0]["order"]["request"])
        except SwarmError as error:
            problem, workloads = error.message, []
        try:
            return [await self._made(n, order, workloads, problem) for n, order in enumerate(orders)]
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _made(
        self, number: int, order: dict[str, Any], workloads: list[dict[str, str]], problem: str
    ) -> ExportRepeated:
        against, work = "", self._folder / f"export-{number}"
        if not problem:
            work.mkdir()
            root, children = self._ground.blobs.root, self._ground.children
            against, problem = await made_again(order, root, workloads, children, work, self._session)
        return ExportRepeated(export=order["export"], filename=order["filename"], divergence=against, problem=problem)

    def _workloads(self, request: Mapping[str, Any]) -> list[dict[str, str]]:
        return [one.as_json() for one in Workloads(self._ground.home.root).needed(request)]

    async def _stands_in_the_way(self) -> str:
        """That this machine computes other bits than the one that trained."""
        jobs = Jobs(self._ground.children, self._machine, self._session, self._folder / "identity.log", [])
        args = {"device": self._machine["device"], "precision": self._machine["precision"], "plan": None}
        found = await jobs.run(IDENTITY, args)
        same = found["fingerprint"] == self._machine["fingerprint"]
        return "" if same else "the exporter's machine computes other bits than the one that trained"
