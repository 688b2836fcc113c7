"""`swarm tune`: a search for good hyperparameters; each trial is a session of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from runtime.cli import wording
from runtime.cli.call import SECONDS, Call, command
from runtime.cli.wait import outcome
from runtime.cli.watch import followed


@command("tune")
@click.argument("search", metavar="SEARCH")
@click.option("--set", "overrides", metavar="A.B=C", multiple=True, help="Change one value; may be repeated.")
@click.option("--request-id", metavar="ID", help="Repeatable: the same id names the same search for ever.")
@click.option("-d", "--detach", is_flag=True, help="Return as soon as the search is submitted.")
@click.option("--timeout", metavar="SECONDS", type=SECONDS, help="Stop waiting after this long (exit code 124).")
def tune(
    call: Call,
    *,
    search: str,
    overrides: tuple[str, ...],
    request_id: str | None,
    detach: bool,
    timeout: float | None,
) -> int:
    """Submit SEARCH (a YAML, TOML or JSON file, or -) and follow it until its trials are done."""
    from runtime.api.request_file import folder
    from runtime.cli.run import bring_up

    asked = _judged(search, overrides)
    if not detach:
        bring_up(call)
    seen = call.wait(_tune(call, asked, folder(search), request_id, None if detach else (timeout,)))
    if detach:
        call.result({"session": seen["session"]}, seen["session"])
        return 0
    call.result(seen, lambda: wording.summary(seen))
    return outcome(seen)


def _judged(name: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    """The search in the file with defaults written out; its `base` may be a request or the name of a request's file."""
    from contracts.request.search import read_search
    from runtime.api import request_file

    raw = request_file.read(name)
    base, folder = raw.get("base"), Path(name).parent.absolute() if name != request_file.STDIN else Path.cwd()
    if isinstance(base, str):
        raw["base"] = request_file.read(str(folder / base))
    elif isinstance(base, dict):
        raw["base"] = request_file.absolute(base, folder)
    return read_search(raw, overrides=overrides).resolved()


async def _tune(
    call: Call, asked: dict[str, Any], folder: Path, request_id: str | None, follow: tuple[float | None] | None
) -> dict[str, Any]:
    async with call.swarm() as found:
        session = await found.submit(asked, request_id=request_id, kind="search", folder=folder)
        call.note(f"Search {session}")
        return {"session": session} if follow is None else await followed(call, found, session, follow[0])
