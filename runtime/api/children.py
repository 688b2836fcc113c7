"""Jobs of one question in child processes: what computes must not take down the process that asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from contracts.errors import ChildDied

if TYPE_CHECKING:
    from runtime.jobs.children import Children
    from runtime.jobs.job import Job

A = TypeVar("A")
R = TypeVar("R")
T = TypeVar("T")
O = TypeVar("O")  # noqa: E741 - an order

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


async def ask_child(job: Job[A, R, T, O], argument: A, *, log: Path) -> R:
    """The answer of a job in a child of its own; its prints go to `log`."""
    async with open_children() as children:
        return await ask(children, job, argument, log=log, cure="Ask again; when memory ran out, free some first.")


async def ask(children: Children, job: Job[A, R, T, O], argument: A, *, log: Path, cure: str) -> R:
    """The answer of a job; `ChildDied` tells what it printed, because the log goes with its folder."""
    try:
        return await children.run(job, argument, log=log)
    except ChildDied as error:
        raise ChildDied("\n  ".join([error.message, *_last_lines(log)]), cure=cure) from None


def _last_lines(log: Path) -> list[str]:
    return log.read_text(errors="replace").splitlines()[-LAST_LINES:] if log.exists() else []
