"""Exported files made again by the exporter's own job, which is known by name alone, and compared byte for byte."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bus.blobs import digest_of
from contracts.errors import SwarmError
from contracts.exporter import ModelExported
from contracts.session import Session
from runtime.audit.verdict import Divergence
from runtime.children import Children
from runtime.profiles import torch_profile

if TYPE_CHECKING:
    from runtime.audit.repeated import Material

EXPORT = "agents.exporter.jobs.export:main"


@dataclass
class Again:
    """What came out."""

    checked: int = 0
    divergences: list[Divergence] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)


async def again(material: Material, workloads: list[dict[str, str]], children: Children, folder: Path) -> Again:
    """Make every exported file of a session again, one after the other."""
    found = Again()
    for id, made in material.session.exports:
        if not material.blobs.has(made.checkpoint_blob):
            found.unchecked.append(f"export {made.filename}: its checkpoint of step {made.checkpoint_step} is not here")
            continue
        work = folder / f"export-{len(found.divergences)}-{found.checked}"
        work.mkdir()
        args = {
            "order": _order(made, material.session),
            "blobs": str(material.blobs.root),
            "work": str(work),
            "exports": str(work),
            "filename": made.filename,
            "workloads": workloads,
        }
        try:
            answer = await _made(children, args, material.session.id, folder / "export.log")
        except SwarmError as error:
            answer = {"refused": {"message": error.message}}
        if "refused" in answer:
            found.unchecked.append(f"export {made.filename} could not be made again: {answer['refused']['message']}")
            continue
        found.checked += 1
        against = _against(made, answer, work)
        if against:
            fact = next(fact for fact in material.kept.history.facts if fact.id == id)
            found.divergences.append(Divergence(fact.position, fact.seq, fact.name, against))
    return found


async def _made(children: Children, args: dict[str, Any], session: str, log: Path) -> dict[str, Any]:
    async with children.job(EXPORT, args, profile=torch_profile(), purpose="export", session=session, log=log) as child:
        return await child.wait()


def _against(made: ModelExported, answer: dict[str, Any], work: Path) -> str:
    found = digest_of(work / made.filename)
    if found != made.blob:
        return f"{made.filename} made again has digest {found}, recorded is {made.blob}"
    beside = made.details.get("beside", {})
    wrong = [one for one, digest in answer["details"].get("beside", {}).items() if beside.get(one) != digest]
    return f"{made.filename}.{wrong[0]} made again is not what was recorded" if wrong else ""


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
