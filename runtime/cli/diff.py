"""`swarm diff`: two sessions side by side, from the home's files or from bundles; no swarm is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.api.session_source import read_session
from runtime.cli.call import Call, command, complete_session
from runtime.cli.pages import answer_page, page_option

if TYPE_CHECKING:
    from runtime.views.blocks import Page


@command("diff")
@click.argument("one", metavar="A", shell_complete=complete_session)
@click.argument("other", metavar="B", shell_complete=complete_session)
@page_option
def diff(call: Call, *, one: str, other: str, out: Path | None) -> None:
    """Show in what sessions A and B differ: request, machine, data, decisions, the first window, the outcome.

    A and B are sessions, or the paths of bundles. Steps are counted from 1. Only what differs is listed; metrics are
    shown in any case. A page that is written with --out also has the curves of both.
    """
    from runtime.views.diff import diff_page, difference

    logs = read_session(call, one).history, read_session(call, other).history
    differing = difference(*logs)

    def page() -> Page:
        return diff_page(differing, logs if out else None)

    answer_page(call, differing, page, out)
