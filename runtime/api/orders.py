"""What is asked of a running swarm about a session that there is: a fork, a file of its model."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import NotFound, TimedOut
from runtime.api.session_source import find

if TYPE_CHECKING:
    from runtime.api.home_context import HomeContext
    from runtime.api.swarm import Swarm

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
