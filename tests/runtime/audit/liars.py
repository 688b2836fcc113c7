"""A trainer that trains and tells, honestly or with one lie: a job that gives the events of its lane."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from bus.blobs import DirectoryBlobs
from contracts.event import Event, pack, unpack
from contracts.request import Request
from contracts.trainer import (
    CheckpointWritten,
    ControlEvaluated,
    TrainingClaimed,
    TrainingCompleted,
    WindowRecorded,
)
from runtime.engine import checkpoint, seal
from runtime.engine.dataset import Dataset, write
from runtime.engine.evaluations import EvaluationsView
from runtime.engine.facts import describe
from runtime.engine.fingerprint import fingerprint
from runtime.engine.loop import ENGINE_BITS, Run
from runtime.engine.plan import Plan
from runtime.engine.resolve import resolve
from runtime.home.workloads import WorkloadEntry, enlist
from runtime.jobs.job import job
from runtime.replay import comparison

Said = list[Event]
AT = 60
"""The window in which they lie begins here."""


@dataclass(frozen=True)
class LiesOrder:
    """A request, and the lies that are to be told of its training."""

    request: Mapping[str, object]
    blobs: Path
    lies: Sequence[str]
    workloads: Sequence[WorkloadEntry]


@job(purpose="train")
def tell_lies(order: LiesOrder) -> Mapping[str, Any]:
    """One session's events of the trainer, for every lie asked for: {lie: [[name, data]]}."""
    seal.apply(threads=1, profile="exact")
    enlist(order.workloads)
    blobs = DirectoryBlobs(order.blobs)
    dataset = _dataset(blobs.root / "datasets")
    request = Request.model_validate(order.request)
    resolved = resolve(request, dataset.facts, cores=1)
    here = fingerprint()
    claim = TrainingClaimed(
        epoch=1,
        worker="here",
        incarnation="a/b",
        segment=1,
        resumed_from=0,
        dataset=dataset.root,
        resolved=resolved.as_json(),
        engine_bits=ENGINE_BITS,
        fingerprint=here.digest,
        families=dict(here.families),
        environment={},
        sources={one.name: one.digest for one in order.workloads},
    )
    plan = Plan(request, resolved)
    told = {lie: [claim, *(LIES | OF_CODE)[lie](plan, dataset, blobs)] for lie in order.lies}
    facts = dataset.facts.as_json()
    shown = {lie: [[one.wire, orjson.loads(one.model_dump_json())] for one in said] for lie, said in told.items()}
    return {"told": shown, "dataset": dataset.root, "rows": dict(dataset.facts.rows), "facts": facts}


def _dataset(folder: Path) -> Dataset:
    draw = np.random.default_rng(3)
    x = draw.standard_normal((480, 6)).astype("<f4")
    y = (x @ draw.standard_normal((6, 3))).argmax(1).astype("<i8")
    splits = {"train": {"x": x[:400], "y": y[:400]}, "val": {"x": x[400:], "y": y[400:]}}
    made = write(folder / "new", splits, describe(splits, "classification"))
    if not (folder / made.root).exists():
        (folder / "new").rename(folder / made.root)
    return Dataset.open(folder / made.root)


def honest(plan: Plan, dataset: Dataset, blobs: DirectoryBlobs, *, meddle: Callable[[Run], None] | None = None) -> Said:
    """A whole training, told as it was; `meddle` is called at every grid step."""
    run = Run.start(plan, dataset)
    said: Said = [_kept(run, blobs, "planned")]
    while not run.finished:
        if meddle:
            meddle(run)
        report = run.advance()
        said += [comparison.window_event(report.window)] if report.window else []
        said += [comparison.evaluation_event(report.evaluation)] if report.evaluation else []
        said += [_kept(run, blobs, report.checkpoint)] if report.checkpoint else []
    return [*said, _completed(run, said, early=run.step < plan.last_step)]


def _kept(run: Run, blobs: DirectoryBlobs, reason: Any) -> CheckpointWritten:
    sealed = checkpoint.seal(run.tensors(), run.step, run.aliases)
    data = checkpoint.pack(sealed)
    return comparison.checkpoint_event(sealed, 1, reason, blob=blobs.put(data), size=len(data))


def _completed(run: Run, said: Said, *, early: bool) -> TrainingCompleted:
    kept = [one for one in said if isinstance(one, CheckpointWritten)][-1]
    seen = [one for one in said if isinstance(one, ControlEvaluated)][-1]
    return TrainingCompleted(
        segment=1,
        step=run.step,
        epochs=seen.epoch,
        stopped_early=early,
        best_step=run.control.best_step,
        weights_digest=kept.weights_digest,
        state_root=kept.state_root,
        final_blob=kept.blob,
        values=seen.values,
    )


def _changed(said: Said, **changes: Any) -> Said:
    """The account with other words about one window."""
    return [
        one.model_copy(update=changes) if isinstance(one, WindowRecorded) and one.first == AT else one for one in said
    ]


def other_losses(plan: Plan, dataset: Dataset, blobs: DirectoryBlobs) -> Said:
    """The loss of one step is told a little lower."""
    said = honest(plan, dataset, blobs)
    (window,) = [one for one in said if isinstance(one, WindowRecorded) and one.first == AT]
    losses = np.array(unpack(window.losses), "<f4")
    losses[7] = np.nextafter(losses[7], np.float32(0))
    return _changed(said, losses=pack(losses.tobytes()))


