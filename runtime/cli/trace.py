"""`swarm trace`: from a row to the steps that saw it, and from a step to its rows; from files, without a scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from contracts.errors import NotVerified, count_of
from runtime.api import evidence
from runtime.cli.call import Call, command, complete_session
from runtime.cli.output import pairs

if TYPE_CHECKING:
    from runtime.views.trace import RowAnswer, RowLine, StepAnswer, StepsLine, WindowLine

SHOWN = 12


@command("trace")
@click.argument("session", metavar="S|BUNDLE", shell_complete=complete_session)
@click.option("--row", metavar="ID", help="A row: its number in the source, its file, or its place, such as train:17.")
@click.option("--step", metavar="N", type=click.IntRange(min=1), help="The step that led from N - 1 attempts to N.")
@click.option(
    "--limit", metavar="K", type=click.IntRange(min=1), default=1000, show_default=True, help="List at most K steps."
)
def trace(call: Call, *, session: str, row: str | None, step: int | None, limit: int) -> None:
    """Show which steps of session S saw a row, or which rows a step saw. Steps and rows are counted from 1.

    Steps that a rewind superseded are told apart from those on the path. What is found is held against the digests
    of the rows' order that the log has for each window; exit code 3 when they are not the same.
    """
    if (row is None) == (step is None):
        raise click.UsageError("Give --row or --step, and not both.")
    if step is not None:
        of_step = evidence.trace(call, session, step)
        call.result(of_step, lambda: step_page(of_step))
        windows = of_step["windows"]
    else:
        of_row = evidence.trace(call, session, evidence.RowWish(str(row), limit))
        call.result(of_row, lambda: row_page(of_row))
        windows = of_row.get("windows", [])
    wrong = [window for window in windows if not window["held"]]
    if wrong:
        message = f"event {wrong[0]['event']} was recorded over another order of rows than this one."
        raise NotVerified(message, cure=f"Find out why: swarm audit {session} --mode bisect")


def row_page(answer: RowAnswer) -> str:
    """The steps that saw a row as the text that `swarm trace --row` prints."""
    rows = [("session", answer["session"])]
    if "set_aside" in answer:
        aside = answer["set_aside"]
        return pairs([*rows, ("row", aside["where"]), ("seen", f"never: set aside as {aside['kind']}")])
    row, source = answer["row"], answer["source"]
    rows.append(("row", f"{row['place']}, {row['name']} of {source}" if row["name"] else f"{row['place']} of {source}"))
    if "evaluated" in answer:
        judged = _steps(answer["evaluated"]) if answer["evaluated"] else "not yet"
        return pairs([*rows, ("trained on", "never"), ("judged by", f"weights of steps {judged}")])
    seen: StepsLine = {"times": answer["times"], "steps": answer["steps"], "more": answer["more"]}
    rows.append(("seen", _times(seen)))
    rows += [("left out", _times(answer["left_out"]))] if "left_out" in answer else []
    if "unknown" in answer:
        unknown = answer["unknown"]
        rows.append(("not known", f"the steps up to {unknown['upto']}: {unknown['session']} is not here"))
    for made in answer["superseded"]:
        steps = f"steps {made['first']}..{made['last']} of segment {made['segment']}"
        rows.append(("superseded", f"{_times(made)} ({steps})"))
    return pairs([*rows, *_windows(answer["windows"])])


def step_page(answer: StepAnswer) -> str:
    """The rows that a step saw as the text that `swarm trace --step` prints."""
    rows = [("session", answer["session"]), ("step", str(answer["step"]))]
    rows += [("made by" if m["on_path"] else "superseded", f"segment {m['segment']}") for m in answer["made"]]
    listed = [_line(row) for row in answer["rows"]]
    head = f"{count_of(len(listed), 'row')} of {answer['source']}, in their order:"
    return "\n".join([pairs([*rows, *_windows(answer["windows"])]), "", head, *listed])


def _line(row: RowLine) -> str:
    left_out = "left out" if row.get("left_out") else ""
    return f"{row['place']:<12}{row['name'] or '':<12}{left_out}".rstrip()


def _times(comings: StepsLine) -> str:
    if not comings["times"]:
        return "never"
    count = f"{comings['times']} times" if comings["times"] > 1 else "once"
    return f"{count}, in steps {_steps(comings['steps'], comings['more'])}"


def _steps(steps: Sequence[int], more: int = 0) -> str:
    left = len(steps) - SHOWN + more
    shown = ", ".join(map(str, steps[:SHOWN]))
    return f"{shown} and {left} more" if left > 0 else shown


def _windows(windows: Sequence[WindowLine]) -> list[tuple[str, str]]:
    rows = []
    for window in windows:
        order = "this very order of rows" if window["held"] else "ANOTHER order of rows"
        steps = f"steps {window['first'] + 1}..{window['last']} (event {window['event']})"
        rows.append(("window", f"{steps}: recorded over {order}"))
    return rows
