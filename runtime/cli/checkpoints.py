"""`swarm checkpoints`, `inspect`, `predict`: what was kept of a session, what is in it, and what it answers."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.api import models
from runtime.api.session_source import read_stored
from runtime.cli.call import Call, Json, command, session_argument
from runtime.cli.exit_codes import NEGATIVE
from runtime.cli.output import table
from runtime.cli.pages import answer_page, page_option

if TYPE_CHECKING:
    pass

STDIN = "-"


@command("checkpoints")
@session_argument
@click.option("--all", "everything", is_flag=True, help="Also those let go.")
@page_option
def checkpoints(call: Call, *, session: str, everything: bool, out: Path | None) -> None:
    """List the checkpoints of session S: step, epoch, state, roles, reason, size, and the metrics recorded there.

    A missing file is told, and exits with 3.
    """
    from runtime.views import checkpoints as views

    state = read_stored(call, session).history.state
    lines = views.list_checkpoints(state, call.home.blobs)
    value = {"session": state.id, "checkpoints": lines, **views.totals(lines)}
    value |= {"optimizer": views.optimizer_figures(state)["type"]}
    answer_page(call, value, lambda: views.checkpoints_page(state, lines, everything=everything), out)
    if any(map(views.is_missing, lines)):
        raise click.exceptions.Exit(NEGATIVE)


@command("inspect")
@click.argument("checkpoint", metavar="CHECKPOINT")
@page_option
def inspect(call: Call, *, checkpoint: str, out: Path | None) -> None:
    """Show the tensors of CHECKPOINT (S:STEP, S:best, a blob's digest, or a file) and verify its roots.

    With them what the log says of its step: the epoch, the optimizer and the metrics. Exit code 3 when its bytes are
    not what they should be.
    """
    from runtime.views.checkpoints import content_page

    content = models.inspect(call, checkpoint)
    answer_page(call, content, lambda: content_page(content), out)


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
