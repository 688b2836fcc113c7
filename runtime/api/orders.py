"""What is asked of a running swarm about a session that there is: a fork, a proof, a file of its model."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import Failed, NotFound, TimedOut
from runtime.api.following import follow
from runtime.api.session_source import find

if TYPE_CHECKING:
    from contracts.diagnostician import InterventionProven
    from runtime.api.home_context import HomeContext
    from runtime.api.swarm import Swarm
    from runtime.views.proof import ProofAnswer

LONGEST = 200_000
"""Bytes of names of rows that a command holds by itself; more go into the home's store."""


@dataclass(frozen=True)
class ModelFile:
    """An exported model: the file, the session that records it, and how far its answers are from the model's."""

    session: str
    path: Path
    format: str
    quantize: str
    digest: str
    bytes: int
    parity: Mapping[str, float]


@dataclass(frozen=True)
class ForkWish:
    """The grid step to begin at, new values by dotted path, training rows to leave out, and a segment to go on as."""

    at: int
    changes: Mapping[str, Any] = field(default_factory=dict)
    without: Sequence[str] = ()
    segment: int | None = None
    request_id: str | None = None


@dataclass(frozen=True)
class ExportWish:
    """Which form of the model, of which checkpoint."""

    format: str = "onnx"
    quantize: str | None = None
    checkpoint: str | int = "best"


async def fork(context: HomeContext, swarm: Swarm, name: str, wish: ForkWish) -> tuple[str, dict[str, Any]]:
    """Request a fork of the session that a name means: its id, and the swarm's answer, which names the fork."""
    text = "\n".join(wish.without).encode()
    rows: Sequence[str] | Mapping[str, str] = wish.without
    if len(text) > LONGEST and not context.settings.url:
        from bus.blobs import DirectoryBlobs

        rows = {"blob": DirectoryBlobs(context.home.blobs).put(text)}
    parent = await find(swarm, name)
    return parent, await swarm.fork(
        parent, wish.at, changes=wish.changes, without=rows, segment=wish.segment, request_id=wish.request_id
    )


async def prove(
    context: HomeContext,
    name: str,
    intervention: int | str | None,
    within: float | None = None,
    *,
    seeds: int = 1,
    progress: bool = True,
) -> ProofAnswer:
    """Ask for the proof of an intervention and follow it, with both of its forks, to what it shows."""
    async with context.swarm() as swarm:
        parent = await find(swarm, name)
        proof = await swarm.prove(parent, intervention, seeds=seeds)
        if progress:
            context.note(f"Proof {proof}")
        try:
            async with asyncio.timeout(within):
                proven = await _follow_proof(context, swarm, proof, progress=progress)
        except TimeoutError:
            message = f"the proof {proof} has not ended within {within:g} s; it goes on."
            raise TimedOut(message, cure=f"Wait longer: swarm prove {parent}") from None
        from contracts.trainer import ControlEvaluated
        from runtime.views.proof import proof_answer
        from runtime.views.view import event_of

        sides, curves = [], list[dict[int, float]]()
        for fork in (proven.with_it, proven.without_it):
            sides.append(await swarm.session(fork))
            seen = [event_of(line) async for line in swarm.events(fork)]
            judged = [one for one in seen if isinstance(one, ControlEvaluated) and proven.metric in one.values]
            curves.append({one.step: one.values[proven.metric] for one in judged})
    return proof_answer(proof, parent, proven, sides, curves)


async def _follow_proof(context: HomeContext, swarm: Swarm, proof: str, *, progress: bool) -> InterventionProven:
    """The event that ends the proof well; with `progress` it and both of its forks are shown on the way."""
    from contracts.diagnostician import InterventionProven, ProofForked
    from runtime.views.progress import PlainProgress
    from runtime.views.view import event_of

    shown, proven = PlainProgress(context.note), None
    async for line in swarm.events(proof, follow=True):
        if progress:
            shown.take(line)
        match event_of(line):
            case ProofForked(without_it=without_it, with_it=with_it) if progress:
                await follow(context, swarm, without_it, None)
                await follow(context, swarm, with_it, None)
            case InterventionProven() as told:
                proven = told
    if proven is None:
        problem = (await swarm.session(proof))["problem"] or {"message": "it ended otherwise", "cure": ""}
        raise Failed(f"the proof {proof} shows nothing: {problem['message']}", cure=problem["cure"])
    return proven


async def export(context: HomeContext, name: str, wish: ExportWish, timeout: float | None = None) -> ModelFile:
    """Have the model of a session written as a file, and wait for it; `TimedOut` when that takes too long."""
    from runtime.views.formatting import number

    async with context.swarm() as swarm:
        try:
            async with asyncio.timeout(timeout):
                source = await find(swarm, name)
                session, made = await swarm.export(
                    source, wish.format, quantize=wish.quantize, checkpoint=wish.checkpoint
                )
        except TimeoutError:
            cure = f"Look for it: swarm show {name}"
            raise TimedOut(f"the export was not done within {timeout:g} s; it goes on.", cure=cure) from None
    parity = {measure: number(exact) for measure, exact in made["parity"].items()}
    path = _exported_file(context, session, made)
    return ModelFile(session, path, made["format"], made["quantize"], made["blob"], made["bytes"], parity)


def _exported_file(context: HomeContext, session: str, made: Mapping[str, Any]) -> Path:
    """The file under its name, or by its content where the session's folder does not have it."""
    from bus.blobs import DirectoryBlobs
    from contracts.exporter import ModelExported

    filename, blob = ModelExported.model_validate(made).plain_filename, str(made["blob"])
    named = context.home.sessions / session / "exports" / filename
    path = named if filename and named.exists() else DirectoryBlobs(context.home.blobs).path(blob)
    if not path.exists():
        raise NotFound(
            f"the model was exported, and blob {blob} is not in {str(context.home.root)!r}.",
            cure=f"Fetch it from the swarm's own home: sessions/{session}/exports/{made['filename']}",
        )
    return path
