"""Text that commands print: harmless on a terminal, styled, as tables, and the page about a session.

What others wrote is made harmless here, and only our own styles pass.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from runtime.views.formatting import fork_of, in_words, levers_in_words, one_line, printable, suggestion

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


def summary_text(summary: Summary) -> str:
    """A session's summary as the text that `swarm show` prints."""
    total = f"/{summary['steps_total']}" if summary.get("steps_total") else ""
    best_step, trial = summary.get("best_step"), summary.get("best_trial")
    best = "" if best_step is None or not summary["metrics"] else f"  (best, at step {best_step})"
    best_trial = f"{trial['number']}, session {trial['session']}: {in_words(trial['parameters'])}" if trial else ""
    rows = [
        ("session", summary["session"]),
        ("state", state_text(summary["state"])),
        ("waits", str(summary.get("waits") or "")),
        ("kind", f"{summary['kind']} {summary.get('name', '')}".rstrip()),
        ("fork of", fork_of(summary.get("fork"))),
        ("verdict", verdict_text(summary.get("verdict") or "")),
        ("step", f"{summary['step']}{total} (epoch {summary['epoch']}, {summary.get('segments', 1)} segment(s))"),
        ("metrics", _figures(summary["metrics"]) + best),
        ("last", _last(summary.get("last"))),
        ("weights", summary["weights_digest"] or ""),
        ("best trial", best_trial),
        *_range_test(summary.get("range_test")),
        *[(made["kind"], artifact_text(made)) for made in summary["artifacts"]],
        *[("refused", _refusal(entry)) for entry in summary.get("refused", ())],
        *[(f"intervention {entry['number']}", _intervention(entry)) for entry in summary.get("interventions", ())],
        ("sealed", summary.get("sealed") or ""),
        ("owed", ", ".join(summary.get("owed", ()))),
        ("wall", f"{summary['wall_s']:.1f} s, {summary.get('events', 0)} events"),
    ]
    return pairs(rows) + problem_text(summary.get("problem"))


def _figures(values: Mapping[str, Any]) -> str:
    return "  ".join(f"{name}={value:.4g}" for name, value in values.items() if value is not None)


def _last(evaluation: Summary | None) -> str:
    return f"{_figures(evaluation['metrics'])}  (at step {evaluation['step']})" if evaluation else ""


def _range_test(tried: Summary | None) -> list[tuple[str, str]]:
    if tried is None:
        return []
    from runtime.views.blocks import sketch

    rates, losses = tried["rates"], tried["losses"]
    span = f"losses at rates from {rates[0]:.4g} to {rates[-1]:.4g}" if rates else ""
    return [("learning rate", suggestion(tried)), ("curve", f"{sketch(losses)}  {span}")]


def _refusal(refusal: Summary) -> str:
    form = refusal["format"] + (f"/{refusal['quantize']}" if refusal["quantize"] else "")
    return f"{form}: {refusal['message']} {refusal['cure']}".rstrip()


def _intervention(applied: Summary) -> str:
    return f"by {applied['by']}, from step {applied['step']}: {levers_in_words(applied['changes'])}"


def artifact_text(made: Summary) -> str:
    """One checkpoint or exported file as one line: what it is, its place and its size."""
    if made["kind"] == "checkpoint":
        return f"step {made['step']} (blob {made['digest'][:16]}, {made['bytes']} bytes)"
    form = made["format"] + (f"/{made['quantize']}" if made.get("quantize") else "")
    return f"{form} {made.get('path') or made['digest']} ({made['bytes']} bytes)"


def problem_text(problem: Mapping[str, str] | None) -> str:
    """The lines that say why a session did not complete, where it failed, and the cure; empty without a problem."""
    if not problem:
        return ""
    where = f"\n  at {cell(problem['frame'])}" if problem.get("frame") else ""
    cure = f"\n  {style('hint:', fg='cyan')} {cell(problem['cure'])}" if problem.get("cure") else ""
    return f"\n{style(problem['code'] + ':', fg='red', bold=True)} {cell(problem['message'])}{where}{cure}"


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
