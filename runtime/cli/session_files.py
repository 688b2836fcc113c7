"""`swarm export`, `report`, `bundle`, `anchor`: files that are made of a session."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import click

from contracts.errors import Failed, InvalidInput, NotFound, SwarmError, TimedOut, error_of
from runtime.cli.call import SECONDS, Call, command, output_path, session_argument
from runtime.cli.output import pairs, style
from runtime.cli.session_source import find, resolve_session
from runtime.views.formatting import figures, number

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
    wanted = output_path(output) if output is not None else None
    made, path = call.wait(_export(call, session, wish, timeout))
    if wanted is not None:
        path = shutil.copyfile(path, wanted)
    found = {"session": made["session"], "path": str(path), "format": made["format"], "quantize": made["quantize"]}
    found |= {"digest": made["blob"], "bytes": made["bytes"], "parity": _numbers(made["parity"])}
    call.result(found, lambda: f"{path}\n{made['bytes']} bytes, digest {made['blob']}\n{figures(made['parity'])}")


async def _export(call: Call, name: str, wish: dict[str, Any], within: float) -> tuple[dict[str, Any], Path]:
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


@command("report")
@session_argument
def report(call: Call, *, session: str) -> None:
    """Write request.yaml, metrics.json, report.md and plots of session S into its folder, and show the report."""
    from runtime.log.archive import Archive

    archive = Archive(call.home)
    wanted = resolve_session(call, session, archive)
    made = call.wait(_write_report(call, wanted, archive.root))
    folder = Path(made["path"]).parent
    found = {
        "session": wanted,
        "path": made["path"],
        "metrics": str(folder / "metrics.json"),
        "request": str(folder / "request.yaml"),
        "plots": [str(folder / "plots" / f"{name}.png") for name in made["plots"]],
    }
    if made["problem"]:
        call.note(f"Some plots could not be drawn: {made['problem']}")
    call.result(found, lambda: Path(made["path"]).read_text() + "\n" + style(made["path"], dim=True))


async def _write_report(call: Call, session: str, root: str) -> dict[str, Any]:
    from runtime.host.swarm_node import write_report
    from runtime.jobs.children import Children

    children = Children()
    try:
        return dict(await write_report(session, call.home, children, root=root))
    finally:
        await children.close()


@command("bundle")
@session_argument
@click.option("-o", "--output", "out", metavar="FILE", required=True, help="Where to write.")
@click.option("--checkpoints", is_flag=True, help="Put in every checkpoint that is kept.")
@click.option("--dataset", is_flag=True, help="Put in the prepared rows.")
@click.option("--exports", is_flag=True, help="Put in the exported models.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def bundle(call: Call, *, session: str, out: str, checkpoints: bool, dataset: bool, exports: bool, force: bool) -> None:
    """Write session S as one file: its log and keyring, the ledger's notes, schemas, manifest, sources, verifier.

    The same session and the same choice give the same bytes. `swarm audit FILE` verifies it, and so does
    `python verify_bundle.py FILE` with the program that lies inside.
    """
    from bus.blobs import DirectoryBlobs
    from runtime.audit.log_check import make_bundle
    from runtime.log.archive import Archive

    path = output_path(out, force=force)
    archive = Archive(call.home)
    asked = {"checkpoints": checkpoints, "dataset": dataset, "exports": exports}
    wanted = [name for name, given in asked.items() if given]
    made = make_bundle(
        archive, resolve_session(call, session, archive), DirectoryBlobs(call.home.blobs), path, wanted=wanted
    )
    shown = {
        "session": made.session,
        "path": str(made.path),
        "digest": made.digest,
        "bytes": made.bytes,
        "sections": list(made.sections),
    }
    if made.older:
        call.note("The program inside is older than this software; what it does not know, `swarm audit FILE` does.")
    rows = [("bundle", str(path)), ("session", made.session), ("bytes", str(made.bytes)), ("sha256", made.digest)]
    call.result(shown, lambda: pairs([*rows, ("holds", " ".join(made.sections) or "no sections")]))


@command("anchor")
@session_argument
@click.option("--to", "where", metavar="FILE|git:DIR", required=True, help="A file to append to, or a git repository.")
def anchor(call: Call, *, session: str, where: str) -> None:
    """Keep the signed root of session S elsewhere, so that a log rewritten with every key still betrays itself.

    Later: swarm audit S --anchor FILE
    """
    from bus import notes
    from runtime.audit.ledger_check import keep_anchor, newest_note
    from runtime.log.archive import Archive

    archive = Archive(call.home)
    history = archive.read(resolve_session(call, session, archive)).history
    note = newest_note(history)
    path, said = keep_anchor(note, where), notes.parse(note)
    shown = {
        "session": history.id,
        "path": str(path),
        "events": said.size,
        "root": said.root.hex(),
        "sealed": history.state.sealed is not None,
    }
    call.result(shown, lambda: pairs([("session", history.id), ("anchored", f"{said.size} events"), ("in", str(path))]))
