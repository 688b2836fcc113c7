"""A session's figures over its steps as a table that needs no library and that every library takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any, overload

from runtime.views import curves

SHOWN = 20
"""Rows that a notebook shows: the first and the last ones."""


class MetricsTable(Sequence[curves.Row]):
    """Rows in the order of steps, each by the names of its columns; `table["loss"]` is a column.

    `pandas.DataFrame(table)` and `polars.DataFrame(list(table))` take it as it is. A row that lacks a column has no
    value there, which is `None` in a column.
    """

    def __init__(self, rows: Sequence[curves.Row]) -> None:
        self._rows = tuple(rows)
        self.columns = curves.columns(rows)

    @overload
    def __getitem__(self, at: int) -> curves.Row: ...
    @overload
    def __getitem__(self, at: slice) -> MetricsTable: ...
    @overload
    def __getitem__(self, at: str) -> list[Any]: ...
    def __getitem__(self, at: int | slice | str) -> curves.Row | MetricsTable | list[Any]:
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

    def __iter__(self) -> Iterator[curves.Row]:
        return iter(self._rows)

    def __eq__(self, other: object) -> bool:
        """Equal to any sequence of the same rows."""
        return list(self._rows) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment] # its rows are dicts

    def __repr__(self) -> str:
        return f"<MetricsTable of {len(self)} rows: {', '.join(self.columns)}>"

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(name)}</th>" for name in self.columns)
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in self._shown())
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{len(self)} rows</p>"

    def _repr_markdown_(self) -> str:
        lines = [self.columns, ["---"] * len(self.columns), *self._shown()]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)

    def _shown(self) -> list[list[str]]:
        def cells(row: curves.Row) -> list[str]:
            values = (row.get(name) for name in self.columns)
            return ["" if one is None else f"{one:.6g}" if isinstance(one, float) else str(one) for one in values]

        if len(self) <= SHOWN:
            return [cells(row) for row in self._rows]
        half = SHOWN // 2
        return [*map(cells, self._rows[:half]), ["…"] * len(self.columns), *map(cells, self._rows[-half:])]
