"""Text that commands print: harmless on a terminal, styled, as tables, and the page about a session.

What others wrote is made harmless here, and only our own styles pass.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from runtime.views.formatting import forked, one_line, printable, suggestion, unfolded

_ESCAPE = f"\x1b{os.urandom(8).hex()}"
"""How our own styles are marked until they are written: no text from elsewhere can hold a mark of this process."""

_STYLE = rf"{_ESCAPE}(\[[0-9;]*m)"


def style(text: str, **how: Any) -> str:
    """As `click.style`, for text that `say` writes; the text itself is kept to one harmless line."""
    return click.style(cell(text), **how).replace("\x1b[", f"{_ESCAPE}[")


def plain(text: str) -> str:
    """The text without our styles."""
    return re.sub(_STYLE, "", text)


def cell(text: str) -> str:
    """The text on one harmless line, as in a row of a table; our styles stay."""
    return _each(text, one_line)


def say(text: str, *, err: bool = False) -> None:
    """Write text and a line break to stdout, or stderr. Without colours where NO_COLOR or no terminal is."""
    # A command's context may be gone by now, so what NO_COLOR decided for it is decided again.
    color = False if os.environ.get("NO_COLOR") else None
    click.echo(render(text), err=err, color=color)


def render(text: str) -> str:
    """What `say` writes."""
    return _each(text, printable).replace(_ESCAPE, "\x1b")


def _each(text: str, make: Callable[[str], str]) -> str:
    """The parts between our styles, made harmless one by one."""
    parts = re.split(_STYLE, text)
    return "".join(f"{_ESCAPE}{part}" if at % 2 else make(part) for at, part in enumerate(parts))


Summary = Mapping[str, Any]
"""A session as `runtime.views.view.summary` tells it, or a part of that."""

COLOURS = {"completed": "green", "failed": "red", "cancelled": "yellow", "training": "cyan", "paused": "yellow"}


def state_text(name: str) -> str:
    """The name of a session's state, coloured on a terminal."""
    return style(name, fg=COLOURS.get(name), bold=True)


def verdict_text(word: str) -> str:
    """A verdict, coloured; nothing where there is none."""
    colour = {"pass": "green", "fail": "red"}.get(word, "yellow")
    return style(word.upper(), fg=colour, bold=True) if word else ""


def summary_text(seen: Summary) -> str:
    """A session's summary as the text that `swarm show` prints."""
    total = f"/{seen['steps_total']}" if seen.get("steps_total") else ""
    best_step, trial = seen.get("best_step"), seen.get("best_trial")
    best = "" if best_step is None or not seen["metrics"] else f"  (best, at step {best_step})"
    best_trial = f"{trial['number']}, session {trial['session']}: {unfolded(trial['parameters'])}" if trial else ""
    rows = [
        ("session", seen["session"]),
        ("state", state_text(seen["state"])),
        ("waits", str(seen.get("waits") or "")),
        ("kind", f"{seen['kind']} {seen.get('name', '')}".rstrip()),
        ("fork of", forked(seen.get("fork"))),
        ("verdict", verdict_text(seen.get("verdict") or "")),
        ("step", f"{seen['step']}{total} (epoch {seen['epoch']}, {seen.get('segments', 1)} segment(s))"),
        ("metrics", _figures(seen["metrics"]) + best),
        ("last", _last(seen.get("last"))),
        ("weights", seen["weights_digest"] or ""),
        ("best trial", best_trial),
        *_range_test(seen.get("range_test")),
        *[(made["kind"], artifact_text(made)) for made in seen["artifacts"]],
        *[("refused", _refusal(one)) for one in seen.get("refused", ())],
        *[(f"intervention {one['number']}", _intervention(one)) for one in seen.get("interventions", ())],
        ("sealed", seen.get("sealed") or ""),
        ("owed", ", ".join(seen.get("owed", ()))),
        ("wall", f"{seen['wall_s']:.1f} s, {seen.get('events', 0)} events"),
    ]
    return pairs(rows) + problem_text(seen.get("problem"))


def _figures(values: Mapping[str, Any]) -> str:
    return "  ".join(f"{name}={value:.4g}" for name, value in values.items() if value is not None)


def _last(evaluation: Summary | None) -> str:
    return f"{_figures(evaluation['metrics'])}  (at step {evaluation['step']})" if evaluation else ""


def _range_test(found: Summary | None) -> list[tuple[str, str]]:
    if found is None:
        return []
    # Late, because pages of help load no schemas.
    from runtime.views.curves import sketch

    rates, losses = found["rates"], found["losses"]
    span = f"losses at rates from {rates[0]:.4g} to {rates[-1]:.4g}" if rates else ""
    return [("learning rate", suggestion(found)), ("curve", f"{sketch(losses)}  {span}")]


def _refusal(refusal: Summary) -> str:
    form = refusal["format"] + (f"/{refusal['quantize']}" if refusal["quantize"] else "")
    return f"{form}: {refusal['message']} {refusal['cure']}".rstrip()


def _intervention(applied: Summary) -> str:
    changes = ", ".join(f"{name} {value}" for name, value in applied["changes"].items())
    return f"by {applied['by']}, from step {applied['step']}: {changes}"


def artifact_text(made: Summary) -> str:
    """One checkpoint or exported file as one line: what it is, its place and its size."""
    if made["kind"] == "checkpoint":
        return f"step {made['step']} (blob {made['digest'][:16]}, {made['bytes']} bytes)"
    form = made["format"] + (f"/{made['quantize']}" if made.get("quantize") else "")
    return f"{form} {made.get('path') or made['digest']} ({made['bytes']} bytes)"


def problem_text(found: Mapping[str, str] | None) -> str:
    """The lines that say why a session did not complete, where it failed, and the cure; empty without a problem."""
    if not found:
        return ""
    where = f"\n  at {cell(found['frame'])}" if found.get("frame") else ""
    cure = f"\n  {style('hint:', fg='cyan')} {cell(found['cure'])}" if found.get("cure") else ""
    return f"\n{style(found['code'] + ':', fg='red', bold=True)} {cell(found['message'])}{where}{cure}"


def pairs(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values below each other; empty values are left out."""
    kept = [(name, value) for name, value in rows if value]
    width = max((len(name) for name, _ in kept), default=0)
    return "\n".join(f"{style(name.ljust(width), dim=True)}  {cell(value)}" for name, value in kept)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned columns under their names, each as wide as its widest cell."""
    rows = [[cell(text) for text in row] for row in rows]
    widths = [max(len(plain(row[i])) for row in (head, *rows)) for i in range(len(head))]

    def drawn(row: Sequence[str]) -> str:
        padded = (cell + " " * (width - len(plain(cell))) for cell, width in zip(row, widths, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join([style(drawn(head), dim=True), *map(drawn, rows)])
