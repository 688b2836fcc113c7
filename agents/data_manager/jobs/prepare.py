"""The job that prepares one dataset: opens its source, and unless it is here reads, checks, splits and writes it."""

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import orjson
from pydantic import TypeAdapter

from agents.data_manager import quality
from agents.data_manager.findings import Findings, leaking, too_many
from agents.data_manager.scratch import Scratch
from agents.data_manager.source import DataSource, DataTable, Places, SourceContext, unusable
from agents.data_manager.sources.opening import source_of
from agents.data_manager.splitting import assign
from agents.data_manager.store import DatasetStore, StoredDataset, key_of
from agents.data_manager.writing import digests_of_lists, keep_origins, refuse_beyond_room, write_given, write_splits
from bus.blobs import DirectoryBlobs
from bus.disk import write_file
from contracts.data_manager import DatasetFacts, DatasetPrepared, DatasetRejected
from contracts.errors import InvalidRequest
from contracts.request.data import Data, File, Foreign, WorkloadData
from runtime.engine.dataset import mapped, publish
from runtime.engine.facts import describe
from runtime.engine.ragged import apart, together
from runtime.home import workloads
from runtime.jobs import resources
from runtime.node.capabilities import PreparationOrder

_DATA: TypeAdapter[Data] = TypeAdapter(Data)

FACTS_LIMIT = 64 << 10
"""Facts larger than this go into the event without their longest lists; the manifest always has them all."""

FEWEST_ROWS = 30
"""Statistics of fewer rows are not told in the log, which every guest reads: those of one row are that row."""

MANY = 1000
"""With so many features or more their names are not kept."""

PROBLEMS = 100
"""So many problems are told at once."""


def prepare(order: PreparationOrder, tell: Callable[[int, int], None]) -> DatasetPrepared | DatasetRejected | None:
    """The dataset, or every reason against it; None for one that is named by its root and stands."""
    data = _DATA.validate_python(order.data)
    workloads.enlist(order.workloads)
    store = DatasetStore(order.store)
    if store.stands(order.standing):
        return None
    try:
        with resources.bounded(), store.room() as room, ExitStack() as files:
            roots, trusted = list(order.roots), [Path(folder) for folder in order.trusted]
            scratch = Scratch(room, files)

            def progress(done: int, total: int) -> None:
                scratch.leave_room(done, total)
                tell(done, total)

            around = SourceContext(roots, trusted, files, scratch, progress)
            source = source_of(data, around)
            key = key_of(source.digest, data.model_dump(mode="json"))
            if (stored := store.find(key)) is not None:
                return _answer(stored, source, reused=True)
            with store.room() as fresh:
                findings = Findings(fresh, files)
                try:
                    dataset = _prepare(data, source, around, findings, fresh, store.blobs)
                except InvalidRequest as error:
                    # A reason that was noticed before the rows were judged does not hide what is wrong with them.
                    broken = too_many(findings, data.tolerance, _rows_option(data)) if isinstance(data, Foreign) else []
                    raise InvalidRequest([*dict.fromkeys([*broken, *error.problems])]) from None
                return _answer(store.keep(key, fresh, dataset), source, reused=False)
    except InvalidRequest as error:
        problems = [dataclasses.asdict(problem) for problem in error.problems[:PROBLEMS]]
        named = data.workload if isinstance(data, WorkloadData) else data.source
        return DatasetRejected(source=data.path if isinstance(data, File) else named, problems=problems)


