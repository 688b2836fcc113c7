"""Writes the rows of a table into the canonical files of its splits, portion by portion, synthetic ones after them.

What the source calls the rows of each split is kept as blobs: the rows themselves do not know where they came from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from agents.data_manager.findings import Findings
from agents.data_manager.quality import Places
from agents.data_manager.scratch import Scratch, portions
from agents.data_manager.source import DataTable, Tell, digest_of, unusable
from agents.data_manager.synthetic import SyntheticRows, held_by, made, wanted
from bus.blobs import DirectoryBlobs
from contracts.request.data import Synthetic
from runtime.engine.dataset import ColumnFile, StoredColumn
from runtime.engine.ragged import Ragged, apart

PARENTS = "synthetic.jsonl"

_LINE = 50
"""Bytes of disk, at least, in which a synthetic row names its parents."""


def refuse_beyond_room(scratch: Scratch, table: DataTable, places: Places, asked: Synthetic, place: str) -> None:
    """Raise `InvalidRequest`, before a byte of it is written, when the dataset would not fit on the disk."""
    rows, row = sum(map(len, places.values())), sum(map(_bytes_of_a_row, table.columns.values()))
    ragged = sum(one.values.nbytes for one in table.ragged.values()) * rows // max(1, table.length)
    scratch.refuse_beyond(f"a dataset of {rows} rows", place, disk=rows * row + ragged, held=0)
    if asked.share and table.task == "classification" and table.columns.keys() == {"x", "y"}:
        x, more = table.columns["x"], int(wanted(table.columns["y"][places["train"]], len(table.labels), asked).sum())
        held = held_by(int(np.prod(x.shape[1:], dtype=np.int64)), asked) if more else 0
        what = f"a dataset of {rows} rows and {more} synthetic ones"
        scratch.refuse_beyond(what, "data.synthetic", disk=(rows + more) * row + more * _LINE, held=held)


def _bytes_of_a_row(column: np.ndarray) -> int:
    return column.dtype.itemsize * math.prod(column.shape[1:])


def written(
    directory: Path, table: DataTable, places: Places, asked: Synthetic, findings: Findings, tell: Tell
) -> dict[str, dict[str, StoredColumn]]:
    """The splits of a table as files."""
    with ExitStack() as files:
        writers = {
            split: {
                name: files.enter_context(ColumnFile(directory, f"{split}.{name}.bin", one.dtype, one.shape[1:]))
                for name, one in table.columns.items()
            }
            for split in places
        }
        for number, (name, column) in enumerate(table.columns.items()):
            _copy(column, places, {split: writers[split][name] for split in places})
            tell(number + 1, len(table.columns))
        if asked.share:
            _synthesise(directory, table, places["train"], asked, findings, writers["train"])
        found = {split: {name: one.finished() for name, one in columns.items()} for split, columns in writers.items()}
    ragged = {
        split: {name: one.chosen(chosen) for name, one in table.ragged.items()} for split, chosen in places.items()
    }
    return {split: found[split] | columns for split, columns in written_as_given(directory, ragged).items()}


def written_as_given(
    directory: Path, splits: Mapping[str, Mapping[str, np.ndarray | Ragged]]
) -> dict[str, dict[str, StoredColumn]]:
    """Write splits that the source itself has made; returns what was written, by split and column."""
    found: dict[str, dict[str, StoredColumn]] = {}
    for split, columns in splits.items():
        found[split] = {}
        for name, column in apart(columns).items():
            with ColumnFile(directory, f"{split}.{name}.bin", column.dtype, column.shape[1:]) as writing:
                writing.append(column)
                found[split][name] = writing.finished()
    return found


def beside(directory: Path, findings: Findings) -> dict[str, Any]:
    """What the facts say of the lists that lie beside the columns: their digests, so that the root covers them."""
    findings.close()
    lists = sorted(directory.glob("*.jsonl"))
    return {"lists": {one.name: _digest(one) for one in lists}} if lists else {}


def _digest(path: Path) -> str:
    """The BLAKE3 of a list, which may be longer than memory."""
    with path.open("rb") as file:
        return digest_of(file, lambda *_: None)


def _copy(column: np.ndarray, places: Places, writers: Mapping[str, ColumnFile]) -> None:
    for part in portions(column):
        for split, chosen in places.items():
            inside = chosen[np.searchsorted(chosen, part.start) : np.searchsorted(chosen, part.stop)]
            if len(inside):
                writers[split].append(column[part][inside - part.start])


def _synthesise(
    directory: Path,
    table: DataTable,
    train: np.ndarray,
    asked: Synthetic,
    findings: Findings,
    writers: Mapping[str, ColumnFile],
) -> None:
    if table.task != "classification" or {*table.columns, *table.ragged} != {"x", "y"}:
        cure = "Leave `data.synthetic` out."
        raise unusable("data.synthetic", "synthetic rows are made for classes, with one column of features", cure)
    count = len(train)
    with (directory / PARENTS).open("wb") as listed:
        for some in made(table.columns["x"], table.columns["y"], train, table.labels, asked):
            writers["x"].append(some.x)
            writers["y"].append(np.full(len(some.x), some.label, table.columns["y"].dtype))
            listed.writelines(_parents(table, some, count))
            count += len(some.x)
            findings.add("synthetic", f"rows of {table.labels[some.label]!r}", count=len(some.x))
    if count == len(train):
        (directory / PARENTS).unlink()


def _parents(table: DataTable, some: SyntheticRows, count: int) -> list[bytes]:
    label = table.labels[some.label]
    return [
        orjson.dumps(
            {
                "row": count + at + 1,
                "class": label,
                "parents": [table.where(int(some.first[at])), table.where(int(some.second[at]))],
                "share": float(some.share[at]),
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
        for at in range(len(some.x))
    ]


def keep_origins(blobs: DirectoryBlobs, table: DataTable, places: Places, scratch: Scratch) -> dict[str, Any]:
    """The fields of `contracts.data_manager.Origins`, once everything that it names is in the store."""
    named = {split: blobs.put(_listed(table, chosen, scratch.file()), move=True) for split, chosen in places.items()}
    return {"called": "file" if table.names else "row", "blobs": named}


def _listed(table: DataTable, chosen: np.ndarray, file: Path) -> Path:
    if table.names:
        file.write_bytes(b"".join(orjson.dumps(table.names[place]) + b"\n" for place in chosen))
    else:
        numbers = table.rows[chosen] if len(table.rows) else chosen + 1
        numbers.astype("<i8").tofile(file)
    return file
