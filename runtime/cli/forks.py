"""`swarm fork`, `prove`: sessions that go on from another's exact bits, and what an intervention was worth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from contracts.errors import Failed, TimedOut
from runtime.cli import output
from runtime.cli.call import Call, command, session_argument
from runtime.cli.exit_codes import NEGATIVE, session_exit_code
from runtime.cli.output import pairs, state_text, style, table
from runtime.cli.session_source import find
from runtime.cli.watch import follow
from runtime.views.formatting import number
from runtime.views.progress import PlainProgress

if TYPE_CHECKING:
    from runtime.commands.client import Swarm


LONGEST = 200_000
"""Bytes of names that a command holds by itself."""

PATIENCE = 60.0
"""Seconds that a desk may take to read a long parent."""


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
@click.option("--timeout", metavar="SECONDS", type=float, help="Stop waiting after this long (exit code 124).")
def fork(
    call: Call,
    *,
    session: str,
    overrides: tuple[str, ...],
    without: tuple[str, ...],
    detach: bool,
    timeout: float | None,
    **wish: Any,
) -> int:
    """Begin a session in the bits that session S had at STEP, and follow it to its end.

    Its request is that of S with the changes. Data, model, batches and grid stay; learning rate, schedule, epochs,
    clipping, early stopping, loss weights and seed may change. Rows left out keep their places in the order and weigh
    nothing: batches and losses are those of the rows that stay. With no change it ends in the very weights of S.
    """
    from contracts.request.reading import assigned
    from runtime.cli.host import bring_up

    wish |= {"set": assigned(overrides), "without": _rows_argument(call, list(row_names(without)))}
    bring_up(call)
    seen = call.wait(_fork(call, session, wish, timeout, detach=detach))
    if detach:
        call.result(seen, seen["session"])
        return 0
    call.result(seen, lambda: output.summary_text(seen))
    return session_exit_code(seen)


def row_names(given: Sequence[str]) -> Iterator[str]:
    """The names of rows on a command line: the lines of a file when there is one, else the parts between commas."""
    for one in given:
        path = Path(one)
        named = path.read_text(encoding="utf-8").splitlines() if path.is_file() else one.split(",")
        yield from (name.strip() for name in named if name.strip())


def _rows_argument(call: Call, names: list[str]) -> list[str] | dict[str, str]:
    """Names as a command takes them: those that are too many for a message go into the home's store."""
    text = "\n".join(names).encode()
    if len(text) <= LONGEST or call.settings.url:
        return names
    from bus.blobs import DirectoryBlobs

    return {"blob": DirectoryBlobs(call.home.blobs).put(text)}


async def _fork(call: Call, name: str, wish: dict[str, Any], within: float | None, *, detach: bool) -> dict[str, Any]:
    async with call.swarm() as found:
        parent = await find(found, name)
        made = await found.command("fork", timeout=PATIENCE, session=parent, **wish)
        call.note(f"Session {made['session']}, a fork of {parent} at step {wish['step']}")
        return made if detach else await follow(call, found, str(made["session"]), within)


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
    from runtime.cli.host import bring_up

    bring_up(call)
    found = call.wait(_prove(call, session, intervention, timeout, detach=detach))
    if detach:
        call.result(found, found["session"])
        return 0
    call.result(found, lambda: proof_page(found))
    return NEGATIVE if found["differing"] else 0


async def _prove(
    call: Call, name: str, intervention: int | None, within: float | None, *, detach: bool
) -> dict[str, Any]:
    import asyncio

    async with call.swarm() as found:
        parent = await find(found, name)
        made = await found.command("prove", timeout=PATIENCE, session=parent, intervention=intervention)
        proof = str(made["session"])
        call.note(f"Proof {proof}")
        if detach:
            return {"session": proof}
        try:
            async with asyncio.timeout(within):
                data = await _follow_proof(call, found, proof)
        except TimeoutError:
            message = f"the proof {proof} has not ended within {within:g} s; it goes on."
            raise TimedOut(message, cure=f"Wait longer: swarm prove {parent}") from None
        sides = [await found.session(str(data[one])) for one in ("with_it", "without_it")]
        curves = [await _curve(found, one["session"], data["metric"]) for one in sides]
    return _proof(proof, parent, data, sides, curves)


async def _follow_proof(call: Call, found: Swarm, proof: str) -> dict[str, Any]:
    """The data of the event that ends the proof well, both forks shown on the way."""
    shown, proven = PlainProgress(call.note), None
    async for line in found.events(proof, follow=True):
        shown.take(line)
        if line["name"] == "proof.forked":
            for fork in ("without_it", "with_it"):
                await follow(call, found, str(line["data"][fork]), None)
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


def _proof(
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


def proof_page(found: Mapping[str, Any]) -> str:
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
        ["state", *map(state_text, found["states"])],
        [f"best {found['metric']}", _figure(found["with_value"]), _figure(found["without_value"])],
        *[[name, *map(_figure, both)] for name, both in found["metrics"].items()],
        ["weights", *((digest or "-")[:16] for digest in found["weights"])],
    ]
    curves = [[str(one["step"]), _figure(one["with"]), _figure(one["without"])] for one in _thinned(found["curves"])]
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


def _figure(value: Any) -> str:
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
