"""`swarm asyncapi`: the swarm's channels and messages for programs in any language."""

from __future__ import annotations

from typing import IO
from urllib.parse import urlsplit

import click
import orjson

from runtime.cli.call import Call, command


@command("asyncapi")
@click.option("-o", "--output", metavar="FILE", type=click.File("wb", lazy=True), help="Write it there.")
def asyncapi(call: Call, *, output: IO[bytes] | None) -> None:
    """Print the AsyncAPI 3 document of every subject, with a JSON Schema for every message."""
    from runtime.asyncapi import document

    host = call.home.host()
    found = document(host=urlsplit(host.url).netloc) if host is not None and host.alive else document()
    if output is not None:
        output.write(orjson.dumps(found, option=orjson.OPT_INDENT_2))
        return
    call.result(found, lambda: orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
