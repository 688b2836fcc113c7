"""Audits that compute spans again and hold them against the log: without a swarm in this process, or in a swarm.

Without a swarm nothing is written into any log. In a swarm a job opens the audit: it verifies the log, looks at this
machine and lays out what is to be done; the verdict is a pure look at what trainers and exporter have said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from bus.blobs import DirectoryBlobs
from contracts.audit import Audit
from contracts.errors import NotFound
from contracts.ledger import LedgerCheckpointed, SessionSealed
from contracts.trainer import AuditCompleted, AuditPlanned
from runtime import audit
from runtime.audit import exports, fork_check
from runtime.audit.log_check import read_steadily
from runtime.home.home import Home
from runtime.jobs.job import Job
from runtime.log.archive import Archive, CachedArchive, StoredSession
from runtime.replay import audit_plan, audit_subject, verdict
from runtime.replay.audit_runner import AuditRunner, Tell
from runtime.replay.steps import locate_divergence

if TYPE_CHECKING:
    from runtime.jobs.children import Children

Data = dict[str, Any]
OPENING = "runtime.audit.recomputation:open_audit"
"""What opens an audit in a child, before anything of it can be concluded."""

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
    if subject.session.claim is None:
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
            args, spec = subject.arguments(bad, runner.folder), subject.spec(bad)
            place = await locate_divergence(runner.jobs, args, spec, bad.number, divergence)
        runner.results.close()
        told = (*subject.trusted(), *begun.unchecked)
        return verdict.replay_verdict(log, plan, results, again, unchecked=told, resumed=runner.resumed, located=place)


def open_audit(job: Job) -> Data:
    """What there is to do: `log`, the verdict on the log, and unless that is all, what `_opened` says.

    With `cuts` (blobs at which spans begin) an audit is gone on with whose log was verified before: `log` is None then.
    Without, spans begin at every checkpoint that is here.
    """
    home, cited, cuts = Home(Path(job.args["home"])), job.args["cited"], job.args["cuts"]
    blobs, session = DirectoryBlobs(home.blobs), cited["session"]

    def look() -> tuple[verdict.Verdict, Archive]:
        archive = CachedArchive(home, job.args["root"])
        return audit.check_log(archive, session, blobs), archive

    log, archive = read_steadily(look) if cuts is None else (None, Archive(home, job.args["root"]))
    if log is not None and log.verdict != "pass":
        return {"log": verdict.verdict_without_replay(log, cited["mode"], verdict.FAILS).as_json()}
    kept = archive.read(session)
    if kept.history.size < cited["size"]:
        message = f"the file of {session} holds {kept.history.size} events here, and {cited['size']} are cited."
        raise NotFound(message, cure="Audit it where its log is kept.")
    # What came later than what the audit cites is no part of it.
    beginning = replace(kept, history=kept.history.beginning(cited["size"]))
    subject = audit_subject.AuditSubject(beginning, blobs, Path(job.args["folder"]), home.root)
    if log is not None:
        told = fork_check.unchecked_in_swarm(subject.session, cited["mode"])
        trusted = subject.trusted() if cited["mode"] != "log" else ()
        log = replace(log, unchecked=(*log.unchecked, *trusted, *told))
    opened, plan = _opened(job, subject, cited, cuts, _unsigned(kept, cited))
    if log is None or (plan.mode != "log" and subject.session.claim is not None):
        return opened | {"log": log.as_json() if log else None}
    if plan.broken:
        log = verdict.replay_verdict(log, plan, {})
    elif plan.mode != "log":
        log = verdict.verdict_without_replay(log, plan.mode, verdict.UNTRAINED)
    return {"log": log.as_json()}


def _opened(
    job: Job,
    subject: audit_subject.AuditSubject,
    cited: Mapping[str, Any],
    cuts: list[str] | None,
    unsigned: Iterator[verdict.Divergence],
) -> tuple[Data, audit_plan.AuditPlan]:
    """What is to be computed, this machine beside the claims, and what jobs are given; spans are laid out as files."""
    options = audit_plan.AuditOptions(cited["mode"], segments=cited["segments"], seed=cited["seed"])
    workloads, missing = subject.missing(trusted=False)
    machine, differing = _compared(job, subject, workloads, missing)
    begins = subject.blobs.has if cuts is None else frozenset(cuts).__contains__
    # What the request resolves to is another machine's business where this one is not comparable.
    plan, spans = audit_plan.lay_out(subject, options, None if differing else machine["resolved"], begins)
    plan = replace(plan, broken=(*unsigned, *plan.broken))
    for span in spans.values():
        subject.arguments(span, subject.work)
        audit_subject.recorded_path(subject.work, span.number).write_text(subject.spec(span).model_dump_json())
    opened = plan.as_json() | {
        "cuts": [*dict.fromkeys(one.start.written.blob for one in spans.values() if one.start)],
        "exports": exports.orders(subject.kept.history) if options.mode == "full" else [],
        "machine": subject.machine,
        "fingerprint": machine["fingerprint"],
        "differing": differing,
        "data": subject.data,
        "workloads": workloads,
    }
    return opened, plan


def _compared(
    job: Job, subject: audit_subject.AuditSubject, workloads: list[dict[str, str]], missing: list[str]
) -> tuple[Data, list[str]]:
    """This machine's identity, which the caller of the job measures, and what differs here from the claims."""
    if not subject.machine:
        return {"resolved": None, "fingerprint": ""}, []
    job.tell("identify", about=subject.identity(whole=not missing), workloads=workloads)
    order = job.order(wait=True)
    found, unread = (order.data["found"], order.data["unread"]) if order else ({}, [])
    return found, audit_subject.machine_differences(subject.kept.history.facts, found) + missing + unread


def _unsigned(kept: StoredSession, cited: Mapping[str, Any]) -> Iterator[verdict.Divergence]:
    """What is cited, when the ledger has signed no such root; every root that it has signed was computed again."""
    for fact in kept.history.facts:
        match fact.event:
            case LedgerCheckpointed(size=size, root=root) | SessionSealed(size=size, root=root):
                if (size, root) == (cited["size"], cited["root"]):
                    return
    message = f"the ledger never signed root {cited['root']} over {cited['size']} events"
    yield verdict.Divergence(cited["size"], 0, "root", message)


def conclude(audit: Audit, planned: AuditPlanned, *, seed: int, events: int) -> AuditCompleted:
    """The verdict as of now, from the audit's own log; `events` is the number of events of the audited session."""
    found = planned.log if not planned.machine else _judged(audit, planned, seed, events).as_json()
    return AuditCompleted(session=planned.session, mode=planned.mode, verdict=found["verdict"], found=found)


def _judged(audit: Audit, planned: AuditPlanned, seed: int, events: int) -> verdict.ReplayVerdict:
    log, broken = verdict.Verdict.of_json(planned.log), tuple(verdict.Divergence(**one) for one in planned.broken)
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
    made = exports.export_findings((one, said.get(one["export"], silent)) for one in planned.exports)
    located = next((one.located for _, one in sorted(audit.repeated.items()) if one.located), None)
    return verdict.replay_verdict(log, plan, results, made, located=located)
