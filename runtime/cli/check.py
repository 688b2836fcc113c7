"""`swarm check`: a request judged before it is submitted, with its real data, model and a real batch."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from contracts.errors import Failed, InvalidRequest, Problem
from runtime.api.children import child_answer, open_children
from runtime.cli.call import Call, Json, command
from runtime.cli.output import pairs, style
from runtime.jobs.profiles import torch_profile
from runtime.model import PROBE
from runtime.views.formatting import duration, size

if TYPE_CHECKING:
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
    resolved = read_resolved(request, overrides)
    answer = call.wait(_check(call, resolved, folder(request)))
    if not math.isfinite(answer["loss"]):
        cure = "Look at the data's scale and at the loss; a lower learning rate does not help here."
        raise Failed(f"the first batch's loss is {answer['loss']}.", cure=cure)
    call.result(answer, lambda: check_page(answer))


async def _check(call: Call, request: Json, folder: Path) -> Json:
    """Prepare the data, resolve the plan and take one step, each in a child and in a folder that goes away."""
    from bus.blobs import DirectoryBlobs
    from runtime.home import allowed
    from runtime.home.workload_file import unknown_options
    from runtime.home.workloads import PROBE as OPTIONS
    from runtime.home.workloads import Workloads
    from runtime.node import roster
    from runtime.replay import initial_state

    prepare, resolve = roster.job("data_manager", "prepare"), roster.job("trainer", "resolve")
    needed = Workloads(call.home.root).needed(request)
    workloads = [workload.as_json() for workload in needed]
    async with open_children() as children:
        with tempfile.TemporaryDirectory(prefix="swarm-check-") as scratch:
            store = Path(scratch)
            known = []
            for workload in needed:
                options = workload.options
                if options is None:
                    # They were not seen when it was added, so a child looks now.
                    probe = await _ask(children, OPTIONS, workload.as_json(), torch_profile(), "probe", store)
                    options = tuple(probe["options"])
                known.append(replace(workload, options=options))
            if unknown := list(unknown_options(request, known)):
                raise InvalidRequest(unknown)
            args = {"data": request["data"], "session": "", "store": scratch, "workloads": workloads}
            roots = [*allowed.roots(call.home, call.settings), folder]
            args["roots"] = [str(root) for root in roots]
            args["trusted"] = list(call.settings.trusted_data)
            prepared = await _ask(children, prepare, args, torch_profile(), "prepare", store)
            if problems := prepared.get("problems"):
                raise InvalidRequest([Problem(p.get("path", ""), p["message"], p.get("cure", "")) for p in problems])
            dataset = str(store / prepared["root"])
            begun = await initial_state.bring_weights(request, roots, DirectoryBlobs(store), "check", children)
            about = {"dataset": dataset, "workloads": workloads, "blobs": scratch, "initial": begun}
            room = next(path for path in (call.home.root, *call.home.root.parents) if path.is_dir())
            args = about | {"request": request, "device": request["training"]["device"], "inherited": None}
            args["room"] = str(room)
            resolved = (await _ask(children, resolve, args, torch_profile(), "probe", store))["resolved"]
            plan = {"request": request, "resolved": resolved, "changes": []}
            sealed = {"threads": resolved["threads"], "profile": resolved["profile"]}
            args = about | {"seal": sealed, "plan": plan}
            profile = torch_profile(resolved["threads"], resolved["device"])
            probed = await _ask(children, PROBE, args, profile, "probe", store)
    return _describe_plan(request, prepared, resolved, probed)


async def _ask(
    children: Children, job: str, args: Mapping[str, Any], profile: Profile, purpose: str, folder: Path
) -> Json:
    log = folder / "log"
    async with children.job(job, args, profile=profile, purpose=purpose, log=log) as child:
        return await child_answer(child, log, cure="Correct it where it stopped, or: swarm run REQUEST --here")


def _describe_plan(request: Json, prepared: Json, resolved: Json, probed: Json) -> Json:
    """What `swarm check` answers, with about how long the whole plan takes, early stopping aside."""
    rows_per_step = resolved["batch"] * resolved["accumulate"]
    evaluations = request["training"]["epochs"] / resolved["every_epochs"]
    judged_rows = evaluations * prepared["splits"].get("val", 0)
    step_seconds = probed["step_seconds"]
    seconds = float(step_seconds * (resolved["steps_total"] + EVALUATION * judged_rows / rows_per_step))
    return {
        "ok": True,
        "name": request["name"],
        "rows": prepared["splits"],
        "findings": prepared["findings"],
        "parameters": resolved["parameters"],
        "steps_total": resolved["steps_total"],
        "device": resolved["device"],
        "threads": resolved["threads"],
        "loss": float.fromhex(probed["loss"]),
        "step_ms": round(step_seconds * 1000, 3),
        "memory_bytes": probed["memory_bytes"],
        "checkpoint_bytes": probed["state_bytes"],
        "estimate_s": round(seconds, 1),
    }


def check_page(answer: Json) -> str:
    """What a request asks for and costs, as the text that `swarm check` prints."""
    splits = ", ".join(f"{rows} {name}" for name, rows in answer["rows"].items())
    rows = [("data", f"{splits} rows")]
    for finding in answer["findings"]:
        where = f" ({', '.join(map(str, finding['where'][:3]))})" if finding.get("where") else ""
        rows.append(("finding", f"{finding['kind']}: {finding['count']}{where}"))
    steps = f"{answer['steps_total']} steps of {answer['step_ms']} ms"
    rows += [
        ("model", f"{answer['parameters']} parameters; first batch: loss {answer['loss']:.4g}"),
        ("runs on", f"{answer['device']}, {answer['threads']} thread(s)"),
        ("time", f"{steps}, about {duration(answer['estimate_s'])}"),
        ("memory", f"{size(answer['memory_bytes'])}; {size(answer['checkpoint_bytes'])} per checkpoint"),
    ]
    ok = style("ok", fg="green", bold=True)
    return f"{ok}  {answer['name']}: the request can be trained as it is.\n{pairs(rows)}"
