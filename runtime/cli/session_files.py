"""`swarm export`, `report`, `bundle`, `anchor`: files that are made of a session."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from contracts.errors import Failed, InvalidInput, NotFound, SwarmError, TimedOut, error_of
from runtime.api.children import open_children
from runtime.api.session_source import find, read_session, read_stored, resolve_session
from runtime.cli.call import SECONDS, Call, Json, command, complete_session, output_path, session_argument
from runtime.cli.output import pairs
from runtime.cli.pages import answer_page, page_option
from runtime.views.formatting import figures, number

if TYPE_CHECKING:
    from runtime.commands.client import Swarm
    from runtime.views.blocks import Page

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
    target = output_path(output) if output is not None else None
    own, made = call.wait(_export(call, session, wish, timeout))
    path = _exported_file(call, own, made)
    if target is not None:
        path = shutil.copyfile(path, target)
    # Exact figures as JSON numbers; one that is not finite stays the word it is.
    numbers = {name: number(exact) for name, exact in made["parity"].items()}
    parity = {name: value if math.isfinite(value) else str(value) for name, value in numbers.items()}
    answer = {"session": own, "path": str(path), "format": made["format"], "quantize": made["quantize"]}
    answer |= {"digest": made["blob"], "bytes": made["bytes"], "parity": parity}
    call.result(answer, lambda: f"{path}\n{made['bytes']} bytes, digest {made['blob']}\n{figures(made['parity'])}")


async def _export(call: Call, name: str, wish: Json, within: float) -> tuple[str, Json]:
    """Ask for the export and wait for its answer: the data of `model.exported`, and the session that has it."""
    import asyncio

    async with call.swarm() as swarm:
        try:
            async with asyncio.timeout(within):
                source = await find(swarm, name)
                before = int((await swarm.session(source))["events"])
                session = str((await swarm.command("export", session=source, **wish))["session"])
                made = await _answer(swarm, session, before if session == source else 0, wish)
        except TimeoutError:
            cure = f"Look for it: swarm show {name}"
            raise TimedOut(f"the export was not done within {within:g} s; it goes on.", cure=cure) from None
    return session, made


async def _answer(swarm: Swarm, session: str, after: int, wish: Json) -> Json:
    """The data of the event that answers the wish; a refusal is raised."""
    async for line in swarm.events(session, after=after, follow=True):
        if not line["understood"]:
            continue
        name, data = line["name"], line["data"]
        if name in ("model.exported", "export.refused"):
            if (data["format"], data["quantize"]) != (wish["format"], wish["quantize"]):
                continue
            if name == "model.exported":
                return dict(data)
            kind = KINDS.get(data["code"]) or type(error_of(data))
            raise kind(f"export as {data['format']} refused: {data['message']}", cure=data["cure"])
        if name == "handler.failed" and data["role"] == "exporter":
            raise Failed(f"the exporter failed: {data['error']}", cure=data["cure"])
    raise Failed(f"session {session} ended without an export.", cure=f"See: swarm events {session}")


def _exported_file(call: Call, session: str, exported: Json) -> Path:
    """The file under its name, or by its content where the session's folder does not have it."""
    from bus.blobs import DirectoryBlobs
    from contracts.exporter import ModelExported

    filename, blob = ModelExported.model_validate(exported).plain_filename, str(exported["blob"])
    named = call.home.sessions / session / "exports" / filename
    path = named if filename and named.exists() else DirectoryBlobs(call.home.blobs).path(blob)
    if not path.exists():
        raise NotFound(
            f"the model was exported, and blob {blob} is not in {str(call.home.root)!r}.",
            cure=f"Fetch it from the swarm's own home: sessions/{session}/exports/{exported['filename']}",
        )
    return path


@command("report")
@click.argument("session", metavar="S|BUNDLE", shell_complete=complete_session)
@page_option
def report(call: Call, *, session: str, out: Path | None) -> None:
    """Show how session S went: key figures, curves, timeline, evaluations, checkpoints, diagnoses, provenance.

    Without --out its files are written into the session's folder again: report.html, report.md, metrics.json,
    request.yaml and the curves as pictures. The path of an existing file is a bundle, of which nothing but the page
    is made. The same session gives the same bytes.
    """
    stored = read_session(call, session)
    history = stored.history

    def page() -> Page:
        from runtime.views.session_page import report_page
        from runtime.views.session_record import SessionRecord

        record = SessionRecord.of(history.state, history.facts)
        return report_page(history.state, record, stored.admission.root)

    answer: Json = {"session": history.id}
    if out is None and not Path(session).is_file():
        made = call.wait(_write_report(call, history.id, stored.admission.root))
        folder = Path(str(made["path"])).parent
        files = {"metrics": str(folder / "metrics.json"), "request": str(folder / "request.yaml")}
        answer |= {"path": made["path"], "html": made["html"], **files, "plots": made["plots"]}
    elif out is not None:
        answer |= {"path": str(out)}
    answer_page(call, answer, page, out, title=True)
    if "html" in answer:
        call.note(f"Wrote {answer['html']}")


async def _write_report(call: Call, session: str, root: str) -> Mapping[str, object]:
    from runtime.host.swarm_node import write_report

    async with open_children() as children:
        return await write_report(session, call.home, children, root=root)


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
    options = {"checkpoints": checkpoints, "dataset": dataset, "exports": exports}
    wanted = [name for name, chosen in options.items() if chosen]
    id = resolve_session(call, session, archive)
    made = make_bundle(archive, id, DirectoryBlobs(call.home.blobs), path, wanted=wanted)
    answer = {
        "session": made.session,
        "path": str(made.path),
        "digest": made.digest,
        "bytes": made.bytes,
        "sections": list(made.sections),
    }
    if made.older:
        call.note("The program inside is older than this software; what it does not know, `swarm audit FILE` does.")
    rows = [("bundle", str(path)), ("session", made.session), ("bytes", str(made.bytes)), ("sha256", made.digest)]
    call.result(answer, lambda: pairs([*rows, ("holds", " ".join(made.sections) or "no sections")]))


@command("anchor")
@session_argument
@click.option("--to", "where", metavar="FILE|git:DIR", required=True, help="A file to append to, or a git repository.")
def anchor(call: Call, *, session: str, where: str) -> None:
    """Keep the signed root of session S elsewhere, so that a log rewritten with every key still betrays itself.

    Later: swarm audit S --anchor FILE
    """
    from bus import notes
    from runtime.audit.ledger_check import keep_anchor, newest_note

    history = read_stored(call, session).history
    note = newest_note(history)
    path, head = keep_anchor(note, where), notes.parse(note)
    answer = {
        "session": history.id,
        "path": str(path),
        "events": head.size,
        "root": head.root.hex(),
        "sealed": history.state.sealed is not None,
    }
    rows = [("session", history.id), ("anchored", f"{head.size} events"), ("in", str(path))]
    call.result(answer, lambda: pairs(rows))
