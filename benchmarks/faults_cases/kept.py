"""The log of a session in memory: its bodies, what the diagnosis says of them, what was found and decided."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from contracts import envelope, ids
from contracts.data_manager import DatasetPrepared
from contracts.diagnostician import InterventionProposed, OutcomeJudged, ProblemDiagnosed
from contracts.envelope import Fact
from contracts.event import Event
from contracts.trainer import InterventionApplied, InterventionDeclined, WindowRecorded
from runtime.diagnosis.evidence import Evidence, rules
from runtime.diagnosis.fold import DiagnosisState
from runtime.log.session_log import SessionLog

ZERO = "0" * 64


def written(log: SessionLog, lane: str, event: Event, cause: str | None = None) -> bytes:
    """An event as the next body of a log."""
    number = log.size + 1
    return envelope.write(
        event,
        id=f"bench-{lane}-{number}",
        session=log.id,
        lane=lane,
        laneseq=number,
        prev=ZERO,
        source="bench",
        time="2026-01-01T00:00:00.000000Z",
        cause=cause,
    )


def admit(log: SessionLog, body: bytes) -> Fact:
    """Add a body to a log as the next fact."""
    written, read = envelope.read(body)
    fact = Fact(log.size + 1, log.size + 1, written, read, ZERO, "signed")
    log.add([fact])
    return fact


def answers(log: SessionLog, fact: Fact) -> Sequence[Event]:
    """What the diagnostician says because of a fact: as its agent does."""
    state = log.derived(DiagnosisState(), fact.position)
    if state.at != fact.id:
        return []
    return [*(state.said if log.state.outcome is None else ()), *state.verdicts]


def evidence_at(bodies: Sequence[tuple[str, str]], step: int) -> tuple[Evidence, int]:
    """What rules saw at the first window of a kept session that ends at a step or later, and where that ended."""
    log = SessionLog(ids.session_for("fault bench"))
    for lane, body in bodies:
        if lane == "diagnostician":
            continue
        event = admit(log, body.encode()).event
        if isinstance(event, WindowRecorded) and event.last >= step:
            break
    seen = log.derived(DiagnosisState()).evidence
    return seen, seen.step


def folded_again(bodies: Sequence[tuple[str, str]], prepared: DatasetPrepared) -> list[dict[str, Any]]:
    """What today's rules find in a session that was kept and in which nothing was changed."""
    log = SessionLog(ids.session_for("fault bench"))
    for lane, body in bodies:
        if lane == "diagnostician":
            continue
        fact = admit(log, written(log, lane, prepared) if lane == "data_manager" else body.encode())
        if lane == "trainer":
            for said in answers(log, fact):
                if isinstance(said, ProblemDiagnosed):
                    admit(log, written(log, "diagnostician", said, fact.id))
    return found_in(log)


def found_in(log: SessionLog) -> list[dict[str, Any]]:
    """Every problem that was told, in its order."""
    told = [fact.event for fact in log.facts if isinstance(fact.event, ProblemDiagnosed)]
    names = ("rule", "severity", "priority", "first", "last")
    return [{name: getattr(one, name, None) for name in names} for one in told]


def priority(finding: Mapping[str, Any]) -> tuple[float, int, int]:
    """The cause of others first, as the finding itself says; then as rules are asked; of two of one, the earlier."""
    order = list(rules.all)
    place = order.index(finding["rule"]) if finding["rule"] in order else len(order)
    return (finding.get("priority") or math.inf, place, finding["last"])


def decisions_in(log: SessionLog) -> list[str]:
    """What each of the two lanes says of decisions, in words without identities: the trainer's first.

    How the words of two lanes interleave depends on when each was heard, and decides nothing. What is said of the
    machine depends on its clock, and is left out.
    """
    said = []
    clocked = {name for name, rule in rules.all.items() if type(rule).__module__.endswith(".resources")}
    for fact in sorted(log.facts, key=lambda fact: fact.lane != "trainer"):
        match fact.event:
            case ProblemDiagnosed() as one if one.rule not in clocked:
                said.append(f"{one.rule} {one.severity} {one.segment} {one.first}..{one.last}")
            case InterventionProposed() as one:
                said.append(f"proposed {one.rule} {one.segment} {one.rewind_to} {sorted(one.changes.items())}")
            case InterventionApplied() as one:
                said.append(f"applied {one.by} {one.segment} {one.step} {sorted(one.changes.items())}")
            case InterventionDeclined() as one:
                said.append(f"declined {one.reason}")
            case OutcomeJudged() as one:
                said.append(f"judged {one.helped} {one.message}")
    return said
