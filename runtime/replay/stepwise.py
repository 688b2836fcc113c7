"""Jobs that go through a window of a span step by step: to give the weights inside it, and to find where it differs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
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
from runtime.replay import jobs
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


def rebuild(context: jobs.SpanContext, query: jobs.FileQuery) -> jobs.KeptWeights:
    """See `runtime.replay.jobs.rebuild_step_weights`."""
    run, told = open_span(context, query, Stepwise)
    step = query.step
    told.upto(step)
    if run.step < step:
        # Into a window: the losses up to there are those that its record begins with.
        if run.finished or run.plan.next_grid(run.step) < step:
            raise NotFound(f"training ended at step {run.step}.", cure=f"Choose a step up to {run.step}.")
        told.begun_window(run.to(step))
    told.settle()
    sealed = checkpoint.seal(run.tensors(), run.step, run.aliases)
    weights = {name.removeprefix("model."): one for name, one in sealed.tensors.items() if name.startswith("model.")}
    about = {"step": str(run.step), "weights_digest": sealed.weights_digest, "session": query.session}
    query.place.write_bytes(safetensors.torch.save(weights, about))
    return jobs.KeptWeights(sealed.weights_digest, len(weights))


def restage(context: jobs.SpanContext, query: jobs.FileQuery) -> jobs.StateDigests:
    """See `runtime.replay.jobs.restage_state`."""
    run, told = open_span(context, query, Stepwise)
    told.upto(query.step)
    told.settle()
    if run.step != query.step:
        message = f"step {query.step} is no grid step: the nearest before it is {run.step}."
        raise NotFound(message, cure="Choose that one.")
    sealed = checkpoint.seal(run.tensors(), run.step, run.aliases)
    blob = DirectoryBlobs(query.place).put(checkpoint.pack(sealed))
    return jobs.StateDigests(sealed.state_root, sealed.weights_digest, blob)


def steps(context: jobs.SpanContext, query: jobs.WindowQuery) -> tuple[jobs.ComputedStep, ...]:
    """See `runtime.replay.jobs.compute_steps`."""
    run, told = open_span(context, query, Stepwise)
    told.upto(query.first)
    if run.step != query.first:
        return ()
    told.settle()
    each = ((step, run.to(step + 1)) for step in range(query.first, query.last))
    return tuple(jobs.ComputedStep(step, seen.losses.hex(), seen.weights_digest) for step, seen in each)


def operators(context: jobs.SpanContext, query: jobs.StepQuery) -> tuple[tuple[str, str, str], ...]:
    """See `runtime.replay.jobs.trace_operators`."""
    run, told = open_span(context, query, Stepwise)
    step = query.step
    told.upto(step)
    told.settle()
    if run.step < step:
        run.to(step)
    with run.traced() as tracer:
        run.to(step + 1)
    return tuple(tracer.seen)


def differing_tensor(context: jobs.SpanContext, query: jobs.FileQuery) -> str | None:
    """See `runtime.replay.jobs.differing_tensor`."""
    run, told = open_span(context, query, Stepwise)
    told.upto(query.step)
    kept = checkpoint.unpack(query.place.read_bytes())
    return state.first_difference(run.tensors(), kept.tensors)


def _digest(given: list[Tensor]) -> str:
    dense = [one.detach() for one in given if one.layout == torch.strided]
    return state.root({str(at): one for at, one in enumerate(dense)})[:32]
