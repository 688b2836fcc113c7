"""`swarm show`, `events`, `replay`, `diff`, `diagnose`: a session now, at any event, beside another, and its health."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from contracts.errors import count_of
from runtime.api import evidence
from runtime.api.session_source import ask_reader, find, reader
from runtime.cli.call import Call, Json, command, complete_session, session_argument
from runtime.cli.output import say
from runtime.cli.pages import answer_page, page_file, page_option

if TYPE_CHECKING:
    from runtime.views.blocks import Page
    from runtime.views.view import SessionMoment


@command("show")
@session_argument
@click.option("--at", metavar="SEQ", type=click.IntRange(min=1), help="As of this event (1-based position).")
@page_option
def show(call: Call, *, session: str, at: int | None, out: Path | None) -> None:
    """Show session S: its state, metrics, artifacts, and what is still owed before its seal."""
    from runtime.views.answer_pages import session_page

    if at is None:
        now = ask_reader(call, lambda source: source.session(session))
        answer_page(call, now, lambda: session_page(now, call.words), out)
    else:
        then = evidence.replay(call, session, at)
        answer_page(call, then, lambda: _moment_page(then, {}), out)


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

    async def print_lines() -> None:
        from runtime.views.sentences import told

        async with reader(call) as source:
            async for line in source.events(await find(source, session), after=after, follow=follow):
                if lane in (None, line["lane"]) and name in (None, line["name"]):
                    if plain and not call.json:
                        say(told(line))
                    else:
                        call.line(line)

    call.wait(print_lines())


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
    state = evidence.replay(call, session, to, step)
    made: Json = {}
    if weights is not None:
        at = state["step"] if step is None else step
        made = evidence.rebuild_weights(call, state["session"], at, Path(weights), trust=trust_code)
    answer_page(call, {**state, **made}, lambda: _moment_page(state, made))


def _moment_page(state: SessionMoment, made: Json) -> Page:
    """A session as it was, with the event that brought it there, and what became of weights."""
    from runtime.views.answer_pages import replay_page
    from runtime.views.sentences import told

    lines = []
    if made:
        about = f"digest {made['weights_digest']}, from the state of step {made['from_step']}"
        tensors = count_of(made["tensors"], "tensor")
        lines = [made["weights"], f"{tensors}, {about}, every window on the way as recorded"]
    return replay_page(state, f"after event {state['at']} of {state['of']}", told(state["event"]), lines)


@command("diff")
@click.argument("one", metavar="A", shell_complete=complete_session)
@click.argument("other", metavar="B", shell_complete=complete_session)
@page_option
def diff(call: Call, *, one: str, other: str, out: Path | None) -> None:
    """Show in what sessions A and B differ: request, machine, data, decisions, the first window, the outcome.

    A and B are sessions, or the paths of bundles. Steps are counted from 1. Only what differs is listed; metrics are
    shown in any case. A page that is written with --out also has the curves of both.
    """
    differing, logs = evidence.diff(call, one, other)

    def page() -> Page:
        from runtime.views.diff import diff_page

        return diff_page(differing, logs if out else None)

    answer_page(call, differing, page, out)


@command("diagnose")
@click.argument("session", metavar="S|BUNDLE", shell_complete=complete_session)
@click.argument("other", metavar="[B]", required=False, shell_complete=complete_session)
@click.option("-o", "--next", "following", metavar="FILE", help="Write the next request to this YAML file.")
@click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")
@click.option("--out", metavar="PAGE", callback=page_file, help="Write the page to PAGE: .html, .md or .txt.")
def diagnose(
    call: Call, *, session: str, other: str | None, following: str | None, force: bool, out: Path | None
) -> None:
    """Show what is wrong with session S, what was tried, and what to try next; or S beside B: who is healthier in what.

    Findings are those of the session's log, and what the rules of today find in it, also when its diagnosis was off.
    -o writes the session's request with the next remedy in it, for `swarm run`. S and B may be bundles.
    """
    if other is not None:
        if following is not None:
            raise click.UsageError("-o is about one session; give no second.")
        compared = evidence.compare_health(call, session, other)

        def page_of_both() -> Page:
            from runtime.views.health import health_page

            return health_page(compared)

        answer_page(call, compared, page_of_both, out)
        return
    answer, history = evidence.diagnose(call, session)
    if following is not None:
        path = evidence.write_next(answer, following, bundle=Path(session).is_file(), force=force)
        call.note(f"Wrote {path}: swarm run {following}")

    def page() -> Page:
        from runtime.views.health import diagnosis_page

        return diagnosis_page(answer, history.state, history.facts)

    answer_page(call, answer, page, out)
