"""`swarm fork`, `prove`: sessions that go on from another's exact bits, and what an intervention was worth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
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
from runtime.cli.output import pairs, state_text, style, table
from runtime.views.formatting import number
from runtime.views.progress import PlainProgress

if TYPE_CHECKING:
    from runtime.api.swarm import Swarm


MOST_ROWS = 24
"""Steps of a proof's curves that are shown."""


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

    async def forked() -> Json:
        async with call.swarm() as swarm:
            parent, made = await orders.fork(call, swarm, session, wish)
            call.note(f"Session {made['session']}, a fork of {parent} at step {step}")
            return made if detach else await follow(call, swarm, str(made["session"]), timeout)

    summary = call.wait(forked())
    if not detach:
        return answer_session(call, summary)
    call.result(summary, summary["session"])
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
def prove(call: Call, *, session: str, intervention: int | None, detach: bool, timeout: float | None) -> int:
    """Show what an intervention in session S was worth: go on from its very step with it, and without.

    Both are forks from the same bits, and sessions of their own; the proof is a session too, asked for once and shown
    again at any time. It waits until S is sealed. Exit code 3 when windows that S recorded do not come out again.
    """
    bring_up(call)
    proof = call.wait(_prove(call, session, intervention, timeout, detach=detach))
    if detach:
        call.result(proof, proof["session"])
        return 0
    call.result(proof, lambda: proof_page(proof))
    return NEGATIVE if proof["differing"] else 0


async def _prove(call: Call, name: str, intervention: int | None, within: float | None, *, detach: bool) -> Json:
    """Ask for the proof and follow it with both of its forks; what it shows. Detached, only its id."""
    import asyncio

    async with call.swarm() as swarm:
        parent = await find(swarm, name)
        proof = await swarm.prove(parent, intervention)
        call.note(f"Proof {proof}")
        if detach:
            return {"session": proof}
        try:
            async with asyncio.timeout(within):
                data = await _follow_proof(call, swarm, proof)
        except TimeoutError:
            message = f"the proof {proof} has not ended within {within:g} s; it goes on."
            raise TimedOut(message, cure=f"Wait longer: swarm prove {parent}") from None
        sides = [await swarm.session(str(data[side])) for side in ("with_it", "without_it")]
        metric = data["metric"]
        curves = [
            {
                int(line["data"]["step"]): number(line["data"]["values"][metric])
                async for line in swarm.events(side["session"])
                if line["name"] == "control.evaluated" and metric in line["data"]["values"]
            }
            for side in sides
        ]
    return {"session": proof, "parent": parent} | data | _compare(data, sides, curves)


async def _follow_proof(call: Call, swarm: Swarm, proof: str) -> Json:
    """The data of the event that ends the proof well, both forks shown on the way."""
    shown, proven = PlainProgress(call.note), None
    async for line in swarm.events(proof, follow=True):
        shown.take(line)
        if line["name"] == "proof.forked":
            for fork in ("without_it", "with_it"):
                await follow(call, swarm, str(line["data"][fork]), None)
        elif line["name"] == "intervention.proven":
            proven = dict(line["data"])
    if proven is None:
        problem = (await swarm.session(proof))["problem"] or {"message": "it ended otherwise", "cure": ""}
        raise Failed(f"the proof {proof} shows nothing: {problem['message']}", cure=problem["cure"])
    return proven


def _compare(data: Json, sides: Sequence[Json], curves: Sequence[Mapping[int, float]]) -> Json:
    """Both sides of a proof beside each other, the one with the intervention first."""

    def finite(value: float | None) -> float | str | None:
        return value if value is None or math.isfinite(value) else str(value)

    names = dict.fromkeys(name for side in sides for name in side["metrics"])
    steps = sorted({step for curve in curves for step in curve})
    with_it, without_it = curves
    return {
        "with_value": None if data["with_value"] is None else number(data["with_value"]),
        "without_value": None if data["without_value"] is None else number(data["without_value"]),
        "states": [side["state"] for side in sides],
        "weights": [side["weights_digest"] for side in sides],
        "metrics": {name: [side["metrics"].get(name) for side in sides] for name in names},
        "curves": [
            {"step": step, "with": finite(with_it.get(step)), "without": finite(without_it.get(step))} for step in steps
        ],
    }


def proof_page(proof: Json) -> str:
    """A proof as the text that `swarm prove` prints."""
    colour = {"better": "green", "worse": "red"}.get(proof["verdict"], "yellow")
    reproduced = f"{proof['reproduced']} windows that the parent recorded came out again"
    if proof["superseded"]:
        reproduced += f", {proof['superseded']} of them superseded ones, without the intervention"
    if proof["differing"]:
        reproduced += style(f"; {proof['differing']} DIFFER", fg="red", bold=True)
    head = pairs(
        [
            ("proof", proof["session"]),
            ("of", f"the intervention in {proof['parent']} that took effect at step {proof['step']}"),
            ("verdict", f"{style(proof['verdict'].upper(), fg=colour, bold=True)} by {proof['metric']}"),
            ("they part", f"in step {proof['parted']}" if proof["parted"] else "nowhere"),
            ("reproduced", reproduced),
        ]
    )
    sides = [
        ["session", proof["with_it"], proof["without_it"]],
        ["state", *map(state_text, proof["states"])],
        [f"best {proof['metric']}", _figure(proof["with_value"]), _figure(proof["without_value"])],
        *[[name, *map(_figure, both)] for name, both in proof["metrics"].items()],
        ["weights", *((digest or "-")[:16] for digest in proof["weights"])],
    ]
    points = proof["curves"]
    if len(points) > MOST_ROWS:
        # So many that a page holds them, evenly spaced, the last one included.
        points = [points[round(at * (len(points) - 1) / (MOST_ROWS - 1))] for at in range(MOST_ROWS)]
    curves = [[str(point["step"]), _figure(point["with"]), _figure(point["without"])] for point in points]
    title = f"{proof['metric']} by step"
    return "\n\n".join([head, table(("", "with", "without"), sides), table((title, "with", "without"), curves)])


def _figure(value: Any) -> str:
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
