"""JSON objects as blocks: which keys are columns, which rows are no such object. It finds no objects in texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from agents.data_manager.scratch import CHUNK
from agents.data_manager.sources.blocks import CELLS, Cells, RowBlock
from agents.data_manager.sources.cells import NestedCell

FIRST = 1000
"""So many rows say what the columns are: the keys that at least half of them have."""

_NESTED = (list, dict)


class SourceRow(NamedTuple):
    """One row: the object (or why there is none), the line it ends in, and about how many bytes it took."""

    value: Mapping[str, Any] | str
    line: int
    weight: int


def names_of(records: Iterable[SourceRow]) -> tuple[str, ...]:
    """The columns, in the order in which they first appear."""
    counts: Counter[str] = Counter()
    rows = 0
    for record, _ in zip(records, range(FIRST), strict=False):
        if not isinstance(record.value, str):
            rows += 1
            counts.update(dict.fromkeys(record.value, 1))
    return tuple(name for name, count in counts.items() if 2 * count >= rows)


def blocks_of(records: Iterable[SourceRow], known: Sequence[str], names: Sequence[str]) -> Iterator[RowBlock]:
    """The chosen columns `names` of all rows; a key that is not `known` makes a row corrupt."""
    first, weight = 1, 0
    rows: list[SourceRow] = []
    for record in records:
        rows.append(record)
        weight += record.weight
        if len(rows) * len(known) >= CELLS or weight >= CHUNK:
            yield _block(first, rows, known, names)
            first, rows, weight = first + len(rows), [], 0
    if rows:
        yield _block(first, rows, known, names)


def _block(first: int, rows: list[SourceRow], known: Sequence[str], names: Sequence[str]) -> RowBlock:
    allowed, broken, objects = set(known), {}, []
    for at, row in enumerate(rows):
        value: Mapping[str, Any] = {}
        if isinstance(row.value, str):
            broken[at] = row.value
        elif not row.value.keys() <= allowed:
            strange = next(key for key in row.value if key not in allowed)
            broken[at] = f"the key {strange[:40]!r} is not a column: most rows lack it"
        else:
            value = row.value
        objects.append(value)
    columns = [_flat([one.get(name) for one in objects]) for name in names]
    lines = [row.line for row in rows] if rows[0].line else []
    return RowBlock(first, len(rows), columns, broken, lines)


def _flat(cells: list[Any]) -> Cells:
    if not set(map(type, cells)) & set(_NESTED):
        return cells
    return [NestedCell(f"a {type(one).__name__}") if isinstance(one, _NESTED) else one for one in cells]
