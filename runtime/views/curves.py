"""A session's figures over its steps, as rows of a table: pure functions of its facts, on the path alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from contracts.envelope import Fact
from contracts.event import unpack
from contracts.session import SessionState
from contracts.trainer import AttemptEnded, ControlEvaluated, WindowRecorded
from contracts.validator import CheckpointValidated

Row = dict[str, Any]

ORDER = ("step", "epoch", "segment", "loss", "loss_last", "learning_rate", "gradient_norm")

BLOCKS = "▁▂▃▄▅▆▇█"


def rows(session: SessionState, facts: Iterable[Fact]) -> list[Row]:
    """One row per grid step, in order: the window that ended there, and what was evaluated and validated there."""
    found: dict[int, Row] = {}
    for fact in facts:
        event = fact.event
        if isinstance(event, WindowRecorded) and session.on_path(event.segment, event.last):
            _row(found, event.last, event.segment).update(_window(event))
        elif isinstance(event, ControlEvaluated) and session.on_path(event.segment, event.step):
            _row(found, event.step, event.segment).update(event.values)
        elif isinstance(event, CheckpointValidated) and session.on_path(event.segment, event.step):
            prefix = "test_" if event.split == "test" else "val_"
            row = _row(found, event.step, event.segment)
            row.update({f"{prefix}{name}": value for name, value in event.metrics.items() if prefix + name not in row})
    resolved = session.claim.resolved if session.claim else {}
    rows_per_step = resolved.get("batch", 0) * resolved.get("accumulate", 1)
    per_step = float(rows_per_step / resolved["rows"]) if resolved.get("rows") else 0.0
    for step, row in found.items():
        row["epoch"] = round(step * per_step, 4)
    return [found[step] for step in sorted(found)]


def columns(table: Iterable[Row]) -> list[str]:
    """The names that occur in a table, the common ones first."""
    seen = dict.fromkeys(name for row in table for name in row)
    return [name for name in ORDER if name in seen] + [name for name in seen if name not in ORDER]


def series(table: Iterable[Row], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one column, where it has any."""
    points = [(row["step"], row[name]) for row in table if row.get(name) is not None]
    return [step for step, _ in points], [value for _, value in points]


def sketch(values: Sequence[float | None], width: int = 50) -> str:
    """Values as a row of blocks, several in one where there are many; what is not finite is a gap."""
    per = max(1, math.ceil(len(values) / width))
    groups = (values[at : at + per] for at in range(0, len(values), per))
    finite_groups = (sorted(x for x in group if x is not None and math.isfinite(x)) for group in groups)
    points = [group[len(group) // 2] if group else None for group in finite_groups]
    finite = [point for point in points if point is not None]
    if not finite:
        return ""
    low, high = bounds(finite)
    return "".join(" " if point is None else _block(point, low, high) for point in points)


def bounds(values: Sequence[float]) -> tuple[float, float]:
    """Between which values a curve is drawn: as far above the first as the lowest lies below it, and no higher.

    A loss that explodes at its end would else hide everything before.
    """
    low, high = min(values, default=0.0), max(values, default=0.0)
    return low, (min(high, 2 * values[0] - low) if values and values[0] > low else high)


def _block(value: float, low: float, high: float) -> str:
    # Halved, because the difference of two numbers may be too large for a number.
    share = (min(value, high) / 2 - low / 2) / (high / 2 - low / 2) if high > low else 0.0
    return BLOCKS[round(share * (len(BLOCKS) - 1))]


def seconds(facts: Iterable[Fact]) -> dict[str, float]:
    """Where the time of training children went, all attempts together, as far as they lived to tell it."""
    total: dict[str, float] = {}
    for fact in facts:
        if isinstance(fact.event, AttemptEnded):
            for name, spent in fact.event.seconds.items():
                total[name] = round(total.get(name, 0.0) + spent, 3)
    return total


def _row(found: dict[int, Row], step: int, segment: int) -> Row:
    return found.setdefault(step, {"step": step, "epoch": 0.0, "segment": segment})


def _window(event: WindowRecorded) -> Row:
    losses = unpack(event.losses)
    row: Row = {
        "loss": sum(losses) / len(losses) if losses else None,
        "loss_last": losses[-1] if losses else None,
        "learning_rate": event.learning_rate,
        "gradient_norm": event.gradient_norm,
    }
    for name, packed in event.scalars.items():
        values = unpack(packed)
        row[name] = sum(values) / len(values) if values else None
    return row
