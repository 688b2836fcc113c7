"""`swarm diff`: two sessions side by side, from the home's files or from bundles; no swarm is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from runtime.api import evidence
from runtime.cli.call import Call, Json, command, complete_session
from runtime.cli.output import state_text, table
from runtime.views.formatting import fork_of, levers_in_words

SECTIONS = ("request", "resolved", "environment", "code", "data")
ABSENT = "-"


@command("diff")
@click.argument("one", metavar="A", shell_complete=complete_session)
@click.argument("other", metavar="B", shell_complete=complete_session)
def diff(call: Call, *, one: str, other: str) -> None:
    """Show in what sessions A and B differ: request, machine, data, decisions, the first window, the outcome.

    A and B are sessions, or the paths of bundles. Steps are counted from 1. Only what differs is listed; metrics are
    shown in any case.
    """
    differing = evidence.diff(call, one, other)
    call.result(differing, lambda: diff_page(differing))


def diff_page(difference: Json) -> str:
    """The differences of two sessions as the text that `swarm diff` prints."""
    rows = [("session", *difference["sessions"]), ("state", *map(state_text, difference["states"]))]
    for section in SECTIONS:
        rows += [(f"{section}.{path}", *map(_short, values)) for path, values in difference[section].items()]
    for name, (one, other) in difference["metrics"].items():
        change = f"{other - one:+.4g}" if one is not None and other is not None else ""
        rows.append((name, *(ABSENT if value is None else f"{value:.6g}" for value in (one, other)), change))
    rows.append(("weights", *map(_short, difference["weights"])))
    sentences = [
        (f"{side} is", f"a fork of {fork_of(fork)}")
        for side, fork in zip("AB", difference["forks"], strict=True)
        if fork
    ]
    alike = [section for section in SECTIONS if not difference[section]]
    sentences += [("the same", ", ".join(alike))] if alike else []
    sentences += [(name, tell(difference[name])) for name, tell in _TELLERS.items()]
    lines = [f"{name:<12}{sentence}" for name, sentence in sentences]
    return "\n".join([table(("", "A", "B", ""), [[*row, ""][:4] for row in rows]), "", *lines])


def _fingerprint(compared: Json) -> str:
    one, other = compared["digests"]
    if one == other:
        return "the same"
    if None in (one, other):
        return "only one was claimed by a machine"
    return f"differs in {', '.join(compared['families']) or 'no family: torch, threads or device'}"


def _decisions(compared: Json) -> str:
    if compared["same"]:
        return f"the same {len(compared['applied'][0])}" if compared["applied"][0] else "none"
    sides = [
        "; ".join(f"at step {one['step']} {levers_in_words(one['changes'])}, by {one['by']}" for one in applied)
        or "none"
        for applied in compared["applied"]
    ]
    return f"A: {sides[0]}. B: {sides[1]}."


def _windows(compared: Json) -> str:
    one, other = compared["reached"]
    place = compared["parted"]
    if place is None:
        beyond = "" if one == other else f"; A goes to step {one}, B to step {other}"
        return f"{compared['same']} the same, none differs{beyond}"
    what = place["field"] + (f", from step {place['step']} on" if place["step"] else "")
    return f"{compared['same']} the same, then they part in steps {place['first'] + 1}..{place['last']}: {what}"


def _evaluations(compared: Json) -> str:
    place = compared["parted"]
    if place is None:
        return f"{compared['same']} the same, none differs"
    return f"{compared['same']} the same, then they part at step {place['step']}: {', '.join(place['values'])}"


_TELLERS: dict[str, Callable[[Json], str]] = {
    "fingerprint": _fingerprint,
    "decisions": _decisions,
    "windows": _windows,
    "evaluations": _evaluations,
}
"""By section of a difference: how it is told in a sentence."""


def _short(value: Any) -> str:
    if value is None:
        return ABSENT
    text = value if isinstance(value, str) else f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else f"{text[:16]}...{text[-16:]}"
