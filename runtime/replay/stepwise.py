"""Jobs that go through a window of a span step by step: to give the weights inside it, and to find where it differs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bus.blobs import DirectoryBlobs
from contracts.errors import NotFound
from runtime.engine import checkpoint, state
from runtime.engine.loop import Run
from runtime.engine.report import Window
from runtime.jobs.job import Job
from runtime.replay.reexecute import open_span

UNWRITTEN = "empty"
"""Operators whose results are uninitialised memory."""


class Stepwise(Run):
    """A run that may stop between grid steps. What it has computed is the same; only its windows are shorter."""

    def to(self, step: int) -> Window:
        """Train to a step before the next grid step, or to it; nothing is evaluated."""
        return self._train(step)

    @contextmanager
    def traced(self) -> Iterator[Tracer]:
        """Every operator's output, by its digest, while in here."""
        with Tracer(self._setup.model) as tracer:
            yield tracer


class Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down which module called which operator, and the digest of what came out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[tuple[str, str, str]] = []
        self._inside: list[str] = []
        self._hooks: list[Any] = []
        for name, module in model.named_modules():
            self._hooks.append(module.register_forward_pre_hook(partial(self._enter, name or "model")))
            self._hooks.append(module.register_forward_hook(self._leave, always_call=True))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Let the operator work and hash its answer; one that answers nothing has changed what it was given."""
        answer = func(*args, **(kwargs or {}))
        name = str(func)
        if UNWRITTEN not in name:
            told = [one for one in tree_leaves(answer) if isinstance(one, Tensor)]
            told = told or [one for one in tree_leaves(args) if isinstance(one, Tensor)]
            self.seen.append((self._inside[-1] if self._inside else "", name, _digest(told)))
        return answer

    def __exit__(self, *raised: object) -> None:
        for hook in self._hooks:
            hook.remove()
        super().__exit__(*raised)  # type: ignore[no-untyped-call]

    def _enter(self, name: str, *_: object) -> None:
        self._inside.append(name)

    def _leave(self, *_: object) -> None:
        if self._inside:
            self._inside.pop()


def rebuild(job: Job) -> dict[str, Any]:
    """The weights at a step, as safetensors at OUT, once every window on the way came out as recorded."""
    run, told = open_span(job, Stepwise)
    step = int(job.args["step"])
    told.upto(step)
    if run.step < step:
        # Into a window: the losses up to there are those that its record begins with.
        if run.finished or run.plan.next_grid(run.step) < step:
            raise NotFound(f"training ended at step {run.step}.", cure=f"Choose a step up to {run.step}.")
        told.begun_window(run.to(step))
    told.settle()
    sealed = checkpoint.seal(run.tensors(), run.step, run.aliases)
    weights = {name.removeprefix("model."): one for name, one in sealed.tensors.items() if name.startswith("model.")}
    about = {"step": str(run.step), "weights_digest": sealed.weights_digest, "session": str(job.args["session"])}
    Path(job.args["out"]).write_bytes(safetensors.torch.save(weights, about))
    return {"weights_digest": sealed.weights_digest, "tensors": len(weights)}


def restage(job: Job) -> dict[str, Any]:
    """The state at a grid step, kept in STORE as the checkpoint that is or would have been written there."""
    run, told = open_span(job, Stepwise)
    step = int(job.args["step"])
    told.upto(step)
    told.settle()
    if run.step != step:
        raise NotFound(f"step {step} is no grid step: the nearest before it is {run.step}.", cure="Choose that one.")
    sealed = checkpoint.seal(run.tensors(), run.step, run.aliases)
    blob = DirectoryBlobs(Path(job.args["store"])).put(checkpoint.pack(sealed))
    return {"state_root": sealed.state_root, "weights_digest": sealed.weights_digest, "blob": blob}


def steps(job: Job) -> dict[str, Any]:
    """Every step of the window that begins at FIRST: its loss and the digest of the weights after it."""
    run, told = open_span(job, Stepwise)
    first, last = int(job.args["first"]), int(job.args["last"])
    told.upto(first)
    if run.step != first:
        return {"each": []}
    told.settle()
    each = ((step, run.to(step + 1)) for step in range(first, last))
    return {
        "each": [{"step": at, "loss": seen.losses.hex(), "weights_digest": seen.weights_digest} for at, seen in each]
    }


def operators(job: Job) -> dict[str, Any]:
    """Every operator of one attempt in order: [module, operator, digest of its output]."""
    run, told = open_span(job, Stepwise)
    step = int(job.args["step"])
    told.upto(step)
    told.settle()
    if run.step < step:
        run.to(step)
    with run.traced() as tracer:
        run.to(step + 1)
    return {"operators": [list(one) for one in tracer.seen]}


def tensors(job: Job) -> dict[str, Any]:
    """The first tensor, by name, in which the state computed for a step is not that of the checkpoint at PATH."""
    run, told = open_span(job, Stepwise)
    told.upto(int(job.args["step"]))
    kept = checkpoint.unpack(Path(job.args["path"]).read_bytes())
    return {"tensor": state.first_difference(run.tensors(), kept.tensors)}


def _digest(given: list[Tensor]) -> str:
    dense = [one.detach() for one in given if one.layout == torch.strided]
    return state.root({str(at): one for at, one in enumerate(dense)})[:32]
