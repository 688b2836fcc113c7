"""Exported files made again by the exporter's own job, which the exporter declares, and compared byte for byte."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bus.blobs import DirectoryBlobs, digest_of
from contracts.errors import SwarmError
from contracts.exporter import ExportDetails, ExportOrder, ModelExported
from contracts.findings import RecordedExport
from contracts.session import SessionState
from runtime.home.workloads import WorkloadEntry
from runtime.log.session_log import SessionLog
from runtime.node import roster
from runtime.node.capabilities import MAKE_EXPORT, ExportRefusal, ExportTask, MadeFile
from runtime.replay import audit_runner, verdict
from runtime.replay.audit_subject import AuditSubject, has_rows

if TYPE_CHECKING:
    from runtime.jobs.children import Children

MADE = "made"
"""What a file is called where it is made again. The name that the log gives is told and never used as a path."""

MODULES = ("onnx", "onnxscript", "onnxruntime")
"""What formats need besides. That one is missing is believed only to be seen here: jobs may run code of the user's."""

NUMBER = re.compile(rb"[0-9]{1,64}")
"""torch numbers each TorchScript file by a hash over all that it wrote, tables of source lines with their paths among
them. The exporter takes those tables out; the number stays, and differs wherever the software lies elsewhere."""


class Remade(NamedTuple):
    """What came of making a file again: nothing but its bytes, unless one of these says something.

    `divergence` is what of it is not as recorded; `differing` is how making it ended otherwise, so that it cannot be
    compared; `missing` names what is not here and would be needed.
    """

    divergence: str = ""
    differing: str = ""
    missing: str = ""


def orders(history: SessionLog) -> list[RecordedExport]:
    """Every exported file of a session, as it has to be made again, and where the log tells of it."""
    sources = dict(history.state.training.claim.sources) if history.state.training.claim else {}
    return [
        RecordedExport(
            export=fact.id,
            place=fact.position,
            seq=fact.seq,
            filename=fact.event.filename,
            blob=fact.event.blob,
            beside=fact.event.details.beside,
            sources=sources,
            order=_order(fact.event, history.state),
        )
        for fact in history.facts
        if isinstance(fact.event, ModelExported)
    ]


def export_findings(remade: Iterable[tuple[RecordedExport, Remade]]) -> verdict.ExportFindings:
    """What came of all of a session's files."""
    divergences, unchecked, differing = [], [], []
    checked = 0
    for made, one in remade:
        checked += not (one.missing or one.differing)
        if one.divergence:
            divergences.append(verdict.Divergence(made.place, made.seq, ModelExported.wire, one.divergence))
        if one.missing:
            unchecked.append(f"export {made.filename} could not be made again: {one.missing}")
        if one.differing:
            differing.append(f"the outcome of export {made.filename} (making it again ended with: {one.differing})")
    return verdict.ExportFindings(checked, tuple(divergences), tuple(unchecked), tuple(differing))


async def remake_all(subject: AuditSubject, jobs: audit_runner.AuditJobs, folder: Path) -> verdict.ExportFindings:
    """Make every exported file of a session again, one after the other."""
    found: list[tuple[RecordedExport, Remade]] = []
    for number, made in enumerate(orders(subject.kept.history)):
        work = folder / f"export-{number}"
        work.mkdir()
        found.append((made, await remake(made, subject.blobs, jobs.conditions.workloads, jobs.children, work)))
    return export_findings(found)


async def remake(
    made: RecordedExport,
    blobs: DirectoryBlobs,
    workloads: Sequence[WorkloadEntry],
    children: Children,
    work: Path,
    session: str = "",
) -> Remade:
    """What came of making one file again in an empty folder."""
    if made.order is None:
        return Remade(f"{made.filename} is told to be of a checkpoint that the session never wrote")
    export = roster.job_for(MAKE_EXPORT)
    task = ExportTask(made.order, blobs.root, work, work, MADE, workloads)
    try:
        answer = await children.run(export, task, session=session, log=work / "export.log")
    except SwarmError as error:
        gone = _gone(made.order, blobs)
        return Remade(missing=gone) if gone else Remade(differing=error.message[:500])
    return _refused(made, answer) if isinstance(answer, ExportRefusal) else _against(made, answer, work, blobs)


