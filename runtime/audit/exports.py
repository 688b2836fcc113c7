"""Exported files made again by the exporter's own job, which is known by name alone, and compared byte for byte."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bus.blobs import digest_of
from contracts.errors import SwarmError
from contracts.exporter import ModelExported
from contracts.session import Session
from runtime.audit.jobs import Jobs
from runtime.audit.judged import Exports
from runtime.audit.material import Material
from runtime.audit.verdict import Divergence
from runtime.processes.profiles import export_profile
from runtime.records.history import History

if TYPE_CHECKING:
    from runtime.processes.children import Children

EXPORT = "agents.exporter.jobs.export:main"

MADE = "made"
"""What a file is called where it is made again. The name that the log gives is told and never used as a path."""

Order = Mapping[str, Any]
"""Plain data about one exported file: `export` is the event that tells of it, `order` what its maker is given."""


def orders(history: History) -> list[dict[str, Any]]:
    """Every exported file of a session, as it has to be made again, and where the log tells of it."""
    return [
        {
            "export": fact.id,
            "place": fact.position,
            "seq": fact.seq,
            "filename": fact.event.filename,
            "blob": fact.event.blob,
            "beside": fact.event.details.get("beside", {}),
            "order": _order(fact.event, history.state),
        }
        for fact in history.facts
        if isinstance(fact.event, ModelExported)
    ]


def found_wrong(order: Order, against: str) -> Divergence:
    """That a file made again is not as it was, with its place in the log."""
    return Divergence(order["place"], order["seq"], ModelExported.wire, against)


def not_made(order: Order, problem: str) -> str:
    """That a file could not be made again, and why."""
    return f"export {order['filename']} could not be made again: {problem}"


async def again(material: Material, jobs: Jobs, folder: Path) -> Exports:
    """Make every exported file of a session again, one after the other."""
    checked, found, left = 0, list[Divergence](), list[str]()
    for number, order in enumerate(orders(material.kept.history)):
        work = folder / f"export-{number}"
        work.mkdir()
        against, problem = await made_again(order, Path(material.blobs.root), jobs.workloads, jobs.children, work)
        if problem:
            left.append(not_made(order, problem))
            continue
        checked += 1
        if against:
            found.append(found_wrong(order, against))
    return Exports(checked, tuple(found), tuple(left))


async def made_again(
    order: Order, blobs: Path, workloads: list[dict[str, str]], children: Children, work: Path, session: str = ""
) -> tuple[str, str]:
    """What of one file made again is not as it was, and why it could not be made; both are empty when all is well."""
    args = {
        "order": order["order"],
        "blobs": str(blobs),
        "work": str(work),
        "exports": str(work),
        "filename": MADE,
        "workloads": workloads,
    }
    profile, log = export_profile(order["order"]["format"]), work / "export.log"
    try:
        async with children.job(EXPORT, args, profile=profile, purpose="export", session=session, log=log) as child:
            answer = await child.wait()
    except SwarmError as error:
        return "", error.message
    if "refused" in answer:
        return "", str(answer["refused"]["message"])
    return _against(order, answer, work), ""


def _against(order: Order, answer: Mapping[str, Any], work: Path) -> str:
    name, beside = order["filename"], order["beside"]
    found = digest_of(work / MADE)
    if found != order["blob"]:
        return f"{name} made again has digest {found}, recorded is {order['blob']}"
    wrong = [one for one, digest in answer["details"].get("beside", {}).items() if beside.get(one) != digest]
    return f"{name}.{wrong[0]} made again is not what was recorded" if wrong else ""


def _order(made: ModelExported, session: Session) -> dict[str, Any]:
    """As the exporter was ordered; see `agents.exporter.plan.Order`."""
    written = next((one.written for one in session.checkpoints if one.written.blob == made.checkpoint_blob), None)
    request = session.request if session.kind != "export" else session.request["request"]
    dataset = session.dataset.root if session.dataset else str(session.request.get("dataset", ""))
    return {
        "format": made.format,
        "quantize": made.quantize,
        "wanted": made.checkpoint,
        "step": made.checkpoint_step,
        "blob": made.checkpoint_blob,
        "state_root": written.state_root if written else None,
        "dataset": dataset,
        "request": request,
    }
