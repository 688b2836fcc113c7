"""Audits that compute spans again and hold them against the log: without a swarm in this process, or in a swarm.

Without a swarm nothing is written into any log. In a swarm a job opens the audit: it verifies the log, looks at this
machine and lays out what is to be done; the verdict is a pure look at what trainers and exporter have said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bus.blobs import DirectoryBlobs
from contracts.audit import AuditState
from contracts.errors import NotFound, Refused
from contracts.findings import AuditRequest
from contracts.ledger import LedgerCheckpointed, SessionSealed
from contracts.trainer import AuditCompleted, AuditPlanned
from runtime import audit
from runtime.audit import exports, fork_check
from runtime.audit.log_check import read_steadily
from runtime.home.home import Home
from runtime.home.workloads import WorkloadEntry
from runtime.jobs.job import JobContext, job
from runtime.log.archive import Archive, CachedArchive, StoredSession
from runtime.replay import audit_plan, audit_subject, verdict
from runtime.replay.audit_runner import AuditRunner, Tell
from runtime.replay.jobs import Conditions, IdentityAnswer, IdentityQuestion, MachineIdentity, ReplayData
from runtime.replay.steps import locate_divergence

if TYPE_CHECKING:
    from runtime.jobs.children import Children

OpeningContext = JobContext[IdentityQuestion, IdentityAnswer]

SILENT = "the exporter did not answer"


async def recompute(
    log: verdict.Verdict,
    subject: audit_subject.AuditSubject,
    options: audit_plan.AuditOptions,
    children: Children,
    tell: Tell = lambda _: None,
) -> verdict.ReplayVerdict:
    """The verdict of a mode that computes: that of mode `log`, unless more is found."""
    if log.verdict != "pass":
        return verdict.verdict_without_replay(log, options.mode, verdict.FAILS)
    subject.work.mkdir(parents=True, exist_ok=True)
    if subject.session.training.claim is None:
        plan, _ = audit_plan.lay_out(subject, options, None, subject.blobs.has)
        return (
            verdict.replay_verdict(log, plan, {})
            if plan.broken
            else verdict.verdict_without_replay(log, options.mode, verdict.UNTRAINED)
        )
    with TemporaryDirectory(prefix="audit-", dir=subject.work) as folder:
        runner = AuditRunner(subject, options, children, Path(folder), tell)
        differing = await runner.compare()
        # What the request resolves to is another machine's business where this one is not comparable.
        plan, spans = audit_plan.lay_out(subject, options, None if differing else runner.resolved, subject.blobs.has)
        if differing or plan.broken:
            return verdict.replay_verdict(log, plan, {}, unchecked=subject.trusted(), differing=differing)
        chosen = [spans[number] for number in plan.chosen]
        results = await runner.spans(chosen, until_divergence=options.mode == "bisect")
        again = (
            await exports.remake_all(subject, runner.jobs, runner.folder)
            if options.mode == "full"
            else verdict.ExportFindings()
        )
        begun = fork_check.ForkFindings()
        if options.mode != "spot":
            begun = await fork_check.check_start(subject, children, trust_code=options.trust_code)
            plan = replace(plan, broken=(*plan.broken, *begun.divergences))
        place = None
        bad = next((one for one in chosen if one.number in results and results[one.number].divergence), None)
        divergence = results[bad.number].divergence if bad else None
        if options.mode == "bisect" and bad and divergence:
            task, spec = subject.task(bad, runner.folder), subject.spec(bad)
            place = await locate_divergence(runner.jobs, task, spec, bad.number, divergence)
        runner.results.close()
        told = (*subject.trusted(), *begun.unchecked)
        return verdict.replay_verdict(log, plan, results, again, unchecked=told, resumed=runner.resumed, located=place)


@dataclass(frozen=True)
class AuditOpening:
    """An audit to open: what its genesis cites, and the folder in which its spans are laid out.

    With `cuts` (blobs at which spans begin) an audit is gone on with whose log was verified before. Without, the log is
    verified, and spans begin at every checkpoint that is here.
    """

    home: Path
    root: str
    folder: Path
    cited: AuditRequest
    cuts: Sequence[str] | None
    under: Conditions


@dataclass(frozen=True)
class OpenedAudit:
    """An audit as it was opened here: the plan, what differs here from the claims, and what jobs about its spans need.

    There is no plan where an audit is gone on with whose plan is known.
    """

    planned: AuditPlanned | None
    cuts: Sequence[str] = ()
    fingerprint: str = ""
    differing: Sequence[str] = ()
    data: ReplayData | None = None
    workloads: Sequence[WorkloadEntry] = ()


@job(purpose="audit", profile=lambda opening: opening.under.profile)
def open_audit(context: OpeningContext, opening: AuditOpening) -> OpenedAudit:
    """Verify the log, look at this machine and lay out what is to be done."""
    home, cited, cuts = Home(opening.home), opening.cited, opening.cuts
    blobs, session = DirectoryBlobs(home.blobs), cited.session

    def look() -> tuple[verdict.Verdict, Archive]:
        archive = CachedArchive(home, opening.root)
        return audit.check_log(archive, session, blobs), archive

    log, archive = read_steadily(look) if cuts is None else (None, Archive(home, opening.root))
    if log is not None and log.verdict != "pass":
        return OpenedAudit(planned=_planned(cited, verdict.verdict_without_replay(log, cited.mode, verdict.FAILS)))
    kept = archive.read(session)
    if kept.history.size < cited.size:
        message = f"the file of {session} holds {kept.history.size} events here, and {cited.size} are cited."
        raise NotFound(message, cure="Audit it where its log is kept.")
    # What came later than what the audit cites is no part of it.
    beginning = replace(kept, history=kept.history.beginning(cited.size))
    subject = audit_subject.AuditSubject(beginning, blobs, opening.folder, home.root)
    plan, opened = _laid_out(context, subject, cited, cuts, _unsigned(kept, cited))
    if log is None:
        return opened
    told = fork_check.unchecked_in_swarm(subject.session, cited.mode)
    trusted = subject.trusted() if cited.mode != "log" else ()
    log = replace(log, unchecked=(*log.unchecked, *trusted, *told))
    machine = subject.machine
    if plan.mode == "log" or machine is None:
        if plan.broken:
            log = verdict.replay_verdict(log, plan, {})
        elif plan.mode != "log":
            log = verdict.verdict_without_replay(log, plan.mode, verdict.UNTRAINED)
        return OpenedAudit(planned=_planned(cited, log))
    remade = exports.orders(subject.kept.history) if cited.mode == "full" else []
    about = {"cuts": list(opened.cuts), "exports": remade, "machine": machine}
    return replace(opened, planned=_planned(cited, log, plan).model_copy(update=about))


def _planned(cited: AuditRequest, log: verdict.Verdict, plan: audit_plan.AuditPlan | None = None) -> AuditPlanned:
    """The plan as it is told; without one the verdict on the log needs no computing and is all of it."""
    return AuditPlanned(
        session=cited.session,
        mode=cited.mode,
        size=cited.size,
        root=cited.root,
        log=log.findings(),
        spans=list(plan.spans) if plan else [],
        chosen=list(plan.chosen) if plan else [],
        cuts=[],
        broken=[one.found() for one in plan.broken] if plan else [],
        exports=[],
        machine=None,
        ended=plan.ended if plan else True,
        reached=plan.reached if plan else 0,
    )


def _laid_out(
    context: OpeningContext,
    subject: audit_subject.AuditSubject,
    cited: AuditRequest,
    cuts: Sequence[str] | None,
    unsigned: Iterator[verdict.Divergence],
) -> tuple[audit_plan.AuditPlan, OpenedAudit]:
    """What is to be computed, this machine beside the claims, and what jobs are given; spans are laid out as files."""
    options = audit_plan.AuditOptions(cited.mode, segments=cited.segments, seed=cited.seed)
    workloads, missing = subject.missing(trusted=False)
    here, differing = _compared(context, subject, workloads, missing)
    begins = subject.blobs.has if cuts is None else frozenset(cuts).__contains__
    # What the request resolves to is another machine's business where this one is not comparable.
    resolved = here.resolved if here and not differing else None
    plan, spans = audit_plan.lay_out(subject, options, resolved, begins)
    plan = replace(plan, broken=(*unsigned, *plan.broken))
    for span in spans.values():
        subject.task(span, subject.work)
        audit_subject.recorded_path(subject.work, span.number).write_text(subject.spec(span).model_dump_json())
    return plan, OpenedAudit(
        planned=None,
        cuts=[*dict.fromkeys(one.start.written.blob for one in spans.values() if one.start)],
        fingerprint=here.fingerprint if here else "",
        differing=differing,
        data=subject.data,
        workloads=workloads,
    )


def _compared(
    context: OpeningContext, subject: audit_subject.AuditSubject, workloads: list[WorkloadEntry], missing: list[str]
) -> tuple[MachineIdentity | None, list[str]]:
    """This machine's identity, which the caller of the job measures, and what differs here from the claims."""
    if subject.machine is None:
        return None, []
    context.tell(IdentityQuestion(subject.identity(whole=not missing), workloads))
    answer = context.order(wait=True)
    if answer is None:
        raise Refused("nobody answered what this machine computes.", cure="Begin the audit again.")
    differing = audit_subject.machine_differences(subject.kept.history.facts, answer.found)
    return answer.found, [*differing, *missing, *answer.unread]


