"""One trainer's part in an audit: it takes spans that no other computes, records results, and at the end the verdict.

Decisions are read from the fold of the audit's session; spans are shared out by its events.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from contracts import trainer as events
from contracts.audit import AuditState
from contracts.errors import ChildDied, NotFound, NotVerified, OutOfMemory, SwarmError
from contracts.findings import AuditedMachine, AuditRequest, SpanPlanned
from runtime.audit.recomputation import AuditOpening, OpenedAudit, conclude, open_audit
from runtime.home.workloads import WorkloadEntry
from runtime.node.agent import Say
from runtime.node.agent_context import Wakeup, first_done, wish_to_cancel
from runtime.replay.audit_runner import AuditJobs, spans_at_once, uncomputable_span
from runtime.replay.audit_subject import missing_bytes, recorded_path
from runtime.replay.jobs import SpanFile
from runtime.replay.spans import SpanSpec
from runtime.replay.steps import locate_divergence

if TYPE_CHECKING:
    from agents.trainer.agent import Verdicts

MOST_DEATHS = 3
"""Children that may die over one span before the audit fails."""

_LOOK_AGAIN = 1.0
"""Seconds between two looks for trainers that have fallen silent, which no event tells."""


class Auditing:
    """A trainer's work on one audit; `turns` bounds how many spans its process computes at a time, of all audits."""

    def __init__(self, wakeup: Wakeup, say: Say[Verdicts], turns: asyncio.Semaphore) -> None:
        self._wakeup = wakeup
        self._say = say
        self._turns = turns
        self._context = wakeup.ground
        self._me = f"{self._context.instance}/{self._context.incarnation}"
        self._mine: set[str] = set()
        self._reserved: set[int] = set()
        self._folder = self._context.home.work(wakeup.history.id) / self._context.instance

    @property
    def _audit(self) -> AuditState:
        return AuditState.of(self._wakeup.now)

    async def run(self) -> None:
        """Take part until there is a verdict, the audit is cancelled, or this process ends."""
        history, draining = self._wakeup.history, self._context.draining
        work = asyncio.create_task(self._take_part())
        try:
            while not (work.done() or self._wakeup.now.outcome or self._unwanted or draining.is_set()):
                await first_done(asyncio.wait({work}), history.grown(history.size), draining.wait())
            if work.done():
                await work
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work
        if self._unwanted and self._wakeup.now.outcome is None:
            await self._say(events.AuditFailed(message="it was cancelled."))
        if self._wakeup.now.outcome is not None:
            shutil.rmtree(self._folder.parent, ignore_errors=True)

    @property
    def _unwanted(self) -> bool:
        return wish_to_cancel(self._wakeup.now) is not None

    async def _take_part(self) -> None:
        opened = await self._opened_plan()
        planned = self._audit.planned
        if planned is None or opened is None:
            await self._stand_by()
        elif planned.machine and opened.differing:
            await self._decline(list(opened.differing))
            await self._stand_by()
        else:
            try:
                if planned.machine:
                    await self._compute(planned, planned.machine, opened)
            except _Unable as reason:
                await self._decline([str(reason)])
                await self._stand_by()
            else:
                await self._conclude()

    async def _opened_plan(self) -> OpenedAudit | None:
        """The audit plan as computed here, after the first trainer has recorded it; None where that cannot be done."""
        try:
            opened = await self._open(None) if self._audit.planned is None else None
            while self._audit.planned is None and opened and opened.planned:
                await self._say(opened.planned)
            planned = self._audit.planned
            if planned is None or not planned.machine:
                return opened or OpenedAudit(planned=None)
            if opened is None or [*opened.cuts] != planned.cuts:
                opened = await self._open(planned.cuts)
        except (NotFound, NotVerified) as error:
            await self._decline([error.message])
            return None
        return opened

    async def _open(self, cuts: list[str] | None) -> OpenedAudit:
        cited = self._cited
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        home, root, jobs = self._context.home.root, self._context.tail.admission.root, self._jobs(cited.machine)
        return await jobs.opened(open_audit, AuditOpening(home, root, self._folder, cited, cuts, jobs.conditions))

    @property
    def _cited(self) -> AuditRequest:
        return AuditRequest.model_validate(self._wakeup.now.request)

    def _jobs(self, machine: AuditedMachine, workloads: Sequence[WorkloadEntry] = ()) -> AuditJobs:
        log = self._folder / "audit.log"
        return AuditJobs(self._context.children, machine, self._wakeup.history.id, log, workloads)

    async def _compute(self, planned: events.AuditPlanned, machine: AuditedMachine, opened: OpenedAudit) -> None:
        """Compute spans until every span has a result, from any trainer, and the exporter has answered."""
        jobs = self._jobs(machine, opened.workloads)
        worker = _SpanWorker(jobs, self._folder, opened, locates=planned.mode == "bisect")
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(spans_at_once(machine)):
                    tasks.create_task(self._work(worker))
        except ExceptionGroup as group:
            raise group.exceptions[0] from group
        silence = self._context.settings.waive_after_seconds
        while self._audit.unexported() and self._context.presence.silent_seconds("exporter") < silence:
            await self._news()

    async def _work(self, worker: _SpanWorker) -> None:
        while self._audit.waiting():
            async with self._turns:
                span = self._free()
                taken = await self._take(span) if span else None
                if span and taken:
                    await self._repeat(worker, span, taken)
            if taken is None:
                await self._news()

    def _free(self) -> SpanPlanned | None:
        """The next span that no trainer computes; None when every one is taken.

        No trainer computes what an earlier life of this process took, or one that declined or fell silent."""
        for span in self._audit.waiting():
            holder = self._audit.holders.get(span.number)
            if span.number in self._reserved:
                continue
            if holder is None or holder.incarnation in self._audit.declined:
                return span
            instance, _, _ = holder.incarnation.partition("/")
            if instance == self._context.instance:
                works = holder.id in self._mine
            else:
                silent = self._context.presence.instance_silent_seconds("trainer", instance)
                works = silent <= self._context.settings.takeover_after_seconds
            if not works:
                return span
        return None

    async def _take(self, span: SpanPlanned) -> str | None:
        """Say that this span is computed here; the event that says so, or None when another was faster."""
        self._reserved.add(span.number)
        before = self._audit.holders.get(span.number)
        name, before_id = self._context.settings.name, before.id if before else None
        taken = events.SpanTaken(span=span.number, worker=name, incarnation=self._me, instead_of=before_id)
        (fact,) = await self._say(taken)
        holder = self._audit.holders.get(span.number)
        if fact.event != taken or holder is None or holder.id != fact.id:
            self._reserved.discard(span.number)
            return None
        self._mine.add(fact.id)
        return fact.id

    async def _repeat(self, worker: _SpanWorker, span: SpanPlanned, taken: str) -> None:
        for death in range(1, MOST_DEATHS + 1):
            try:
                result = await worker.account(span)
                break
            except ChildDied:
                if death == MOST_DEATHS:
                    raise
        await self._say(result, cause=taken)

    async def _decline(self, differing: list[str]) -> None:
        declined = events.AuditDeclined(worker=self._context.settings.name, incarnation=self._me, differing=differing)
        while self._me not in self._audit.declined:
            await self._say(declined)

    async def _stand_by(self) -> None:
        """Leave the span to other trainers; when none is left that could compute it, record that."""
        presence, patience = self._context.presence, self._context.settings.takeover_after_seconds
        while True:
            declined = {incarnation.partition("/")[0] for incarnation in self._audit.declined}
            there = {seen.instance for seen in presence.roster() if seen.role == "trainer" and seen.seconds <= patience}
            # Without others, only a process that has listened long enough knows that there are none.
            if not there - declined and presence.listening_seconds() >= patience:
                break
            await self._news()
        await self._conclude()

    async def _conclude(self) -> None:
        audit, cited = self._audit, self._cited
        verdict: events.AuditCompleted | events.AuditFailed
        if audit.planned is None:
            reasons = dict.fromkeys(reason for said in audit.declined.values() for reason in said.differing)
            verdict = events.AuditFailed(message=" ".join(reasons), cure="Audit it where its log is kept: swarm audit")
        else:
            verdict = conclude(audit, audit.planned, seed=cited.seed, events=cited.size)
        while self._wakeup.now.outcome is None:
            await self._say(verdict)

    async def _news(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_AGAIN):
                await self._wakeup.history.grown(self._wakeup.history.size)