def _answer(dataset: StoredDataset, source: DataSource, *, reused: bool) -> DatasetPrepared:
    manifest, facts = dataset.manifest, dataset.manifest.facts.as_json()
    # Facts as the event holds them: within a size that the log takes, and of enough rows to hide each of them.
    if manifest.facts.rows["train"] < FEWEST_ROWS:
        facts |= {"mean": [], "scale": [], "target_mean": 0.0, "target_scale": 1.0}
    for longest in ("features", "mean", "scale", "labels", "counts"):
        if len(orjson.dumps(facts)) > FACTS_LIMIT:
            facts[longest] = []
    told = {
        "root": manifest.root,
        "rows": sum(manifest.rows.values()),
        "splits": {name: manifest.rows[name] for name in ("train", "val", "test") if name in manifest.rows},
        "bytes": sum(size for _, size in manifest.files()),
        "source": source.name,
        "source_digest": source.digest,
        "facts": DatasetFacts.model_validate_json(orjson.dumps(facts)),
        "findings": dataset.findings,
        "reused": reused,
        "origins": dataset.origins,
    }
    return DatasetPrepared.model_validate(told)


def _prepare(
    data: Data, source: DataSource, around: SourceContext, findings: Findings, directory: Path, blobs: DirectoryBlobs
) -> StoredDataset:
    """The finished dataset; raises `InvalidRequest` with every reason why there is none."""
    table, origins = source.read(findings), None
    if table.given:
        fixed = {name: together(apart(columns))[0] for name, columns in table.given.items()}
        quality.look_at_given(fixed, findings)
        stored = write_given(directory, table.given)
    else:
        table, places = _divide(data, table, findings)
        refuse_beyond_room(around.scratch, table, places, data.synthetic, _rows_option(data))
        stored = write_splits(directory, table, places, data.synthetic, findings, around.tell)
        origins = keep_origins(blobs, table, places, around.scratch)
    splits = {
        name: {column: mapped(directory, file, "r") for column, file in columns.items()}
        for name, columns in stored.items()
    }
    if table.task == "classification":
        quality.look_at_classes(np.asarray(splits["train"]["y"]), table.labels, findings)
    features = table.features if len(table.features) < MANY else ()
    extra = digests_of_lists(directory, findings)
    facts = describe(splits, table.task, labels=table.labels, features=features, extra=extra, counted=True)
    return StoredDataset(publish(directory, stored, facts, write_file), list(findings), origins)


def _divide(data: Data, table: DataTable, findings: Findings) -> tuple[DataTable, Places]:
    """The places of every split's rows, once those that cannot be used are set aside and are not too many."""
    keep = not table.foreign or (isinstance(data, File) and data.duplicates == "keep")
    rows = quality.RowQuality(table)
    table = rows.without_repeats(findings, keep=keep) if table.foreign else table
    rows.look(table, findings)
    assigned = _split_rows(data, table, findings)
    sizes = {name: len(chosen) for name, chosen in assigned.items() if name != "train"}
    places = rows.without_leaks(assigned, findings, keep=keep)
    if isinstance(data, Foreign):
        problems = too_many(findings, data.tolerance, _rows_option(data))
        problems += [] if keep else leaking(findings, sizes, data.tolerance)
        if problems:
            raise InvalidRequest(problems)
    if empty := [name for name, chosen in places.items() if not len(chosen)]:
        cure = "Give it a larger share, or more rows."
        raise unusable("data.split", f"no row is left in the split {empty[0]!r}", cure)
    return table, places


def _rows_option(data: Data) -> str:
    """What of the section says which rows there are."""
    return "data.path" if isinstance(data, File) else "data.workload" if isinstance(data, Foreign) else "data"


def _split_rows(data: Data, table: DataTable, findings: Findings) -> Places:
    split, places = data.split, table.places
    for name, column, values in (("group", split.group, table.groups), ("time", split.time, table.times)):
        if column and values is None:
            cure = f"Leave `split.{name}` out, or name a source with columns."
            raise unusable(f"data.split.{name}", f"the source {data.source!r} has no column {column!r}", cure)
    classified = table.task == "classification"
    if split.stratify is True and (not classified or split.group):
        findings.add("not-stratified", "whole groups are kept" if classified else f"the task is {table.task}")
    stratified = classified and split.stratify is not False
    chosen = assign(
        len(places),
        split,
        table.columns["y"][places] if stratified else None,
        groups=None if table.groups is None else table.groups[places],
        times=None if table.times is None else table.times[places],
    )
    return {name: places[at] for name, at in chosen.items()}
