"""Stigmergy: everything a user imports. Agents, workloads, and a door into a running swarm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contracts.event import Event as Event
    from contracts.event import Exact as Exact
    from runtime.agent import Agent as Agent
    from runtime.agent import Say as Say
    from runtime.agent import every as every
    from runtime.agent import on as on
    from runtime.client import Swarm as Swarm
    from runtime.engine.workload import Workload as Workload
    from runtime.ground import Case as Case

_HOMES = {
    "Agent": "runtime.agent",
    "Case": "runtime.ground",
    "Event": "contracts.event",
    "Exact": "contracts.event",
    "Say": "runtime.agent",
    "Swarm": "runtime.client",
    "Workload": "runtime.engine.workload",
    "every": "runtime.agent",
    "on": "runtime.agent",
}

__all__ = ["Agent", "Case", "Event", "Exact", "Say", "Swarm", "Workload", "every", "on"]


def __getattr__(name: str) -> Any:
    # Loaded when first used: an agent's file must not pull in torch, nor a workload's the bus.
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'stigmergy' has no attribute {name!r}")
