"""`swarm show`, `events`, `replay`: one session now, its events, and its state at any of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from contracts.errors import InvalidInput
from runtime.cli import output
from runtime.cli.call import Call, command, output_path, session_argument
from runtime.cli.output import say
from runtime.cli.session_source import find, open_subject, reader, resolve_session
from runtime.views import sentences

if TYPE_CHECKING:
    from runtime.log.session_log import SessionLog
    from runtime.replay.audit_subject import AuditSubject


@command("show")
@session_argument
@click.option("--at", metavar="SEQ", type=click.IntRange(min=1), help="As of this event (1-based position).")
def show(call: Call, *, session: str, at: int | None) -> None:
    """Show session S: its state, metrics, artifacts, and what is still owed before its seal."""
    if at is None:
        seen = call.wait(_now(call, session))
        call.result(seen, lambda: output.summary_text(seen))
        return

    then = fold_session(call, session, at)
    call.result(then, lambda: replay_page(then))


async def _now(call: Call, name: str) -> dict[str, Any]:
    async with reader(call) as found:
        return await found.session(name)


@command("events")
@session_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the session has ended.")
@click.option("--after", metavar="SEQ", type=click.IntRange(min=0), default=0, help="Begin behind this position.")
@click.option("--lane", metavar="ROLE", help="Only what this role said.")
@click.option("--name", metavar="NAME", help="Only events of this name, such as window.recorded.")
@click.option("--plain", is_flag=True, help="One sentence per event instead of JSON.")
def events(
    call: Call, *, session: str, follow: bool, after: int, lane: str | None, name: str | None, plain: bool
) -> None:
    """Print the events of session S, one JSON object per line."""
    call.wait(
        _print_events(call, session, follow=follow, after=after, only=(lane, name), plain=plain and not call.json)
    )


async def _print_events(
    call: Call, name: str, *, follow: bool, after: int, only: tuple[str | None, str | None], plain: bool
) -> None:
    lane, event = only
    async with reader(call) as found:
        session = await find(found, name)
        async for line in found.events(session, after=after, follow=follow):
            if lane in (None, line["lane"]) and event in (None, line["name"]):
                if plain:
                    say(sentences.plain(line))
                else:
                    call.line(line)


@command("replay")
@session_argument
@click.option("--to", metavar="SEQ", type=click.IntRange(min=1), help="Stop after this event (1-based position).")
@click.option("--step", metavar="N", type=click.IntRange(min=0), help="Stop when training had reached step N.")
@click.option(
    "--weights",
    metavar="FILE",
    help="Compute the weights at step N again, checking every window on the way, and write them as safetensors.",
)
@click.option("--trust-code", is_flag=True, help="Run the code of workloads that came with the session.")
def replay(
    call: Call, *, session: str, to: int | None, step: int | None, weights: str | None, trust_code: bool
) -> None:
    """Fold session S from its log, event by event, and show what it was at the end or at a chosen point."""
    if to is not None and step is not None:
        raise click.UsageError("--to and --step each name the point; give one.")
    if weights is not None and to is not None:
        raise click.UsageError("--weights goes with --step: weights belong to a step.")
    seen = fold_session(call, session, to, step)
    if weights is not None:
        seen |= rebuild_weights(
            call, seen["session"], seen["step"] if step is None else step, weights, trust=trust_code
        )
    call.result(seen, lambda: replay_page(seen))


def fold_session(call: Call, name: str, to: int | None = None, step: int | None = None) -> dict[str, Any]:
    """The summary of the session after event `to`, or after the one that reached `step`, or after the last."""
    from runtime.log.archive import Archive
    from runtime.views import view

    archive = Archive(call.home)
    kept = archive.read(resolve_session(call, name, archive))
    history = kept.history
    at = history.size if to is None else to
    if step is not None:
        at = _position_of_step(history, step)
    if not 1 <= at <= history.size:
        raise InvalidInput(
            f"session {history.id} has {history.size} events, there is none at {at}.",
            cure=f"Choose from 1 to {history.size}.",
            path="SEQ",
        )
    seen = view.summary(history.states[at], call.home.blobs)
    last = view.event_line(history.facts[at - 1])
    return seen | {"at": at, "of": history.size, "voids": len(kept.voids), "event": last}


def _position_of_step(history: SessionLog, step: int) -> int:
    """The position of the event by which training, on the path it took in the end, had reached a step."""
    from contracts.trainer import TrainingClaimed, WindowRecorded

    final = history.state
    for fact in history.facts:
        event = fact.event
        if isinstance(event, WindowRecorded) and event.last >= step and final.on_path(event.segment, event.last):
            return fact.position
        if isinstance(event, TrainingClaimed) and step == 0:
            return fact.position
    raise InvalidInput(
        f"session {history.id} did not reach step {step}; it stands at {final.step}.",
        cure=f"Choose a step up to {final.step}.",
        path="--step",
    )


def replay_page(seen: dict[str, Any]) -> str:
    """The state at a point, and the event that brought it there."""
    place = f"after event {seen['at']} of {seen['of']}, which is\n  {sentences.plain(seen['event'])}\n"
    told = f"Session {seen['session']}\n{place}\n{output.summary_text(seen)}"
    if "weights" not in seen:
        return told
    made = f"{seen['tensors']} tensors, digest {seen['weights_digest']}, from the state of step {seen['from_step']}"
    return f"{told}\n\nweights  {seen['weights']}\n         {made}, every window on the way as recorded"


def rebuild_weights(call: Call, session: str, step: int, out: str, *, trust: bool) -> dict[str, Any]:
    """Write the weights at a step; what `swarm replay` says of them."""
    with open_subject(call, session) as material:
        return call.wait(_rebuild(material, step, output_path(out), trust=trust))


async def _rebuild(material: AuditSubject, step: int, out: Path, *, trust: bool) -> dict[str, Any]:
    from runtime.jobs.children import Children
    from runtime.replay.steps import rebuild_weights as weights

    children = Children()
    try:
        return await weights(material, step, out, children, trust_code=trust)
    finally:
        await children.close()
