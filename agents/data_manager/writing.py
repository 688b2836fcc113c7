"""Writes the rows of a table into the canonical files of its splits, portion by portion, synthetic ones after them.

What the source calls the rows of each split is kept as blobs: the rows themselves do not know where they came from.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import orjson

from agents.data_manager import synthetic
from agents.data_manager.findings import Findings
from agents.data_manager.scratch import Scratch, portions, row_bytes
from agents.data_manager.source import DataTable, Places, Tell, digest_of, unusable
from bus.blobs import DirectoryBlobs
from contracts.request.data import Synthetic
from runtime.engine.dataset import ColumnFile, StoredColumn
from runtime.engine.ragged import Ragged, apart

PARENTS = "synthetic.jsonl"

_LINE = 50
"""Bytes of disk, at least, in which a synthetic row names its parents."""


def refuse_beyond_room(scratch: Scratch, table: DataTable, places: Places, asked: Synthetic, place: str) -> None:
    """Raise `InvalidRequest`, before a byte of it is written, when the dataset would not fit on the disk."""
    rows, row = sum(map(len, places.values())), sum(map(row_bytes, table.columns.values()))
    ragged = sum(column.values.nbytes for column in table.ragged.values()) * rows // max(1, table.length)
    scratch.refuse_beyond(f"a dataset of {rows} rows", place, disk=rows * row + ragged, held=0)
    if asked.share and table.task == "classification" and table.columns.keys() == {"x", "y"}:
        x, classes = table.columns["x"], table.columns["y"][places["train"]]
        more = int(synthetic.count_lacking(classes, len(table.labels), asked).sum())
        held = synthetic.held_by(int(np.prod(x.shape[1:], dtype=np.int64)), asked) if more else 0
        what = f"a dataset of {rows} rows and {more} synthetic ones"
        scratch.refuse_beyond(what, "data.synthetic", disk=(rows + more) * row + more * _LINE, held=held)


def write_splits(
    directory: Path, table: DataTable, places: Places, asked: Synthetic, findings: Findings, tell: Tell
) -> dict[str, dict[str, StoredColumn]]:
    """The splits of a table as files."""
    with ExitStack() as files:
        writers = {
            split: {
                name: files.enter_context(ColumnFile(directory, f"{split}.{name}.bin", column.dtype, column.shape[1:]))
                for name, column in table.columns.items()
            }
            for split in places
        }
        for number, (name, column) in enumerate(table.columns.items()):
            _copy(column, places, {split: writers[split][name] for split in places})
            tell(number + 1, len(table.columns))
        if asked.share:
            _synthesise(directory, table, places["train"], asked, findings, writers["train"])
        stored = {split: {name: file.finished() for name, file in of.items()} for split, of in writers.items()}
    ragged = {split: {name: column.chosen(at) for name, column in table.ragged.items()} for split, at in places.items()}
    return {split: stored[split] | columns for split, columns in write_given(directory, ragged).items()}


def write_given(
    directory: Path, splits: Mapping[str, Mapping[str, np.ndarray | Ragged]]
) -> dict[str, dict[str, StoredColumn]]:
    """Write splits that the source itself has made; returns what was written, by split and column."""
    stored: dict[str, dict[str, StoredColumn]] = {}
    for split, columns in splits.items():
        stored[split] = {}
        for name, column in apart(columns).items():
            with ColumnFile(directory, f"{split}.{name}.bin", column.dtype, column.shape[1:]) as writing:
                writing.append(column)
                stored[split][name] = writing.finished()
    return stored


def digests_of_lists(directory: Path, findings: Findings) -> dict[str, object]:
    """What the facts say of the lists that lie beside the columns: their digests, so that the root covers them."""
    findings.close()
    lists = sorted(directory.glob("*.jsonl"))
    digests: dict[str, str] = {}
    for path in lists:
        # A list may be longer than memory.
        with path.open("rb") as file:
            digests[path.name] = digest_of(file, lambda *_: None)
    return {"lists": digests} if lists else {}


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
        for some in synthetic.synthesise(table.columns["x"], table.columns["y"], train, table.labels, asked):
            writers["x"].append(some.x)
            writers["y"].append(np.full(len(some.x), some.label, table.columns["y"].dtype))
            label = table.labels[some.label]
            for number, (first, second, share) in enumerate(zip(some.first, some.second, some.share, strict=True), 1):
                parents = [table.where(int(first)), table.where(int(second))]
                line = {"row": count + number, "class": label, "parents": parents, "share": float(share)}
                listed.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
            count += len(some.x)
            findings.add("synthetic", f"rows of {label!r}", count=len(some.x))
    if count == len(train):
        (directory / PARENTS).unlink()


def keep_origins(blobs: DirectoryBlobs, table: DataTable, places: Places, scratch: Scratch) -> dict[str, object]:
    """The fields of `contracts.data_manager.Origins`, once everything that it names is in the store."""
    named: dict[str, str] = {}
    for split, chosen in places.items():
        file = scratch.file()
        if table.names:
            file.write_bytes(b"".join(orjson.dumps(table.names[place]) + b"\n" for place in chosen))
        else:
            numbers = table.rows[chosen] if len(table.rows) else chosen + 1
            numbers.astype("<i8").tofile(file)
        named[split] = blobs.put(file, move=True)
    return {"called": "file" if table.names else "row", "blobs": named}
