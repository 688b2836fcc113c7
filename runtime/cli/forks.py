"""`swarm fork`, `prove`: sessions that go on from another's exact bits, and what an intervention was worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtime.api import orders
from runtime.api.following import follow
from runtime.api.session_source import find
from runtime.cli.call import SECONDS, Call, Json, command, session_argument
from runtime.cli.exit_codes import NEGATIVE, answer_session
from runtime.cli.host import bring_up
from runtime.cli.pages import answer_page, page_option

if TYPE_CHECKING:
    from contracts.replies import SessionReply
    from runtime.views.blocks import Page


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

    Its request is that of S with the changes. Data, model, batches and grid stay; learning rate, dropout, schedule,
    epochs, clipping, early stopping, loss weights and seed may change. Rows left out keep their places in the order and
    weigh nothing: batches and losses are those of the rows that stay. With no change it ends in the very weights of S.
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
@click.option("--seeds", metavar="N", type=click.IntRange(1, 16), default=1, help="Pairs of forks, a seed each.")
@click.option("-d", "--detach", is_flag=True, help="Return as soon as the proof is requested.")
@click.option("--timeout", metavar="SECONDS", type=SECONDS, help="Stop waiting after this long (exit code 124).")
@page_option
def prove(
    call: Call,
    *,
    session: str,
    intervention: int | None,
    seeds: int,
    detach: bool,
    timeout: float | None,
    out: Path | None,
) -> int:
    """Show what an intervention in session S was worth: go on from its very step with it, and without.

    Both are forks from the same bits, and sessions of their own; the proof is a session too, asked for once and shown
    again at any time. It waits until S is sealed. Exit code 3 when windows that S recorded do not come out again.
    """
    bring_up(call)
    if detach:
        begun = call.wait(_begin_proof(call, session, intervention, seeds))
        call.result({"session": begun}, begun)
        return 0
    proof = call.wait(orders.prove(call, session, intervention, timeout, seeds=seeds))

    def page() -> Page:
        from runtime.views.proof import proof_page

        return proof_page(proof)

    answer_page(call, proof, page, out)
    return NEGATIVE if proof["differing"] else 0


async def _begin_proof(call: Call, session: str, intervention: int | None, seeds: int) -> str:
    async with call.swarm() as swarm:
        proof = await swarm.prove(await find(swarm, session), intervention, seeds=seeds)
        call.note(f"Proof {proof}")
        return proof
