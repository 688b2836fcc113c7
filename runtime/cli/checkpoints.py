"""`swarm checkpoints`, `inspect`, `predict`: what was kept of a session, what is in it, and what it answers."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from contracts.errors import NotFound, NotVerified
from runtime.api import models
from runtime.api.children import ask_child
from runtime.api.session_source import read_stored
from runtime.cli.call import Call, Json, command, session_argument
from runtime.cli.exit_codes import NEGATIVE
from runtime.cli.output import pairs, style, table
from runtime.model import INSPECT
from runtime.views.formatting import size

HEAD = ("step", "state", "kept as", "why", "size", "blob", "")

STDIN = "-"


@command("checkpoints")
@session_argument
@click.option("--all", "everything", is_flag=True, help="Also those let go.")
def checkpoints(call: Call, *, session: str, everything: bool) -> None:
    """List the checkpoints of session S: step, state, roles, reason, size. A missing file is told, and exits with 3."""
    from runtime.model import checkpoints as known

    id, lines = models.list_checkpoints(call, session)
    totals = known.totals(lines)
    shown = [line for line in lines if everything or line["state"] != "pruned"]
    call.result({"session": id, "checkpoints": lines, **totals}, lambda: checkpoints_page(shown, totals))
    if any(_is_missing(line) for line in lines):
        raise click.exceptions.Exit(NEGATIVE)


def checkpoints_page(lines: list[Json], totals: Mapping[str, Any]) -> str:
    """Checkpoints as the text that `swarm checkpoints` prints."""
    if not lines:
        return "There is no checkpoint yet."
    rows = []
    for line in lines:
        step = str(line["step"]) + (f" (segment {line['segment']})" if line["segment"] > 1 else "")
        state = style(line["state"], fg={"corrupt": "red", "pruned": "yellow"}.get(line["state"], "green"))
        remarks = [] if line["on_path"] else ["off the path"]
        remarks += ["MISSING"] if _is_missing(line) else []
        about = (", ".join(line["kept_as"]), line["reason"], size(line["bytes"]), line["blob"][:16])
        rows.append((step, state, *about, ", ".join(remarks)))
    states = ", ".join(f"{count} {name}" for name, count in totals["states"].items())
    return f"{table(HEAD, rows)}\n{states}; {size(totals['bytes'])} kept"


def _is_missing(line: Json) -> bool:
    return line["state"] in ("kept", "written") and not line["present"]


@command("inspect")
@click.argument("checkpoint", metavar="CHECKPOINT")
def inspect(call: Call, *, checkpoint: str) -> None:
    """Show the tensors of CHECKPOINT (S:STEP, S:best, a blob's digest, or a file) and verify its roots.

    Exit code 3 when its bytes are not what they should be.
    """
    wanted = _find_checkpoint(call, checkpoint)
    args = {"path": wanted["path"], "state_root": wanted.get("state_root")}
    with tempfile.TemporaryDirectory(prefix="swarm-inspect-") as folder:
        tensors = call.wait(ask_child(INSPECT, args, purpose="probe", log=Path(folder) / "log"))
    for name in ("blob", "step", "weights_digest"):
        if name in wanted and wanted[name] != tensors[name]:
            message = f"the checkpoint has the {name} {tensors[name]!r}, not {wanted[name]!r}."
            raise NotVerified(
                message, cure=f"Use another: swarm checkpoints {wanted.get('session', 'S')}", path=wanted["path"]
            )
    tensors |= {
        "verified": ["blob", "state_root", "weights_digest"] if "step" in wanted else sorted({*wanted} & {"blob"})
    }
    tensors["session"] = wanted.get("session")
    call.result(tensors, lambda: tensors_page(tensors))


def _find_checkpoint(call: Call, name: str) -> Json:
    """The file, and all that the log or the name itself says about it."""
    from bus.blobs import DirectoryBlobs
    from runtime.model import checkpoints as known

    if Path(name).is_file():
        return {"path": str(Path(name).absolute())}
    session, colon, which = name.rpartition(":")
    if colon:
        state = read_stored(call, session).history.state
        written = known.find_checkpoint(state, which).written
        about = {name: getattr(written, name) for name in ("blob", "step", "state_root", "weights_digest")}
        return about | {"session": state.id, "path": str(DirectoryBlobs(call.home.blobs).path(written.blob))}
    path = known.blob_of(name, call.home)
    if path is None:
        cure = "Name it S:STEP, S:best, by its digest, or by a path."
        raise NotFound(f"there is no checkpoint {name!r}.", cure=cure, path=name)
    return {"path": str(path), "blob": path.name}


def tensors_page(checkpoint: Json) -> str:
    """A checkpoint as the text that `swarm inspect` prints: what it is, and its tensors."""
    by_log = "as the log has them" if checkpoint["session"] else "as the file has them"
    rows = [
        ("file", checkpoint["path"]),
        ("blob", checkpoint["blob"]),
        ("session", checkpoint["session"] or ""),
        ("step", str(checkpoint["step"])),
        ("size", f"{size(checkpoint['bytes'])}, {checkpoint['parameters']} numbers in the model's tensors"),
        ("state root", f"{checkpoint['state_root']} (recomputed, {by_log})"),
        ("weights", f"{checkpoint['weights_digest']} (recomputed, {by_log})"),
        ("tied", ", ".join(f"{name} = {of}" for name, of in checkpoint["aliases"].items())),
        ("", "" if checkpoint["finite"] else style("some values are not finite", fg="red")),
    ]
    tensors = []
    for tensor in checkpoint["tensors"]:
        norm = "not finite" if tensor["norm"] is None else f"{tensor['norm']:.6g}"
        tensors.append((tensor["name"], "x".join(map(str, tensor["shape"])) or "scalar", tensor["dtype"], norm))
    return f"{pairs(rows)}\n\n{table(('tensor', 'shape', 'dtype', 'norm'), tensors)}"


@command("predict")
@session_argument
@click.argument("data", metavar="DATA")
@click.option("--checkpoint", metavar="C", default="best", show_default=True, help="best, last, or a step.")
def predict(call: Call, *, session: str, data: str, checkpoint: str) -> None:
    """Ask the model of session S about the rows in DATA: CSV, JSON, JSON Lines, an image, or - for stdin.

    Rows are lists of numbers, or objects (or CSV columns) with the names of training; other columns are ignored. An
    image is one row of a session that was trained on a folder of images.
    """
    if data == STDIN:
        with tempfile.TemporaryDirectory(prefix="swarm-predict-") as folder:
            path = Path(folder) / "stdin"
            path.write_bytes(sys.stdin.buffer.read())
            answer = models.predict_file(call, session, path, checkpoint, named="stdin")
    else:
        answer = models.predict_file(call, session, data, checkpoint)
    call.result(answer, lambda: predictions_page(answer["predictions"]))


def predictions_page(predictions: Sequence[Json]) -> str:
    """Predictions as the text that `swarm predict` prints."""
    if "label" in predictions[0]:
        rows = [
            (str(at), prediction["label"], f"{prediction['probability']:.4f}")
            for at, prediction in enumerate(predictions, 1)
        ]
        return table(("row", "label", "probability"), rows)
    name = "value" if "value" in predictions[0] else "answer"
    return table(("row", name), [(str(at), str(prediction[name])) for at, prediction in enumerate(predictions, 1)])
