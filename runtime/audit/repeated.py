"""The modes `spot`, `full` and `bisect` without a swarm: spans computed again here and held against the log.

It writes nothing into any log. Its results so far are kept in the home's work folder until the audit has ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from runtime.audit import exports, parentage
from runtime.jobs.children import Children
from runtime.replay.audit_plan import AuditOptions, lay_out
from runtime.replay.audit_runner import AuditRunner, Tell
from runtime.replay.audit_subject import AuditSubject
from runtime.replay.spans import Span
from runtime.replay.verdict import (
    FAILS,
    UNTRAINED,
    ExportFindings,
    ReplayVerdict,
    Result,
    Verdict,
    replay_verdict,
    verdict_without_replay,
)


async def repeat(
    log: Verdict, material: AuditSubject, asked: AuditOptions, children: Children, tell: Tell = lambda _: None
) -> ReplayVerdict:
    """The verdict of a mode that computes: that of mode `log`, unless more is found."""
    if log.verdict != "pass":
        return verdict_without_replay(log, asked.mode, FAILS)
    material.work.mkdir(parents=True, exist_ok=True)
    if material.session.claim is None:
        docket, _ = lay_out(material, asked, None, material.blobs.has)
        return replay_verdict(log, docket, {}) if docket.broken else verdict_without_replay(log, asked.mode, UNTRAINED)
    with TemporaryDirectory(prefix="audit-", dir=material.work) as folder:
        bench = AuditRunner(material, asked, children, Path(folder), tell)
        differing = await bench.compare()
        # What the request resolves to is another machine's business where this one is not comparable.
        docket, spans = lay_out(material, asked, None if differing else bench.resolved, material.blobs.has)
        if differing or docket.broken:
            return replay_verdict(log, docket, {}, unchecked=material.trusted(), differing=differing)
        chosen = [spans[number] for number in docket.chosen]
        results = await bench.spans(chosen, until_divergence=asked.mode == "bisect")
        again = await exports.again(material, bench.jobs, bench.folder) if asked.mode == "full" else ExportFindings()
        begun = parentage.ForkFindings()
        if asked.mode != "spot":
            begun = await parentage.again(material, children, trust_code=asked.trust_code)
            docket = replace(docket, broken=(*docket.broken, *begun.divergences))
        place = await _bisected(bench, chosen, results) if asked.mode == "bisect" else None
        bench.notebook.close()
        told = (*material.trusted(), *begun.unchecked)
        return replay_verdict(log, docket, results, again, unchecked=told, resumed=bench.resumed, located=place)


async def _bisected(bench: AuditRunner, chosen: list[Span], results: Mapping[int, Result]) -> dict[str, Any] | None:
    from runtime.replay.steps import locate_divergence

    first = next((one for one in chosen if one.number in results and results[one.number]["divergence"]), None)
    if first is None:
        return None
    args, spec = bench.material.arguments(first, bench.folder), bench.material.spec(first)
    return await locate_divergence(bench.jobs, args, spec, first.number, results[first.number]["divergence"])
