"""A node with the desk: everything that a deployment needs, in one process."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, cast

from contracts.event import DESK
from contracts.operator import Kind
from runtime.commands.desk import Commands
from runtime.node.node import Node


class SwarmNode(Node):
    """Agents, and who answers commands; without the desk's key it asks a desk elsewhere, as any node."""

    @cached_property
    def desk(self) -> Commands:
        """The object that carries out commands in this process."""
        return Commands(self)

    async def submit(self, request: Mapping[str, Any], kind: str, **about: Any) -> str:
        """See `Commands.submit`."""
        if DESK not in self.keys:
            return await super().submit(request, kind, **about)
        return await self.desk.submit(request, cast(Kind, kind), **about)

    async def ask(self, verb: str, body: Mapping[str, Any]) -> str:
        """Carry out a command and return the id of the session that it begins."""
        if DESK not in self.keys:
            return await super().ask(verb, body)
        return str((await self.desk.verbs[verb](dict(body)))["session"])
