"""`swarm export`: a session's model as a file of another format, with the proof that it computes the same."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import click

from contracts.errors import Failed, InvalidInput, NotFound, SwarmError, TimedOut, error_of
from runtime.cli.call import SECONDS, Call, command
from runtime.cli.named import session_argument
from runtime.cli.output import place
from runtime.cli.reach import find
from runtime.views.sentences import figures, number

FORMATS = ("onnx", "safetensors", "pt2", "torchscript")
QUANTIZATIONS = ("int8", "fp16")

KINDS: dict[str, type[SwarmError]] = {"unsupported": InvalidInput, "no-checkpoint": NotFound, "no-dataset": NotFound}
"""What the exporter's own codes mean to a caller; its other codes are those of `contracts.errors`."""


@command("export")
@session_argument
@click.option("--format", "form", type=click.Choice(FORMATS), default="onnx", show_default=True)
@click.option("--quantize", type=click.Choice(QUANTIZATIONS), help="Smaller numbers; of onnx only.")
@click.option("--checkpoint", metavar="C", default="best", show_default=True, help="best, last, or a step.")
@click.option("-o", "--output", metavar="FILE", help="Copy the file there.")
@click.option("--timeout", metavar="SECONDS", type=SECONDS, default=600.0, show_default=True)
def export(
    call: Call, *, session: str, form: str, quantize: str | None, checkpoint: str, output: str | None, timeout: float
) -> None:
    """Export the model of session S and wait for the file."""
    wish = {"format": form, "quantize": quantize or "", "checkpoint": checkpoint}
    wanted = place(output) if output is not None else None
    made, path = call.wait(_exported(call, session, wish, timeout))
    if wanted is not None:
        path = shutil.copyfile(path, wanted)
    found = {"session": made["session"], "path": str(path), "format": made["format"], "quantize": made["quantize"]}
    found |= {"digest": made["blob"], "bytes": made["bytes"], "parity": _numbers(made["parity"])}
    call.result(found, lambda: f"{path}\n{made['bytes']} bytes, digest {made['blob']}\n{figures(made['parity'])}")


async def _exported(call: Call, name: str, wish: dict[str, Any], within: float) -> tuple[dict[str, Any], Path]:
    import asyncio

    async with call.swarm() as found:
        try:
            async with asyncio.timeout(within):
                asked_of = await find(found, name)
                before = await _count(found, asked_of)
                answer = await found.command("export", session=asked_of, **wish)
                own = str(answer["session"])
                said = await _answer(found, own, before if own == asked_of else 0, wish)
        except TimeoutError:
            cure = f"Look for it: swarm show {name}"
            raise TimedOut(f"the export was not done within {within:g} s; it goes on.", cure=cure) from None
    return said | {"session": own}, _file(call, own, said)


def _file(call: Call, session: str, said: dict[str, Any]) -> Path:
    """The file under its name, or by its content where the session's folder does not have it."""
    from bus.blobs import DirectoryBlobs
    from contracts.exporter import ModelExported

    made, blob = ModelExported.model_validate(said).plain_filename, str(said["blob"])
    named = call.home.sessions / session / "exports" / made
    path = named if made and named.exists() else DirectoryBlobs(call.home.blobs).path(blob)
    if not path.exists():
        raise NotFound(
            f"the model was exported, and blob {blob} is not in {str(call.home.root)!r}.",
            cure=f"Fetch it from the swarm's own home: sessions/{session}/exports/{said['filename']}",
        )
    return path


async def _count(found: Any, session: str) -> int:
    return int((await found.session(session))["events"])


async def _answer(found: Any, session: str, after: int, wish: dict[str, Any]) -> dict[str, Any]:
    """The data of the event that answers the wish; a refusal is raised."""
    async for line in found.events(session, after=after, follow=True):
        if not line["understood"]:
            continue
        data = line["data"]
        if line["name"] == "model.exported" and _fits(data, wish):
            return dict(data)
        if line["name"] == "export.refused" and _fits(data, wish):
            raise _refused(data)
        if line["name"] == "handler.failed" and data["role"] == "exporter":
            raise Failed(f"the exporter failed: {data['error']}", cure=data["cure"])
    raise Failed(f"session {session} ended without an export.", cure=f"See: swarm events {session}")


def _fits(data: dict[str, Any], wish: dict[str, Any]) -> bool:
    return (data["format"], data["quantize"]) == (wish["format"], wish["quantize"])


def _refused(data: dict[str, Any]) -> SwarmError:
    kind = KINDS.get(data["code"]) or type(error_of(data))
    return kind(f"export as {data['format']} refused: {data['message']}", cure=data["cure"])


def _numbers(exact: dict[str, Any]) -> dict[str, Any]:
    """Exact figures as JSON numbers; one that is not finite stays the word it is."""
    found = {name: number(value) for name, value in exact.items()}
    return {name: value if math.isfinite(value) else str(value) for name, value in found.items()}
