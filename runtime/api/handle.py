"""A session in the hands of a program or a notebook: read, waited for, asked, continued.

Everything is read from the home's files, so that it works whether a swarm is up or not. Only what adds to a session or
makes another one needs a swarm, and starts one when none is up. Torch is imported when a model is asked for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

from contracts.errors import Failed, InvalidInput
from contracts.session import ENDED
from runtime.api import evidence, hosting, models, orders, request_file
from runtime.api.evidence import Anchor, AuditWish
from runtime.api.following import follow
from runtime.api.home_context import HomeContext
from runtime.api.orders import ModelFile
from runtime.api.session_source import reader, resolve_session
from runtime.log.archive import Archive
from runtime.model import checkpoints
from runtime.views import curves, view
from runtime.views.curves import MetricsTable

if TYPE_CHECKING:
    from torch import nn

    from contracts.findings import Mode
    from contracts.replies import EventReply, SessionReply
    from runtime.api.swarm import Swarm
    from runtime.bundle.writer import BundleFile
    from runtime.diagnosis.health import DiagnosisAnswer, HealthDifference
    from runtime.log.session_log import SessionLog
    from runtime.model.trained import TrainedModel
    from runtime.replay.difference import SessionsDifference
    from runtime.replay.verdict import Verdict
    from runtime.views.blocks import Page
    from runtime.views.checkpoints import InspectAnswer
    from runtime.views.proof import ProofAnswer
    from runtime.views.trace import RowAnswer, StepAnswer
    from runtime.views.trials import TrialsAnswer
    from runtime.views.view import SessionMoment

Where = str | Path | None


class Session:
    """One session of a home, named by its id, a unique beginning of it, its request_id, `last` or `last-KIND`."""

    def __init__(self, session: str = "last", *, home: Where = None) -> None:
        self._at(_context(home), str(session))

    @classmethod
    def of(cls, context: HomeContext, session: str) -> Self:
        """The session that a name means where a caller stands."""
        handle = cls.__new__(cls)
        handle._at(context, session)  # noqa: SLF001 - a handle of its own class
        return handle

    def _at(self, context: HomeContext, session: str) -> None:
        self._context, self._home = context, context.home
        self.id = resolve_session(context, session, Archive(self._home))
        self._models: dict[str, TrainedModel] = {}

    def __repr__(self) -> str:
        return f"Session({self.id!r}, state={self.state!r}, step={self._history.state.step})"

    def _repr_html_(self) -> str:
        from html import escape

        from runtime.views import html

        # A frame of its own: neither its styles nor what others wrote into names reaches the notebook.
        page = escape(html.render(self._page()), quote=True)
        return f'<iframe srcdoc="{page}" sandbox="" style="width:100%;height:32em;border:0"></iframe>'

    def _repr_markdown_(self) -> str:
        from runtime.views import markdown

        return markdown.render(self._page())

    def _page(self) -> Page:
        from runtime.views.session_page import glance_page
        from runtime.views.session_record import SessionRecord

        history = self._history
        return glance_page(history.state, SessionRecord.of(history.state, history.facts))

    @property
    def state(self) -> str:
        """requested, preparing, training, paused, finishing, completed, failed or cancelled."""
        return self._history.state.state

    @property
    def folder(self) -> Path:
        """Where the session's files are: request.yaml, metrics.json, report.html, report.md, plots, exports."""
        return self._home.session(self.id)

    def summary(self) -> SessionReply:
        """What `swarm show --json` says: state, step, metrics, artifacts, digests."""
        return view.summary(self._history.state, self._home.blobs)

    def events(self, after: int = 0) -> list[EventReply]:
        """Every event behind a position, in order, as `swarm events` prints them."""
        return [view.event_line(fact) for fact in self._history.since(after)]

    def metrics(self) -> MetricsTable:
        """One row per step at which something was recorded: loss, learning rate, and every metric by its name."""
        history = self._history
        return MetricsTable(curves.rows(history.state, history.facts))

    def checkpoints(self) -> list[dict[str, Any]]:
        """Every checkpoint ever written, in the order of steps: state, roles, reason, size, digests, path."""
        return models.list_checkpoints(self._context, self.id)[1]

    def wait(self, timeout: float | None = None) -> Session:
        """Return once the session has ended; `TimedOut` after so many seconds, `Unreachable` when no swarm runs."""

        async def ended() -> None:
            async with reader(self._context) as source:
                await source.wait(self.id, timeout)

        if self.state not in ENDED:
            self._context.wait(ended())
        return self

    def follow(self, timeout: float | None = None, *, progress: bool = True, check: bool = True) -> Session:
        """As `wait`, with the progress shown; with `check` a session that does not complete raises `Failed`."""

        async def followed() -> None:
            async with reader(self._context) as source:
                await follow(self._context, source, self.id, timeout)

        if progress:
            self._context.wait(followed())
        else:
            self.wait(timeout)
        if check and (seen := self.summary())["state"] != "completed":
            problem = seen["problem"] or {"message": f"it is {seen['state']}", "cure": "", "frame": ""}
            where = f" (at {problem['frame']})" if problem.get("frame") else ""
            raise Failed(f"session {self.id} {seen['state']}: {problem['message']}{where}", cure=problem["cure"])
        return self

    def load(self, checkpoint: str | int = "best") -> nn.Module:
        """The model of a checkpoint, in evaluation mode on the CPU, its blob and roots verified."""
        return self._trained(checkpoint).model

    def predict(self, rows: Any, checkpoint: str | int = "best") -> list[dict[str, Any]]:
        """What the model answers for raw rows: lists of numbers, objects by name, columns, or a DataFrame.

        A path is a file of rows (CSV, JSON, JSON Lines) or an image; it is answered by a process of its own.
        """
        if isinstance(rows, str | Path):
            answers: list[dict[str, Any]] = models.predict_file(self._context, self.id, rows, checkpoint)["predictions"]
            return answers
        from runtime.model.rows import columns_of

        model = self._trained(checkpoint)
        return model.predictions(columns_of(rows, model.facts, model.inputs))

    def fork(
        self,
        at: int,
        changes: Mapping[str, Any] | None = None,
        *,
        without: Iterable[str | int] = (),
        segment: int | None = None,
        request_id: str | None = None,
        wait: bool = True,
        progress: bool = True,
    ) -> Session:
        """A session that goes on from the exact bits that this one had at a grid step.

        `changes` are new values of the request by dotted path (`{"optimizer.learning_rate": 5e-4}`); `without` names
        training rows to leave out, by number, file or place. With neither it ends in the same weights. `segment` goes
        on as that segment did instead of as the path.
        """
        hosting.bring_up(self._context)

        async def forked() -> str:
            async with self._context.swarm() as swarm:
                rows = [*map(str, without)]
                wish = orders.ForkWish(at, changes or {}, rows, segment, request_id)
                _, made = await orders.fork(self._context, swarm, self.id, wish)
                return str(made["session"])

        session = Session.of(self._context, self._context.wait(forked()))
        return session.follow(progress=progress) if wait else session

    def export(
        self,
        format: str = "onnx",
        *,
        quantize: str | None = None,
        checkpoint: str | int = "best",
        timeout: float | None = 600.0,
    ) -> ModelFile:
        """The model as a file (onnx, safetensors, pt2 or torchscript), its answers compared with the model's."""
        hosting.bring_up(self._context)
        wish = orders.ExportWish(format, quantize, checkpoint)
        return self._context.wait(orders.export(self._context, self.id, wish, timeout))

    def report(self, path: str | Path) -> Path:
        """Write how the session went as one page, in the form that the ending says: .html, .md or .txt.

        The same session gives the same bytes.
        """
        out = evidence.page_path(path)
        evidence.write_page(evidence.report(Archive(self._home).read(self.id)), out)
        return out

    def pause(self) -> None:
        """Ask the session to wait at its next grid step, with its state kept."""
        self._ask(lambda swarm: swarm.pause(self.id))

    def resume(self) -> None:
        """Let the paused session go on."""
        self._ask(lambda swarm: swarm.resume(self.id))

    def cancel(self, reason: str = "") -> None:
        """Ask the session to end now; what it has recorded stays."""
        self._ask(lambda swarm: swarm.cancel(self.id, reason))

    def approve(self, proposal: int | str) -> str | None:
        """Let a proposal that waits (its number, or its event) take effect; the session that it begins, if it does."""

        async def asked() -> str | None:
            async with self._context.swarm() as swarm:
                return await swarm.approve(self.id, proposal)

        return self._context.wait(asked())

    def reject(self, proposal: int | str, reason: str = "") -> None:
        """Let a proposal that waits come to nothing."""
        self._ask(lambda swarm: swarm.reject(self.id, proposal, reason))

    def _ask(self, wish: Callable[[Swarm], Awaitable[None]]) -> None:
        async def asked() -> None:
            async with self._context.swarm() as swarm:
                await wish(swarm)

        self._context.wait(asked())

    @property
    def _history(self) -> SessionLog:
        # Read again each time, because the session may still run while the handle is held.
        return Archive(self._home).read(self.id).history

    def _trained(self, checkpoint: str | int) -> TrainedModel:
        from runtime.model.trained import load

        order = checkpoints.order(self._history.state, checkpoint, self._home)
        if order.blob not in self._models:
            self._models[order.blob] = load(order)
        return self._models[order.blob]


