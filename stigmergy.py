"""Stigmergy: everything a user imports. Training and its results, agents, workloads, a door into a running swarm.

session = stigmergy.train("request.yaml")     starts the swarm if needed, shows progress; works in a notebook
session.metrics()                             a table: one row per recorded step
model = stigmergy.load(session, "best")       a torch module, every digest verified
"""

from __future__ import annotations

import os
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contracts.event import Event, Exact
    from runtime.api.handle import Session, load, metrics
    from runtime.api.training import train
    from runtime.commands.client import Swarm
    from runtime.engine.workload import Group, Memory, Mover, OptimizerPart, Ragged, Workload
    from runtime.node.agent import Agent, Say, every, on
    from runtime.node.agent_context import Case, Wakeup

PACKAGES = ("agents", "bus", "contracts", "runtime")
"""What is installed beside this module. The names are common, and another distribution may bring one of them."""


def foreign() -> dict[str, str]:
    """By name: where a package of ours would be loaded from that is not ours, or was written over."""
    ours = os.path.dirname(os.path.realpath(__file__))
    places = {name: spec.origin if (spec := PathFinder.find_spec(name)) else None for name in PACKAGES}
    return {name: place or "nowhere" for name, place in places.items() if not _is_ours(place, os.path.join(ours, name))}


def _is_ours(place: str | None, folder: str) -> bool:
    """Whether a package's first file is in that folder and was not overwritten by another package's."""
    if place is None or os.path.dirname(os.path.realpath(place)) != folder:
        return False
    with open(place, "rb") as file:
        return file.read(12) == b'"""Stigmergy'


def refuse_foreign() -> None:
    """Raise `ImportError` with the cure when a package of ours was replaced by another distribution's."""
    for name, place in foreign().items():
        raise ImportError(
            f"the package {name!r} here is not Stigmergy's: it would be loaded from {place}. Another distribution"
            " (openai-agents brings `agents`) or a folder of yours has that name. Install stigmergy-swarm into an"
            " environment of its own (python -m venv .venv), or rename the folder."
        )


refuse_foreign()

_HOMES = {
    "Agent": "runtime.node.agent",
    "Case": "runtime.node.agent_context",
    "Event": "contracts.event",
    "Exact": "contracts.event",
    "Group": "runtime.engine.workload",
    "Memory": "runtime.engine.workload",
    "Mover": "runtime.engine.workload",
    "OptimizerPart": "runtime.engine.workload",
    "Ragged": "runtime.engine.workload",
    "Say": "runtime.node.agent",
    "Session": "runtime.api.handle",
    "Swarm": "runtime.commands.client",
    "Wakeup": "runtime.node.agent_context",
    "Workload": "runtime.engine.workload",
    "every": "runtime.node.agent",
    "load": "runtime.api.handle",
    "metrics": "runtime.api.handle",
    "on": "runtime.node.agent",
    "train": "runtime.api.training",
}

__all__ = [
    "Agent",
    "Case",
    "Event",
    "Exact",
    "Group",
    "Memory",
    "Mover",
    "OptimizerPart",
    "Ragged",
    "Say",
    "Session",
    "Swarm",
    "Wakeup",
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
