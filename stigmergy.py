"""Stigmergy: everything a user imports. Agents, workloads, and a door into a running swarm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contracts.event import Event, Exact
    from runtime.agent import Agent, Say, every, on
    from runtime.client import Swarm
    from runtime.engine.workload import Workload
    from runtime.ground import Case

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
