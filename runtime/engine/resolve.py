"""Turns every `auto` of a request into a number, by pure rules of request and dataset; only threads and device look
at the machine. It decides nothing later: the first claim records the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from contracts.errors import InvalidRequest, Problem
from contracts.request import Request
from runtime.engine.batches import check_augment
from runtime.engine.facts import Facts
from runtime.engine.learner import Learner
from runtime.engine.plan import ResolvedValues
from runtime.engine.sampling import check_sampler
from runtime.engine.state import Tensors, initial_root

WINDOWS = ((10_000_000, 50), (30_000_000, 20), (100_000_000, 10))
SPAN_SECONDS = 60.0
STEP_SECONDS = 250e-6
FLOPS = 2e10
SPANS = 16


INHERITED = ("window", "every_steps", "evaluation_batch", "threads", "device")
"""Numbers that a session which begins in another's bits takes from it, so that both have the same grid."""


def resolve(
    request: Request,
    facts: Facts,
    *,
    cores: int,
    cuda: bool = False,
    initial: Tensors | None = None,
    inherited: Mapping[str, Any] | None = None,
) -> ResolvedValues:
    """The numbers of a session; raises `InvalidRequest` when request, data and weights to begin with do not fit.

    `inherited` are those of the session in whose bits it begins.
    """
    training, given = request.training, {name: inherited[name] for name in INHERITED} if inherited else {}
    device = given.get("device", ("cuda" if cuda else "cpu") if training.device == "auto" else training.device)
    _check(request, facts, device, cuda=cuda)
    check_sampler(request, facts)
    check_augment(request.augment, facts)
    if (request.model.init is None) != (initial is None):
        message = "the request and what is handed in do not agree on whether there are weights to begin with"
        raise InvalidRequest([Problem("model.init", message, "Hand in the tensors of the file that it names.")])
    rows = facts.rows["train"]
    taken = training.batch_size * training.accumulate
    parameters = sum(one.numel() for one in _model(request, facts, initial).parameters())
    steps = -(-training.epochs * rows // taken)
    window = next((size for most, size in WINDOWS if parameters <= most), 5)
    every = request.checkpoints.every_steps
    found = ResolvedValues(
        rows=rows,
        parameters=parameters,
        batch=training.batch_size,
        accumulate=training.accumulate,
        steps_total=steps,
        window=window,
        every_steps=_span(parameters, taken, steps, window) if every == "auto" else -(-every // window) * window,
        every_epochs=request.validation.every_epochs,
        evaluation_batch=max(training.batch_size, 256),
        threads=(1 if parameters < 1_000_000 else max(1, cores)) if training.threads == "auto" else training.threads,
        device=device,
        precision=training.precision,
        profile="exact" if request.reproducibility.deterministic else "fast",
        seed=request.reproducibility.seed,
        initial="" if initial is None else initial_root(initial),
    )
    return replace(found, **given)


def _model(request: Request, facts: Facts, initial: Tensors | None) -> nn.Module:
    """The model as training begins with it; raises where the request names tensors that it does not have."""
    learner = Learner(request, facts)
    model = learner.ready(learner.build(), initial)
    learner.groups(model)
    learner.mover()
    return model


def _span(parameters: int, taken: int, steps: int, window: int) -> int:
    """About a minute of steps, and at least sixteen spans in a session that is long enough for them."""
    seconds = STEP_SECONDS + 6 * parameters * taken / FLOPS
    wanted = min(SPAN_SECONDS / seconds, steps / SPANS)
    return max(1, round(wanted / window)) * window


def _check(request: Request, facts: Facts, device: str, *, cuda: bool) -> None:
    problems = []
    if device == "cuda" and not cuda:
        problems.append(Problem("training.device", "this machine has no CUDA device", "Write `device: auto`."))
    if device == "cpu" and request.training.precision == "fp16":
        problems.append(Problem("training.precision", "fp16 needs a CUDA device", "Write `precision: bf16`."))
    if not facts.rows.get("train"):
        problems.append(Problem("data", "there are no rows to train on", "Give the training split some rows."))
    if not facts.rows.get("val"):
        problems.append(Problem("data.split.val", "there are no rows to evaluate on", "Make the share `val` larger."))
    if problems:
        raise InvalidRequest(problems)
