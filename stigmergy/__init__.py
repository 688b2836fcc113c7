"""Stigmergy: everything a user imports. Training and its results, agents, workloads, a door into a running swarm.

session = stigmergy.train("request.yaml")     starts the swarm if needed, shows progress; works in a notebook
session.metrics()                             a table: one row per recorded step
model = stigmergy.load(session, "best")       a torch module, every digest verified
"""

import os
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contracts.errors import (
        Ambiguous,
        ChildDied,
        Conflict,
        Failed,
        Fenced,
        Full,
        InvalidInput,
        InvalidRequest,
        NewerThanCode,
        NotFound,
        NotRepeatable,
        NotVerified,
        OutOfMemory,
        Problem,
        Refused,
        SwarmError,
        TimedOut,
        TooLarge,
        Unreachable,
        UserCodeFailed,
    )
    from contracts.event import Event, Exact
    from runtime.api.evidence import Anchor
    from runtime.api.handle import (
        Session,
        anchor,
        audit,
        bundle,
        diagnose,
        diff,
        inspect,
        load,
        metrics,
        prove,
        replay,
        trace,
        train,
        trials,
    )
    from runtime.api.orders import ModelFile
    from runtime.api.swarm import Swarm
    from runtime.bundle.writer import BundleFile
    from runtime.diagnosis.health import DiagnosisAnswer, HealthDifference
    from runtime.engine.workload import Group, Memory, Mover, OptimizerPart, Ragged, StreamingMetric, Workload
    from runtime.node.agent import Agent, Say, every, on
    from runtime.node.agent_context import Case, Wakeup
    from runtime.replay.difference import SessionsDifference
    from runtime.replay.verdict import Divergence, Verdict
    from runtime.views.checkpoints import InspectAnswer
    from runtime.views.curves import MetricsTable
    from runtime.views.proof import ProofAnswer
    from runtime.views.trace import RowAnswer, StepAnswer
    from runtime.views.trials import TrialRow, TrialRung, TrialsAnswer

PACKAGES = ("agents", "bus", "contracts", "runtime")
"""What is installed beside this module. The names are common, and another distribution may bring one of them."""


def foreign() -> dict[str, str]:
    """By name: where a package of ours would be loaded from that is not ours, or was written over."""
    ours = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
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
    "contracts.errors": (
        "Ambiguous",
        "ChildDied",
        "Conflict",
        "Failed",
        "Fenced",
        "Full",
        "InvalidInput",
        "InvalidRequest",
        "NewerThanCode",
        "NotFound",
        "NotRepeatable",
        "NotVerified",
        "OutOfMemory",
        "Problem",
        "Refused",
        "SwarmError",
        "TimedOut",
        "TooLarge",
        "Unreachable",
        "UserCodeFailed",
    ),
    "contracts.event": ("Event", "Exact"),
    "runtime.api.evidence": ("Anchor",),
    "runtime.api.handle": (
        "Session",
        "anchor",
        "audit",
        "bundle",
        "diagnose",
        "diff",
        "inspect",
        "load",
        "metrics",
        "prove",
        "replay",
        "trace",
        "train",
        "trials",
    ),
    "runtime.api.orders": ("ModelFile",),
    "runtime.api.swarm": ("Swarm",),
    "runtime.bundle.writer": ("BundleFile",),
    "runtime.diagnosis.health": ("DiagnosisAnswer", "HealthDifference"),
    "runtime.engine.workload": ("Group", "Memory", "Mover", "OptimizerPart", "Ragged", "StreamingMetric", "Workload"),
    "runtime.node.agent": ("Agent", "Say", "every", "on"),
    "runtime.node.agent_context": ("Case", "Wakeup"),
    "runtime.replay.difference": ("SessionsDifference",),
    "runtime.replay.verdict": ("Divergence", "Verdict"),
    "runtime.views.checkpoints": ("InspectAnswer",),
    "runtime.views.proof": ("ProofAnswer",),
    "runtime.views.trace": ("RowAnswer", "StepAnswer"),
    "runtime.views.trials": ("TrialRow", "TrialRung", "TrialsAnswer"),
    "runtime.views.curves": ("MetricsTable",),
}
"""By module: the names that are imported from it when they are first used."""

__all__ = [
    "Agent",
    "Ambiguous",
    "Anchor",
    "BundleFile",
    "Case",
    "ChildDied",
    "Conflict",
    "DiagnosisAnswer",
    "Divergence",
    "Event",
    "Exact",
    "Failed",
    "Fenced",
    "Full",
    "Group",
    "HealthDifference",
    "InspectAnswer",
    "InvalidInput",
    "InvalidRequest",
    "Memory",
    "MetricsTable",
    "ModelFile",
    "Mover",
    "NewerThanCode",
    "NotFound",
    "NotRepeatable",
    "NotVerified",
    "OptimizerPart",
    "OutOfMemory",
    "Problem",
    "ProofAnswer",
    "Ragged",
    "Refused",
    "RowAnswer",
    "Say",
    "Session",
    "SessionsDifference",
    "StepAnswer",
    "StreamingMetric",
    "Swarm",
    "SwarmError",
    "TimedOut",
    "TooLarge",
    "TrialRow",
    "TrialRung",
    "TrialsAnswer",
    "Unreachable",
    "UserCodeFailed",
    "Verdict",
    "Wakeup",
    "Workload",
    "anchor",
    "audit",
    "bundle",
    "diagnose",
    "diff",
    "every",
    "inspect",
    "load",
    "metrics",
    "on",
    "prove",
    "replay",
    "trace",
    "train",
    "trials",
]


def __getattr__(name: str) -> Any:
    # Loaded when first used: an agent's file must not pull in torch, nor a workload's the bus.
    import importlib

    module = next((module for module, names in _HOMES.items() if name in names), None)
    if module is not None:
        return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'stigmergy' has no attribute {name!r}")
