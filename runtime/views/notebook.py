"""A session's progress in a notebook's cell: one display that is replaced a few times a second and never grows."""

import sys
import time
from collections.abc import Callable
from html import escape
from types import TracebackType
from typing import Any, Self

from contracts.replies import EventReply
from runtime.views.formatting import one_line
from runtime.views.progress import MOST_TRIALS, Board, is_trouble, trial_columns
from runtime.views.sentences import plain
from runtime.views.view import event_of

SECONDS = 0.25
"""Between two drawings; what comes meanwhile is in the next one."""

TROUBLES = 5
"""Sentences about trouble that stay in the cell, the newest ones."""

Show = Callable[[str, str], None]
"""Replaces what the cell shows by this HTML, or where none is drawn by this text."""


class NotebookProgress:
    """Draws the board into a cell."""

    def __init__(self, show: Show, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.board = Board()
        self._show, self._clock = show, clock
        self._troubles: list[str] = []
        self._next = 0.0

    def take(self, line: EventReply) -> None:
        """Fold the event, and draw unless that was done a moment ago."""
        event = event_of(line)
        self.board.take(line["lane"], event, line["time"])
        if is_trouble(event):
            self._troubles = [*self._troubles, plain(line["time"], line["lane"], event)][-TROUBLES:]
        if self._clock() >= self._next:
            self._draw()

    def _draw(self) -> None:
        self._next = self._clock() + SECONDS
        board = self.board
        unit = "trial" if board.kind == "search" else "step"
        words = [f"{board.name or board.kind} · {board.state}", f"{unit} {board.step}/{board.total or '?'}"]
        words += [f"epoch {board.epoch}/{board.epochs}"] if board.epochs else []
        words += [f"loss {board.loss:.4g}"] if board.loss is not None else []
        words += [board.metrics] if board.metrics else []
        head = "  ".join(map(one_line, words))
        lines = [f"{lane}: {text}" for lane, text in board.lately.items()]
        bar = f'<progress value="{board.step}" max="{board.total}"></progress> ' if board.total else ""
        rows = [f"<div>{escape(one_line(text))}</div>" for text in lines]
        rows += [f"<div><b>{escape(one_line(text))}</b></div>" for text in self._troubles]
        html = f'<div>{bar}{escape(head)}</div><div style="font-size:smaller;opacity:.7">{"".join(rows)}</div>'
        if trials := board.shown_trials(MOST_TRIALS):
            columns = trial_columns(trials, board.trials.best)
            table = [columns, *zip(*columns.values(), strict=True)]
            cells = ("".join(f"<td>{escape(one_line(text))}</td>" for text in row) for row in table)
            html += f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"
        self._show(html, "\n".join([head, *self._troubles]))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._draw()


def cell() -> Show | None:
    """What replaces the content of a new display in the running notebook's cell; None outside of notebooks."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if getattr(shell, "kernel", None) is None:
        return None
    handle = ipython.display.display({"text/plain": ""}, raw=True, display_id=True)
    return lambda html, text: handle.update({"text/html": html, "text/plain": text}, raw=True)
