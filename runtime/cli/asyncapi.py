"""`swarm asyncapi`: the swarm's channels and messages for programs in any language."""

from __future__ import annotations

from urllib.parse import urlsplit

import click
import orjson

from runtime.cli.call import Call, command
from runtime.cli.output import place


@command("asyncapi")
@click.option("-o", "--output", metavar="FILE", help="Write it there.")
def asyncapi(call: Call, *, output: str | None) -> None:
    """Print the AsyncAPI 3 document of every subject, with a JSON Schema for every message."""
    from runtime.commands.asyncapi import document

    host = call.home.host()
    path = place(output) if output is not None else None
    found = document(host=urlsplit(host.url).netloc) if host is not None and host.alive else document()
    text = orjson.dumps(found, option=orjson.OPT_INDENT_2)
    if path is None:
        call.result(found, text.decode())
    else:
        path.write_bytes(text)
        call.result({"path": str(path)}, f"Wrote {path}")