class _Unable(Exception):
    """The code of a span gave no result here, for a reason of its own."""


class _SpanWorker:
    """Where this trainer computes spans: its jobs, and what they are given."""

    def __init__(self, jobs: AuditJobs, folder: Path, opened: OpenedAudit, *, locates: bool) -> None:
        assert opened.data is not None  # noqa: S101 - there are spans to compute
        self._jobs = jobs
        self._folder = folder
        self._data = opened.data
        self._fingerprint = opened.fingerprint
        self._locates = locates

    async def account(self, span: SpanPlanned) -> events.SpanRepeated:
        """The result of a span, or that its bytes are gone by now; `_Unable` when its code gave no result."""
        task = SpanFile(self._folder / f"span-{span.number}.json", self._data)
        path = recorded_path(self._folder, span.number)
        spec = SpanSpec.model_validate_json(await asyncio.to_thread(path.read_bytes))
        located = None
        try:
            result = await self._jobs.span(task, spec)
            if self._locates and result.divergence:
                located = await locate_divergence(self._jobs, task, spec, span.number, result.divergence)
        except (ChildDied, OutOfMemory):
            raise  # of the machine: another child, or a person, may have more luck
        except SwarmError as error:
            blob = spec.start.blob if spec.start else None
            result = uncomputable_span(
                error, span.number, gone=await asyncio.to_thread(missing_bytes, self._data, blob)
            )
            if result.differing:
                raise _Unable(result.differing) from error
        return events.SpanRepeated(
            span=span.number,
            steps=result.steps,
            divergence=result.divergence,
            located=located,
            fingerprint=self._fingerprint,
            problem=result.problem,
        )
