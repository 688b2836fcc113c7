"""Jobs of one question in child processes: what computes must not take down the process that asks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import ChildDied

if TYPE_CHECKING:
    from runtime.jobs.child import Child
    from runtime.jobs.children import Children

LAST_LINES = 40
"""Lines that are told of what a child printed before it died."""


@asynccontextmanager
async def open_children() -> AsyncIterator[Children]:
    """Child processes for the jobs of one question; all have ended after the block."""
    from runtime.jobs.children import Children

    children = Children()
    try:
        yield children
    finally:
        await children.close()


async def ask_child(function: str, args: Mapping[str, Any], *, purpose: str, log: Path) -> dict[str, Any]:
    """The answer of a job in a sealed child with torch; its prints go to `log`."""
    from runtime.jobs.profiles import torch_profile

    async with (
        open_children() as children,
        children.job(function, args, profile=torch_profile(), purpose=purpose, log=log) as child,
    ):
        return await child_answer(child, log, cure="Ask again; when memory ran out, free some first.")


async def child_answer(child: Child, log: Path, *, cure: str) -> dict[str, Any]:
    """What the child answers; `ChildDied` tells what it printed, because the log goes with its folder."""
    try:
        return await child.wait()
    except ChildDied as error:
        raise ChildDied("\n  ".join([error.message, *_last_lines(log)]), cure=cure) from None


def _last_lines(log: Path) -> list[str]:
    return log.read_text(errors="replace").splitlines()[-LAST_LINES:] if log.exists() else []
