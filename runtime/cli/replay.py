"""`swarm replay`: the fold of a session's recorded events at any point; `--weights` computes that point again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from contracts.errors import InvalidInput
from runtime.cli import repeat, wording
from runtime.cli.call import Call, command
from runtime.cli.named import session_argument
from runtime.cli.reach import chosen
from runtime.views import sentences

if TYPE_CHECKING:
    from runtime.log.session_log import SessionLog


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
    seen = folded(call, session, to, step)
    if weights is not None:
        seen |= repeat.rebuilt(call, seen["session"], seen["step"] if step is None else step, weights, trust=trust_code)
    call.result(seen, lambda: page(seen))


def folded(call: Call, name: str, to: int | None = None, step: int | None = None) -> dict[str, Any]:
    """The summary of the session after event `to`, or after the one that reached `step`, or after the last."""
    from runtime.log.archive import Archive
    from runtime.views import view

    archive = Archive(call.home)
    kept = archive.read(chosen(call, name, archive))
    history = kept.history
    at = history.size if to is None else to
    if step is not None:
        at = _reached(history, step)
    if not 1 <= at <= history.size:
        raise InvalidInput(
            f"session {history.id} has {history.size} events, there is none at {at}.",
            cure=f"Choose from 1 to {history.size}.",
            path="SEQ",
        )
    seen = view.summary(history.states[at], call.home.blobs)
    last = view.event_line(history.facts[at - 1])
    return seen | {"at": at, "of": history.size, "voids": len(kept.voids), "event": last}


def _reached(history: SessionLog, step: int) -> int:
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


def page(seen: dict[str, Any]) -> str:
    """The state at a point, and the event that brought it there."""
    place = f"after event {seen['at']} of {seen['of']}, which is\n  {sentences.plain(seen['event'])}\n"
    told = f"Session {seen['session']}\n{place}\n{wording.summary(seen)}"
    if "weights" not in seen:
        return told
    made = f"{seen['tensors']} tensors, digest {seen['weights_digest']}, from the state of step {seen['from_step']}"
    return f"{told}\n\nweights  {seen['weights']}\n         {made}, every window on the way as recorded"
