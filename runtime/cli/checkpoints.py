"""`swarm checkpoints`, `inspect`, `predict`: what was kept of a session, what is in it, and what it answers."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from contracts.errors import InvalidInput, NotFound, NotVerified
from runtime.cli import output
from runtime.cli.call import Call, command, session_argument
from runtime.cli.children import ask_child
from runtime.cli.output import style
from runtime.cli.session_source import resolve_session
from runtime.model import INSPECT, PREDICT
from runtime.views.formatting import size

HEAD = ("step", "state", "kept as", "why", "size", "blob", "")


@command("checkpoints")
@session_argument
@click.option("--all", "everything", is_flag=True, help="Also those let go.")
def checkpoints(call: Call, *, session: str, everything: bool) -> None:
    """List the checkpoints of session S: step, state, roles, reason, size. A missing file is told, and exits with 3."""
    from runtime.log.archive import Archive
    from runtime.model import checkpoints as known

    archive = Archive(call.home)
    state = archive.read(resolve_session(call, session, archive)).history.state
    lines = known.listed(state, call.home.blobs)
    totals = known.totals(lines)
    shown = [one for one in lines if everything or one["state"] != "pruned"]
    call.result({"session": state.id, "checkpoints": lines, **totals}, lambda: _list_page(shown, totals))
    if any(one["state"] in ("kept", "written") and not one["present"] for one in lines):
        raise click.exceptions.Exit(3)


def _list_page(lines: list[dict[str, Any]], totals: Mapping[str, Any]) -> str:
    if not lines:
        return "There is no checkpoint yet."
    states = ", ".join(f"{count} {name}" for name, count in totals["states"].items())
    return f"{output.table(HEAD, [_list_row(one) for one in lines])}\n{states}; {size(totals['bytes'])} kept"


def _list_row(one: Mapping[str, Any]) -> tuple[str, ...]:
    segment = f" (segment {one['segment']})" if one["segment"] > 1 else ""
    remarks = [] if one["on_path"] else ["off the path"]
    remarks += ["MISSING"] if one["state"] in ("kept", "written") and not one["present"] else []
    colour = {"corrupt": "red", "pruned": "yellow"}.get(one["state"], "green")
    state = style(one["state"], fg=colour)
    kept_as = ", ".join(one["kept_as"])
    size_text, blob = size(one["bytes"]), one["blob"][:16]
    return f"{one['step']}{segment}", state, kept_as, one["reason"], size_text, blob, ", ".join(remarks)


@command("inspect")
@click.argument("checkpoint", metavar="CHECKPOINT")
def inspect(call: Call, *, checkpoint: str) -> None:
    """Show the tensors of CHECKPOINT (S:STEP, S:best, a blob's digest, or a file) and verify its roots.

    Exit code 3 when its bytes are not what they should be.
    """
    wanted = _find_checkpoint(call, checkpoint)
    args = {"path": wanted["path"], "state_root": wanted.get("state_root")}
    with tempfile.TemporaryDirectory(prefix="swarm-inspect-") as folder:
        seen = call.wait(ask_child(INSPECT, args, purpose="probe", log=Path(folder) / "log"))
    for name in ("blob", "step", "weights_digest"):
        if name in wanted and wanted[name] != seen[name]:
            message = f"the checkpoint has the {name} {seen[name]!r}, not {wanted[name]!r}."
            raise NotVerified(
                message, cure=f"Use another: swarm checkpoints {wanted.get('session', 'S')}", path=wanted["path"]
            )
    seen |= {"verified": ["blob", "state_root", "weights_digest"] if "step" in wanted else sorted({*wanted} & {"blob"})}
    seen["session"] = wanted.get("session")
    call.result(seen, lambda: _tensor_page(seen))


def _find_checkpoint(call: Call, name: str) -> dict[str, Any]:
    """The file, and all that the log or the name itself says about it."""
    from runtime.model import checkpoints as known

    if Path(name).is_file():
        return {"path": str(Path(name).absolute())}
    session, colon, which = name.rpartition(":")
    if colon:
        return _of_session(call, session, which)
    path = known.blob_of(name, call.home)
    if path is None:
        cure = "Name it S:STEP, S:best, by its digest, or by a path."
        raise NotFound(f"there is no checkpoint {name!r}.", cure=cure, path=name)
    return {"path": str(path), "blob": path.name}


def _of_session(call: Call, session: str, which: str) -> dict[str, Any]:
    from bus.blobs import DirectoryBlobs
    from runtime.log.archive import Archive
    from runtime.model import checkpoints as known

    archive = Archive(call.home)
    state = archive.read(resolve_session(call, session, archive)).history.state
    written = known.named(state, which).written
    about = {name: getattr(written, name) for name in ("blob", "step", "state_root", "weights_digest")}
    return about | {"session": state.id, "path": str(DirectoryBlobs(call.home.blobs).path(written.blob))}


def _tensor_page(seen: Mapping[str, Any]) -> str:
    by_log = "as the log has them" if seen["session"] else "as the file has them"
    rows = [
        ("file", seen["path"]),
        ("blob", seen["blob"]),
        ("session", seen["session"] or ""),
        ("step", str(seen["step"])),
        ("size", f"{size(seen['bytes'])}, {seen['parameters']} numbers in the model's tensors"),
        ("state root", f"{seen['state_root']} (recomputed, {by_log})"),
        ("weights", f"{seen['weights_digest']} (recomputed, {by_log})"),
        ("tied", ", ".join(f"{name} = {of}" for name, of in seen["aliases"].items())),
        ("", "" if seen["finite"] else style("some values are not finite", fg="red")),
    ]
    table = output.table(("tensor", "shape", "dtype", "norm"), [_tensor_row(one) for one in seen["tensors"]])
    return f"{output.pairs(rows)}\n\n{table}"


def _tensor_row(one: Mapping[str, Any]) -> tuple[str, ...]:
    shape = "x".join(map(str, one["shape"])) or "scalar"
    return one["name"], shape, one["dtype"], "not finite" if one["norm"] is None else f"{one['norm']:.6g}"


FORMS = {".csv": "csv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl"}
STDIN = "-"


@command("predict")
@session_argument
@click.argument("data", metavar="DATA")
@click.option("--checkpoint", metavar="C", default="best", show_default=True, help="best, last, or a step.")
def predict(call: Call, *, session: str, data: str, checkpoint: str) -> None:
    """Ask the model of session S about the rows in DATA: CSV, JSON, JSON Lines, an image, or - for stdin.

    Rows are lists of numbers, or objects (or CSV columns) with the names of training; other columns are ignored. An
    image is one row of a session that was trained on a folder of images.
    """
    from runtime.log.archive import Archive
    from runtime.model import checkpoints as known

    archive = Archive(call.home)
    state = archive.read(resolve_session(call, session, archive)).history.state
    order = known.order(state, checkpoint, call.home)
    found = _predict(call, order, data)
    call.result({"session": state.id, "checkpoint": checkpoint, **found}, lambda: _answer_page(found["predictions"]))


def _predict(call: Call, order: Mapping[str, Any], data: str) -> dict[str, Any]:
    import orjson

    with tempfile.TemporaryDirectory(prefix="swarm-predict-") as folder:
        place, answers = _rows_file(data, Path(folder)), Path(folder) / "answers.json"
        form = FORMS.get(Path(data).suffix.lower(), "")
        args = {"order": dict(order), "data": str(place), "form": form, "answers": str(answers)}
        args |= {"name": "stdin" if data == STDIN else data}
        about = call.wait(ask_child(PREDICT, args, purpose="evaluate", log=Path(folder) / "log"))
        return about | {"predictions": orjson.loads(answers.read_bytes())}


def _rows_file(data: str, folder: Path) -> Path:
    if data == STDIN:
        place = folder / "rows"
        place.write_bytes(sys.stdin.buffer.read())
        return place
    place = Path(data).absolute()
    if not place.is_file():
        raise NotFound(f"there is no file {data!r}.", cure="Name a file of rows, or - for stdin.", path=data)
    if place.suffix.lower() in (".parquet", ".npz", ".h5"):
        raise InvalidInput(f"{data} is neither CSV nor JSON.", cure="Write the rows as CSV or JSON.", path=data)
    return place


def _answer_page(found: Sequence[Mapping[str, Any]]) -> str:
    if "label" in found[0]:
        rows = [(str(at), one["label"], f"{one['probability']:.4f}") for at, one in enumerate(found, 1)]
        return output.table(("row", "label", "probability"), rows)
    name = "value" if "value" in found[0] else "answer"
    return output.table(("row", name), [(str(at), str(one[name])) for at, one in enumerate(found, 1)])
