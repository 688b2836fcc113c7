"""A session's checkpoints, and the content of one, as people are shown them: lists with what was recorded, and pages.

Pure but for the question which of the blobs are there.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from typing_extensions import TypedDict

from bus.blobs import DirectoryBlobs
from contracts.checkpoint_keeper import Role
from contracts.errors import count_of
from contracts.request.reading import flat
from contracts.session import Checkpoint, SessionState
from runtime.log import retention
from runtime.views import curves
from runtime.views.answer_pages import metrics_text
from runtime.views.blocks import (
    Block,
    Content,
    Page,
    PageColumn,
    PageSection,
    PageTable,
    Phrase,
    Text,
    Tone,
    key_figures,
)
from runtime.views.formatting import finite, size

STATE_TONES: dict[str, Tone] = {"corrupt": "bad", "pruned": "warn"}


class CheckpointLine(TypedDict):
    """One checkpoint: where it was written, what became of it, and what was recorded of the model there."""

    step: int
    epoch: float | None
    segment: int
    reason: str
    state: str
    kept_as: list[Role]
    on_path: bool
    metrics: dict[str, float]
    bytes: int
    blob: str
    state_root: str
    weights_digest: str
    path: str | None
    present: bool


class CheckpointTotals(TypedDict):
    """How many checkpoints are in which state, and the bytes of those kept, each blob counted once."""

    states: dict[str, int]
    bytes: int


class TensorLine(TypedDict):
    """One tensor of a checkpoint."""

    name: str
    shape: list[int]
    dtype: str
    elements: int
    bytes: int
    norm: float | None
    finite: bool


class OptimizerFigures(TypedDict):
    """Which optimizer a request names with which options, where it is known; and what a checkpoint holds of it."""

    type: str | None
    options: dict[str, object]
    tensors: int
    bytes: int
    memory: list[str]


class InspectAnswer(TypedDict):
    """What is in a checkpoint's file, which parts of it were verified, and what the log says of its step."""

    path: str
    blob: str
    bytes: int
    step: int
    state_root: str
    weights_digest: str
    aliases: dict[str, str]
    parameters: int
    finite: bool
    tensors: list[TensorLine]
    verified: list[str]
    session: str | None
    epoch: float | None
    metrics: dict[str, float]
    optimizer: OptimizerFigures


def recorded_metrics(session: SessionState) -> dict[retention.Place, dict[str, float]]:
    """What was recorded of the model at the place of every checkpoint: by the validator, and by the trainer."""
    evaluated = {(seen.segment, seen.step): seen.values for seen in session.training.evaluations}
    judged = {
        retention.place(each): curves.validated(each.validated)
        for each in session.training.checkpoints
        if each.validated
    }
    places = {retention.place(each) for each in session.training.checkpoints}
    return {place: judged.get(place, {}) | evaluated.get(place, {}) for place in places}


def epoch_at(session: SessionState, step: int) -> float | None:
    """How often training had gone over its rows at a step; None while that is not known."""
    per_step = curves.epochs_per_step(session)
    return round(finite(step) * per_step, 4) if per_step else None


def roles(session: SessionState) -> dict[retention.Place, list[Role]]:
    """What every checkpoint is kept as; nothing where a stranger's request or claim makes no sense of any rule."""
    try:
        return retention.roles(session)
    except (ValueError, TypeError, ArithmeticError):
        return {}


def list_checkpoints(session: SessionState, blobs: Path) -> list[CheckpointLine]:
    """Every checkpoint ever written, in the order of steps, with what became of it."""
    kept_as, recorded = roles(session), recorded_metrics(session)
    ordered = sorted(session.training.checkpoints, key=lambda each: (each.written.step, each.written.segment))
    return [_line(each, session, list(kept_as.get(retention.place(each), [])), blobs, recorded) for each in ordered]


def _line(
    kept: Checkpoint,
    session: SessionState,
    roles: list[Role],
    blobs: Path,
    recorded: dict[retention.Place, dict[str, float]],
) -> CheckpointLine:
    written = kept.written
    place = DirectoryBlobs(blobs).path(written.blob)
    return {
        "step": written.step,
        "epoch": epoch_at(session, written.step),
        "segment": written.segment,
        "reason": written.reason,
        "state": kept.gone or ("kept" if kept.stored else "written"),
        "kept_as": roles if kept.usable else [],
        "on_path": session.training.on_path(written.segment, written.step),
        "metrics": recorded.get(retention.place(kept), {}),
        "bytes": written.bytes,
        "blob": written.blob,
        "state_root": written.state_root,
        "weights_digest": written.weights_digest,
        "path": str(place) if kept.usable else None,
        "present": place.is_file(),
    }


def totals(lines: Sequence[CheckpointLine]) -> CheckpointTotals:
    """How many there are in which state, and the bytes of those kept, each blob counted once."""
    kept = {line["blob"]: line["bytes"] for line in lines if line["state"] in ("kept", "written")}
    return {"states": dict(Counter(line["state"] for line in lines)), "bytes": sum(kept.values())}


def is_missing(line: CheckpointLine) -> bool:
    """Whether a checkpoint should be there and is not."""
    return line["state"] in ("kept", "written") and not line["present"]


