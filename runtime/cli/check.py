"""`swarm check`: a request judged before it is submitted, with its real data, model and a real batch."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from contracts.errors import (
    ChildDied,
    Failed,
    InvalidRequest,
    OutOfMemory,
    Problem,
    SwarmError,
    UserCodeFailed,
    count_of,
)
from runtime.api.children import A, O, R, T, ask, open_children
from runtime.cli.call import Call, Json, command
from runtime.cli.output import code_lines, pairs, style
from runtime.views.formatting import duration, size

if TYPE_CHECKING:
    from contracts.data_manager import DatasetPrepared
    from runtime.home.silent_bugs import CodeFinding
    from runtime.jobs.children import Children
    from runtime.jobs.job import Job
    from runtime.model.jobs import Rehearsal, RehearsalTask

EVALUATION = 1 / 3
"""What a row costs that is only judged, as a share of one that is learnt from."""


@command("check")
@click.argument("request", metavar="REQUEST")
@click.option("--set", "overrides", metavar="A.B=C", multiple=True, help="Change one value; may be repeated.")
@click.option("--data-root", "roots", metavar="DIR", multiple=True, help="A folder that requests may read from.")
@click.option(
    "--memory",
    metavar="GIB",
    type=click.FloatRange(0, min_open=True),
    help="What a step may take on the processor; what is free, unless said.",
)
def check(
    call: Call, *, request: str, overrides: tuple[str, ...], roots: tuple[str, ...], memory: float | None
) -> None:
    """Judge REQUEST: its schema, its data, one real batch forward and backward, memory and time. Nothing is kept.

    The code of a workload is looked at too, for bugs that raise no error. When the batch does not fit into memory, it
    says which part of it does, with the same rows in each step.
    """
    from runtime.api.request_file import folder, read_resolved

    call.configure(data_roots=tuple(str(Path(root).absolute()) for root in roots) or None)
    resolved = read_resolved(request, overrides)
    answer, code = call.wait(_check(call, resolved, folder(request), None if memory is None else int(memory * 2**30)))
    if not math.isfinite(answer["loss"]):
        cure = "Look at the data's scale and at the loss; a lower learning rate does not help here."
        raise Failed(f"the first batch's loss is {answer['loss']}.", cure=cure)
    call.result(answer, lambda: check_page(answer) + code_lines(code))


async def _check(call: Call, request: Json, folder: Path, most: int | None) -> tuple[Json, Sequence[CodeFinding]]:
    """Prepare the data, resolve the plan and take one step, each in a child and in a folder that goes away.

    Beside what is answered: what was found in the code of workloads.
    """
    from bus.blobs import DirectoryBlobs
    from contracts.data_manager import DatasetRejected
    from runtime.home import allowed
    from runtime.home.workload_file import unknown_options
    from runtime.home.workloads import Workloads, read_options
    from runtime.jobs.job import Seal
    from runtime.model.jobs import RehearsalTask
    from runtime.node import roster
    from runtime.node.capabilities import PREPARE_DATASET, RESOLVE_REQUEST, PreparationOrder, ResolveOrder
    from runtime.replay import initial_state

    workloads = Workloads(call.home.root).needed(request)
    room = next(path for path in (call.home.root, *call.home.root.parents) if path.is_dir())
    async with open_children() as children:
        with tempfile.TemporaryDirectory(prefix="swarm-check-") as scratch:
            store, known = Path(scratch), []
            for workload in workloads:
                options = workload.options
                if options is None:
                    # They were not seen when it was added, so a child looks now.
                    options = await _ask(children, read_options, workload, store)
                known.append(replace(workload, options=options))
            if unknown := list(unknown_options(request, known)):
                raise InvalidRequest(unknown)
            roots = [*allowed.roots(call.home, call.settings), folder]
            wanted = PreparationOrder(request["data"], store, roots, tuple(call.settings.trusted_data), workloads)
            prepared = await _ask(children, roster.job_for(PREPARE_DATASET), wanted, store)
            assert prepared is not None  # noqa: S101 - none stands in a fresh folder
            if isinstance(prepared, DatasetRejected):
                problems = [Problem(p.get("path", ""), p["message"], p.get("cure", "")) for p in prepared.problems]
                raise InvalidRequest(problems)
            dataset = store / prepared.root
            begun = await initial_state.bring_weights(request, roots, DirectoryBlobs(store), "check", children)
            device = request["training"]["device"]
            order = ResolveOrder(request, dataset, store, room, device, workloads, begun)
            resolved = await _ask(children, roster.job_for(RESOLVE_REQUEST), order, store)
            plan = {"request": request, "resolved": resolved, "changes": []}
            seal = Seal(resolved["threads"], resolved["profile"])
            task = RehearsalTask(plan, seal, resolved["device"], dataset, store, begun, workloads, most)
            rehearsed = await _rehearse(children, task, store)
            code = await _review(children, task, store)
    answer = _describe_plan(request, prepared, resolved, rehearsed)
    return answer | {"code": [asdict(one) for one in code]}, code


async def _rehearse(children: Children, task: RehearsalTask, folder: Path) -> Rehearsal:
    """One step in a child. Of one that does not fit the part that does is told, of code that fails its silent bugs."""
    from runtime.model.jobs import halve_until_it_fits, rehearse

    try:
        return await _ask(children, rehearse, task, folder)
    except (OutOfMemory, ChildDied) as error:
        fits = await halve_until_it_fits(task, lambda half: _ask(children, rehearse, half, folder))
        if fits is None:
            raise
        raise _too_large(task, error, fits[0]) from None
    except UserCodeFailed as error:
        found = [one for one in await _review(children, task, folder) if one.severity != "note"]
        told = (f"{one.where} {one.name}: {one.message} {one.cure}" for one in found)
        error.cure = "\n".join([error.cure, *told])
        raise


async def _review(children: Children, task: RehearsalTask, folder: Path) -> Sequence[CodeFinding]:
    """What is found in the code of a plan's workloads; when the look itself fails, that is what is told."""
    from runtime.home.silent_bugs import finding
    from runtime.model.jobs import review_code

    if not task.workloads:
        return ()
    try:
        return await _ask(children, review_code, task, folder)
    except SwarmError as error:
        return [finding("not_looked_at", task.workloads[0].path, 0, error.message)]


