"""A session's checkpoints: which there are, what is in one, and what its model answers. Torch is in children alone."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from contracts.errors import InvalidInput, NotFound, NotVerified
from runtime.api.children import ask_child
from runtime.api.session_source import is_bundle, read_stored

if TYPE_CHECKING:
    from contracts.session import SessionState
    from runtime.api.home_context import HomeContext
    from runtime.views.checkpoints import InspectAnswer

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


def inspect(context: HomeContext, checkpoint: str) -> InspectAnswer:
    """The tensors of a checkpoint (S:STEP, S:best, a blob's digest, or a file) and what the log says of its step.

    Its roots are computed again; `NotVerified` when its bytes are not what they should be.
    """
    from runtime.model.jobs import CheckpointFile, inspect_checkpoint
    from runtime.views import checkpoints as views

    state, wanted = _find_checkpoint(context, checkpoint)
    file = CheckpointFile(Path(wanted["path"]), wanted.get("state_root"))
    with tempfile.TemporaryDirectory(prefix="swarm-inspect-") as folder:
        found = asdict(context.wait(ask_child(inspect_checkpoint, file, log=Path(folder) / "log")))
    for name in ("blob", "step", "weights_digest"):
        if name in wanted and wanted[name] != found[name]:
            message = f"the checkpoint has the {name} {found[name]!r}, not {wanted[name]!r}."
            cure = f"Use another: swarm checkpoints {state.id if state else 'S'}"
            raise NotVerified(message, cure=cure, path=wanted["path"])
    verified = ["blob", "state_root", "weights_digest"] if state else sorted({*wanted} & {"blob"})
    about: dict[str, Any] = {"verified": verified, "session": None, "epoch": None, "metrics": {}}
    content = cast("InspectAnswer", found | about | {"optimizer": views.optimizer_figures(None, found["tensors"])})
    return content if state is None else views.with_record(content, state, wanted["segment"])


def _find_checkpoint(context: HomeContext, name: str) -> tuple[SessionState | None, dict[str, Any]]:
    """The session that wrote it, where the name says so; the file, and what the log or the name says about it."""
    from bus.blobs import DirectoryBlobs
    from runtime.model import checkpoints as known

    if is_bundle(name):
        cure = "Unpack it (unzip), and name a file of its folder blobs, which `swarm bundle S --checkpoints` fills."
        raise InvalidInput(f"{name!r} is a bundle, no checkpoint.", cure=cure, path=name)
    if Path(name).is_file():
        return None, {"path": str(Path(name).absolute())}
    session, colon, which = name.rpartition(":")
    if colon:
        state = read_stored(context, session).history.state
        written = known.find_checkpoint(state, which).written
        names = ("blob", "step", "segment", "state_root", "weights_digest")
        about = {name: getattr(written, name) for name in names}
        return state, about | {"path": str(DirectoryBlobs(context.home.blobs).path(written.blob))}
    path = known.blob_of(name, context.home)
    if path is None:
        cure = "Name it S:STEP, S:best, by its digest, or by a path."
        raise NotFound(f"there is no checkpoint {name!r}.", cure=cure, path=name)
    return None, {"path": str(path), "blob": path.name}
