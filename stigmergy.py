"""Stigmergy: everything a user imports. Training and its results, agents, workloads, a door into a running swarm.

session = stigmergy.train("request.yaml")     starts the swarm if needed, shows progress; works in a notebook
session.metrics()                             a table: one row per recorded step
model = stigmergy.load(session, "best")       a torch module, every digest verified
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contracts.event import Event, Exact
    from runtime.agent import Agent, Say, every, on
    from runtime.client import Swarm
    from runtime.engine.workload import Group, Memory, Mover, Ragged, Workload
    from runtime.ground import Case
    from runtime.handle import Session, load, metrics
    from runtime.training import train

_HOMES = {
    "Agent": "runtime.agent",
    "Case": "runtime.ground",
    "Event": "contracts.event",
    "Exact": "contracts.event",
    "Group": "runtime.engine.workload",
    "Memory": "runtime.engine.workload",
    "Mover": "runtime.engine.workload",
    "Ragged": "runtime.engine.workload",
    "Say": "runtime.agent",
    "Session": "runtime.handle",
    "Swarm": "runtime.client",
    "Workload": "runtime.engine.workload",
    "every": "runtime.agent",
    "load": "runtime.handle",
    "metrics": "runtime.handle",
    "on": "runtime.agent",
    "train": "runtime.training",
}

__all__ = [
    "Agent",
    "Case",
    "Event",
    "Exact",
    "Group",
    "Memory",
    "Mover",
    "Ragged",
    "Say",
    "Session",
    "Swarm",
    "Workload",
    "every",
    "load",
    "metrics",
    "on",
    "train",
]


def __getattr__(name: str) -> Any:
    # Loaded when first used: an agent's file must not pull in torch, nor a workload's the bus.
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'stigmergy' has no attribute {name!r}")
