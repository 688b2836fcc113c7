"""The verdict of an audit in a swarm: a pure look at what its trainers and its exporter have said."""

from __future__ import annotations

from contracts.audit import Audit
from contracts.trainer import AuditCompleted, AuditPlanned
from runtime.audit.exports import Remade, summed
from runtime.replay.audit_plan import AuditPlan
from runtime.replay.verdict import Divergence, ExportFindings, ReplayVerdict, Verdict, replay_verdict

OPENING = "runtime.audit.opening:main"
"""What opens an audit in a child, before anything of it can be concluded."""

SILENT = "the exporter did not answer"


def concluded(audit: Audit, planned: AuditPlanned, *, seed: int, events: int) -> AuditCompleted:
    """The verdict as of now, from the audit's own log; `events` is the number of events of the audited session."""
    found = planned.log if not planned.machine else _judged(audit, planned, seed, events).as_json()
    return AuditCompleted(session=planned.session, mode=planned.mode, verdict=found["verdict"], found=found)


def _judged(audit: Audit, planned: AuditPlanned, seed: int, events: int) -> ReplayVerdict:
    log, docket = Verdict.of_json(planned.log), _docket(planned, seed, events)
    results = {
        at: {"steps": one.steps, "divergence": one.divergence, "problem": one.problem}
        for at, one in sorted(audit.repeated.items())
    }
    if audit.waiting() and not any(one.divergence for one in audit.repeated.values()):
        differing = list(dict.fromkeys(one for said in audit.declined.values() for one in said.differing))
        return replay_verdict(log, docket, results, differing=differing)
    located = next((one.located for _, one in sorted(audit.repeated.items()) if one.located), None)
    return replay_verdict(log, docket, results, _exports(audit, planned), located=located)


def _docket(planned: AuditPlanned, seed: int, events: int) -> AuditPlan:
    broken = tuple(Divergence(**one) for one in planned.broken)
    spans, chosen = tuple(planned.spans), tuple(planned.chosen)
    return AuditPlan(planned.mode, seed, spans, chosen, broken, planned.ended, planned.reached, events)


def _exports(audit: Audit, planned: AuditPlanned) -> ExportFindings:
    """What the exporter has told; where it has failed at telling it, nothing can be said of the files."""
    silent = Remade(differing="a failure of the exporter") if audit.exporter_failed else Remade(missing=SILENT)
    said = {at: Remade(one.divergence, one.differing, one.problem) for at, one in audit.exports.items()}
    return summed((one, said.get(one["export"], silent)) for one in planned.exports)
