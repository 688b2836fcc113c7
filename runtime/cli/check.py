"""`swarm check`: a request judged before it is submitted, with its real data, model and a real batch."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from contracts.errors import Failed, InvalidRequest, Problem
from runtime.cli.call import Call, command
from runtime.cli.children import child_answer
from runtime.cli.output import pairs, style
from runtime.jobs.profiles import torch_profile
from runtime.model import PROBE
from runtime.views.formatting import size

if TYPE_CHECKING:
    from runtime.home.workloads import WorkloadEntry
    from runtime.jobs.child import Child
    from runtime.jobs.children import Children
    from runtime.jobs.profiles import Profile

EVALUATION = 1 / 3
"""What a row costs that is only judged, as a share of one that is learnt from."""


@command("check")
@click.argument("request", metavar="REQUEST")
@click.option("--set", "overrides", metavar="A.B=C", multiple=True, help="Change one value; may be repeated.")
@click.option("--data-root", "roots", metavar="DIR", multiple=True, help="A folder that requests may read from.")
def check(call: Call, *, request: str, overrides: tuple[str, ...], roots: tuple[str, ...]) -> None:
    """Judge REQUEST: its schema, its data, one real batch forward and backward, memory and time. Nothing is kept."""
    from runtime.api.request_file import folder, read_resolved

    call.configure(data_roots=tuple(str(Path(root).absolute()) for root in roots) or None)
    asked = read_resolved(request, overrides)
    found = call.wait(_checked(call, asked, folder(request)))
    if not math.isfinite(found["loss"]):
        message = f"the first batch's loss is {found['loss']}."
        raise Failed(
            message, cure="Look at the data's scale and at the loss; a lower learning rate does not help here."
        )
    call.result(found, lambda: _page(found))


async def _checked(call: Call, asked: dict[str, Any], folder: Path) -> dict[str, Any]:
    from bus.blobs import DirectoryBlobs
    from runtime.home import allowed
    from runtime.home.workloads import Workloads
    from runtime.jobs.children import Children
    from runtime.node import roster
    from runtime.replay import initial_state

    prepare, resolve = roster.job("data_manager", "prepare"), roster.job("trainer", "resolve")
    needed = Workloads(call.home.root).needed(asked)
    named = [one.as_json() for one in needed]
    children = Children()
    try:
        with tempfile.TemporaryDirectory(prefix="swarm-check-") as scratch:
            store = Path(scratch)
            _refuse_unknown_options(asked, [await _looked_at(children, one, store) for one in needed])
            args = {"data": asked["data"], "session": "", "store": scratch, "workloads": named}
            roots = [*allowed.roots(call.home, call.settings), folder]
            args["roots"] = [str(root) for root in roots]
            args["trusted"] = list(call.settings.trusted_data)
            prepared = await _ask(children, prepare, args, torch_profile(), "prepare", store)
            _refuse(prepared.get("problems", ()))
            dataset = str(store / prepared["root"])
            begun = await initial_state.bring_weights(asked, roots, DirectoryBlobs(store), "check", children)
            about = {"dataset": dataset, "workloads": named, "blobs": scratch, "initial": begun}
            room = next(one for one in (call.home.root, *call.home.root.parents) if one.is_dir())
            args = about | {"request": asked, "device": asked["training"]["device"], "inherited": None}
            args["room"] = str(room)
            resolved = (await _ask(children, resolve, args, torch_profile(), "probe", store))["resolved"]
            plan = {"request": asked, "resolved": resolved, "changes": []}
            sealed = {"threads": resolved["threads"], "profile": resolved["profile"]}
            args = about | {"seal": sealed, "plan": plan}
            profile = torch_profile(resolved["threads"], resolved["device"])
            probed = await _ask(children, PROBE, args, profile, "probe", store)
    finally:
        await children.close()
    return _described(asked, prepared, resolved, probed)


async def _looked_at(children: Children, one: WorkloadEntry, folder: Path) -> WorkloadEntry:
    """A workload with the options that it takes: as they were seen when it was added, or as a child sees them now."""
    from runtime.home.workloads import PROBE as LOOK

    if one.options is not None:
        return one
    said = await _ask(children, LOOK, one.as_json(), torch_profile(), "probe", folder)
    return replace(one, options=tuple(said["options"]))


def _refuse_unknown_options(asked: Mapping[str, Any], known: Sequence[WorkloadEntry]) -> None:
    from runtime.home.workload_file import unknown_options

    if problems := list(unknown_options(asked, known)):
        raise InvalidRequest(problems)


async def _ask(
    children: Children, job: str, args: Mapping[str, Any], profile: Profile, purpose: str, folder: Path
) -> dict[str, Any]:
    child: Child
    log = folder / "log"
    async with children.job(job, args, profile=profile, purpose=purpose, log=log) as child:
        return await child_answer(child, log, cure="Correct it where it stopped, or: swarm run REQUEST --here")


def _refuse(problems: Sequence[Mapping[str, str]]) -> None:
    if problems:
        raise InvalidRequest([Problem(one.get("path", ""), one["message"], one.get("cure", "")) for one in problems])


def _described(
    asked: Mapping[str, Any], prepared: Mapping[str, Any], resolved: Mapping[str, Any], probed: Mapping[str, Any]
) -> dict[str, Any]:
    seconds = _seconds(asked, prepared, resolved, probed["step_seconds"])
    return {
        "ok": True,
        "name": asked["name"],
        "rows": prepared["splits"],
        "findings": prepared["findings"],
        "parameters": resolved["parameters"],
        "steps_total": resolved["steps_total"],
        "device": resolved["device"],
        "threads": resolved["threads"],
        "loss": float.fromhex(probed["loss"]),
        "step_ms": round(probed["step_seconds"] * 1000, 3),
        "memory_bytes": probed["memory_bytes"],
        "checkpoint_bytes": probed["state_bytes"],
        "estimate_s": round(seconds, 1),
    }


def _seconds(
    asked: Mapping[str, Any], prepared: Mapping[str, Any], resolved: Mapping[str, Any], step_seconds: float
) -> float:
    """About how long the whole plan takes, early stopping aside: every attempt, and every evaluation."""
    taken = resolved["batch"] * resolved["accumulate"]
    evaluations = asked["training"]["epochs"] / resolved["every_epochs"]
    judged_rows = evaluations * prepared["splits"].get("val", 0)
    return float(step_seconds * (resolved["steps_total"] + EVALUATION * judged_rows / taken))


def _page(found: Mapping[str, Any]) -> str:
    splits = ", ".join(f"{rows} {name}" for name, rows in found["rows"].items())
    head = f"{style('ok', fg='green', bold=True)}  {found['name']}: the request can be trained as it is."
    rows = [
        ("data", f"{splits} rows"),
        *[("finding", _finding(one)) for one in found["findings"]],
        ("model", f"{found['parameters']} parameters; first batch: loss {found['loss']:.4g}"),
        ("runs on", f"{found['device']}, {found['threads']} thread(s)"),
        ("time", f"{found['steps_total']} steps of {found['step_ms']} ms, about {_duration(found['estimate_s'])}"),
        ("memory", f"{size(found['memory_bytes'])}; {size(found['checkpoint_bytes'])} per checkpoint"),
    ]
    return f"{head}\n{pairs(rows)}"


def _finding(one: Mapping[str, Any]) -> str:
    where = f" ({', '.join(map(str, one['where'][:3]))})" if one.get("where") else ""
    return f"{one['kind']}: {one['count']}{where}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
