"""Libraries that only some sources need, imported when they are asked for."""

from __future__ import annotations

import importlib
from typing import Any

from agents.data_manager.table import unusable


def extra(module: str, what: str) -> Any:
    """The module; raises `InvalidRequest` with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        cure = "Install it: pip install 'stigmergy-swarm[data]'"
        message = f"reading {what} needs the package {module.partition('.')[0]!r}, which is not here ({error})"
        raise unusable("data.source", message, cure) from None
