"""A session's progress for a person: redrawn in place on a terminal, one line per fact elsewhere.

It is fed event lines (`runtime.views.view.event_line`) and knows no bus; rich is imported only where it draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TextIO

from runtime.views.formatting import figures, last_loss, one_line
from runtime.views.sentences import plain, sentence

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

QUIET = frozenset(
    {
        "window.recorded",
        "checkpoint.written",
        "checkpoint.promoted",
        "diagnosis.reached",
        "ledger.checkpointed",
        "attempt.ended",
        "span.taken",
    }
)
"""What moves the bar, or is followed by an event that says more, is not worth a line of its own."""

Line = Mapping[str, Any]


class Progress(Protocol):
    """Takes event lines in order, inside a `with` block."""

    def take(self, line: Line) -> None:
        """Show one more event."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def telling(line: Line) -> bool:
    """Whether an event is worth a line: of checkpoints only those that stay."""
    if not line.get("understood", True):
        return True
    if line["name"] == "checkpoint.stored":
        return bool(line["data"]["kept_as"])
    return line["name"] not in QUIET


def progress(stream: TextIO, *, live: bool, quiet: bool = False) -> Progress:
    """The progress that fits the stream; a quiet one tells of trouble alone."""
    if live and not quiet:
        return Live(stream)
    return PlainProgress(lambda text: print(text, file=stream, flush=True), quiet=quiet)


