"""`swarm predict`: what a session's model answers for rows. It runs in a child and needs no swarm."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from contracts.errors import InvalidInput, NotFound
from runtime.cli import wording
from runtime.cli.call import Call, command
from runtime.cli.child import ask
from runtime.cli.named import session_argument
from runtime.cli.reach import chosen
from runtime.model import PREDICT

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
    state = archive.read(chosen(call, session, archive)).history.state
    order = known.order(state, checkpoint, call.home)
    found = _asked(call, order, data)
    call.result({"session": state.id, "checkpoint": checkpoint, **found}, lambda: _page(found["predictions"]))


def _asked(call: Call, order: Mapping[str, Any], data: str) -> dict[str, Any]:
    import orjson

    with tempfile.TemporaryDirectory(prefix="swarm-predict-") as folder:
        place, answers = _rows(data, Path(folder)), Path(folder) / "answers.json"
        form = FORMS.get(Path(data).suffix.lower(), "")
        args = {"order": dict(order), "data": str(place), "form": form, "answers": str(answers)}
        args |= {"name": "stdin" if data == STDIN else data}
        about = call.wait(ask(PREDICT, args, purpose="evaluate", log=Path(folder) / "log"))
        return about | {"predictions": orjson.loads(answers.read_bytes())}


def _rows(data: str, folder: Path) -> Path:
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


def _page(found: Sequence[Mapping[str, Any]]) -> str:
    if "label" in found[0]:
        rows = [(str(at), one["label"], f"{one['probability']:.4f}") for at, one in enumerate(found, 1)]
        return wording.table(("row", "label", "probability"), rows)
    name = "value" if "value" in found[0] else "answer"
    return wording.table(("row", name), [(str(at), str(one[name])) for at, one in enumerate(found, 1)])
