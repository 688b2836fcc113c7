"""One job in a child of a command: what computes must not take the command down with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


async def ask(function: str, args: Mapping[str, Any], *, purpose: str, log: Path) -> dict[str, Any]:
    """The answer of a job in a sealed child with torch; its prints go to `log`."""
    from runtime.processes.children import Children
    from runtime.processes.profiles import torch_profile

    children = Children()
    try:
        async with children.job(function, args, profile=torch_profile(), purpose=purpose, log=log) as child:
            return await child.wait()
    finally:
        await children.close()
