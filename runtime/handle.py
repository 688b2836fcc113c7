"""A session in the hands of a program or a notebook: started, followed, read, asked. Synchronous and thread-safe.

Everything is read from the home's files, so that it works whether a swarm is up or not; only `train` and `wait` of a
session that still runs need one. Torch is imported when a model is asked for.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from contracts.errors import Failed, SwarmError, TimedOut, Unreachable
from contracts.session import ENDED
from runtime import checkpoints, curves, settings, view
from runtime.archive import Archive, newest_training
from runtime.home import Home

if TYPE_CHECKING:
    from torch import nn

    from runtime.history import History
    from runtime.trained import Trained

T = TypeVar("T")
Where = str | Path | None


class Session:
    """One session of a home, named by its id, a unique beginning of it, or `last`."""

    def __init__(self, session: str = "last", *, home: Where = None) -> None:
        self._home = _home(home)
        archive = Archive(self._home)
        name = str(session)
        self.id = newest_training(archive.begun()) if name == "last" else self._home.find(name, archive.ids())
        self._models: dict[str, Trained] = {}

    def __repr__(self) -> str:
        return f"Session({self.id!r}, state={self.state!r}, step={self._history.state.step})"

    @property
    def state(self) -> str:
        """requested, preparing, training, paused, finishing, completed, failed or cancelled."""
        return self._history.state.state

    @property
    def folder(self) -> Path:
        """Where the session's files are: request.yaml, metrics.json, report.md, plots, training.log, exports."""
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
        found = curves.rows(history.state, history.facts)
        try:
            import pandas as pd  # type: ignore[import-untyped,unused-ignore]
        except ImportError:
            return found
        return pd.DataFrame(found, columns=curves.columns(found))

    def wait(self, timeout: float | None = None) -> Session:
        """Return once the session has ended; `TimedOut` after so many seconds, `Unreachable` when no swarm runs."""
        if self.state not in ENDED:
            in_thread(lambda: _waited(self.id, self._home, timeout))
        return self

    def load(self, checkpoint: str | int = "best") -> nn.Module:
        """The model of a checkpoint, in evaluation mode on the CPU, its blob and roots verified."""
        return self._trained(checkpoint).model

    def predict(self, rows: Any, checkpoint: str | int = "best") -> list[dict[str, Any]]:
        """What the model answers for raw rows: lists of numbers, objects by name, columns, or a DataFrame."""
        from runtime.rows import columns_of

        model = self._trained(checkpoint)
        return model.predictions(columns_of(rows, model.facts, model.inputs))

    @property
    def _history(self) -> History:
        # Read again each time: whoever holds the handle sees a session that may still run.
        return Archive(self._home).read(self.id).history

    def _trained(self, checkpoint: str | int) -> Trained:
        from runtime.trained import load

        order = checkpoints.order(self._history.state, checkpoint, self._home)
        if order["blob"] not in self._models:
            self._models[order["blob"]] = load(order)
        return self._models[order["blob"]]


def train(
    request: Mapping[str, Any] | str | Path,
    *,
    home: Where = None,
    wait: bool = True,
    progress: bool = True,
    timeout: float | None = None,
    check: bool = True,
) -> Session:
    """Train as a request (a mapping, or the path of a file) says; the swarm is started if none is up, and stays up.

    Progress goes to stderr. With `check` a session that does not complete raises `Failed` with the reason and the
    cure; `wait=False` returns as soon as the session is requested.
    """
    asked = _Asked(request, home)
    asked.bring_up()
    session = in_thread(asked.submitted)
    handle = Session(session, home=home)
    if wait:
        in_thread(lambda: asked.followed(session, timeout, shown=progress))
        if check:
            _refuse_failure(handle)
    return handle


def load(session: Session | str = "last", checkpoint: str | int = "best", *, home: Where = None) -> nn.Module:
    """The model of a session's checkpoint (best, last, or a step), from the home's files, everything verified."""
    return _handle(session, home).load(checkpoint)


