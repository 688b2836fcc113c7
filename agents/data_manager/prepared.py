"""From an opened source to a dataset in a directory: read, set aside, split, refuse or write, describe."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agents.data_manager import origins, quality
from agents.data_manager.findings import Findings, leaking, too_many
from agents.data_manager.splitting import Splits, assigned
from agents.data_manager.table import DataSource, DataTable, SourceContext, unusable
from agents.data_manager.writing import beside, refuse_beyond_room, written, written_as_given
from bus.blobs import DirectoryBlobs
from bus.disk import write_file
from contracts.errors import InvalidRequest
from contracts.request.data import Data, File, Foreign
from runtime.engine.dataset import Manifest, mapped, publish
from runtime.engine.facts import describe
from runtime.engine.ragged import apart, together

MANY = 1000
"""With so many features or more their names are not kept."""


class PreparedDataset(NamedTuple):
    """A finished dataset, and what its source calls its rows, where it calls them anything."""

    manifest: Manifest
    origins: dict[str, Any] | None


def prepared(
    data: Data, source: DataSource, around: SourceContext, findings: Findings, directory: Path, blobs: DirectoryBlobs
) -> PreparedDataset:
    """The finished dataset; raises `InvalidRequest` with every reason why there is none."""
    table, named = source.read(findings), None
    if table.given:
        fixed = {name: together(apart(columns))[0] for name, columns in table.given.items()}
        quality.look_at_given(fixed, findings)
        stored = written_as_given(directory, table.given)
    else:
        table, places = _divided(data, table, findings)
        refuse_beyond_room(around.scratch, table, places, data.synthetic, _place(data))
        stored = written(directory, table, places, data.synthetic, findings, around.tell)
        named = origins.kept(blobs, table, places, around.scratch)
    splits = {
        name: {column: mapped(directory, one, "r") for column, one in columns.items()}
        for name, columns in stored.items()
    }
    if table.task == "classification":
        quality.look_at_classes(np.asarray(splits["train"]["y"]), table.labels, findings)
    features = table.features if len(table.features) < MANY else ()
    extra = beside(directory, findings)
    facts = describe(splits, table.task, labels=table.labels, features=features, extra=extra, counted=True)
    return PreparedDataset(publish(directory, stored, facts, write_file), named)


def _divided(data: Data, table: DataTable, findings: Findings) -> tuple[DataTable, Splits]:
    """The places of every split's rows, once those that cannot be used are set aside and are not too many."""
    keep = not table.foreign or (isinstance(data, File) and data.duplicates == "keep")
    rows = quality.TableView(table)
    table = rows.without_repeats(findings, keep=keep) if table.foreign else table
    rows.look(table, findings)
    split = _split(data, table, findings)
    sizes = {name: len(rows_of) for name, rows_of in split.items() if name != "train"}
    places = rows.without_leaks(split, findings, keep=keep)
    if isinstance(data, Foreign):
        problems = too_many(findings, data.tolerance, _place(data))
        problems += [] if keep else leaking(findings, sizes, data.tolerance)
        if problems:
            raise InvalidRequest(problems)
    if empty := [name for name, chosen in places.items() if not len(chosen)]:
        cure = "Give it a larger share, or more rows."
        raise unusable("data.split", f"no row is left in the split {empty[0]!r}", cure)
    return table, places


def _place(data: Data) -> str:
    """What of the section says which rows there are."""
    return "data.path" if isinstance(data, File) else "data.workload" if isinstance(data, Foreign) else "data"


def _split(data: Data, table: DataTable, findings: Findings) -> Splits:
    split, places = data.split, table.places
    for name, column, found in (("group", split.group, table.groups), ("time", split.time, table.times)):
        if column and found is None:
            cure = f"Leave `split.{name}` out, or name a source with columns."
            raise unusable(f"data.split.{name}", f"the source {data.source!r} has no column {column!r}", cure)
    classified = table.task == "classification"
    if split.stratify is True and (not classified or split.group):
        findings.add("not-stratified", "whole groups are kept" if classified else f"the task is {table.task}")
    stratified = classified and split.stratify is not False
    chosen = assigned(
        len(places),
        split,
        table.columns["y"][places] if stratified else None,
        groups=None if table.groups is None else table.groups[places],
        times=None if table.times is None else table.times[places],
    )
    return {name: places[at] for name, at in chosen.items()}
