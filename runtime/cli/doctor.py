"""`swarm doctor`: everything that must be right around a home, looked at once; each finding says its cure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from runtime.cli.call import Call, command

if TYPE_CHECKING:
    from runtime.checkup import Finding

MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}


@command("doctor")
def doctor(call: Call) -> int:
    """Check Python, torch, the server, the home, its keys, logs and blobs. Exit code 1 when something fails."""
    from runtime.checkup import checkup

    findings = list(checkup(call.home, call.settings))
    counts = Counter(one.level for one in findings)
    value = {"ok": not counts["fail"], "findings": [one.as_json() for one in findings]}
    call.result(value, lambda: "\n".join(_line(one) for one in findings))
    return 1 if counts["fail"] else 0


def _line(found: Finding) -> str:
    mark, colour = MARKS[found.level]
    cure = f"\n    {click.style('hint:', fg='cyan')} {found.cure}" if found.cure else ""
    return f"{click.style(mark, fg=colour)} {found.level:4} {found.what}: {found.message}{cure}"