def other_scalars(plan: Plan, dataset: Dataset, blobs: DirectoryBlobs) -> Said:
    """What a workload records beside its loss is told otherwise of one step."""
    said = honest(plan, dataset, blobs)
    (window,) = [one for one in said if isinstance(one, WindowRecorded) and one.first == AT]
    figures = np.array(unpack(window.scalars["doubled"]), "<f4")
    figures[7] = 0
    return _changed(said, scalars={"doubled": pack(figures.tobytes())})


def other_sensors(plan: Plan, dataset: Dataset, blobs: DirectoryBlobs) -> Said:
    """The cosine of the last layer's gradients is told a little lower."""
    said = honest(plan, dataset, blobs)
    (window,) = [one for one in said if isinstance(one, WindowRecorded) and one.first == AT]
    assert window.sensors is not None
    cosines = np.array(unpack(window.sensors.cosine), "<f4")
    cosines[-1] = np.nextafter(cosines[-1], np.float32(-1))
    return _changed(said, sensors=window.sensors.model_copy(update={"cosine": pack(cosines.tobytes())}))


def other_weights(plan: Plan, dataset: Dataset, blobs: DirectoryBlobs) -> Said:
    """A digest is told that no training led to."""
    return _changed(honest(plan, dataset, blobs), weights_digest="0" * 64)


def weights_from_elsewhere(plan: Plan, dataset: Dataset, blobs: DirectoryBlobs) -> Said:
    """One weight is moved by hand between two windows; everything after it is true of those weights."""

    def meddle(run: Run) -> None:
        if run.step == AT:
            weight = next(iter(run._setup.model.parameters()))
            weight.data.view(-1)[0] += 1e-3

    return honest(plan, dataset, blobs, meddle=meddle)


def skipped_steps(plan: Plan, dataset: Dataset, blobs: DirectoryBlobs) -> Said:
    """A window is told in which nothing was trained."""
    import runtime.engine.loop as loop

    before = loop.attempt

    def idle(setup: Any, now: Any, parts: Any, **how: Any) -> Any:
        kept = {name: one.clone() for name, one in setup.tensors().items()}
        felt = before(setup, now, parts, **how)
        for name, one in setup.tensors().items():
            one.data.copy_(kept[name])
        return felt

    def meddle(run: Run) -> None:
        loop.attempt = idle if run.step == AT else before

    try:
        return honest(plan, dataset, blobs, meddle=meddle)
    finally:
        loop.attempt = before


def other_rows(plan: Plan, dataset: Dataset, blobs: DirectoryBlobs) -> Said:
    """Easy rows are trained on instead of those that were due; the digests are those of the due ones."""
    told = {one.first: one.index_digest for one in honest(plan, dataset, blobs) if isinstance(one, WindowRecorded)}

    def meddle(run: Run) -> None:
        due = run._setup.sampler
        truth = due.due if isinstance(due, _Chosen) else due
        run._setup = replace(run._setup, sampler=_Chosen(truth) if run.step == AT else truth)  # type: ignore[arg-type]

    said = honest(plan, dataset, blobs, meddle=meddle)
    return [
        one.model_copy(update={"index_digest": told[one.first]})
        if isinstance(one, WindowRecorded) and one.first in told
        else one
        for one in said
    ]


class _Chosen:
    """An order that draws from the first rows alone."""

    def __init__(self, due: Any) -> None:
        self.due = due

    def after(self, seen: EvaluationsView, taken: int) -> _Chosen:
        return _Chosen(self.due.after(seen, taken))

    def turns(self, first: int, count: int) -> np.ndarray:
        turns: np.ndarray = self.due.turns(first, count)
        return turns

    def take(self, first: int, count: int) -> np.ndarray:
        found: np.ndarray = self.due.take(first, count) % 40
        return found


def stopped_at_will(plan: Plan, dataset: Dataset, blobs: DirectoryBlobs) -> Said:
    """Training ends when the figures please, and says that the rule ended it."""
    run = Run.start(plan, dataset)
    said: Said = [_kept(run, blobs, "planned")]
    while run.step < AT + 20:
        report = run.advance()
        said += [comparison.window_event(report.window)] if report.window else []
        said += [comparison.evaluation_event(report.evaluation)] if report.evaluation else []
        said += [_kept(run, blobs, report.checkpoint)] if report.checkpoint else []
    last = [one for one in said if isinstance(one, ControlEvaluated)][-1]
    said = [one.model_copy(update={"stop": True, "patience_left": 0}) if one is last else one for one in said]
    said += [] if isinstance(said[-1], CheckpointWritten) else [_kept(run, blobs, "final")]
    return [*said, _completed(run, said, early=True)]


def left_out(plan: Plan, dataset: Dataset, blobs: DirectoryBlobs) -> Said:
    """A window is not told at all."""
    return [one for one in honest(plan, dataset, blobs) if not (isinstance(one, WindowRecorded) and one.first == AT)]


def better_figures(plan: Plan, dataset: Dataset, blobs: DirectoryBlobs) -> Said:
    """One evaluation is told better than it was."""
    said = honest(plan, dataset, blobs)
    chosen = [one for one in said if isinstance(one, ControlEvaluated)][1]
    values = chosen.values | {"val_accuracy": 1.0}
    return [one.model_copy(update={"values": values}) if one is chosen else one for one in said]


LIES: dict[str, Callable[[Plan, Dataset, DirectoryBlobs], Said]] = {
    one.__name__: one
    for one in (
        honest,
        other_losses,
        other_sensors,
        other_weights,
        weights_from_elsewhere,
        skipped_steps,
        other_rows,
        stopped_at_will,
        left_out,
        better_figures,
    )
}

OF_CODE: dict[str, Callable[[Plan, Dataset, DirectoryBlobs], Said]] = {other_scalars.__name__: other_scalars}
"""Lies about what only a workload tells."""
