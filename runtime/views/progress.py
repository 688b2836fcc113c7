"""A session's progress for a person: redrawn in place on a terminal, one line per fact elsewhere.

It is fed event lines (`runtime.views.view.event_line`) and knows no bus; rich is imported only where it draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from contracts import checkpoint_keeper as keeper
from contracts import trainer
from contracts.common import ChildEnded, HandlerFailed
from contracts.data_manager import DatasetRejected
from contracts.diagnostician import DiagnosisReached, ProblemDiagnosed
from contracts.event import Event
from contracts.exporter import ExportRefused
from contracts.hyperparameter_specialist import SearchCancelled, SearchCompleted, SearchFailed, TrialFinished
from contracts.ledger import LedgerCheckpointed, SessionSealed
from contracts.operator import SessionRequested
from contracts.replies import EventReply
from contracts.resource_monitor import ResourcesAlerted
from contracts.validator import CheckpointValidated, ValidationFailed
from runtime.views.formatting import figures, last_loss, one_line
from runtime.views.sentences import NO_PATIENCE, plain, sentence
from runtime.views.trials import TrialRow, TrialTable, parameters_of, state_of, value_of
from runtime.views.view import event_of

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

QUIET = (
    trainer.WindowRecorded,
    trainer.CheckpointWritten,
    keeper.CheckpointPromoted,
    DiagnosisReached,
    LedgerCheckpointed,
    trainer.AttemptEnded,
    trainer.SpanTaken,
)
"""What moves the bar, or is followed by an event that says more, is not worth a line of its own."""


class Progress(Protocol):
    """Takes event lines in order, inside a `with` block."""

    def take(self, line: EventReply) -> None:
        """Show one more event."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def telling(event: Event) -> bool:
    """Whether an event is worth a line: of checkpoints those that stay, of rechecked windows those that differed."""
    if isinstance(event, trainer.WindowRechecked):
        return bool(event.fields)
    return bool(event.kept_as) if isinstance(event, keeper.CheckpointStored) else not isinstance(event, QUIET)


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
        self._trials = TrialTable()

    def take(self, line: EventReply) -> None:
        """Write the event, unless it only moves a bar or is counted; what was counted is told before the seal."""
        event, time, lane = event_of(line), line["time"], line["lane"]
        self._stops_early = stops_early(event, self._stops_early)
        self._trials.take(event, time)
        if isinstance(event, SessionSealed):
            for role, counts in self._counted.items():
                told = ", ".join(f"{count} {what}" for what, count in counts.items())
                self._write(one_line(f"{time[11:19]} {role}: checkpoints: {told}"))
            self._counted.clear()
        if self._quiet:
            if is_trouble(event):
                self._write(plain(time, lane, event))
        elif what := _counted_as(event):
            counts = self._counted.setdefault(lane, {})
            counts[what] = counts.get(what, 0) + 1
        elif telling(event):
            best = isinstance(event, TrialFinished) and event.number == self._trials.best
            told = plain(time, lane, with_patience(event, self._stops_early))
            self._write(f"{told}, the best so far" if best else told)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def _counted_as(event: Event) -> str:
    """As what an event is counted that says of each checkpoint the same; nothing for one that has a line of its own."""
    match event:
        case keeper.CheckpointStored(kept_as=roles) if roles:
            return "verified and kept"
        case keeper.CheckpointPruned():
            return "let go"
        case CheckpointValidated(control="reproduced", split=split) if split != "test":
            return "judged, control metric reproduced"
    return ""


def stops_early(event: Event, before: bool) -> bool:  # noqa: FBT001 - a fold
    """Whether the session may stop early: as its request says, which is the first event of it."""
    if not isinstance(event, SessionRequested):
        return before
    return bool((event.request.get("early_stopping") or {}).get("enabled", True))


def with_patience(event: Event, stops: bool) -> Event:  # noqa: FBT001 - what the fold says
    """The event as it is told: a session that is not to stop early has no patience."""
    if stops or not isinstance(event, trainer.ControlEvaluated):
        return event
    return event.model_copy(update={"patience_left": NO_PATIENCE})


