"""`swarm trials`: the trials of a search as a table, and the request that trains one of them in full."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from runtime.api import evidence
from runtime.api.evidence import output_path, page_path, write_text
from runtime.cli.call import Call, command, complete_session
from runtime.cli.pages import answer_page
from runtime.cli.sessions import terminal_columns

WIDE = 120
"""Columns of a terminal from which on the sessions of trials are listed too."""


@command("trials")
@click.argument("session", metavar="S|BUNDLE", shell_complete=complete_session)
@click.option("--sort", type=click.Choice(("number", "value", "epochs", "time")), default="number", show_default=True)
@click.option("-n", "--limit", type=click.IntRange(min=1), help="Only the first so many.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, with a column for each parameter.")
@click.option("--request", "trial", metavar="N|best", help="Print the request that trains this trial in full.")
@click.option("-o", "--out", "--output", "out", metavar="FILE", help="Write to FILE; a page as its ending says.")
@click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")
def trials(
    call: Call,
    *,
    session: str,
    sort: str,
    limit: int | None,
    as_csv: bool,
    trial: str | None,
    out: str | None,
    force: bool,
) -> None:
    """Show the trials of search S: number, state, value, what they cost, and the parameters of each.

    Everything comes from the search's log, so it is shown while the search runs as well. By value the best comes
    first. What is written with --out as a page has the plots too. --request prints YAML for `swarm run -`.
    """
    if as_csv and trial is not None:
        raise click.UsageError("--csv and --request each say what is written; give one.")
    path = None if out is None else output_path(out, force=force) if as_csv or trial is not None else page_path(out)
    if trial is not None:
        request, text = evidence.trial_request(call, session, trial)
        _write(call, {"session": session, "request": request}, text, path)
        return
    from runtime.views.trials import sorted_trials, trials_csv, trials_page

    answer = evidence.trials(call, session)
    shown = sorted_trials(answer, sort)[:limit]
    if as_csv:
        _write(call, {**answer, "trials": shown}, trials_csv(shown), path)
        return
    columns = terminal_columns()
    sessions = path is not None or columns is None or columns >= WIDE
    answer_page(call, {**answer, "trials": shown}, lambda: trials_page(answer, shown, sessions=sessions), path)


def _write(call: Call, answer: Mapping[str, object], text: str, path: Path | None) -> None:
    """Text for a program that reads files: to the file if one was named, else to stdout as it is."""
    if path is not None:
        write_text(path, text)
        call.note(f"Wrote {path}")
    if call.json or path is None:
        call.result(answer, text.rstrip("\n"))
