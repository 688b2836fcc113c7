"""A session in the hands of a program or a notebook: read, waited for, asked. It starts none.

Everything is read from the home's files, so that it works whether a swarm is up or not; only waiting for a session
that still runs needs one. Torch is imported when a model is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import Unreachable
from contracts.session import ENDED
from runtime.home import settings
from runtime.home.home import Home
from runtime.jobs.event_loop import in_thread
from runtime.log.archive import Archive, resolve_name
from runtime.model import checkpoints
from runtime.views import curves, view

if TYPE_CHECKING:
    from torch import nn

    from runtime.log.session_log import SessionLog
    from runtime.model.trained import TrainedModel

Where = str | Path | None


class Session:
    """One session of a home, named by its id, a unique beginning of it, or `last`."""

    def __init__(self, session: str = "last", *, home: Where = None) -> None:
        self._home = _home(home)
        archive = Archive(self._home)
        self.id = resolve_name(str(session), self._home, archive.ids(), archive.begun)
        self._models: dict[str, TrainedModel] = {}

    def __repr__(self) -> str:
        return f"Session({self.id!r}, state={self.state!r}, step={self._history.state.step})"

    @property
    def state(self) -> str:
        """requested, preparing, training, paused, finishing, completed, failed or cancelled."""
        return self._history.state.state

    @property
    def folder(self) -> Path:
        """Where the session's files are: request.yaml, metrics.json, report.html, report.md, plots, exports."""
        return self._home.session(self.id)

    def summary(self) -> dict[str, Any]:
        """What `swarm show --json` says: state, step, metrics, artifacts, digests."""
        return view.summary(self._history.state, self._home.blobs)

    def events(self, after: int = 0) -> list[dict[str, Any]]:
        """Every event behind a position, in order, as `swarm events` prints them."""
        return [view.event_line(fact) for fact in self._history.since(after)]

    def metrics(self) -> Any:
        """One row per step at which something was recorded: a pandas DataFrame when pandas is there, else dicts."""
        history = self._history
        rows = curves.rows(history.state, history.facts)
        try:
            import pandas as pd  # type: ignore[import-untyped,unused-ignore]
        except ImportError:
            return rows
        return pd.DataFrame(rows, columns=curves.columns(rows))

    def wait(self, timeout: float | None = None) -> Session:
        """Return once the session has ended; `TimedOut` after so many seconds, `Unreachable` when no swarm runs."""
        if self.state not in ENDED:
            host = self._home.host()
            if host is None or not host.alive:
                where = str(self._home.root)
                raise Unreachable(f"{self.id} has not ended, and no swarm runs in {where!r}.", cure="swarm up -d")
            from runtime.commands.client import Swarm

            async def wait() -> None:
                async with Swarm.connect(settings.load(home=str(self._home.root))) as swarm:
                    await swarm.wait(self.id, timeout)

            in_thread(wait)
        return self

    def load(self, checkpoint: str | int = "best") -> nn.Module:
        """The model of a checkpoint, in evaluation mode on the CPU, its blob and roots verified."""
        return self._trained(checkpoint).model

    def predict(self, rows: Any, checkpoint: str | int = "best") -> list[dict[str, Any]]:
        """What the model answers for raw rows: lists of numbers, objects by name, columns, or a DataFrame."""
        from runtime.model.rows import columns_of

        model = self._trained(checkpoint)
        return model.predictions(columns_of(rows, model.facts, model.inputs))

    @property
    def _history(self) -> SessionLog:
        # Read again each time, because the session may still run while the handle is held.
        return Archive(self._home).read(self.id).history

    def _trained(self, checkpoint: str | int) -> TrainedModel:
        from runtime.model.trained import load

        order = checkpoints.order(self._history.state, checkpoint, self._home)
        if order["blob"] not in self._models:
            self._models[order["blob"]] = load(order)
        return self._models[order["blob"]]


def load(session: Session | str = "last", checkpoint: str | int = "best", *, home: Where = None) -> nn.Module:
    """The model of a session's checkpoint (best, last, or a step), from the home's files, everything verified."""
    return _handle(session, home).load(checkpoint)


def metrics(session: Session | str = "last", *, home: Where = None) -> Any:
    """A session's figures over its steps as a table; see `Session.metrics`."""
    return _handle(session, home).metrics()


def _handle(session: Session | str, home: Where) -> Session:
    return session if isinstance(session, Session) else Session(session, home=home)


def _home(home: Where) -> Home:
    return Home(settings.load(home=str(home) if home is not None else None).home)
