"""`swarm submit`: one request, its session's id, and nothing to wait for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from runtime.cli.call import Call, command


def request_options(function: Any) -> Any:
    """Decorator: adds the argument and the options that `submit` and `run` share."""
    for option in (
        click.argument("request", metavar="REQUEST"),
        click.option("--set", "overrides", metavar="A.B=C", multiple=True, help="Change one value; may be repeated."),
        click.option("--request-id", metavar="ID", help="Repeatable: the same id names the same session for ever."),
    ):
        function = option(function)
    return function


@command("submit")
@request_options
def submit(call: Call, *, request: str, overrides: tuple[str, ...], request_id: str | None) -> None:
    """Submit REQUEST (a YAML, TOML or JSON file, or - for stdin) and return at once."""
    from runtime.api import request_file

    session = call.wait(
        _submit(call, request_file.judged(request, overrides, request_id), request_file.folder(request))
    )
    call.result({"session": session}, session)


async def _submit(call: Call, asked: dict[str, Any], folder: Path) -> str:
    async with call.swarm() as found:
        return await found.submit(asked, folder=folder)
