"""Every kind of session that this software knows, by its name in the genesis. Reads no kind before it is asked for one.

The command line offers the names without reading a schema, and a genesis may name no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contracts.kind import Kind

_DECLARED_IN = {
    "training": "training",
    "search": "hyperparameter_specialist",
    "trial": "training",
    "export": "exporter",
    "audit": "audit",
    "proof": "diagnostician",
}
"""By name the file of `contracts` that declares the kind, under its name in capitals."""

SESSION_KINDS = tuple(_DECLARED_IN)
"""What a session can be for."""


@cache
def kinds() -> Mapping[str, Kind]:
    """What each of them means."""
    return {name: getattr(import_module(f"contracts.{file}"), name.upper()) for name, file in _DECLARED_IN.items()}
