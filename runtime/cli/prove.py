"""`swarm prove`: what an intervention was worth, by two forks from the same bits, compared on one page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from contracts.errors import Failed, TimedOut
from runtime.cli.call import Call, command
from runtime.cli.fork import PATIENCE
from runtime.cli.named import session_argument
from runtime.cli.reach import find
from runtime.cli.terminal import style
from runtime.cli.watch import followed
from runtime.cli.wording import pairs, state, table
from runtime.views.progress import PlainProgress
from runtime.views.sentences import number

if TYPE_CHECKING:
    from runtime.commands.client import Swarm

NEGATIVE = 3
MOST_ROWS = 24


@command("prove")
@session_argument
@click.option(
    "--intervention", metavar="N", type=click.IntRange(min=1), help="Which one, counted from 1 (default: the last)."
)
@click.option("-d", "--detach", is_flag=True, help="Return as soon as the proof is requested.")
@click.option("--timeout", metavar="SECONDS", type=float, help="Stop waiting after this long (exit code 124).")
def prove(call: Call, *, session: str, intervention: int | None, detach: bool, timeout: float | None) -> int:
    """Show what an intervention in session S was worth: go on from its very step with it, and without.

    Both are forks from the same bits, and sessions of their own; the proof is a session too, asked for once and shown
    again at any time. It waits until S is sealed. Exit code 3 when windows that S recorded do not come out again.
    """
    from runtime.cli.run import bring_up

    bring_up(call)
    found = call.wait(_proven(call, session, intervention, None if detach else (timeout,)))
    if detach:
        call.result(found, found["session"])
        return 0
    call.result(found, lambda: page(found))
    return NEGATIVE if found["differing"] else 0


async def _proven(
    call: Call, name: str, intervention: int | None, follow: tuple[float | None] | None
) -> dict[str, Any]:
    import asyncio

    async with call.swarm() as found:
        parent = await find(found, name)
        made = await found.command("prove", timeout=PATIENCE, session=parent, intervention=intervention)
        proof = str(made["session"])
        call.note(f"Proof {proof}")
        if follow is None:
            return {"session": proof}
        try:
            async with asyncio.timeout(follow[0]):
                data = await _awaited(call, found, proof)
        except TimeoutError:
            message = f"the proof {proof} has not ended within {follow[0]:g} s; it goes on."
            raise TimedOut(message, cure=f"Wait longer: swarm prove {parent}") from None
        sides = [await found.session(str(data[one])) for one in ("with_it", "without_it")]
        curves = [await _curve(found, one["session"], data["metric"]) for one in sides]
    return _told(proof, parent, data, sides, curves)


async def _awaited(call: Call, found: Swarm, proof: str) -> dict[str, Any]:
    """The data of the event that ends the proof well, both forks shown on the way."""
    shown, proven = PlainProgress(call.note), None
    async for line in found.events(proof, follow=True):
        shown.take(line)
        if line["name"] == "proof.forked":
            for fork in ("without_it", "with_it"):
                await followed(call, found, str(line["data"][fork]), None)
        elif line["name"] == "intervention.proven":
            proven = dict(line["data"])
    if proven is None:
        problem = (await found.session(proof))["problem"] or {"message": "it ended otherwise", "cure": ""}
        raise Failed(f"the proof {proof} shows nothing: {problem['message']}", cure=problem["cure"])
    return proven


async def _curve(found: Swarm, session: str, metric: str) -> dict[int, float]:
    seen: dict[int, float] = {}
    async for line in found.events(session):
        if line["name"] == "control.evaluated" and metric in line["data"]["values"]:
            seen[int(line["data"]["step"])] = number(line["data"]["values"][metric])
    return seen


def _told(
    proof: str,
    parent: str,
    data: Mapping[str, Any],
    sides: Sequence[Mapping[str, Any]],
    curves: Sequence[dict[int, float]],
) -> dict[str, Any]:
    values = {one: None if data[one] is None else number(data[one]) for one in ("with_value", "without_value")}
    steps = sorted({*curves[0], *curves[1]})
    rows = [
        {"step": step, "with": _finite(curves[0].get(step)), "without": _finite(curves[1].get(step))} for step in steps
    ]
    metrics = {
        name: [one["metrics"].get(name) for one in sides]
        for name in dict.fromkeys([*sides[0]["metrics"], *sides[1]["metrics"]])
    }
    about = {"states": [one["state"] for one in sides], "weights": [one["weights_digest"] for one in sides]}
    return {"session": proof, "parent": parent} | dict(data) | values | about | {"metrics": metrics, "curves": rows}


def _finite(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)


def page(found: Mapping[str, Any]) -> str:
    """A proof as the text that `swarm prove` prints."""
    words = {"better": "green", "worse": "red"}
    verdict = style(found["verdict"].upper(), fg=words.get(found["verdict"], "yellow"), bold=True)
    head = pairs(
        [
            ("proof", found["session"]),
            ("of", f"the intervention in {found['parent']} that took effect at step {found['step']}"),
            ("verdict", f"{verdict} by {found['metric']}"),
            ("they part", f"in step {found['parted']}" if found["parted"] else "nowhere"),
            ("reproduced", _reproduced(found)),
        ]
    )
    sides = [
        ["session", found["with_it"], found["without_it"]],
        ["state", *map(state, found["states"])],
        [f"best {found['metric']}", _shown(found["with_value"]), _shown(found["without_value"])],
        *[[name, *map(_shown, both)] for name, both in found["metrics"].items()],
        ["weights", *((digest or "-")[:16] for digest in found["weights"])],
    ]
    curves = [[str(one["step"]), _shown(one["with"]), _shown(one["without"])] for one in _thinned(found["curves"])]
    title = f"{found['metric']} by step"
    return "\n\n".join([head, table(("", "with", "without"), sides), table((title, "with", "without"), curves)])


def _reproduced(found: Mapping[str, Any]) -> str:
    told = f"{found['reproduced']} windows that the parent recorded came out again"
    told += f", {found['superseded']} of them superseded ones, without the intervention" if found["superseded"] else ""
    return told + (style(f"; {found['differing']} DIFFER", fg="red", bold=True) if found["differing"] else "")


def _thinned(rows: Sequence[Any]) -> Sequence[Any]:
    """So many rows that a page holds them, evenly spaced, the last one included."""
    if len(rows) <= MOST_ROWS:
        return rows
    return [rows[round(at * (len(rows) - 1) / (MOST_ROWS - 1))] for at in range(MOST_ROWS)]


def _shown(value: Any) -> str:
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
