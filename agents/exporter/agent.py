"""Answers every wish for a file with the file and its proof, or with a refusal and its cure; it computes nothing."""

import asyncio
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Never, TypeVar

from agents.exporter.jobs import ProvenFile, export_profile, make_file, prove_file
from agents.exporter.plan import order_of, orders
from contracts import exporter
from contracts.errors import ChildDied, NotVerified, SwarmError
from contracts.exporter import (
    ExportDetails,
    ExportOrder,
    ExportRefused,
    ExportRepeated,
    ModelBenchmarked,
    ModelExported,
)
from contracts.findings import AuditedMachine, RecordedExport
from contracts.operator import ExportRequested, SessionRequested
from contracts.trainer import AuditPlanned, TrainingClaimed, TrainingCompleted
from runtime.home.workloads import WorkloadEntry, Workloads
from runtime.jobs.job import Job
from runtime.node.agent import Agent, Say, on
from runtime.node.agent_context import AgentContext, Wakeup
from runtime.node.capabilities import MAKE_EXPORT, ExportRefusal, ExportTask, MadeFile
from runtime.replay.audit_runner import AuditJobs
from runtime.replay.jobs import IdentityQuery

R = TypeVar("R")
Answer = ModelExported | ModelBenchmarked | ExportRefused


class Exporter(Agent):
    """Makes the files that a finished training or a person asks for, one at a time."""

    services: ClassVar = (MAKE_EXPORT.by(make_file),)

    def __init__(self, ground: Any = None) -> None:
        super().__init__(ground)
        self._one_at_a_time = asyncio.Lock()

    @on
    async def get_ready(self, claimed: TrainingClaimed, wakeup: Wakeup) -> None:
        """Import the libraries that the files of this training will need while it runs."""
        for form in (wakeup.now.request.get("export") or {}).get("formats", ()):
            # What fails here fails again, and is told, when the file is made.
            with suppress(SwarmError):
                await self.ground.children.warm(export_profile(form))

    @on
    async def leave(self, done: TrainingCompleted, wakeup: Wakeup, say: Say[Answer]) -> None:
        """A model is trained: everything that its request and people asked for so far is due."""
        await self._settle(wakeup, say)

    @on
    async def oblige(self, wish: ExportRequested, wakeup: Wakeup, say: Say[Answer]) -> None:
        """One more file is wanted: made now if the model is trained, else when it is."""
        await self._settle(wakeup, say)

    @on
    async def cite(self, asked: SessionRequested, wakeup: Wakeup) -> list[Answer]:
        """A session of its own about a model that was sealed before."""
        if wakeup.session.kind is not exporter.EXPORT:
            return []
        async with self._one_at_a_time:
            return await self._make(order_of(asked.request), wakeup)

    @on
    async def repeat(self, planned: AuditPlanned, wakeup: Wakeup) -> list[ExportRepeated]:
        """An audit wants to know whether every file of a session comes out again as it was."""
        if not planned.exports or planned.machine is None:
            return []
        async with self._one_at_a_time:
            return await repeat_exports(self.ground, wakeup.history.id, planned.machine, planned.exports)

    async def _settle(self, wakeup: Wakeup, say: Say[Answer]) -> None:
        async with self._one_at_a_time:
            # What is due is read again each time: another handler, or this one before a restart, may have answered.
            while due := orders(wakeup.now):
                await say(*await self._make(due[0], wakeup))

    async def _make(self, order: ExportOrder | ExportRefused, wakeup: Wakeup) -> list[Answer]:
        if isinstance(order, ExportRefused):
            return [order]
        try:
            try:
                return await self._prove(order, wakeup)
            except ChildDied:
                # Once more from the start, because memory may have been short for a moment.
                return await self._prove(order, wakeup)
        except SwarmError as error:
            return [_refusal(order, error.code, error.message, error.cure)]

    async def _prove(self, order: ExportOrder, wakeup: Wakeup) -> list[Answer]:
        """Have a job make the file, and another compare and publish it; what is to be said of it."""
        made = await self._once(make_file, order, wakeup)
        if isinstance(made, ExportRefusal):
            return [_refusal(order, made.code, made.message, made.cure)]
        proven = await self._once(prove_file, order, wakeup)
        if isinstance(proven, ExportRefusal):
            return [_refusal(order, proven.code, proven.message, proven.cure)]
        return _answer(order, made, proven)

    async def _once(self, job: Job[ExportTask, R, Never, Never], order: ExportOrder, wakeup: Wakeup) -> R:
        context, session = self.ground, wakeup.history.id
        folder = context.home.session(session)
        task = ExportTask(
            order=order,
            blobs=context.blobs.root,
            work=context.home.work(session),
            exports=folder / "exports",
            filename=order.filename,
            workloads=Workloads(context.home.root).needed(order.request),
        )
        return await context.children.run(job, task, session=session, log=folder / "export.log")