@dataclass
class Board:
    """What is on the screen: a fold over event lines."""

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
    trials: TrialTable = field(default_factory=TrialTable)

    def take(self, lane: str, event: Event, time: str = "") -> None:
        """Fold one more event, said at that time, into what the board shows."""
        self.trials.take(event, time)
        self.stops_early = stops_early(event, self.stops_early)
        if telling(event):
            self.lately[one_line(lane)] = sentence(with_patience(event, self.stops_early))
        match event:
            case SessionRequested(kind=kind, request=request):
                self.kind, self.name, self.state = kind, request.get("name", ""), "preparing"
                self.epochs = request.get("training", {}).get("epochs", 0)
                wanted = self.trials.planned or request.get("trials", request.get("size", 0))
                self.total = wanted if kind == "search" else 0
            case trainer.TrainingClaimed(resumed_from=step, resolved=resolved):
                self.state, self.step, self.total = "training", step, resolved.get("steps_total", self.total)
            case trainer.WindowRecorded(last=step, losses=losses):
                self.step, self.loss = step, last_loss(losses)
            case trainer.ControlEvaluated(epoch=epoch, values=values):
                self.epoch, self.metrics = epoch, figures(values)
            case trainer.InterventionApplied(step=step):
                self.step = step
            case TrialFinished():
                self.step += 1
            case trainer.AuditPlanned(chosen=chosen, spans=spans):
                self.state, self.total = "auditing", sum(one.ends - one.begins for one in spans if one.number in chosen)
            case trainer.SpanRepeated(steps=steps):
                self.step += steps
        self.state = _STATES.get(type(event), self.state)

    def shown_trials(self, most: int) -> list[TrialRow]:
        """At most so many trials, by number: the best, those that go on, and the newest of the others."""
        rows = self.trials.rows
        going = [number for number, row in rows.items() if row["state"] in ("running", "waiting")]
        others = [number for number in sorted(rows, reverse=True) if number not in going]
        best = [self.trials.best] if self.trials.best is not None else []
        chosen = list(dict.fromkeys([*best, *going, *others]))[:most]
        return [rows[number] for number in sorted(chosen)]


_STATES: Mapping[type[Event], str] = {
    trainer.TrainingPaused: "paused",
    trainer.TrainingResumed: "training",
    trainer.TrainingCompleted: "finishing",
    trainer.TrainingFailed: "finishing",
    trainer.TrainingCancelled: "finishing",
    SearchCompleted: "finishing",
    SearchCancelled: "finishing",
    SearchFailed: "finishing",
    SessionSealed: "ended",
}


class Live:
    """The board, redrawn a few times a second; what deserves to stay is printed above it."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live as Screen

        self.board = Board()
        self._console = Console(file=stream)
        self._screen = Screen(RichBoard(self.board), console=self._console, refresh_per_second=8, transient=True)

    def take(self, line: EventReply) -> None:
        """Fold the event; what went wrong stays on the terminal."""
        event = event_of(line)
        self.board.take(line["lane"], event, line["time"])
        if is_trouble(event):
            told = plain(line["time"], line["lane"], event)
            self._console.print(told, style="yellow", markup=False, highlight=False)

    def __enter__(self) -> Self:
        self._screen.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._screen.__exit__(kind, error, trace)


_LASTING = (
    ProblemDiagnosed,
    trainer.InterventionApplied,
    HandlerFailed,
    ChildEnded,
    trainer.DivergenceFound,
    ResourcesAlerted,
    trainer.TrainingFailed,
    DatasetRejected,
    ExportRefused,
    keeper.CheckpointCorrupt,
    ValidationFailed,
)


def is_trouble(event: Event) -> bool:
    """Whether an event says that something went wrong, or what was done about it."""
    return isinstance(event, _LASTING)


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
        if not board.trials.rows:
            return
        height = (options.height or console.height) - len(board.lately) - 5
        trials = board.shown_trials(max(1, min(height, MOST_TRIALS)))
        columns = trial_columns(trials, board.trials.best, narrow=options.max_width < NARROW)
        table = Table.grid(padding=(0, 1), expand=True)
        for name in columns:
            last = name == "parameters"
            table.add_column(no_wrap=True, overflow="ellipsis", ratio=1 if last else None)
        table.add_row(*(Text(name, style="dim") for name in columns))
        for at, row in enumerate(trials):
            style = "bold green" if row["number"] == board.trials.best else ""
            table.add_row(*(Text(one_line(cells[at]), style=style) for cells in columns.values()))
        yield table
        if more := len(board.trials.rows) - len(trials):
            yield Text(f"  and {more:,} more", style="dim")


MOST_TRIALS = 20
"""Trials that are shown while a search runs."""
NARROW = 60
"""Columns of a terminal below which a trial's cost and rung are left out."""


def trial_columns(trials: Sequence[TrialRow], best: int | None, *, narrow: bool = False) -> dict[str, list[str]]:
    """The cells of trials as text, by the names of their columns."""
    columns = {
        "trial": [str(row["number"]) for row in trials],
        "state": [state_of(row) for row in trials],
        "value": [value_of(row, best).text for row in trials],
    }
    if not narrow:
        columns["epochs"] = [str(row["epochs"] or "") for row in trials]
        columns["time"] = ["" if row["seconds"] is None else f"{row['seconds']:.1f} s" for row in trials]
        if any(row["rungs"] for row in trials):
            columns["rung"] = ["" if row["rung"] is None else str(row["rung"]) for row in trials]
    return columns | {"parameters": [parameters_of(row) for row in trials]}
