"""`swarm diff`: two sessions side by side, from the home's files or from bundles; no swarm is needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from runtime.cli.call import Call, command, complete_session
from runtime.cli.output import state_text, table
from runtime.cli.session_source import read_session
from runtime.views.formatting import forked, unfolded

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
    from runtime.views.diff import difference

    found = difference(read_session(call, one).history, read_session(call, other).history)
    call.result(found, lambda: page(found))


def page(found: Mapping[str, Any]) -> str:
    """The differences of two sessions as the text that `swarm diff` prints."""
    rows = [("session", *found["sessions"]), ("state", *map(state_text, found["states"]))]
    rows += [row for name in SECTIONS for row in _section(name, found[name])]
    rows += [*_metrics(found["metrics"]), ("weights", *(_short(digest) for digest in found["weights"]))]
    told = [f"{name:<12}{what}" for name, what in _sentences(found)]
    return "\n".join([table(("", "A", "B", ""), [[*row, ""][:4] for row in rows]), "", *told])


def _section(name: str, differing: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for path, values in differing.items():
        yield (f"{name}.{path}", *map(_short, values))


def _metrics(metrics: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, (one, other) in metrics.items():
        change = f"{other - one:+.4g}" if one is not None and other is not None else ""
        yield (name, *(ABSENT if value is None else f"{value:.6g}" for value in (one, other)), change)


def _sentences(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from (
        (f"{side} is", f"a fork of {forked(one)}") for side, one in zip("AB", found["forks"], strict=True) if one
    )
    alike = [name for name in SECTIONS if not found[name]]
    if alike:
        yield "the same", ", ".join(alike)
    yield "fingerprint", _of_fingerprint(found["fingerprint"])
    yield "decisions", _of_decisions(found["decisions"])
    yield "windows", _of_windows(found["windows"])
    yield "evaluations", _of_evaluations(found["evaluations"])


def _of_fingerprint(said: Mapping[str, Any]) -> str:
    one, other = said["digests"]
    if one == other:
        return "the same"
    if None in (one, other):
        return "only one was claimed by a machine"
    return f"differs in {', '.join(said['families']) or 'no family: torch, threads or device'}"


def _of_decisions(said: Mapping[str, Any]) -> str:
    if said["same"]:
        return f"the same {len(said['applied'][0])}" if said["applied"][0] else "none"
    sides = [
        "; ".join(f"at step {one['step']} {unfolded(one['changes'])}, by {one['by']}" for one in applied) or "none"
        for applied in said["applied"]
    ]
    return f"A: {sides[0]}. B: {sides[1]}."


def _of_windows(said: Mapping[str, Any]) -> str:
    one, other = said["reached"]
    if said["parted"] is None:
        beyond = "" if one == other else f"; A goes to step {one}, B to step {other}"
        return f"{said['same']} the same, none differs{beyond}"
    place = said["parted"]
    what = place["field"] + (f", from step {place['step']} on" if place["step"] else "")
    return f"{said['same']} the same, then they part in steps {place['first'] + 1}..{place['last']}: {what}"


def _of_evaluations(said: Mapping[str, Any]) -> str:
    if said["parted"] is None:
        return f"{said['same']} the same, none differs"
    names = ", ".join(said["parted"]["values"])
    return f"{said['same']} the same, then they part at step {said['parted']['step']}: {names}"


def _short(value: Any) -> str:
    if value is None:
        return ABSENT
    text = value if isinstance(value, str) else f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else f"{text[:16]}...{text[-16:]}"