class PlainProgress:
    """One line per fact, to anything that takes text; what repeats with every checkpoint is counted and told once.

    Quiet, it tells of nothing but trouble.
    """

    def __init__(self, write: Callable[[str], None], *, quiet: bool = False) -> None:
        self._write = write
        self._quiet = quiet
        self._stops_early = True
        self._counted: dict[str, dict[str, int]] = {}

    def take(self, line: Line) -> None:
        """Write the event, unless it only moves a bar or is counted; what was counted is told before the seal."""
        self._stops_early = stops_early(line, self._stops_early)
        if line["name"] == "session.sealed" and line.get("understood", True):
            for lane, counts in self._counted.items():
                told = ", ".join(f"{count} {what}" for what, count in counts.items())
                self._write(one_line(f"{str(line['time'])[11:19]} {lane}: checkpoints: {told}"))
            self._counted.clear()
        if self._quiet:
            if is_trouble(line):
                self._write(plain(line))
        elif what := _counted_as(line):
            counts = self._counted.setdefault(str(line["lane"]), {})
            counts[what] = counts.get(what, 0) + 1
        elif telling(line):
            self._write(plain(with_patience(line, self._stops_early)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def _counted_as(line: Line) -> str:
    """As what an event is counted that says of each checkpoint the same; nothing for one that has a line of its own."""
    data = line["data"]
    if not line.get("understood", True):
        return ""
    match line["name"]:
        case "checkpoint.stored" if data["kept_as"]:
            return "verified and kept"
        case "checkpoint.pruned":
            return "let go"
        case "checkpoint.validated" if data["control"] == "reproduced" and data["split"] != "test":
            return "judged, control metric reproduced"
    return ""


def stops_early(line: Line, before: bool) -> bool:  # noqa: FBT001 - a fold
    """Whether the session may stop early: as its request says, which is the first line of it."""
    if line["name"] != "session.requested" or not line.get("understood", True):
        return before
    return bool((line["data"]["request"].get("early_stopping") or {}).get("enabled", True))


def with_patience(line: Line, stops: bool) -> Line:  # noqa: FBT001 - what the fold says
    """The event as it is told: a session that is not to stop early has no patience."""
    if stops or line["name"] != "control.evaluated" or not line.get("understood", True):
        return line
    return {**line, "data": {**line["data"], "patience_left": None}}


@dataclass
class Board:
    """What is on the screen: a fold over event lines."""

    session: str = ""
    name: str = ""
    kind: str = "training"
    state: str = "requested"
    step: int = 0
    total: int = 0
    epoch: int = 0
    epochs: int = 0
    loss: float | None = None
    metrics: str = ""
    lately: dict[str, str] = field(default_factory=dict)
    stops_early: bool = True

    def take(self, line: Line) -> None:
        """Fold one more event into what the board shows."""
        data, name = line["data"], line["name"]
        self.stops_early = stops_early(line, self.stops_early)
        if telling(line):
            self.lately[one_line(line["lane"])] = sentence(with_patience(line, self.stops_early))
        fold = _FOLDS.get(name) if line.get("understood", True) else None
        if fold:
            fold(self, data)


def _requested(board: Board, data: Line) -> None:
    request = data["request"]
    board.kind, board.name, board.state = data["kind"], request.get("name", ""), "preparing"
    board.epochs = request.get("training", {}).get("epochs", 0)
    board.total = request.get("trials", 0) if data["kind"] == "search" else 0


def _claimed(board: Board, data: Line) -> None:
    board.state, board.step = "training", data["resumed_from"]
    board.total = data["resolved"].get("steps_total", board.total)


def _window(board: Board, data: Line) -> None:
    board.step, board.loss = data["last"], last_loss(data)


def _evaluated(board: Board, data: Line) -> None:
    board.epoch, board.metrics = data["epoch"], figures(data["values"])


def _state(state: str) -> Callable[[Board, Line], None]:
    def fold(board: Board, data: Line) -> None:
        board.state = state

    return fold


def _applied(board: Board, data: Line) -> None:
    board.step = data["step"]


def _trial(board: Board, data: Line) -> None:
    board.step += 1


def _planned(board: Board, data: Line) -> None:
    chosen = set(data["chosen"])
    board.state = "auditing"
    board.total = sum(span["ends"] - span["begins"] for span in data["spans"] if span["number"] in chosen)


def _span(board: Board, data: Line) -> None:
    board.step += data["steps"]


_FOLDS: dict[str, Callable[[Board, Line], None]] = {
    "session.requested": _requested,
    "training.claimed": _claimed,
    "window.recorded": _window,
    "control.evaluated": _evaluated,
    "intervention.applied": _applied,
    "trial.finished": _trial,
    "audit.planned": _planned,
    "span.repeated": _span,
    "training.paused": _state("paused"),
    "training.resumed": _state("training"),
    "training.completed": _state("finishing"),
    "training.failed": _state("finishing"),
    "training.cancelled": _state("finishing"),
    "search.completed": _state("finishing"),
    "search.cancelled": _state("finishing"),
    "search.failed": _state("finishing"),
    "session.sealed": _state("ended"),
}


class Live:
    """The board, redrawn a few times a second; what deserves to stay is printed above it."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live as Screen

        self.board = Board()
        self._console = Console(file=stream)
        self._screen = Screen(RichBoard(self.board), console=self._console, refresh_per_second=8, transient=True)

    def take(self, line: Line) -> None:
        """Fold the event; what went wrong stays on the terminal."""
        self.board.session = self.board.session or str(line.get("session", ""))
        self.board.take(line)
        if is_trouble(line):
            self._console.print(plain(line), style="yellow", markup=False, highlight=False)

    def __enter__(self) -> Self:
        self._screen.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._screen.__exit__(kind, error, trace)


_LASTING = frozenset(
    {
        "problem.diagnosed",
        "intervention.applied",
        "handler.failed",
        "child.ended",
        "divergence.found",
        "resources.alerted",
        "training.failed",
        "dataset.rejected",
        "export.refused",
        "checkpoint.corrupt",
        "validation.failed",
    }
)


def is_trouble(line: Line) -> bool:
    """Whether an event says that something went wrong, or what was done about it."""
    return line["name"] in _LASTING and line.get("understood", True)


class RichBoard:
    """The board as rich draws it."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        board = self._board
        head = Table.grid(padding=(0, 1))
        what = one_line(f"{board.name or board.kind} · {board.state}")
        steps = f"{'trial' if board.kind == 'search' else 'step'} {board.step}/{board.total or '?'}"
        epoch = f"epoch {board.epoch}/{board.epochs}" if board.epochs else ""
        loss = f"loss {board.loss:.4g}" if board.loss is not None else ""
        bar = ProgressBar(total=board.total or None, completed=board.step, width=24, pulse=not board.total)
        for _ in range(5):
            head.add_column(no_wrap=True)
        head.add_row(Text(what, style="bold"), bar, Text(steps), Text(epoch), Text(loss))
        yield head
        if board.metrics:
            yield Text(one_line(f"  {board.metrics}"), no_wrap=True, overflow="ellipsis")
        rows = Table.grid(padding=(0, 1), expand=True)
        rows.add_column(no_wrap=True, min_width=2 + max(map(len, board.lately), default=0))
        rows.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for lane, text in board.lately.items():
            rows.add_row(Text(f"  {lane}", style="cyan"), Text(text, style="dim"))
        yield rows