def _refusal(order: ExportOrder, code: str, message: str, cure: str) -> ExportRefused:
    about = {"format": order.format, "quantize": order.quantize, "checkpoint": order.wanted}
    return ExportRefused(**about, code=code, message=message[:4000], cure=cure)


def _answer(order: ExportOrder, made: MadeFile, proven: ProvenFile) -> list[Answer]:
    exported = ModelExported(
        format=order.format,
        quantize=order.quantize,
        checkpoint=order.wanted,
        checkpoint_step=order.step,
        checkpoint_blob=order.blob,
        blob=proven.blob,
        bytes=proven.bytes,
        filename=order.filename,
        opset=made.opset,
        parity=dict(proven.parity),
        rows_compared=proven.rows,
        details=ExportDetails.model_validate({**made.details, **proven.details}),
    )
    timed = [
        ModelBenchmarked(format=order.format, quantize=order.quantize, blob=proven.blob, **asdict(timing))
        for timing in proven.timings
    ]
    return [exported, *timed]


async def repeat_exports(
    context: AgentContext, session: str, machine: AuditedMachine, files: list[RecordedExport]
) -> list[ExportRepeated]:
    """Every file of an audited session made once more: what of it is not as it was, or why it cannot be made here.

    Nothing is made where the bits are not those of the machine that trained, or the code not that which was claimed.
    """
    # Late, because it brings numpy into the host, which most of its life has no use for it.
    from runtime.audit.exports import Remade, remake

    folder, repeated = context.home.work(session) / "exports", []
    folder.mkdir(parents=True, exist_ok=True)
    try:
        try:
            problem = ""
            workloads: Sequence[WorkloadEntry] = ()
            jobs = AuditJobs(context.children, machine, session, folder / "identity.log")
            here = await jobs.machine(IdentityQuery(machine.device, machine.precision))
            if here.fingerprint != machine.fingerprint:
                problem = "the exporter's machine computes other bits than the one that trained"
            workloads = claimed_workloads(context.home.root, files)
        except SwarmError as error:
            problem = error.message
        for number, made in enumerate(files):
            remade, work = Remade(missing=problem), folder / f"export-{number}"
            if not problem:
                work.mkdir()
                remade = await remake(made, context.blobs, workloads, context.children, work, session)
            said = {"divergence": remade.divergence, "problem": remade.missing, "differing": remade.differing}
            repeated.append(ExportRepeated(export=made.export, filename=made.filename, **said))
        return repeated
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def claimed_workloads(home: Path, files: list[RecordedExport]) -> Sequence[WorkloadEntry]:
    """The code that was claimed; raises `NotVerified` where it is not the code that is known here."""
    order = next((made.order for made in files if made.order), None)
    needed = Workloads(home).needed(order.request) if order else ()
    for workload in needed:
        if files[0].sources.get(workload.name, workload.digest) != workload.digest:
            message = f"workload {workload.name!r} of the exporter's machine is not the one that was claimed."
            raise NotVerified(message)
    return needed