def _too_large(task: RehearsalTask, error: SwarmError, fits: RehearsalTask) -> OutOfMemory:
    rows, parts = fits.parts
    size, times = task.parts
    return OutOfMemory(
        f"a step of {size} x {times} rows does not fit: {error.message.rstrip('.')}.",
        cure=f"--set training.batch_size={rows} --set training.accumulate={parts} has as many rows per step, and fits.",
        path="training.batch_size",
    )


async def _ask(children: Children, job: Job[A, R, T, O], argument: A, folder: Path) -> R:
    cure = "Correct it where it stopped, or: swarm run REQUEST --here"
    return await ask(children, job, argument, log=folder / "log", cure=cure)


def _describe_plan(request: Json, prepared: DatasetPrepared, resolved: Mapping[str, Any], rehearsed: Rehearsal) -> Json:
    """What `swarm check` answers, with about how long the whole plan takes, early stopping aside."""
    rows_per_step = resolved["batch"] * resolved["accumulate"]
    evaluations = request["training"]["epochs"] / resolved["every_epochs"]
    judged_rows = evaluations * prepared.splits.get("val", 0)
    step_seconds = rehearsed.step_seconds
    seconds = float(step_seconds * (resolved["steps_total"] + EVALUATION * judged_rows / rows_per_step))
    return {
        "ok": True,
        "name": request["name"],
        "rows": prepared.splits,
        "findings": [one.model_dump(mode="json") for one in prepared.findings],
        "parameters": resolved["parameters"],
        "steps_total": resolved["steps_total"],
        "device": resolved["device"],
        "threads": resolved["threads"],
        "loss": rehearsed.loss,
        "step_ms": round(step_seconds * 1000, 3),
        "memory_bytes": rehearsed.memory_bytes,
        "checkpoint_bytes": rehearsed.state_bytes,
        "estimate_s": round(seconds, 1),
    }


def check_page(answer: Json) -> str:
    """What a request asks for and costs, as the text that `swarm check` prints."""
    splits = ", ".join(f"{rows} {name}" for name, rows in answer["rows"].items())
    rows = [("data", f"{splits} rows")]
    for finding in answer["findings"]:
        where = f" ({', '.join(map(str, finding['where'][:3]))})" if finding.get("where") else ""
        rows.append(("finding", f"{finding['kind']}: {finding['count']}{where}"))
    steps = f"{count_of(answer['steps_total'], 'step')} of {answer['step_ms']} ms"
    rows += [
        ("model", f"{answer['parameters']} parameters; first batch: loss {answer['loss']:.4g}"),
        ("runs on", f"{answer['device']}, {count_of(answer['threads'], 'thread')}"),
        ("time", f"{steps}, about {duration(answer['estimate_s'])}"),
        ("memory", f"{size(answer['memory_bytes'])}; {size(answer['checkpoint_bytes'])} per checkpoint"),
    ]
    ok = style("ok", fg="green", bold=True)
    return f"{ok}  {answer['name']}: the request can be trained as it is.\n{pairs(rows)}"
