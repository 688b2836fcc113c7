"""What the jobs of `runtime.model.jobs` do, with torch."""

import resource
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson
import torch
from blake3 import blake3
from torch import Tensor

from contracts.errors import NotFound
from runtime.engine import checkpoint, seal
from runtime.engine.dataset import Dataset
from runtime.engine.loop import Run
from runtime.engine.plan import Plan
from runtime.home.code_review import review_source
from runtime.home.silent_bugs import CodeFinding
from runtime.home.workload_file import read_source
from runtime.home.workloads import enlist
from runtime.jobs import process, resources
from runtime.model import images, jobs, rows, trained
from runtime.model.batch_review import review_batch
from runtime.replay import initial_state

TRIES = 5


def inspect(file: jobs.CheckpointFile) -> jobs.CheckpointSummary:
    """Every tensor of a checkpoint file with its norm, once its digest and its roots have been recomputed."""
    path = file.path
    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        message = f"there is no checkpoint {str(path)!r}."
        raise NotFound(message, cure="See: swarm checkpoints S", path=str(path)) from None
    content = checkpoint.unpack(data, state_root=file.state_root)
    tensors = [_summary(name, content.tensors[name]) for name in sorted(content.tensors)]
    return jobs.CheckpointSummary(
        path=str(path),
        blob=blake3(data).hexdigest(),
        bytes=len(data),
        step=content.step,
        state_root=content.state_root,
        weights_digest=content.weights_digest,
        aliases=dict(content.aliases),
        parameters=sum(each.elements for each in tensors if each.name.startswith("model.")),
        finite=all(each.finite for each in tensors),
        tensors=tensors,
    )


def predict(asked: jobs.AskedRows) -> jobs.AnsweredRows:
    """The answers for the rows in a file, written to another as one JSON array."""
    model = trained.load(asked.model)
    content = asked.data.read_bytes()
    if images.is_image(asked.name, content):
        given: Any = images.row_of(content, asked.name, asked.model.request)
    else:
        given = rows.parse(rows.text_of(content, asked.name), asked.form)
    answers = model.predictions(rows.columns_of(given, model.facts, model.inputs))
    asked.answers.write_bytes(orjson.dumps(answers))
    return jobs.AnsweredRows(model.step, model.weights_digest, model.facts.task, len(answers))


def _summary(name: str, tensor: Tensor) -> jobs.TensorSummary:
    values = tensor.double() if tensor.is_floating_point() else tensor.to(torch.float64)
    finite = bool(torch.isfinite(values).all())
    return jobs.TensorSummary(
        name=name,
        shape=tuple(tensor.shape),
        dtype=str(tensor.dtype).removeprefix("torch."),
        elements=tensor.numel(),
        bytes=tensor.numel() * tensor.element_size(),
        norm=float(values.norm()) if finite else None,
        finite=finite,
    )


def rehearse(task: jobs.RehearsalTask) -> jobs.Rehearsal:
    """A real batch forward and backward, in the process that training would run in."""
    seal.apply(**asdict(task.seal))
    # A driver of a GPU takes memory in ways of its own, which are not to be judged here.
    with resources.bounded(task.most) if task.device == "cpu" else nullcontext():
        return _rehearsed(task)


def _rehearsed(task: jobs.RehearsalTask) -> jobs.Rehearsal:
    enlist(task.workloads)
    plan = Plan.from_json(task.plan)
    dataset = Dataset.open(task.dataset, verify=False)
    before = peak_bytes()
    run = Run.start(plan, dataset, initial=initial_state.initial_tensors(task.blobs, task.initial))
    state = sum(tensor.numel() * tensor.element_size() for tensor in run.tensors().values())
    loss = run.rehearse()
    seconds = []
    for _ in range(TRIES):
        begun = time.perf_counter()
        run.rehearse()
        seconds.append(time.perf_counter() - begun)
    return jobs.Rehearsal(loss, min(seconds), peak_bytes(), before, state)


def review(task: jobs.RehearsalTask) -> Sequence[CodeFinding]:
    """The silent bugs of a plan's workloads: what the text of each shows, and what the model does with a real batch.

    What both tell is told once, with the figures of the batch and a line of whichever has one.
    """
    seal.apply(**asdict(task.seal))
    with resources.bounded(task.most) if task.device == "cpu" else nullcontext():
        return _reviewed(task)


def _reviewed(task: jobs.RehearsalTask) -> Sequence[CodeFinding]:
    enlist(task.workloads)
    plan, found = Plan.from_json(task.plan), list[CodeFinding]()
    for entry in task.workloads:
        read = list(review_source(read_source(Path(entry.path)), entry.path))
        if getattr(plan.request.model, "workload", None) == entry.name:
            dataset = Dataset.open(task.dataset, verify=False)
            initial = initial_state.initial_tensors(task.blobs, task.initial)
            lines = {one.name: one.line for one in read}
            measured = [
                replace(one, line=one.line or lines.get(one.name, 0))
                for one in review_batch(plan, dataset, Path(entry.path), initial)
            ]
            names = {one.name for one in measured}
            read = [*measured, *(one for one in read if one.name not in names)]
        found += sorted(read, key=lambda one: (one.line, one.name))
    return found


def peak_bytes() -> int:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * process.RSS_UNIT
