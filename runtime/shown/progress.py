"""A session as it goes, for whoever watches: redrawn in place on a terminal, one line per fact elsewhere.

It is fed event lines (`runtime.shown.view.event_line`) and knows no bus; rich is imported only where it draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TextIO

from runtime.shown.printable import one_line
from runtime.shown.sentences import figures, last_loss, plain, sentence

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
        """One more event."""
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


def progress(stream: TextIO, *, live: bool) -> Progress:
    """The progress that fits the stream."""
    return Live(stream) if live else Plain(lambda text: print(text, file=stream, flush=True))


class Plain:
    """One line per fact, to anything that takes text."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def take(self, line: Line) -> None:
        """Write the event, unless it only moves a bar."""
        if telling(line):
            self._write(plain(line))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


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

    def take(self, line: Line) -> None:
        """Fold one more event."""
        data, name = line["data"], line["name"]
        if telling(line):
            self.lately[one_line(line["lane"])] = sentence(line)
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
    board.total = sum(one["ends"] - one["begins"] for one in data["spans"] if one["number"] in chosen)


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
        self._screen = Screen(Drawn(self.board), console=self._console, refresh_per_second=8, transient=True)

    def take(self, line: Line) -> None:
        """Fold the event; what went wrong stays on the terminal."""
        self.board.session = self.board.session or str(line.get("session", ""))
        self.board.take(line)
        if line["name"] in _LASTING and line.get("understood", True):
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


class Drawn:
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
        for lane, told in board.lately.items():
            rows.add_row(Text(f"  {lane}", style="cyan"), Text(told, style="dim"))
        yield rows
