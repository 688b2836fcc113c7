"""Trains for a few steps while the learning rate rises geometrically. A sweep is a plan with a change at every step."""

import struct
from dataclasses import asdict, replace

from agents.hyperparameter_specialist import curve
from agents.hyperparameter_specialist.jobs import RangeCurve, RangeSweep
from contracts.request import Request
from runtime.engine import seal
from runtime.engine.dataset import Dataset
from runtime.engine.loop import Run
from runtime.engine.parts.levers import RateFactor
from runtime.engine.plan import Change, Plan
from runtime.engine.resolve import resolve
from runtime.engine.state import Tensors
from runtime.home.workloads import enlist
from runtime.replay import initial_state

WINDOW = 20
NEVER = 10**9


def run(asked: RangeSweep) -> RangeCurve:
    """The curve up to the last step, or to where training broke."""
    seal.apply(**asdict(asked.seal))
    enlist(asked.workloads)
    dataset, request = Dataset.open(asked.dataset), Request.model_validate(asked.request)
    begun = initial_state.initial_tensors(asked.blobs, asked.initial)
    return RangeCurve(*sweep(request, dataset, asked.low, asked.high, asked.steps, begun))


def sweep(
    request: Request, dataset: Dataset, low: float, high: float, steps: int, begun: Tensors | None = None
) -> tuple[list[float], list[float]]:
    """The rates that were tried and the loss at each; it ends soon after the loss has left all bounds."""
    run = Run.start(_plan(request, dataset, low, high, steps, begun), dataset, initial=begun)
    losses: list[float] = []
    while not run.finished and curve.broken(losses) is None:
        window = run.advance().window
        assert window is not None  # noqa: S101 - a run that is not finished trains
        losses += struct.unpack(f"<{len(window.losses) // 4}f", window.losses)
    return curve.rates(low, high, steps)[: len(losses)], losses


def _plan(request: Request, dataset: Dataset, low: float, high: float, steps: int, begun: Tensors | None) -> Plan:
    optimizer = request.optimizer.model_copy(update={"learning_rate": low})
    stopping = request.early_stopping.model_copy(update={"enabled": False})
    constant = Request.model_fields["schedule"].get_default()
    swept = request.model_copy(update={"optimizer": optimizer, "schedule": constant, "early_stopping": stopping})
    resolved = replace(
        resolve(swept, dataset.facts, cores=1, cuda=request.training.device == "cuda", initial=begun),
        steps_total=steps,
        window=WINDOW,
        every_steps=NEVER,
        every_epochs=NEVER,
    )
    growth = RateFactor(curve.growth(low, high, steps))
    return Plan(swept, resolved, tuple(Change(step, (growth,)) for step in range(1, steps)))
