"""This machine as an auditor will ask for it: resolved plans and numeric identities, measured in children."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from agents.trainer.turns import Turns
from contracts.errors import SwarmError
from contracts.session import SessionState
from runtime.home import allowed
from runtime.jobs.profiles import torch_profile
from runtime.node.agent_context import AgentContext
from runtime.replay import initial_state

RESOLVE = "agents.trainer.jobs.plan:main"

_MOST_IDENTITIES = 64
"""Answers that are remembered, the newest: every number of threads that a request names has one."""


class MachineProbe:
    """Asks children what this machine computes, and keeps answers that cannot change while the zygote lives."""

    def __init__(self, ground: AgentContext) -> None:
        self._ground = ground
        self._identities: dict[tuple[int, str, str, str], dict[str, Any]] = {}
        self.turns = Turns(ground.settings.trainings)
        self._one_at_a_time = asyncio.Lock()
        self._warming: asyncio.Task[None] | None = None

    def warm(self) -> None:
        """Start measuring in the background what small sessions will ask for; the swarm does not wait for it."""
        self._warming = asyncio.create_task(self._warm())

    def cool(self) -> None:
        """Cancel what `warm` started."""
        if self._warming is not None:
            self._warming.cancel()

    async def _warm(self) -> None:
        # What fails here fails again, and is recorded, in the session that needs it.
        with suppress(SwarmError):
            await self.identity(threads=1)

    async def identity(
        self, *, threads: int, device: str = "cpu", precision: str = "fp32", profile: str = "exact"
    ) -> dict[str, Any]:
        """Fingerprint, families, engine bits and environment of one sealed profile."""
        key = (threads, device, precision, profile)
        async with self._one_at_a_time:
            if key not in self._identities:
                args = {"seal": seal_of(threads, profile), "device": device, "precision": precision}
                if len(self._identities) >= _MOST_IDENTITIES:
                    del self._identities[next(iter(self._identities))]
                self._identities[key] = await self._ask("agents.trainer.jobs.plan:identify", args, threads, device)
            return self._identities[key]

    async def bring(self, session: SessionState) -> str | None:
        """The blob of the weights that the session's request names, read from their file now; None when it has none."""
        ground = self._ground
        roots = allowed.roots(ground.home, ground.settings, session.id)
        return await initial_state.bring_weights(session.request, roots, ground.blobs, session.id, ground.children)

    async def resolve(
        self, session: SessionState, dataset: str, named: list[dict[str, str]], begun: str | None
    ) -> dict[str, Any]:
        """Every `auto` of the session's request as a number."""
        device = session.request["training"]["device"]
        args = {"request": session.request, "dataset": dataset, "device": device, "workloads": named}
        inherited = session.fork.resolved if session.fork else None
        blobs = str(self._ground.blobs.root)
        args |= {"blobs": blobs, "room": blobs, "initial": begun, "inherited": inherited}
        answer = await self._ask(RESOLVE, args, 1, "cpu" if device == "auto" else device, purpose="prepare")
        resolved: dict[str, Any] = answer["resolved"]
        return resolved

    async def _ask(
        self, function: str, args: dict[str, Any], threads: int, device: str, *, purpose: str = "probe"
    ) -> dict[str, Any]:
        children = self._ground.children
        async with children.job(function, args, profile=torch_profile(threads, device), purpose=purpose) as child:
            return await child.wait()


def seal_of(threads: int, profile: str) -> dict[str, Any]:
    """The arguments of `runtime.engine.seal.apply`."""
    return {"threads": threads, "profile": profile}
