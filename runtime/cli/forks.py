"""`swarm fork`, `prove`: sessions that go on from another's exact bits, and what an intervention was worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from contracts.errors import Failed, TimedOut
from runtime.api import orders
from runtime.api.following import follow
from runtime.api.session_source import find
from runtime.cli.call import SECONDS, Call, Json, command, session_argument
from runtime.cli.exit_codes import NEGATIVE, answer_session
from runtime.cli.host import bring_up
from runtime.cli.pages import answer_page, page_option
from runtime.views.formatting import number

if TYPE_CHECKING:
    from contracts.diagnostician import InterventionProven
    from contracts.replies import SessionReply
    from runtime.api.swarm import Swarm
    from runtime.views.blocks import Page
    from runtime.views.proof import ProofAnswer


@command("fork")
@session_argument
@click.option(
    "--at", "step", metavar="STEP", type=click.IntRange(min=0), required=True, help="The grid step to begin at."
)
@click.option(
    "--segment", metavar="N", type=click.IntRange(min=1), help="Go on as this segment did (default: the path)."
)
@click.option("--set", "overrides", metavar="A.B=C", multiple=True, help="Change one value; may be repeated.")
@click.option(
    "--without",
    metavar="ROWS",
    multiple=True,
    help="Leave training rows out: numbers, files or places (17,20-40,train:3), or a file with one on each line.",
)
@click.option("--request-id", metavar="ID", help="Repeatable: the same id names the same session for ever.")
@click.option("-d", "--detach", is_flag=True, help="Return as soon as the session is requested.")
@click.option("--timeout", metavar="SECONDS", type=SECONDS, help="Stop waiting after this long (exit code 124).")
def fork(
    call: Call,
    *,
    session: str,
    step: int,
    overrides: tuple[str, ...],
    without: tuple[str, ...],
    detach: bool,
    timeout: float | None,
    **about: Any,
) -> int:
    """Begin a session in the bits that session S had at STEP, and follow it to its end.

    Its request is that of S with the changes. Data, model, batches and grid stay; learning rate, schedule, epochs,
    clipping, early stopping, loss weights and seed may change. Rows left out keep their places in the order and weigh
    nothing: batches and losses are those of the rows that stay. With no change it ends in the very weights of S.
    """
    from contracts.request.reading import assigned

    wish = orders.ForkWish(step, assigned(overrides), list(row_names(without)), **about)
    bring_up(call)

    async def forked() -> tuple[Json, SessionReply | None]:
        async with call.swarm() as swarm:
            parent, made = await orders.fork(call, swarm, session, wish)
            call.note(f"Session {made['session']}, a fork of {parent} at step {step}")
            return made, None if detach else await follow(call, swarm, str(made["session"]), timeout)

    made, summary = call.wait(forked())
    if summary is not None:
        return answer_session(call, summary)
    call.result(made, str(made["session"]))
    return 0


def row_names(given: Sequence[str]) -> Iterator[str]:
    """The names of rows on a command line: the lines of a file when there is one, else the parts between commas."""
    for argument in given:
        path = Path(argument)
        names = path.read_text(encoding="utf-8").splitlines() if path.is_file() else argument.split(",")
        yield from (name.strip() for name in names if name.strip())


@command("prove")
@session_argument
@click.option(
    "--intervention", metavar="N", type=click.IntRange(min=1), help="Which one, counted from 1 (default: the last)."
)
@click.option("-d", "--detach", is_flag=True, help="Return as soon as the proof is requested.")
@click.option("--timeout", metavar="SECONDS", type=SECONDS, help="Stop waiting after this long (exit code 124).")
@page_option
def prove(
    call: Call, *, session: str, intervention: int | None, detach: bool, timeout: float | None, out: Path | None
) -> int:
    """Show what an intervention in session S was worth: go on from its very step with it, and without.

    Both are forks from the same bits, and sessions of their own; the proof is a session too, asked for once and shown
    again at any time. It waits until S is sealed. Exit code 3 when windows that S recorded do not come out again.
    """
    bring_up(call)
    proof = call.wait(_prove(call, session, intervention, timeout, detach=detach))
    if isinstance(proof, str):
        call.result({"session": proof}, proof)
        return 0

    def page() -> Page:
        from runtime.views.proof import proof_page

        return proof_page(proof)

    answer_page(call, proof, page, out)
    return NEGATIVE if proof["differing"] else 0


async def _prove(
    call: Call, name: str, intervention: int | None, within: float | None, *, detach: bool
) -> ProofAnswer | str:
    """Ask for the proof and follow it with both of its forks; what it shows. Detached, only its id."""
    import asyncio

    async with call.swarm() as swarm:
        parent = await find(swarm, name)
        proof = await swarm.prove(parent, intervention)
        call.note(f"Proof {proof}")
        if detach:
            return proof
        try:
            async with asyncio.timeout(within):
                proven = await _follow_proof(call, swarm, proof)
        except TimeoutError:
            message = f"the proof {proof} has not ended within {within:g} s; it goes on."
            raise TimedOut(message, cure=f"Wait longer: swarm prove {parent}") from None
        forks = (proven.with_it, proven.without_it)
        sides = [await swarm.session(fork) for fork in forks]
        curves = [
            {
                int(line["data"]["step"]): number(line["data"]["values"][proven.metric])
                async for line in swarm.events(fork)
                if line["name"] == "control.evaluated" and proven.metric in line["data"]["values"]
            }
            for fork in forks
        ]
    from runtime.views.proof import proof_answer

    return proof_answer(proof, parent, proven, sides, curves)


async def _follow_proof(call: Call, swarm: Swarm, proof: str) -> InterventionProven:
    """The event that ends the proof well, both forks shown on the way."""
    from contracts.diagnostician import InterventionProven, ProofForked
    from runtime.views.progress import PlainProgress
    from runtime.views.view import event_of

    shown, proven = PlainProgress(call.note), None
    async for line in swarm.events(proof, follow=True):
        shown.take(line)
        match event_of(line):
            case ProofForked(without_it=without_it, with_it=with_it):
                await follow(call, swarm, without_it, None)
                await follow(call, swarm, with_it, None)
            case InterventionProven() as told:
                proven = told
    if proven is None:
        problem = (await swarm.session(proof))["problem"] or {"message": "it ended otherwise", "cure": ""}
        raise Failed(f"the proof {proof} shows nothing: {problem['message']}", cure=problem["cure"])
    return proven