def metrics(session: Session | str = "last", *, home: Where = None) -> Any:
    """A session's figures over its steps as a table; see `Session.metrics`."""
    return _handle(session, home).metrics()


def in_thread(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run asynchronous work to its end in a thread with a loop of its own: a notebook's loop is running already."""
    outcome: list[T | BaseException] = []
    loop = asyncio.new_event_loop()
    task: list[asyncio.Task[Any]] = []

    async def kept() -> T:
        current = asyncio.current_task()
        assert current is not None  # noqa: S101 - this runs as a task
        task.append(current)
        return await work()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            try:
                outcome.append(runner.run(kept()))
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                outcome.append(error)

    thread = threading.Thread(target=run, name="swarm-client", daemon=True)
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        # The person stops watching; the session goes on.
        if task:
            loop.call_soon_threadsafe(task[0].cancel)
        thread.join()
        raise
    if isinstance(outcome[0], BaseException):
        raise _ours(outcome[0])
    return outcome[0]


def _ours(error: BaseException) -> BaseException:
    """The error of ours among those that tasks raised together."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    known = [_ours(one) for one in error.exceptions]
    return next((one for one in known if isinstance(one, SwarmError)), error)


class _Asked:
    """A request on its way into a swarm."""

    def __init__(self, request: Mapping[str, Any] | str | Path, home: Where) -> None:
        from runtime.cli.call import Call

        self._call = Call(home=str(home) if home is not None else None, url=None, creds=None, as_json=False)
        self._request = _judged(request)

    def bring_up(self) -> None:
        from runtime.cli.run import bring_up

        bring_up(self._call)

    async def submitted(self) -> str:
        from runtime.cli.reach import swarm

        async with swarm(self._call) as found:
            return await found.submit(self._request)

    async def followed(self, session: str, within: float | None, *, shown: bool) -> None:
        from runtime.cli.reach import swarm
        from runtime.progress import Plain
        from runtime.progress import progress as shows

        async with swarm(self._call) as found:
            if not shown:
                await found.wait(session, within)
                return
            with shows(sys.stderr, live=True) if self._call.live else Plain(_line) as board:
                try:
                    async with asyncio.timeout(within):
                        async for line in found.events(session, follow=True):
                            board.take(line)
                except TimeoutError:
                    raise TimedOut(
                        f"{session} has not ended within {within:g} s; it goes on.", cure="Wait on."
                    ) from None


def _line(text: str) -> None:
    # Looked up at each line: a notebook replaces stderr.
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - progress for a person


def _judged(request: Mapping[str, Any] | str | Path) -> dict[str, Any]:
    from contracts.request import read_request
    from runtime.cli import request_file
    from runtime.cli.submit import judged

    if isinstance(request, str | Path):
        return judged(str(request), ())
    resolved: dict[str, Any] = read_request(dict(request)).resolved()
    return request_file.absolute(resolved, Path.cwd())


async def _waited(session: str, home: Home, timeout: float | None) -> None:
    from runtime.client import Swarm

    host = home.host()
    if host is None or not host.alive:
        raise Unreachable(f"{session} has not ended, and no swarm runs in {str(home.root)!r}.", cure="swarm up -d")
    async with Swarm.connect(settings.load(home=str(home.root))) as found:
        await found.wait(session, timeout)


def _refuse_failure(session: Session) -> None:
    seen = session.summary()
    if seen["state"] == "completed":
        return
    problem = seen["problem"] or {"message": f"it is {seen['state']}", "cure": "", "frame": ""}
    where = f" (at {problem['frame']})" if problem.get("frame") else ""
    raise Failed(f"session {session.id} {seen['state']}: {problem['message']}{where}", cure=problem["cure"])


def _handle(session: Session | str, home: Where) -> Session:
    return session if isinstance(session, Session) else Session(session, home=home)


def _home(home: Where) -> Home:
    return Home(settings.load(home=str(home) if home is not None else None).home)