def train(
    request: Mapping[str, Any] | str | Path,
    *,
    home: Where = None,
    request_id: str | None = None,
    wait: bool = True,
    progress: bool = True,
    timeout: float | None = None,
    check: bool = True,
) -> Session:
    """Train as a request (a mapping, or the path of a file) says; the swarm is started if none is up, and stays up.

    The same `request_id` names the same session for ever: asked again, it is not trained again. Progress goes to
    stderr, in a notebook into the cell. With `check` a session that does not complete raises `Failed` with the reason
    and the cure; `wait=False` returns as soon as the session is requested.
    """
    context = _context(home)
    resolved, folder = request_file.resolve(request, request_id)
    hosting.bring_up(context)

    async def submit() -> str:
        async with context.swarm() as swarm:
            return await swarm.submit(resolved, folder=folder)

    session = Session.of(context, context.wait(submit()))
    return session.follow(timeout, progress=progress, check=check) if wait else session


def load(session: Session | str = "last", checkpoint: str | int = "best", *, home: Where = None) -> nn.Module:
    """The model of a session's checkpoint (best, last, or a step), from the home's files, everything verified."""
    return _handle(session, home).load(checkpoint)


def metrics(session: Session | str = "last", *, home: Where = None) -> MetricsTable:
    """A session's figures over its steps as a table; see `Session.metrics`."""
    return _handle(session, home).metrics()


