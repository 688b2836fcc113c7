"""The job that prepares one dataset: open the source, and unless its dataset stands, read, check, split and write."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial, singledispatch
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from pydantic import TypeAdapter

from agents.data_manager import quality
from agents.data_manager.allowed import opened
from agents.data_manager.sources.bundled import Bundled
from agents.data_manager.sources.csv_table import CsvTable
from agents.data_manager.sources.generated import Generated
from agents.data_manager.sources.workload import OwnRows
from agents.data_manager.splitting import assigned
from agents.data_manager.store import Kept, Store, key_of
from agents.data_manager.table import Columns, Findings, Source, Table, Tell
from contracts.errors import InvalidRequest
from contracts.request.data import (
    Blobs,
    BreastCancer,
    Circles,
    Csv,
    Data,
    Diabetes,
    Digits,
    Iris,
    Split,
    Wine,
    WorkloadData,
)
from runtime import workloads
from runtime.engine.facts import Facts, describe
from runtime.job import Job

_DATA: TypeAdapter[Data] = TypeAdapter(Data)

FACTS_LIMIT = 64 << 10
"""Facts larger than this go into the event without their longest lists; the manifest always has them all."""


@dataclass(frozen=True)
class Around:
    """What a source may need to be opened: the allowed folders, who closes files, who hears of progress."""

    roots: Sequence[Path]
    files: ExitStack
    tell: Tell


def main(job: Job) -> dict[str, Any]:
    """The fields of `DatasetPrepared`, or of `DatasetRejected` with every problem."""
    data = _DATA.validate_python(job.args["data"])
    workloads.enlist(job.args["workloads"])
    try:
        with ExitStack() as files:
            around = Around([Path(root) for root in job.args["roots"]], files, partial(_progress, job))
            source = _opened(data, around)
            return _prepared(data, source, Store(Path(job.args["store"])))
    except InvalidRequest as error:
        problems = [dataclasses.asdict(one) for one in error.problems]
        return {"source": _name(data), "problems": problems}


def _prepared(data: Data, source: Source, store: Store) -> dict[str, Any]:
    key = key_of(source.digest, data.model_dump(mode="json"))
    kept = store.find(key)
    reused = kept is not None
    if kept is None:
        findings = Findings()
        table = source.read(findings)
        splits = _split(table, data.split, findings)
        features = table.features if len(table.features) < 1000 else ()
        facts = describe(splits, table.task, labels=table.labels, features=features)
        kept = store.keep(key, splits, facts, list(findings))
    return _said(kept, source) | {"reused": reused}


@singledispatch
def _opened(data: Any, around: Around) -> Source:
    """The source that a data section names."""
    raise NotImplementedError(f"no source reads {type(data).__name__}")


@_opened.register(Digits | BreastCancer | Wine | Iris | Diabetes)
def _(data: Any, around: Around) -> Source:
    return Bundled(data)


@_opened.register(Blobs | Circles)
def _(data: Any, around: Around) -> Source:
    return Generated(data)


@_opened.register
def _(data: Csv, around: Around) -> Source:
    return CsvTable(data, around.files.enter_context(opened(data.path, around.roots)), around.tell)


@_opened.register
def _(data: WorkloadData, around: Around) -> Source:
    return OwnRows(data)


def _progress(job: Job, done: int, total: int) -> None:
    job.tell("progress", done=done, total=total)


def _split(table: Table, split: Split, findings: Findings) -> Mapping[str, Columns]:
    if table.given:
        splits, rows = table.given, {name: np.arange(1, _size(one) + 1) for name, one in table.given.items()}
    else:
        quality.look_at_rows(table, findings)
        classified = table.task == "classification"
        if split.stratify is True and not classified:
            findings.add("not-stratified", f"the task is {table.task}")
        stratified = classified and split.stratify is not False
        chosen = assigned(table.size, split, table.columns["y"] if stratified else None)
        splits = {name: {key: one[at] for key, one in table.columns.items()} for name, at in chosen.items()}
        rows = {name: np.array([table.number(int(one)) for one in at]) for name, at in chosen.items()}
    quality.look_at_splits(splits, rows, findings)
    if table.task == "classification":
        quality.look_at_classes(splits, table.labels, findings)
    return splits


def _said(kept: Kept, source: Source) -> dict[str, Any]:
    manifest = kept.manifest
    return {
        "root": manifest.root,
        "rows": sum(manifest.rows.values()),
        "splits": {name: manifest.rows[name] for name in ("train", "val", "test") if name in manifest.rows},
        "bytes": sum(size for _, size in manifest.files()),
        "source": source.name,
        "source_digest": source.digest,
        "facts": _facts(manifest.facts),
        "findings": kept.findings,
    }


def _facts(facts: Facts) -> dict[str, Any]:
    """Facts as the event holds them: within a size that the log takes."""
    whole = facts.as_json()
    for longest in ("features", "mean", "scale", "labels"):
        if len(orjson.dumps(whole)) > FACTS_LIMIT:
            whole[longest] = []
    return whole


def _size(columns: Columns) -> int:
    return len(next(iter(columns.values())))


def _name(data: Data) -> str:
    return data.path if isinstance(data, Csv) else data.workload if isinstance(data, WorkloadData) else data.source
