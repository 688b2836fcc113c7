"""What a session's record is worth: replayed, audited, compared, diagnosed, bundled. It reads files and asks no swarm.

A name is that of a session of the home; where it says so, the path of an existing file is a bundle.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from contracts.errors import InvalidInput, NotFound, Refused, count_of
from runtime.api.children import open_children
from runtime.api.home_context import HomeContext
from runtime.api.session_source import (
    Verification,
    audit_source,
    open_subject,
    read_session,
    read_stored,
    resolve_session,
)

if TYPE_CHECKING:
    from contracts.findings import Mode
    from runtime.audit import Verdict
    from runtime.bundle.writer import BundleFile
    from runtime.diagnosis.health import DiagnosisAnswer, HealthDifference
    from runtime.log.archive import StoredSession
    from runtime.log.session_log import SessionLog
    from runtime.replay.difference import SessionsDifference
    from runtime.views.blocks import Page
    from runtime.views.trace import RowAnswer, StepAnswer
    from runtime.views.trials import TrialsAnswer
    from runtime.views.view import SessionMoment

FOREIGN = "It came in a bundle: look at the files that `data` and `model` name before you run it."

SECTIONS = ("checkpoints", "dataset", "exports")
"""What a bundle may hold beyond the log and what verifies it."""


def replay(context: HomeContext, name: str, to: int | None = None, step: int | None = None) -> SessionMoment:
    """The summary of the session after event `to`, or after the one that reached `step`, or after the last."""
    from runtime.views import view

    stored = read_stored(context, name)
    history = stored.history
    at = history.size if to is None else to
    if step is not None:
        at = _position_of_step(history, step)
    if not 1 <= at <= history.size:
        raise InvalidInput(
            f"session {history.id} has {count_of(history.size, 'event')}, there is none at {at}.",
            cure=f"Choose from 1 to {history.size}.",
            path="SEQ",
        )
    summary = view.summary(history.states[at], context.home.blobs)
    last = view.event_line(history.facts[at - 1])
    return {**summary, "at": at, "of": history.size, "voids": len(stored.voids), "event": last}


def _position_of_step(history: SessionLog, step: int) -> int:
    """The position of the event by which training, on the path it took in the end, had reached a step."""
    from contracts.trainer import TrainingClaimed, WindowRecorded

    final = history.state
    for fact in history.facts:
        event = fact.event
        if (
            isinstance(event, WindowRecorded)
            and event.last >= step
            and final.training.on_path(event.segment, event.last)
        ):
            return fact.position
        if isinstance(event, TrainingClaimed) and step == 0:
            return fact.position
    raise InvalidInput(
        f"session {history.id} did not reach step {step}; it stands at {final.step}.",
        cure=f"Choose a step up to {final.step}.",
        path="--step",
    )


def rebuild_weights(context: HomeContext, name: str, step: int, path: Path, *, trust: bool = False) -> dict[str, Any]:
    """Compute the weights at a step again, every window on the way compared, and write them as safetensors."""
    with open_subject(context, name) as subject:
        path = output_path(path)

        async def rebuild() -> dict[str, Any]:
            from runtime.replay import steps

            async with open_children() as children:
                return await steps.rebuild_weights(subject, step, path, children, trust_code=trust)

        return context.wait(rebuild())


@dataclass(frozen=True)
class AuditWish:
    """How much of a session is computed again; `runtime.replay.audit_plan.AuditOptions` with what may be left open."""

    mode: Mode = "log"
    segments: int = 5
    seed: int | None = None
    workers: int | None = None
    trust_code: bool = False
    fresh: bool = False


def audit(
    context: HomeContext, name: str, wish: AuditWish, *, root: str = "", anchors: Sequence[str | Path] = ()
) -> Verdict:
    """The verdict on a session or a bundle: on its log, and unless the mode is `log`, on spans computed again."""
    from runtime.audit.ledger_check import read_anchors

    notes = read_anchors(map(Path, anchors)) if anchors else None
    with audit_source(context, name, root, notes, again=wish.mode != "log") as (verify, likely):
        return verify()[0] if wish.mode == "log" else context.wait(_recompute(context, verify, likely, wish))


async def _recompute(context: HomeContext, verify: Verification, likely: Mapping[str, Any], wish: AuditWish) -> Verdict:
    """The verdict on the log, then after spans were computed again; children get ready while the log is verified."""
    import asyncio

    from runtime.jobs.job import torch_profile

    async with open_children() as children:
        warming = asyncio.create_task(children.warm(torch_profile(**likely)))
        try:
            log, subject = await asyncio.to_thread(verify)
            from runtime.audit.recomputation import recompute
            from runtime.replay.audit_plan import AuditOptions
            from runtime.replay.verdict import FAILS, verdict_without_replay

            seed = secrets.randbits(32) if wish.seed is None else wish.seed
            options = AuditOptions(wish.mode, wish.segments, seed, wish.workers or 0, wish.trust_code, wish.fresh)
            if wish.mode == "spot":
                context.note(f"Spans are drawn by seed {seed}.")
            if subject is None:
                return verdict_without_replay(log, wish.mode, FAILS) if log.session else log
            return await recompute(log, subject, options, children, context.note)
        finally:
            warming.cancel()
            await asyncio.gather(warming, return_exceptions=True)


def diff(context: HomeContext, one: str, other: str) -> tuple[SessionsDifference, tuple[SessionLog, SessionLog]]:
    """In what two sessions, or bundles, differ, and the logs of both."""
    from runtime.replay.difference import difference

    logs = read_session(context, one).history, read_session(context, other).history
    return difference(*logs), logs


def diagnose(context: HomeContext, name: str) -> tuple[DiagnosisAnswer, SessionLog]:
    """What is wrong with a training, or with one in a bundle, what was tried and what comes next; and its log."""
    from runtime.diagnosis import health

    history = read_session(context, name).history
    if not history.state.kind.trains:
        message = f"{history.id} is no training but {history.state.kind.name!r}."
        raise InvalidInput(message, cure="Name a training: swarm sessions", path=name)
    try:
        return health.diagnose(history.state, history.facts), history
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # Whoever made a bundle chose its request and its figures.
        message = f"the log of {name} has values that no rule can judge: {error}"
        raise InvalidInput(message, cure=f"See what is in it: swarm audit {name}", path=name) from error


def trials(context: HomeContext, name: str) -> TrialsAnswer:
    """The trials of a search, or of one in a bundle, from its log alone."""
    from runtime.views.trials import table_of, trials_answer

    history, named = read_session(context, name).history, name if Path(name).is_file() else ""
    return trials_answer(table_of(history), history.state, named, context.words)


def trial_request(context: HomeContext, name: str, trial: str) -> tuple[dict[str, object], str]:
    """The request that trains a trial (its number, or `best`) of a search in full, also as YAML that `run` takes."""
    from runtime.api import request_file
    from runtime.views.trials import table_of, whole_request

    history = read_session(context, name).history
    row, request = whole_request(table_of(history), trial)
    comments = [f"Trial {row['number']} of search {history.id} ({row['state']}), as a training of its own."]
    if Path(name).is_file():
        comments.append(FOREIGN)
    return request, request_file.written(request, comments)


def compare_health(context: HomeContext, one: str, other: str) -> HealthDifference:
    """Which of two trainings, or of those in bundles, is healthier in what."""
    from runtime.diagnosis import health

    (answer, log), (second, beside) = diagnose(context, one), diagnose(context, other)
    return health.compare((log.state, answer), (beside.state, second))


def write_next(answer: DiagnosisAnswer, name: str | Path, *, bundle: bool = False, force: bool = False) -> Path:
    """Write the next request of a diagnosis as a YAML file that `swarm run` takes; comments say what it changes."""
    from runtime.api import request_file
    from runtime.views.health import comments

    if Path(name).suffix.lower() not in (".yaml", ".yml"):
        raise InvalidInput(f"{str(name)!r} is not a .yaml file.", cure="Name it so: -o next.yaml", path="-o")
    out, following = output_path(name, force=force), answer["next"]
    if following is None:
        raise NotFound(f"there is no next request: {answer['no_next']}", cure=f"swarm diagnose {answer['session']}")
    text = request_file.written(following["request"], [*comments(answer, following), *([FOREIGN] if bundle else ())])
    write_text(out, text)
    return out


def write_text(path: Path, text: str) -> None:
    """Write a file of text; nothing is there until all of it is."""
    from bus.disk import fresh_name

    with fresh_name(path) as fresh:
        fresh.write_text(text if text.endswith("\n") else f"{text}\n", encoding="utf-8")
        fresh.replace(path)


@dataclass(frozen=True)
class RowWish:
    """A row, by its number in the source, its file or its place, and how many of the steps that saw it are listed."""

    row: str
    limit: int = 1000


@overload
def trace(context: HomeContext, name: str, wish: RowWish) -> RowAnswer: ...
@overload
def trace(context: HomeContext, name: str, wish: int) -> StepAnswer: ...
def trace(context: HomeContext, name: str, wish: RowWish | int) -> RowAnswer | StepAnswer:
    """Which steps of a session, or of one in a bundle, saw a row; or which rows a step saw."""
    with open_subject(context, name) as subject:
        from runtime.log.archive import Archive
        from runtime.replay.audit_subject import missing_rows
        from runtime.views.trace import Trace

        if subject.home is None and (lacking := missing_rows(subject.kept.history.state, subject.blobs)):
            raise NotFound(f"{name} does not tell: {lacking}.", cure="Trace in its home, or a bundle with rows.")
        tracer = Trace.of(subject.kept.history, subject.blobs, Archive(context.home) if subject.home else None)
        return tracer.step(wish) if isinstance(wish, int) else tracer.row(wish.row, wish.limit)


@dataclass(frozen=True)
class Anchor:
    """A signed root that was kept elsewhere: of which session, in which file, and over how many of its events."""

    session: str
    path: Path
    events: int
    root: str
    sealed: bool


def anchor(context: HomeContext, name: str, where: str | Path) -> Anchor:
    """Append the newest signed root of a session to a file, or commit it to a git repository (`git:FOLDER`)."""
    from bus import notes
    from runtime.audit.ledger_check import keep_anchor, newest_note

    history = read_stored(context, name).history
    note = newest_note(history)
    path, head = keep_anchor(note, str(where)), notes.parse(note)
    return Anchor(history.id, path, head.size, head.root.hex(), history.state.sealed is not None)


def report(stored: StoredSession, bundle: str = "") -> Page:
    """The page about a session: how it went, and everything that it left; `bundle` is the file it was read from."""
    from runtime.views.session_page import report_page
    from runtime.views.session_record import SessionRecord

    history = stored.history
    record = SessionRecord.of(history.state, history.facts)
    return report_page(history.state, record, stored.admission.root, bundle=Path(bundle).name)


def bundle(
    context: HomeContext, name: str, path: str | Path, *, sections: Sequence[str] = (), force: bool = False
) -> BundleFile:
    """Write a sealed session as one file; the same session and the same sections give the same bytes."""
    from bus.blobs import DirectoryBlobs
    from runtime.audit.log_check import make_bundle
    from runtime.log.archive import Archive

    if unknown := [section for section in sections if section not in SECTIONS]:
        raise InvalidInput(f"a bundle has no section {unknown[0]!r}.", cure=f"Known: {', '.join(SECTIONS)}.")
    out, archive = output_path(path, force=force), Archive(context.home)
    session = resolve_session(context, name, archive)
    return make_bundle(archive, session, DirectoryBlobs(context.home.blobs), out, wanted=list(sections))


def output_path(name: str | Path, *, force: bool = True) -> Path:
    """The absolute path, if a file can be written there; without `force` none may be there yet."""
    import os

    path = Path(name).absolute()
    if path.is_dir():
        raise InvalidInput(f"{str(path)!r} is a folder.", cure="Name a file in it.", path=str(path))
    if path.exists() and not force:
        cure = "Overwrite it with --force, or choose another with -o."
        raise Refused(f"{str(path)!r} exists.", cure=cure, path=str(path))
    if not path.parent.is_dir():
        raise NotFound(f"there is no folder {str(path.parent)!r}.", cure="Make it first.", path=str(path))
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise Refused(f"{str(path)!r} cannot be written.", cure="Choose a folder of yours with -o.", path=str(path))
    return path


ENDINGS = (".html", ".md", ".txt")


def page_path(name: str | Path) -> Path:
    """Where a page is to be written, if its ending names a form and a file can be written there."""
    if Path(name).suffix.lower() not in ENDINGS:
        cure = f"Let its name end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}."
        raise InvalidInput(f"{str(name)!r} has no ending of a page.", cure=cure, path="--out")
    return output_path(name)


def write_page(page: Page, path: Path) -> None:
    """Write a page in the form that the ending of the path names; nothing is there until all of it is."""
    from runtime.views import html, markdown, terminal

    match path.suffix.lower():
        case ".html":
            text = html.render(page)
        case ".md":
            text = markdown.render(page)
        case _:
            text = terminal.render(page, title=True)
    write_text(path, text)