def _gone(order: ExportOrder, blobs: DirectoryBlobs) -> str:
    """What of the bytes that the file is made of is not here."""
    if not blobs.has(order.blob):
        return f"checkpoint blob {order.blob} is not here"
    rows = has_rows(blobs.root / "datasets" / order.dataset)
    return "" if rows else f"the rows of dataset {order.dataset} are not here"


def _refused(made: RecordedExport, refusal: ExportRefusal) -> Remade:
    """Why the exporter makes no such file: something of this machine, of the claim, or of the code that was asked."""
    code, message = refusal.code, refusal.message[:500]
    if code == "missing-module" and any(find_spec(name) is None for name in MODULES):
        return Remade(missing=message)
    if code == "not-finite":
        return Remade(f"{made.filename} is told to be made, and the exporter makes no such file: {message}")
    return Remade(differing=message)


def _against(recorded: RecordedExport, again: MadeFile, work: Path, blobs: DirectoryBlobs) -> Remade:
    made = work / MADE
    if not made.is_file():
        return Remade(differing="no file")
    found, wanted = digest_of(made), recorded.blob
    traced = recorded.order is not None and recorded.order.format == "torchscript"
    if found != wanted and traced and blobs.has(wanted):
        found = renumbered(made, blobs.path(wanted), work / "renumbered") or found
    if found != wanted:
        return Remade(f"{recorded.filename} made again has digest {found}, recorded is {wanted}")
    beside = ExportDetails.model_validate(again.details).beside
    wrong = [one for one, digest in beside.items() if recorded.beside.get(one) != digest]
    return Remade(f"{recorded.filename}.{wrong[0]} made again is not what was recorded" if wrong else "")


def renumbered(made: Path, recorded: Path, into: Path) -> str:
    """The digest of a made TorchScript file with the recorded file's number in place of its own; empty if it has none.

    All other bytes count as they are made. Neither file is trusted: what they say of sizes is held against the files.
    """
    try:
        with zipfile.ZipFile(recorded) as archive:
            number = archive.read(_numbered(archive, recorded))
        with zipfile.ZipFile(made) as archive:
            own = _numbered(archive, made).filename
            records = [
                (one.filename, number if one.filename == own else archive.read(one)) for one in archive.infolist()
            ]
    except (zipfile.BadZipFile, ValueError, RuntimeError, NotImplementedError, OSError):
        return ""
    if NUMBER.fullmatch(number) is None:
        return ""
    with zipfile.ZipFile(into, "w", zipfile.ZIP_STORED) as archive:
        for name, content in records:
            archive.writestr(zipfile.ZipInfo(name), content)
    return digest_of(into)


def _numbered(archive: zipfile.ZipFile, path: Path) -> zipfile.ZipInfo:
    """The record of the number; `ValueError` when there is no such one, or records claim more than the file holds."""
    records = archive.infolist()
    if any(one.compress_type for one in records) or sum(one.file_size for one in records) > path.stat().st_size:
        raise ValueError(f"{path.name!r} is no archive of plain records")
    (record,) = (one for one in records if one.filename.endswith("/.data/serialization_id"))
    return record


def _order(made: ModelExported, session: SessionState) -> ExportOrder | None:
    """As the exporter was ordered; None where there was no such checkpoint.

    The dataset is one that a fact names by its root: what a request says is any text, and a folder has this name.
    """
    of = (one.written for one in session.training.checkpoints if one.written.blob == made.checkpoint_blob)
    written = next((one for one in of if one.step == made.checkpoint_step), None)
    claimed = session.training.claim.dataset if session.training.claim else ""
    if written is None:
        return None
    return ExportOrder(
        format=made.format,
        quantize=made.quantize,
        wanted=made.checkpoint,
        step=written.step,
        blob=made.checkpoint_blob,
        state_root=written.state_root,
        dataset=session.training.dataset.root if session.training.dataset else claimed,
        request=session.request,
    )
