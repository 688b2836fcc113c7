"""This machine as an auditor will ask for it: resolved plans and numeric identities, measured in children."""

from __future__ import annotations

from typing import Any

from contracts.session import Session
from runtime.ground import Ground
from runtime.profiles import torch_profile


class Machine:
    """Asks children what this machine computes; remembers answers that cannot change while the zygote lives."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._identities: dict[tuple[int, str, str, str], dict[str, Any]] = {}

    async def identity(
        self, *, threads: int, device: str = "cpu", precision: str = "fp32", profile: str = "exact"
    ) -> dict[str, Any]:
        """Fingerprint, families, engine bits and environment of one sealed profile."""
        key = (threads, device, precision, profile)
        if key not in self._identities:
            args = {"seal": seal_of(threads, profile), "device": device, "precision": precision}
            self._identities[key] = await self._ask("agents.trainer.jobs.plan:identify", args, threads, device)
        return self._identities[key]

    async def resolve(self, session: Session, dataset: str, named: list[dict[str, str]]) -> dict[str, Any]:
        """Every `auto` of the session's request as a number."""
        device = session.request["training"]["device"]
        args = {"request": session.request, "dataset": dataset, "device": device, "workloads": named}
        answer = await self._ask("agents.trainer.jobs.plan:main", args, 1, "cpu" if device == "auto" else device)
        resolved: dict[str, Any] = answer["resolved"]
        return resolved

    async def _ask(self, function: str, args: dict[str, Any], threads: int, device: str) -> dict[str, Any]:
        children = self._ground.children
        async with children.job(function, args, profile=torch_profile(threads, device), purpose="probe") as child:
            return await child.wait()


def seal_of(threads: int, profile: str) -> dict[str, Any]:
    """The arguments of `runtime.engine.seal.apply`."""
    return {"threads": threads, "profile": profile}
