"""`swarm checkpoints`, `inspect`, `predict`: what was kept of a session, what is in it, and what it answers."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from contracts.errors import NotFound, NotVerified
from runtime.api import models
from runtime.api.children import ask_child
from runtime.api.session_source import read_stored
from runtime.cli.call import Call, Json, command, session_argument
from runtime.cli.exit_codes import NEGATIVE
from runtime.cli.output import table
from runtime.cli.pages import answer_page, page_option

if TYPE_CHECKING:
    from contracts.session import SessionState
    from runtime.views.checkpoints import InspectAnswer

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
    from runtime.model.jobs import CheckpointFile, inspect_checkpoint
    from runtime.views import checkpoints as views

    state, wanted = _find_checkpoint(call, checkpoint)
    file = CheckpointFile(Path(wanted["path"]), wanted.get("state_root"))
    with tempfile.TemporaryDirectory(prefix="swarm-inspect-") as folder:
        found = asdict(call.wait(ask_child(inspect_checkpoint, file, log=Path(folder) / "log")))
    for name in ("blob", "step", "weights_digest"):
        if name in wanted and wanted[name] != found[name]:
            message = f"the checkpoint has the {name} {found[name]!r}, not {wanted[name]!r}."
            raise NotVerified(
                message, cure=f"Use another: swarm checkpoints {state.id if state else 'S'}", path=wanted["path"]
            )
    verified = ["blob", "state_root", "weights_digest"] if state else sorted({*wanted} & {"blob"})
    about: Json = {"verified": verified, "session": None, "epoch": None, "metrics": {}}
    content = cast("InspectAnswer", found | about | {"optimizer": views.optimizer_figures(None, found["tensors"])})
    if state is not None:
        content = views.with_record(content, state, wanted["segment"])
    answer_page(call, content, lambda: views.content_page(content), out)


def _find_checkpoint(call: Call, name: str) -> tuple[SessionState | None, Json]:
    """The session that wrote it, where the name says so; the file, and what the log or the name says about it."""
    from bus.blobs import DirectoryBlobs
    from runtime.model import checkpoints as known

    if Path(name).is_file():
        return None, {"path": str(Path(name).absolute())}
    session, colon, which = name.rpartition(":")
    if colon:
        state = read_stored(call, session).history.state
        written = known.find_checkpoint(state, which).written
        names = ("blob", "step", "segment", "state_root", "weights_digest")
        about = {name: getattr(written, name) for name in names}
        return state, about | {"path": str(DirectoryBlobs(call.home.blobs).path(written.blob))}
    path = known.blob_of(name, call.home)
    if path is None:
        cure = "Name it S:STEP, S:best, by its digest, or by a path."
        raise NotFound(f"there is no checkpoint {name!r}.", cure=cure, path=name)
    return None, {"path": str(path), "blob": path.name}


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
