"""`swarm doctor`: everything that must be right around a home, looked at once; each finding says its cure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from runtime.cli.call import Call, command
from runtime.cli.terminal import cell, style

if TYPE_CHECKING:
    from runtime.host.checkup import CheckResult

MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}


@command("doctor")
@click.option("--repair", is_flag=True, help="Set damaged copies of the log aside; the next start writes them anew.")
def doctor(call: Call, *, repair: bool) -> int:
    """Check Python, torch, the server, the home, its keys, logs and blobs. Exit code 1 when something fails."""
    from runtime.home.home import Home
    from runtime.host.checkup import checkup

    moved = _repaired(call) if repair else []
    # Not the call's own home, which is refused when something is wrong with it.
    findings = list(checkup(Home(call.settings.home), call.settings))
    counts = Counter(one.level for one in findings)
    value = {"ok": not counts["fail"], "findings": [one.as_json() for one in findings]}
    call.result(value | ({"set_aside": moved} if repair else {}), lambda: "\n".join(_line(one) for one in findings))
    return 1 if counts["fail"] else 0


def _repaired(call: Call) -> list[str]:
    from runtime.log.recovery import repair

    moved = [str(path) for path in repair(call.home)]
    for path in moved:
        call.note(f"Set aside: {path}")
    call.note("The next start reads the whole log and completes the files: swarm up -d")
    return moved


def _line(found: CheckResult) -> str:
    mark, colour = MARKS[found.level]
    cure = f"\n    {style('hint:', fg='cyan')} {found.cure}" if found.cure else ""
    return f"{style(mark, fg=colour)} {found.level:4} {found.what}: {cell(found.message)}{cure}"
