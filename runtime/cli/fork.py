"""`swarm fork`: a session that goes on from another's exact bits, with a change or without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from runtime.cli import wording
from runtime.cli.call import Call, command
from runtime.cli.named import session_argument
from runtime.cli.reach import find
from runtime.cli.wait import outcome
from runtime.cli.watch import followed

LONGEST = 200_000
"""Bytes of names that a command holds by itself."""

PATIENCE = 60.0
"""Seconds that a desk may take to read a long parent."""


@command("fork")
@session_argument
@click.option(
    "--at", "step", metavar="STEP", type=click.IntRange(min=0), required=True, help="The grid step to begin at."
)
@click.option(
    "--segment", metavar="N", type=click.IntRange(min=1), help="Go on as this segment did (default: the path)."
)
@click.option("--set", "overrides", metavar="A.B=C", multiple=True, help="Change one value; may be repeated.")
@click.option(
    "--without",
    metavar="ROWS",
    multiple=True,
    help="Leave training rows out: numbers, files or places (17,20-40,train:3), or a file with one on each line.",
)
@click.option("--request-id", metavar="ID", help="Repeatable: the same id names the same session for ever.")
@click.option("-d", "--detach", is_flag=True, help="Return as soon as the session is requested.")
@click.option("--timeout", metavar="SECONDS", type=float, help="Stop waiting after this long (exit code 124).")
def fork(
    call: Call,
    *,
    session: str,
    overrides: tuple[str, ...],
    without: tuple[str, ...],
    detach: bool,
    timeout: float | None,
    **wish: Any,
) -> int:
    """Begin a session in the bits that session S had at STEP, and follow it to its end.

    Its request is that of S with the changes. Data, model, batches and grid stay; learning rate, schedule, epochs,
    clipping, early stopping, loss weights and seed may change. Rows left out keep their places in the order and weigh
    nothing: batches and losses are those of the rows that stay. With no change it ends in the very weights of S.
    """
    from contracts.request.reading import assigned
    from runtime.cli.run import bring_up

    wish |= {"set": assigned(overrides), "without": _listed(call, list(rows(without)))}
    bring_up(call)
    seen = call.wait(_forked(call, session, wish, None if detach else (timeout,)))
    if detach:
        call.result(seen, seen["session"])
        return 0
    call.result(seen, lambda: wording.summary(seen))
    return outcome(seen)


def rows(given: Sequence[str]) -> Iterator[str]:
    """The names of rows on a command line: the lines of a file when there is one, else the parts between commas."""
    for one in given:
        path = Path(one)
        named = path.read_text(encoding="utf-8").splitlines() if path.is_file() else one.split(",")
        yield from (name.strip() for name in named if name.strip())


def _listed(call: Call, names: list[str]) -> list[str] | dict[str, str]:
    """Names as a command takes them: those that are too many for a message go into the home's store."""
    text = "\n".join(names).encode()
    if len(text) <= LONGEST or call.settings.url:
        return names
    from bus.blobs import DirectoryBlobs

    return {"blob": DirectoryBlobs(call.home.blobs).put(text)}


async def _forked(call: Call, name: str, wish: dict[str, Any], follow: tuple[float | None] | None) -> dict[str, Any]:
    async with call.swarm() as found:
        parent = await find(found, name)
        made = await found.command("fork", timeout=PATIENCE, session=parent, **wish)
        call.note(f"Session {made['session']}, a fork of {parent} at step {wish['step']}")
        return made if follow is None else await followed(call, found, str(made["session"]), follow[0])