def _unsigned(kept: StoredSession, cited: AuditRequest) -> Iterator[verdict.Divergence]:
    """What is cited, when the ledger has signed no such root; every root that it has signed was computed again."""
    for fact in kept.history.facts:
        match fact.event:
            case LedgerCheckpointed(size=size, root=root) | SessionSealed(size=size, root=root):
                if (size, root) == (cited.size, cited.root):
                    return
    message = f"the ledger never signed root {cited.root} over {cited.size} events"
    yield verdict.Divergence(cited.size, 0, "root", message)


def conclude(audit: AuditState, planned: AuditPlanned, *, seed: int, events: int) -> AuditCompleted:
    """The verdict as of now, from the audit's own log; `events` is the number of events of the audited session."""
    found = planned.log if planned.machine is None else _judged(audit, planned, seed, events).findings()
    return AuditCompleted(session=planned.session, mode=planned.mode, verdict=found.verdict, found=found)


def _judged(audit: AuditState, planned: AuditPlanned, seed: int, events: int) -> verdict.ReplayVerdict:
    log = verdict.Verdict.of_findings(planned.log)
    broken = tuple(verdict.Divergence(one.position, one.seq, one.what, one.message) for one in planned.broken)
    spans, chosen = tuple(planned.spans), tuple(planned.chosen)
    plan = audit_plan.AuditPlan(planned.mode, seed, spans, chosen, broken, planned.ended, planned.reached, events)
    results = {
        at: verdict.SpanResult(steps=one.steps, divergence=one.divergence, problem=one.problem)
        for at, one in sorted(audit.repeated.items())
    }
    if audit.waiting() and not any(one.divergence for one in audit.repeated.values()):
        differing = list(dict.fromkeys(one for said in audit.declined.values() for one in said.differing))
        return verdict.replay_verdict(log, plan, results, differing=differing)
    # Where the exporter has failed at telling what it made, nothing can be said of the files.
    silent = (
        exports.Remade(differing="a failure of the exporter")
        if audit.exporter_failed
        else exports.Remade(missing=SILENT)
    )
    said = {at: exports.Remade(one.divergence, one.differing, one.problem) for at, one in audit.exports.items()}
    made = exports.export_findings((one, said.get(one.export, silent)) for one in planned.exports)
    located = next((one.located for _, one in sorted(audit.repeated.items()) if one.located), None)
    return verdict.replay_verdict(log, plan, results, made, located=located)
