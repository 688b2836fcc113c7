"""The job that prepares one dataset: opens the source, and unless it is here, reads, checks, splits and writes it."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from pydantic import TypeAdapter

from agents.data_manager.findings import Findings, too_many
from agents.data_manager.prepared import prepared
from agents.data_manager.scratch import Scratch
from agents.data_manager.sources.opening import source_of
from agents.data_manager.store import DatasetStore, StoredDataset, key_of
from agents.data_manager.table import DataSource, SourceContext
from contracts.errors import InvalidRequest, Problem
from contracts.request.data import Data, File, Foreign, WorkloadData
from runtime.engine.facts import Facts
from runtime.home import workloads
from runtime.jobs import memory
from runtime.jobs.job import Job

_DATA: TypeAdapter[Data] = TypeAdapter(Data)

FACTS_LIMIT = 64 << 10
"""Facts larger than this go into the event without their longest lists; the manifest always has them all."""

FEWEST_ROWS = 30
"""Statistics of fewer rows are not told in the log, which every guest reads: those of one row are that row."""

PROBLEMS = 100
"""So many problems are told at once."""


def main(job: Job) -> dict[str, Any]:
    """The fields of `DatasetPrepared` or of `DatasetRejected`; `stands` for a dataset that is named by its root."""
    data = _DATA.validate_python(job.args["data"])
    workloads.enlist(job.args["workloads"])
    store = DatasetStore(Path(job.args["store"]))
    if store.stands(job.args.get("standing")):
        return {"stands": True}
    try:
        with memory.bounded(), store.room() as room, ExitStack() as files:
            roots, trusted = ([Path(one) for one in job.args.get(name, ())] for name in ("roots", "trusted"))
            scratch = Scratch(room, files)
            around = SourceContext(roots, trusted, files, scratch, partial(_progress, job, scratch))
            source = source_of(data, around)
            key = key_of(source.digest, data.model_dump(mode="json"))
            kept = store.find(key)
            if kept is not None:
                return _said(kept, source) | {"reused": True}
            with store.room() as fresh:
                return _said(_made(data, source, around, store, key, fresh), source) | {"reused": False}
    except InvalidRequest as error:
        problems = [dataclasses.asdict(one) for one in error.problems[:PROBLEMS]]
        return {"source": _name(data), "problems": problems}


def _made(
    data: Data, source: DataSource, around: SourceContext, store: DatasetStore, key: str, fresh: Path
) -> StoredDataset:
    findings = Findings(fresh, around.files)
    try:
        made = prepared(data, source, around, findings, fresh, store.blobs)
    except InvalidRequest as error:
        # A reason that was noticed before the rows were judged does not hide what is wrong with them.
        raise InvalidRequest([*dict.fromkeys([*broken_rows(data, findings), *error.problems])]) from None
    return store.keep(key, fresh, StoredDataset(made.manifest, list(findings), made.origins))


def broken_rows(data: Data, findings: Findings) -> list[Problem]:
    """Every kind of broken row, unless there are few enough to be set aside."""
    place = "data.path" if isinstance(data, File) else "data.workload"
    return too_many(findings, data.tolerance, place) if isinstance(data, Foreign) else []


def _progress(job: Job, scratch: Scratch, done: int, total: int) -> None:
    scratch.leave_room(done, total)
    job.tell("progress", done=done, total=total)


def _said(kept: StoredDataset, source: DataSource) -> dict[str, Any]:
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
        "origins": kept.origins,
    }


def _facts(facts: Facts) -> dict[str, Any]:
    """Facts as the event holds them: within a size that the log takes, and of enough rows to hide each of them."""
    whole = facts.as_json()
    if facts.rows["train"] < FEWEST_ROWS:
        whole |= {"mean": [], "scale": [], "target_mean": 0.0, "target_scale": 1.0}
    for longest in ("features", "mean", "scale", "labels", "counts"):
        if len(orjson.dumps(whole)) > FACTS_LIMIT:
            whole[longest] = []
    return whole


def _name(data: Data) -> str:
    return data.path if isinstance(data, File) else data.workload if isinstance(data, WorkloadData) else data.source
