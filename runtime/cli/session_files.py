"""`swarm export`, `report`, `bundle`, `anchor`: files that are made of a session."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from contracts.errors import count_of
from runtime.api import evidence, orders
from runtime.api.children import open_children
from runtime.api.evidence import output_path
from runtime.api.session_source import read_session
from runtime.cli.call import SECONDS, Call, Json, command, complete_session, session_argument
from runtime.cli.output import pairs
from runtime.cli.pages import answer_page, page_option
from runtime.views.formatting import figures

if TYPE_CHECKING:
    from runtime.views.report import WrittenReport

FORMATS = ("onnx", "safetensors", "pt2", "torchscript")
QUANTIZATIONS = ("int8", "fp16")


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
    target = output_path(output) if output is not None else None
    made = call.wait(orders.export(call, session, orders.ExportWish(form, quantize, checkpoint), timeout))
    path = made.path if target is None else shutil.copyfile(made.path, target)
    # Exact figures as JSON numbers; one that is not finite stays the word it is.
    parity = {name: value if math.isfinite(value) else str(value) for name, value in made.parity.items()}
    answer: Json = {"session": made.session, "path": str(path), "format": made.format, "quantize": made.quantize}
    answer |= {"digest": made.digest, "bytes": made.bytes, "parity": parity}
    call.result(answer, lambda: f"{path}\n{made.bytes} bytes, digest {made.digest}\n{figures(made.parity)}")


@command("report")
@click.argument("session", metavar="S|BUNDLE", shell_complete=complete_session)
@page_option
def report(call: Call, *, session: str, out: Path | None) -> None:
    """Show how session S went: key figures, curves, timeline, evaluations, checkpoints, diagnoses, provenance.

    Without --out its files are written into the session's folder again: report.html, report.md, metrics.json,
    request.yaml and the curves as pictures. The path of an existing file is a bundle, of which nothing but the page
    is made. The same session gives the same bytes.
    """
    named = Path(session).is_file()
    stored = read_session(call, session)
    history = stored.history

    answer: Json = {"session": history.id}
    if out is None and not named:
        made = call.wait(_write_report(call, history.id, stored.admission.root))
        folder = Path(made.path).parent
        files = {"metrics": str(folder / "metrics.json"), "request": str(folder / "request.yaml")}
        answer |= {"path": made.path, "html": made.html, **files, "plots": made.plots}
    elif out is not None:
        answer |= {"path": str(out)}
    answer_page(call, answer, lambda: evidence.report(stored, bundle=session if named else ""), out, title=True)
    if "html" in answer:
        call.note(f"Wrote {answer['html']}")


async def _write_report(call: Call, session: str, root: str) -> WrittenReport:
    from runtime.host.swarm_node import write_report

    async with open_children() as children:
        return await write_report(session, call.home, children, root=root)


@command("bundle")
@session_argument
@click.option("-o", "--output", "out", metavar="FILE", required=True, help="Where to write.")
@click.option("--checkpoints", is_flag=True, help="Put in every checkpoint that is kept: they are compared too.")
@click.option("--dataset", is_flag=True, help="Put in the prepared rows: then the training can be computed again.")
@click.option("--exports", is_flag=True, help="Put in the exported models.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def bundle(call: Call, *, session: str, out: str, checkpoints: bool, dataset: bool, exports: bool, force: bool) -> None:
    """Write session S as one file: its log and keyring, the ledger's notes, schemas, manifest, sources, verifier.

    The same session and the same choice give the same bytes. `swarm audit FILE` verifies it, and so does
    `python verify_bundle.py FILE` with the program that lies inside.
    """
    options = {"checkpoints": checkpoints, "dataset": dataset, "exports": exports}
    sections = [name for name, chosen in options.items() if chosen]
    made = evidence.bundle(call, session, out, sections=sections, force=force)
    answer = {
        "session": made.session,
        "path": str(made.path),
        "digest": made.digest,
        "bytes": made.bytes,
        "sections": list(made.sections),
    }
    for name in sections:
        if name not in made.sections:
            call.note(f"There is nothing for --{name}: this session has none.")
    if made.older:
        call.note("The program inside is older than this software; what it does not know, `swarm audit FILE` does.")
    rows = [("bundle", str(made.path)), ("session", made.session), ("bytes", str(made.bytes)), ("sha256", made.digest)]
    call.result(answer, lambda: pairs([*rows, ("holds", " ".join(made.sections) or "no sections")]))


@command("anchor")
@session_argument
@click.option("--to", "where", metavar="FILE|git:DIR", required=True, help="A file to append to, or a git repository.")
def anchor(call: Call, *, session: str, where: str) -> None:
    """Keep the signed root of session S elsewhere, so that a log rewritten with every key still betrays itself.

    Later: swarm audit S --anchor FILE
    """
    made = evidence.anchor(call, session, where)
    rows = [("session", made.session), ("anchored", count_of(made.events, "event")), ("in", str(made.path))]
    call.result({**vars(made), "path": str(made.path)}, lambda: pairs(rows))
