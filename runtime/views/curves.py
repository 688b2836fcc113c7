"""A session's figures over its steps, on the path alone: rows as pure functions of its facts, and a table of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Any, overload

from contracts.envelope import Fact
from contracts.errors import count_of
from contracts.event import Event, unpack
from contracts.session import SessionState
from contracts.trainer import AttemptEnded, ControlEvaluated, WindowRecorded, training_seconds
from contracts.validator import CheckpointValidated
from runtime.views.formatting import finite

Row = dict[str, float | None]

MOST_STEPS = 1 << 53
"""Whole numbers below are exact as floating-point numbers too."""

ORDER = ("step", "epoch", "segment", "loss", "loss_last", "learning_rate", "gradient_norm")


class FigureTable:
    """Takes a session's events one by one, and gives one row for each grid step at which something was recorded."""

    def __init__(self, session: SessionState) -> None:
        self._session = session
        self._rows: dict[int, Row] = {}

    def take(self, event: Event) -> None:
        """Keep what the event says of a step on the path."""
        session = self._session
        if isinstance(event, WindowRecorded) and session.training.on_path(event.segment, event.last):
            self._row(event.last, event.segment).update(_window(event))
        elif isinstance(event, ControlEvaluated) and session.training.on_path(event.segment, event.step):
            self._row(event.step, event.segment).update(event.values)
        elif isinstance(event, CheckpointValidated) and session.training.on_path(event.segment, event.step):
            row = self._row(event.step, event.segment)
            row.update({name: value for name, value in validated(event).items() if name not in row})

    def rows(self) -> list[Row]:
        """In order: the window that ended at a step, and what was evaluated and validated there."""
        per_step = epochs_per_step(self._session)
        for step, row in self._rows.items():
            row["epoch"] = round(finite(step) * per_step, 4) if per_step else 0.0
        return [self._rows[step] for step in sorted(self._rows)]

    def _row(self, step: int, segment: int) -> Row:
        return self._rows.setdefault(step, {"step": step, "epoch": 0.0, "segment": segment})


def rows(session: SessionState, facts: Iterable[Fact]) -> list[Row]:
    """One row per grid step, in order: the window that ended there, and what was evaluated and validated there."""
    table = FigureTable(session)
    for fact in facts:
        table.take(fact.event)
    return table.rows()


def validated(event: CheckpointValidated) -> dict[str, float]:
    """What a checkpoint was judged to be worth, by the names that its metrics have in a table."""
    prefix = "test_" if event.split == "test" else "val_"
    return {f"{prefix}{name}": value for name, value in event.metrics.items()}


def epochs_per_step(session: SessionState) -> float:
    """The share of an epoch that one step is; 0 while that is not known."""
    per_step, rows_of_all = _rows(session)
    return float(per_step / rows_of_all) if rows_of_all else 0.0


def rows_per_second(session: SessionState, attempts: Iterable[AttemptEnded]) -> float:
    """Rows trained on per second of all attempts, without what was not spent on training; 0 while it is not known."""
    steps, spent = 0.0, 0.0
    for attempt in attempts:
        steps += finite(attempt.step) - finite(attempt.first)
        spent += training_seconds(attempt.seconds)
    return steps * _rows(session)[0] / spent if spent > 0 and steps > 0 else 0.0


def _rows(session: SessionState) -> tuple[int, int]:
    """The rows of a step, and of all; zeros while they are not known."""
    resolved = session.training.claim.resolved if session.training.claim else {}
    figures = (resolved.get("batch", 0), resolved.get("accumulate", 1), resolved.get("rows", 0))
    # What a stranger's claim has resolved may be anything, and a text times a number is a long text.
    if not all(isinstance(figure, int) and 0 < figure < MOST_STEPS for figure in figures):
        return 0, 0
    batch, accumulate, rows_of_all = figures
    return batch * accumulate, rows_of_all


def columns(table: Iterable[Row]) -> list[str]:
    """The names that occur in a table, the common ones first."""
    seen = dict.fromkeys(name for row in table for name in row)
    return [name for name in ORDER if name in seen] + [name for name in seen if name not in ORDER]


def series(table: Iterable[Row], name: str) -> tuple[list[float], list[float]]:
    """Steps and values of one column, where it has any."""
    points = [(finite(row["step"] or 0), value) for row in table if (value := row.get(name)) is not None]
    return [step for step, _ in points], [value for _, value in points]


def seconds(facts: Iterable[Fact]) -> dict[str, float]:
    """Where the time of training children went, all attempts together, as far as they lived to tell it."""
    total: dict[str, float] = {}
    for fact in facts:
        if isinstance(fact.event, AttemptEnded):
            add_seconds(total, fact.event)
    return total


def add_seconds(total: dict[str, float], event: AttemptEnded) -> None:
    """Add what one attempt took to what all before it did."""
    for name, spent in event.seconds.items():
        total[name] = round(total.get(name, 0.0) + spent, 3)


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


SHOWN = 20
"""Rows that a notebook shows: the first and the last ones."""


class MetricsTable(Sequence[Row]):
    """Rows in the order of steps, each by the names of its columns; `table["loss"]` is a column.

    `pandas.DataFrame(table)` and `polars.DataFrame(list(table))` take it as it is. A row that lacks a column has no
    value there, which is `None` in a column.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = tuple(rows)
        self.columns = columns(rows)

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> MetricsTable: ...
    @overload
    def __getitem__(self, at: str) -> list[Any]: ...
    def __getitem__(self, at: int | slice | str) -> Row | MetricsTable | list[Any]:
        """A row by its place, some rows, or a column by its name (`KeyError` names those that there are)."""
        if isinstance(at, slice):
            return MetricsTable(self._rows[at])
        if isinstance(at, int):
            return self._rows[at]
        if at not in self.columns:
            raise KeyError(f"there is no column {at!r}; there are {', '.join(self.columns) or 'none'}.")
        return [row.get(at) for row in self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def __eq__(self, other: object) -> bool:
        """Equal to any sequence of the same rows."""
        return list(self._rows) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment] # its rows are dicts

    def __repr__(self) -> str:
        return f"<MetricsTable of {count_of(len(self), 'row')}: {', '.join(self.columns)}>"

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(name)}</th>" for name in self.columns)
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in self._shown())
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{count_of(len(self), 'row')}</p>"

    def _repr_markdown_(self) -> str:
        lines = [self.columns, ["---"] * len(self.columns), *self._shown()]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)

    def _shown(self) -> list[list[str]]:
        def cells(row: Row) -> list[str]:
            values = (row.get(name) for name in self.columns)
            return ["" if one is None else f"{one:.6g}" if isinstance(one, float) else str(one) for one in values]

        if len(self) <= SHOWN:
            return [cells(row) for row in self._rows]
        half = SHOWN // 2
        return [*map(cells, self._rows[:half]), ["…"] * len(self.columns), *map(cells, self._rows[-half:])]
