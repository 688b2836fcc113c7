"""A session's model asked about a file of rows, in a child with torch; and which checkpoints there are."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import InvalidInput, NotFound
from runtime.api.children import ask_child
from runtime.api.session_source import read_stored

if TYPE_CHECKING:
    from runtime.api.home_context import HomeContext

FORMS = {".csv": "csv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl"}
"""By its ending: how a file of rows is read; any other by how it begins."""


def list_checkpoints(context: HomeContext, name: str) -> tuple[str, list[dict[str, Any]]]:
    """The session that a name means, and every checkpoint ever written of it, with what became of each."""
    from runtime.views import checkpoints

    state = read_stored(context, name).history.state
    return state.id, [dict(line) for line in checkpoints.list_checkpoints(state, context.home.blobs)]


def predict_file(
    context: HomeContext, name: str, data: str | Path, checkpoint: str | int = "best", *, named: str = ""
) -> dict[str, Any]:
    """What the model of a session answers for the rows, or the image, in a file: `predictions`, and of which model.

    Errors call the file as it is `named`.
    """
    import orjson

    from runtime.model import checkpoints
    from runtime.model.jobs import AskedRows, predict_rows

    state = read_stored(context, name).history.state
    order, rows = checkpoints.order(state, checkpoint, context.home), Path(data).absolute()
    if not rows.is_file():
        raise NotFound(f"there is no file {str(data)!r}.", cure="Name a file of rows.", path=str(data))
    if rows.suffix.lower() in (".parquet", ".npz", ".h5"):
        raise InvalidInput(f"{data} is neither CSV nor JSON.", cure="Write the rows as CSV or JSON.", path=str(data))
    with tempfile.TemporaryDirectory(prefix="swarm-predict-") as folder:
        answers = Path(folder) / "answers.json"
        asked = AskedRows(order, rows, named or str(data), FORMS.get(rows.suffix.lower(), ""), answers)
        about = asdict(context.wait(ask_child(predict_rows, asked, log=Path(folder) / "log")))
        predictions = orjson.loads(answers.read_bytes())
    return {"session": state.id, "checkpoint": str(checkpoint), **about, "predictions": predictions}
