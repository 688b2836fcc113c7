"""Sessions as text: the summary page and the lines of tables. It decides nothing and reads nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runtime.cli.terminal import cell, plain, style
from runtime.views.sentences import forked, suggestion, unfolded

COLOURS = {"completed": "green", "failed": "red", "cancelled": "yellow", "training": "cyan", "paused": "yellow"}


def state(name: str) -> str:
    """The name of a session's state, coloured on a terminal."""
    return style(name, fg=COLOURS.get(name), bold=True)


def verdict(word: str) -> str:
    """A verdict, coloured; nothing where there is none."""
    colour = {"pass": "green", "fail": "red"}.get(word, "yellow")
    return style(word.upper(), fg=colour, bold=True) if word else ""


def summary(seen: Mapping[str, Any]) -> str:
    """A session's summary as the text that `swarm show` prints."""
    total = f"/{seen['steps_total']}" if seen.get("steps_total") else ""
    rows = [
        ("session", seen["session"]),
        ("state", state(seen["state"])),
        ("waits", str(seen.get("waits") or "")),
        ("kind", f"{seen['kind']} {seen.get('name', '')}".rstrip()),
        ("fork of", forked(seen.get("fork"))),
        ("verdict", verdict(seen.get("verdict") or "")),
        ("step", f"{seen['step']}{total} (epoch {seen['epoch']}, {seen.get('segments', 1)} segment(s))"),
        ("metrics", _figures(seen["metrics"]) + _of_best(seen)),
        ("last", _last(seen.get("last"))),
        ("weights", seen["weights_digest"] or ""),
        ("best trial", _best_trial(seen.get("best_trial"))),
        *_range_test(seen.get("range_test")),
        *[(made["kind"], artifact(made)) for made in seen["artifacts"]],
        *[("refused", _refusal(one)) for one in seen.get("refused", ())],
        *[(f"intervention {one['number']}", _intervention(one)) for one in seen.get("interventions", ())],
        ("sealed", seen.get("sealed") or ""),
        ("owed", ", ".join(seen.get("owed", ()))),
        ("wall", f"{seen['wall_s']:.1f} s, {seen.get('events', 0)} events"),
    ]
    return pairs(rows) + problem(seen.get("problem"))


def _figures(values: Mapping[str, Any]) -> str:
    return "  ".join(f"{name}={value:.4g}" for name, value in values.items() if value is not None)


def _of_best(seen: Mapping[str, Any]) -> str:
    step = seen.get("best_step")
    return "" if step is None or not seen["metrics"] else f"  (best, at step {step})"


def _last(found: Mapping[str, Any] | None) -> str:
    return f"{_figures(found['metrics'])}  (at step {found['step']})" if found else ""


def _best_trial(found: Mapping[str, Any] | None) -> str:
    return f"{found['number']}, session {found['session']}: {unfolded(found['parameters'])}" if found else ""


def _range_test(found: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if found is None:
        return []
    # Late, because pages of help load no schemas.
    from runtime.views.curves import sketch

    rates, losses = found["rates"], found["losses"]
    span = f"losses at rates from {rates[0]:.4g} to {rates[-1]:.4g}" if rates else ""
    return [("learning rate", suggestion(found)), ("curve", f"{sketch(losses)}  {span}")]


def _refusal(one: Mapping[str, Any]) -> str:
    form = one["format"] + (f"/{one['quantize']}" if one["quantize"] else "")
    return f"{form}: {one['message']} {one['cure']}".rstrip()


def _intervention(one: Mapping[str, Any]) -> str:
    changes = ", ".join(f"{name} {value}" for name, value in one["changes"].items())
    return f"by {one['by']}, from step {one['step']}: {changes}"


def artifact(made: Mapping[str, Any]) -> str:
    """One checkpoint or exported file as one line: what it is, its place and its size."""
    if made["kind"] == "checkpoint":
        return f"step {made['step']} (blob {made['digest'][:16]}, {made['bytes']} bytes)"
    form = made["format"] + (f"/{made['quantize']}" if made.get("quantize") else "")
    return f"{form} {made.get('path') or made['digest']} ({made['bytes']} bytes)"


def problem(found: Mapping[str, str] | None) -> str:
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
    rows = [[cell(one) for one in row] for row in rows]
    widths = [max(len(plain(row[i])) for row in (head, *rows)) for i in range(len(head))]

    def drawn(row: Sequence[str]) -> str:
        padded = (cell + " " * (width - len(plain(cell))) for cell, width in zip(row, widths, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join([style(drawn(head), dim=True), *map(drawn, rows)])
