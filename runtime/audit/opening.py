"""A job that opens an audit in a swarm: verifies the log, looks at this machine, and lays out what is to be done.

It reads the home's files and writes two for every span into a folder of its own: one for the job that computes it, and
one with what was recorded, for who compares. No code of the user's runs here: what needs some is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from bus.blobs import DirectoryBlobs
from contracts.errors import NotFound
from contracts.ledger import LedgerCheckpointed, SessionSealed
from runtime import audit
from runtime.audit import exports, parentage
from runtime.audit.running import steadily
from runtime.home.home import Home
from runtime.jobs.job import Job
from runtime.log.archive import Archive, CachedArchive, StoredSession
from runtime.replay import audit_subject
from runtime.replay.audit_plan import AuditOptions, AuditPlan, lay_out
from runtime.replay.audit_subject import AuditSubject, recorded_path
from runtime.replay.verdict import FAILS, UNTRAINED, Divergence, Verdict, replay_verdict, verdict_without_replay

Data = dict[str, Any]


def main(job: Job) -> Data:
    """What there is to do: `log`, the verdict on the log, and unless that is all, what `_opened` says.

    With `cuts` (blobs at which spans begin) an audit is gone on with whose log was verified before: `log` is None then.
    Without, spans begin at every checkpoint that is here.
    """
    home, cited, cuts = Home(Path(job.args["home"])), job.args["cited"], job.args["cuts"]
    blobs, session = DirectoryBlobs(home.blobs), cited["session"]

    def look() -> tuple[Verdict, Archive]:
        archive = CachedArchive(home, job.args["root"])
        return audit.log(archive, session, blobs), archive

    log, archive = steadily(look) if cuts is None else (None, Archive(home, job.args["root"]))
    if log is not None and log.verdict != "pass":
        return {"log": verdict_without_replay(log, cited["mode"], FAILS).as_json()}
    kept = archive.read(session)
    material = AuditSubject(_cited(kept, cited["size"]), blobs, Path(job.args["folder"]), home.root)
    if log is not None:
        told = parentage.in_a_swarm(material.session, cited["mode"])
        trusted = material.trusted() if cited["mode"] != "log" else ()
        log = replace(log, unchecked=(*log.unchecked, *trusted, *told))
    opened, docket = _opened(job, material, cited, cuts, _unsigned(kept, cited))
    alone = _without_computing(log, docket, trained=material.session.claim is not None) if log else None
    return {"log": alone.as_json()} if alone else opened | {"log": log.as_json() if log else None}


def _opened(
    job: Job, material: AuditSubject, cited: Mapping[str, Any], cuts: list[str] | None, unsigned: Iterator[Divergence]
) -> tuple[Data, AuditPlan]:
    """What is to be computed, this machine beside the claims, and what jobs are given; spans are laid out as files."""
    asked = AuditOptions(cited["mode"], segments=cited["segments"], seed=cited["seed"])
    workloads, missing = material.missing(trusted=False)
    machine, differing = _compared(job, material, workloads, missing)
    begins = material.blobs.has if cuts is None else frozenset(cuts).__contains__
    # What the request resolves to is another machine's business where this one is not comparable.
    docket, spans = lay_out(material, asked, None if differing else machine["resolved"], begins)
    docket = replace(docket, broken=(*unsigned, *docket.broken))
    for span in spans.values():
        material.arguments(span, material.work)
        recorded_path(material.work, span.number).write_bytes(orjson.dumps(material.spec(span)))
    opened = docket.as_json() | {
        "cuts": [*dict.fromkeys(one.start.written.blob for one in spans.values() if one.start)],
        "exports": exports.orders(material.kept.history) if asked.mode == "full" else [],
        "machine": material.machine,
        "fingerprint": machine["fingerprint"],
        "differing": differing,
        "data": material.data,
        "workloads": workloads,
    }
    return opened, docket


def _compared(
    job: Job, material: AuditSubject, workloads: list[dict[str, str]], missing: list[str]
) -> tuple[Data, list[str]]:
    """This machine's identity, which the caller of the job measures, and what differs here from the claims."""
    if not material.machine:
        return {"resolved": None, "fingerprint": ""}, []
    job.tell("identify", about=material.identity(whole=not missing), workloads=workloads)
    order = job.order(wait=True)
    found, unread = (order.data["found"], order.data["unread"]) if order else ({}, [])
    return found, audit_subject.machine_differences(material.kept.history.facts, found) + missing + unread


def _without_computing(log: Verdict, docket: AuditPlan, *, trained: bool) -> Verdict | None:
    """The verdict where nothing is to be computed; None where something is."""
    if docket.mode != "log" and trained:
        return None
    if docket.broken:
        return replay_verdict(log, docket, {})
    return log if docket.mode == "log" else verdict_without_replay(log, docket.mode, UNTRAINED)


def _cited(kept: StoredSession, size: int) -> StoredSession:
    """The session up to what the audit cites: what came later is no part of it."""
    if kept.history.size < size:
        message = f"the file of {kept.history.id} holds {kept.history.size} events here, and {size} are cited."
        raise NotFound(message, cure="Audit it where its log is kept.")
    return replace(kept, history=kept.history.beginning(size))


def _unsigned(kept: StoredSession, cited: Mapping[str, Any]) -> Iterator[Divergence]:
    """What is cited, when the ledger has signed no such root; every root that it has signed was computed again."""
    for fact in kept.history.facts:
        match fact.event:
            case LedgerCheckpointed(size=size, root=root) | SessionSealed(size=size, root=root):
                if (size, root) == (cited["size"], cited["root"]):
                    return
    message = f"the ledger never signed root {cited['root']} over {cited['size']} events"
    yield Divergence(cited["size"], 0, "root", message)