def replay(
    session: Session | str = "last", *, event: int | None = None, step: int | None = None, home: Where = None
) -> SessionMoment:
    """The summary of a session as it was after an event, or when training had reached a step; else at the end.

    It is folded from the log alone, by the fold that a running swarm has.
    """
    return evidence.replay(*_named(session, home), event, step)


def audit(
    session: Session | str | Path = "last",
    mode: Mode = "log",
    *,
    segments: int = 5,
    seed: int | None = None,
    trust_code: bool = False,
    root: str = "",
    anchors: Iterable[str | Path] = (),
    home: Where = None,
) -> Verdict:
    """A verdict on a session, or on the bundle at a path: does its record hold, and does its computation?

    `log` verifies the record; `spot` also computes so many spans again, `full` all of them, `bisect` finds the first
    step that differs. The verdict says what was not checked. `root` is the fingerprint of the root key to trust
    (default: the home's pin), `anchors` are files with signed notes kept elsewhere. `trust_code` runs the code of
    workloads that came with the session.
    """
    wish = AuditWish(mode, segments, seed, trust_code=trust_code)
    return evidence.audit(*_named(session, home), wish, root=root, anchors=[*anchors])


def diff(one: Session | str | Path, other: Session | str | Path, *, home: Where = None) -> SessionsDifference:
    """In what two sessions, or bundles at paths, differ: request, machine, data, decisions, first window, outcome."""
    (context, first), (_, second) = _named(one, home), _named(other, home)
    return evidence.diff(context, first, second)[0]


def trials(search: Session | str | Path = "last-search", *, home: Where = None) -> TrialsAnswer:
    """The trials of a search, or of one in a bundle at a path: parameters, value, cost, state and rungs of each.

    Everything is folded from the search's log, while it runs as well. `pandas.DataFrame(answer["trials"])` takes them.
    """
    return evidence.trials(*_named(search, home))