def optimizer_figures(session: SessionState | None, tensors: Sequence[TensorLine] = ()) -> OptimizerFigures:
    """The optimizer of a session, and what these tensors hold of it; what the session does not say is None."""
    asked = session.request.get("optimizer") if session else None
    options: dict[str, object] = dict(asked) if isinstance(asked, dict) else {}
    kind = options.pop("type", None)
    held = [tensor for tensor in tensors if tensor["name"].startswith("optimizer.")]
    return {
        "type": str(kind) if kind else None,
        "options": {name: value for name, value in flat(options).items() if value not in (None, [], {})},
        "tensors": len(held),
        "bytes": sum(tensor["bytes"] for tensor in held),
        "memory": sorted({tensor["name"].split(".")[1] for tensor in held}),
    }


def with_record(content: InspectAnswer, session: SessionState, segment: int) -> InspectAnswer:
    """The content with what the session's log says of its step: epoch, metrics, and which optimizer made it."""
    return {
        **content,
        "session": session.id,
        "epoch": epoch_at(session, content["step"]),
        "metrics": recorded_metrics(session).get((segment, content["step"]), {}),
        "optimizer": optimizer_figures(session, content["tensors"]),
    }


def optimizer_text(optimizer: OptimizerFigures) -> str:
    """The optimizer in words: its name, its options, its memory and the size of that."""
    options = ", ".join(f"{name} {value}" for name, value in optimizer["options"].items())
    name = optimizer["type"] or ("not known here" if optimizer["tensors"] else "")
    told = f"{name} ({options})" if options else name
    if not optimizer["tensors"]:
        return told
    tensors = count_of(optimizer["tensors"], "tensor")
    state = f"state of {size(optimizer['bytes'])} in {tensors}: {', '.join(optimizer['memory'])}"
    return f"{told}; {state}"


def checkpoints_page(session: SessionState, lines: Sequence[CheckpointLine], *, everything: bool = False) -> Page:
    """The checkpoints that were kept, or all that were ever written."""
    title, lead = "Checkpoints", f"{session.kind.name} {session.id}"
    if not lines:
        return Page(title, lead, (Text("There is no checkpoint yet."),))
    told = totals(lines)
    shown = [line for line in lines if everything or line["state"] != "pruned"]
    columns = (
        PageColumn("step", "count"),
        PageColumn("epoch", "number"),
        PageColumn("state"),
        PageColumn("kept as"),
        PageColumn("why"),
        PageColumn("size", "bytes"),
        PageColumn("blob", "code"),
        PageColumn("recorded"),
    )
    states = ", ".join(f"{count} {name}" for name, count in told["states"].items())
    table = PageTable(columns, tuple(map(_row, shown)), f"{states}; {size(told['bytes'])} kept")
    optimizer = optimizer_text(optimizer_figures(session))
    return Page(title, lead, (table, *([key_figures(("optimizer", optimizer))] if optimizer else [])))


def _row(line: CheckpointLine) -> tuple[Content, ...]:
    remarks = [f"segment {line['segment']}"] if line["segment"] > 1 else []
    remarks += [] if line["on_path"] else ["off the path"]
    remarks += ["MISSING"] if is_missing(line) else []
    recorded = "  ".join(filter(None, [metrics_text(line["metrics"]), ", ".join(remarks)]))
    return (
        line["step"],
        None if line["epoch"] is None else f"{line['epoch']:.4g}",
        Phrase(line["state"], STATE_TONES.get(line["state"], "good")),
        ", ".join(line["kept_as"]),
        line["reason"],
        line["bytes"],
        line["blob"][:16],
        Phrase(recorded, "bad") if is_missing(line) else recorded,
    )


def content_page(content: InspectAnswer) -> Page:
    """What is in a checkpoint: what it is, what was recorded of it, and its tensors."""
    by_log = "as the log has them" if content["session"] else "as the file has them"
    epoch = content["epoch"]
    rows: list[tuple[str, Content]] = [
        ("file", content["path"]),
        ("blob", Phrase(content["blob"], code=True)),
        ("session", content["session"]),
        ("step", f"{content['step']}" + (f" (epoch {epoch:.4g})" if epoch is not None else "")),
        ("metrics", metrics_text(content["metrics"])),
        ("optimizer", optimizer_text(content["optimizer"])),
        ("size", f"{size(content['bytes'])}, {content['parameters']} numbers in the model's tensors"),
        ("state root", f"{content['state_root']} (recomputed, {by_log})"),
        ("weights", f"{content['weights_digest']} (recomputed, {by_log})"),
        ("tied", ", ".join(f"{name} = {of}" for name, of in content["aliases"].items())),
        ("numbers", "" if content["finite"] else Phrase("some values are not finite", "bad")),
    ]
    columns = (
        PageColumn("tensor"),
        PageColumn("shape"),
        PageColumn("dtype"),
        PageColumn("size", "bytes"),
        PageColumn("norm", "number"),
    )
    tensors = tuple(
        (
            tensor["name"],
            "x".join(map(str, tensor["shape"])) or "scalar",
            tensor["dtype"],
            tensor["bytes"],
            Phrase("not finite", "bad") if tensor["norm"] is None else tensor["norm"],
        )
        for tensor in content["tensors"]
    )
    blocks: tuple[Block, ...] = (key_figures(*rows), PageSection("Tensors", (PageTable(columns, tensors),)))
    return Page(f"Checkpoint of step {content['step']}", content["session"] or content["path"], blocks)
