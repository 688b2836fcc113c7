"""Learning-rate schedules: functions of the step, and of the evaluations before it."""

from __future__ import annotations

import math
from bisect import bisect_right

from contracts.request.optimizer import (
    Composite,
    Constant,
    Cosine,
    Cyclic,
    Exponential,
    LinearDecay,
    OneCycle,
    Plateau,
    ScheduleSection,
    Step,
)
from runtime.engine import kinds
from runtime.engine.evaluations import NOTHING_EVALUATED, EvaluationsView
from runtime.engine.kinds import Scale, schedules


def course(options: ScheduleSection, total: int, seen: EvaluationsView = NOTHING_EVALUATED) -> Scale:
    """The share of the learning rate at every step of `total`, given the evaluations so far."""
    warm = options.warmup_steps
    scale = kinds.schedules.of(options)(options, max(1, total - warm), seen.since(warm))
    if not warm:
        return scale
    first = scale(0)
    return lambda step: first * ((step + 1) / (warm + 1)) if step < warm else scale(step - warm)


@schedules.part(Constant)
def constant(options: Constant, total: int, seen: EvaluationsView) -> Scale:
    """The learning rate as it is. One, at every step."""
    return lambda step: 1.0


@schedules.part(Step)
def step(options: Step, total: int, seen: EvaluationsView) -> Scale:
    """A staircase down. Multiplied by `factor` once per `every_steps` steps gone by."""
    return lambda step: float(options.factor ** (step // options.every_steps))


@schedules.part(Exponential)
def exponential(options: Exponential, total: int, seen: EvaluationsView) -> Scale:
    """The same share less at every step. Multiplied by `factor` per `every_steps` steps, smoothly."""
    return lambda step: float(options.factor ** (step / options.every_steps))


@schedules.part(LinearDecay)
def linear(options: LinearDecay, total: int, seen: EvaluationsView) -> Scale:
    """A straight line down. From 1 at step 0 to `floor` when training ends."""
    return lambda step: 1.0 - (1.0 - options.floor) * step / total


@schedules.part(Cosine)
def cosine(options: Cosine, total: int, seen: EvaluationsView) -> Scale:
    """Half a cosine down. From 1 at step 0 to `floor` when training ends."""
    floor = options.floor

    def scale(step: int) -> float:
        share = 0.5 * (1.0 + math.cos(math.pi * step / total))
        return floor + (1.0 - floor) * share

    return scale


@schedules.part(Cyclic)
def cyclic(options: Cyclic, total: int, seen: EvaluationsView) -> Scale:
    """Up and down in straight lines, over and over.

    From `floor` to 1 and back; the height above `floor` shrinks from cycle to cycle.
    """
    up = options.up_steps
    down = up if options.down_steps == "auto" else options.down_steps

    def scale(step: int) -> float:
        cycle, at = divmod(step, up + down)
        height = at / up if at <= up else 1.0 - (at - up) / down
        return float(options.floor + (1.0 - options.floor) * height * options.shrink**cycle)

    return scale


@schedules.part(OneCycle)
def one_cycle(options: OneCycle, total: int, seen: EvaluationsView) -> Scale:
    """Up once, then down to nearly nothing.

    The highest point is where torch's `OneCycleLR` has it; the last step is at `floor`.
    """
    between = _cosine if options.shape == "cosine" else _line
    peak, end = options.rise * total - 1, total - 1

    def scale(step: int) -> float:
        if step <= peak:
            return between(options.start, 1.0, step / peak if peak > 0 else 1.0)
        return between(1.0, options.floor, min(1.0, (step - peak) / (end - peak) if end > peak else 1.0))

    return scale


def _cosine(first: float, last: float, share: float) -> float:
    return last + (first - last) / 2 * (1 + math.cos(math.pi * share))


def _line(first: float, last: float, share: float) -> float:
    return first + (last - first) * share


@schedules.part(Plateau)
def plateau(options: Plateau, total: int, seen: EvaluationsView) -> Scale:
    """Lower when the control metric stops improving: a pure function of the evaluations, so a resume rebuilds it.

    A step sees the evaluations up to it, none after.
    """
    cuts = list(seen.stalls(patience=options.patience, min_delta=options.min_delta, rest=options.rest))
    scales = [1.0]
    for _ in cuts:
        scales.append(max(scales[-1] * options.factor, options.floor))
    return lambda step: scales[bisect_right(cuts, step)]


@schedules.part(Composite)
def composite(options: Composite, total: int, seen: EvaluationsView) -> Scale:
    """Schedules one after another.

    Each phase counts its own steps and its own evaluations; the last one goes on to the end.
    """
    shares = [phase.share for phase in options.phases]
    ends = [round(total * math.fsum(shares[: at + 1]) / math.fsum(shares)) for at in range(len(shares))]
    starts = [0, *ends[:-1]]
    spans = zip(options.phases, starts, ends, strict=True)
    parts = [course(phase.schedule, max(1, end - start), seen.since(start)) for phase, start, end in spans]

    def scale(step: int) -> float:
        at = min(bisect_right(ends, step), len(parts) - 1)
        return options.phases[at].level * parts[at](step - starts[at])

    return scale