@overload
def diagnose(
    session: Session | str | Path = "last", other: None = None, *, to: Where = None, home: Where = None
) -> DiagnosisAnswer: ...
@overload
def diagnose(session: Session | str | Path, other: Session | str | Path, *, home: Where = None) -> HealthDifference: ...
def diagnose(
    session: Session | str | Path = "last",
    other: Session | str | Path | None = None,
    *,
    to: Where = None,
    home: Where = None,
) -> DiagnosisAnswer | HealthDifference:
    """What is wrong with a training, or that in a bundle at a path: findings, what was tried, the next request.

    The findings are those of the log and what the rules of today find in it. `train(answer["next"]["request"])` goes
    on; with `to` the request is also written to that YAML file. With an `other` session: who is healthier in what.
    """
    context, name = _named(session, home)
    if other is not None:
        return evidence.compare_health(context, name, _named(other, home)[1])
    answer, _ = evidence.diagnose(context, name)
    if to is not None:
        evidence.write_next(answer, to, bundle=Path(name).is_file())
    return answer


@overload
def trace(
    session: Session | str | Path = "last", *, row: str | int, limit: int = 1000, home: Where = None
) -> RowAnswer: ...
@overload
def trace(session: Session | str | Path = "last", *, step: int, home: Where = None) -> StepAnswer: ...
def trace(
    session: Session | str | Path = "last",
    *,
    row: str | int | None = None,
    step: int | None = None,
    limit: int = 1000,
    home: Where = None,
) -> RowAnswer | StepAnswer:
    """Which steps of a session, or of the bundle at a path, saw a row; or with `step`, which rows that step saw.

    A row is named by its number in the source, its file, or its place (`train:17`); at most `limit` steps are listed.
    Steps and rows count from 1. Each recorded window says in `held` whether it was signed over this order of rows.
    """
    if (row is None) == (step is None):
        raise InvalidInput("a trace is of a row or of a step.", cure="Give row= or step=, and not both.")
    context, name = _named(session, home)
    return evidence.trace(context, name, evidence.RowWish(str(row), limit) if step is None else step)


def inspect(checkpoint: str | Path, *, home: Where = None) -> InspectAnswer:
    """What is in a checkpoint (`S:STEP`, `S:best`, a blob's digest, or a file): its tensors, its roots computed again.

    With them what the log says of its step. `NotVerified` when its bytes are not what they should be.
    """
    return models.inspect(_context(home), str(checkpoint))


def anchor(session: Session | str, to: str | Path, *, home: Where = None) -> Anchor:
    """Keep the signed root of a session elsewhere: appended to the file `to`, or in a git repository (`git:FOLDER`).

    A log that was written anew with every key still betrays itself: `audit(session, anchors=[to])`.
    """
    return evidence.anchor(*_named(session, home), to)


def prove(
    session: Session | str = "last",
    intervention: int | str | None = None,
    *,
    seeds: int = 1,
    progress: bool = True,
    timeout: float | None = None,
    home: Where = None,
) -> ProofAnswer:
    """What an intervention in a session (its number from 1, its event, or the last one) was worth.

    Two forks go on from its very step, with it and without; they and the proof are sessions, asked for once and shown
    again at any time. With several `seeds` there is a pair for each, and an effect with an interval.
    The swarm is started if none is up, and the session must be sealed or on its way to it.
    """
    context, name = _named(session, home)
    hosting.bring_up(context)
    return context.wait(orders.prove(context, name, intervention, timeout, seeds=seeds, progress=progress))


def bundle(
    session: Session | str, path: str | Path, *, sections: Iterable[str] = (), force: bool = False, home: Where = None
) -> BundleFile:
    """Write a sealed session as one file that a stranger can verify; `sections` may name checkpoints, dataset, exports.

    The same session and the same sections give the same bytes. `force` replaces a file that is there.
    """
    return evidence.bundle(*_named(session, home), path, sections=[*sections], force=force)


def _handle(session: Session | str, home: Where) -> Session:
    return session if isinstance(session, Session) else Session(session, home=home)


def _named(session: Session | str | Path, home: Where) -> tuple[HomeContext, str]:
    """Where a session is, and its name there; a handle knows both."""
    return (session._context, session.id) if isinstance(session, Session) else (_context(home), str(session))  # noqa: SLF001 - its own module


def _context(home: Where) -> HomeContext:
    return HomeContext(home=str(home) if home is not None else None)
