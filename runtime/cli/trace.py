"""`swarm trace`: from a row to the steps that saw it, and from a step to its rows; from files, without a scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from contracts.errors import NotVerified
from runtime.cli.call import Call, command, complete_session
from runtime.cli.output import pairs
from runtime.cli.session_source import open_subject

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
    with open_subject(call, session) as source:
        from runtime.log.archive import Archive
        from runtime.views.trace import Trace

        archive = Archive(call.home) if source.home else None
        found = Trace.of(source.kept.history, source.blobs, archive)
        told = found.step(step) if step is not None else found.row(str(row), limit)
    call.result(told, lambda: _of_step(told) if step is not None else _of_row(told))
    wrong = [one for one in told.get("windows", ()) if not one["held"]]
    if wrong:
        message = f"event {wrong[0]['event']} was recorded over another order of rows than this one."
        raise NotVerified(message, cure=f"Find out why: swarm audit {session} --mode bisect")


def _of_row(told: Mapping[str, Any]) -> str:
    rows = [("session", told["session"])]
    if "set_aside" in told:
        return pairs(
            [*rows, ("row", told["set_aside"]["where"]), ("seen", f"never: set aside as {told['set_aside']['kind']}")]
        )
    rows.append(("row", _called(told["row"], told["source"])))
    if "evaluated" in told:
        judged = _steps(told["evaluated"]) if told["evaluated"] else "not yet"
        return pairs([*rows, ("trained on", "never"), ("judged by", f"weights of steps {judged}")])
    rows.append(("seen", _times(told)))
    rows += [("left out", _times(told["left_out"]))] if "left_out" in told else []
    if "unknown" in told:
        rows.append(
            ("not known", f"the steps up to {told['unknown']['upto']}: {told['unknown']['session']} is not here")
        )
    rows += [
        ("superseded", f"{_times(one)} (steps {one['first']}..{one['last']} of segment {one['segment']})")
        for one in told["superseded"]
    ]
    return pairs([*rows, *_windows(told)])


def _of_step(told: Mapping[str, Any]) -> str:
    rows = [("session", told["session"]), ("step", str(told["step"]))]
    rows += [(_made(one), f"segment {one['segment']}") for one in told["made"]]
    rows += _windows(told)
    listed = [_line(one) for one in told["rows"]]
    return "\n".join([pairs(rows), "", f"{len(listed)} rows of {told['source']}, in their order:", *listed])


def _line(row: Mapping[str, Any]) -> str:
    left_out = "left out" if row.get("left_out") else ""
    return f"{row['place']:<12}{row['name'] or '':<12}{left_out}".rstrip()


def _made(one: Mapping[str, Any]) -> str:
    return "made by" if one["on_path"] else "superseded"


def _called(row: Mapping[str, Any], source: str) -> str:
    return f"{row['place']}, {row['name']} of {source}" if row["name"] else f"{row['place']} of {source}"


def _times(told: Mapping[str, Any]) -> str:
    if not told["times"]:
        return "never"
    count = f"{told['times']} times" if told["times"] > 1 else "once"
    return f"{count}, in steps {_steps(told['steps'], told['more'])}"


def _steps(steps: Sequence[int], more: int = 0) -> str:
    left = len(steps) - SHOWN + more
    shown = ", ".join(map(str, steps[:SHOWN]))
    return f"{shown} and {left} more" if left > 0 else shown


def _windows(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (
            "window",
            f"steps {one['first'] + 1}..{one['last']} (event {one['event']}): "
            + ("recorded over this very order of rows" if one["held"] else "recorded over ANOTHER order of rows"),
        )
        for one in told["windows"]
    ]
