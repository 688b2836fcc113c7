"""`swarm events`: a session's events as NDJSON, each at its 1-based position."""

from __future__ import annotations

import click

from runtime.cli.call import Call, command
from runtime.cli.named import session_argument
from runtime.cli.reach import find, reader
from runtime.cli.terminal import say
from runtime.views import sentences


@command("events")
@session_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the session has ended.")
@click.option("--after", metavar="SEQ", type=click.IntRange(min=0), default=0, help="Begin behind this position.")
@click.option("--lane", metavar="ROLE", help="Only what this role said.")
@click.option("--name", metavar="NAME", help="Only events of this name, such as window.recorded.")
@click.option("--plain", is_flag=True, help="One sentence per event instead of JSON.")
def events(
    call: Call, *, session: str, follow: bool, after: int, lane: str | None, name: str | None, plain: bool
) -> None:
    """Print the events of session S, one JSON object per line."""
    call.wait(_print(call, session, follow=follow, after=after, only=(lane, name), plain=plain and not call.json))


async def _print(
    call: Call, name: str, *, follow: bool, after: int, only: tuple[str | None, str | None], plain: bool
) -> None:
    lane, event = only
    async with reader(call) as found:
        session = await find(found, name)
        async for line in found.events(session, after=after, follow=follow):
            if lane in (None, line["lane"]) and event in (None, line["name"]):
                if plain:
                    say(sentences.plain(line))
                else:
                    call.line(line)
