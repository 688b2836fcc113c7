"""Training from grid step to grid step. It knows no clock, no log and no network: it is advanced, and reports."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from contracts.errors import NotVerified
from runtime.engine import random_keys, state
from runtime.engine.bisection import RowSearch, unsound_attempt
from runtime.engine.dataset import Dataset
from runtime.engine.evaluate import Judge, hidden
from runtime.engine.evaluations import EvaluationsView
from runtime.engine.learner import Learner
from runtime.engine.plan import Change, Plan
from runtime.engine.report import (
    Control,
    Evaluation,
    LayerEvidence,
    PoisonedRows,
    Report,
    StepRecord,
    StepTrace,
    Window,
)
from runtime.engine.sensors import PAIRS, GradientWatch, LayerWatch, read_sensors
from runtime.engine.state import initial_root
from runtime.engine.step import Part, StepResult, TrainingSetup, attempt, descend, left_out

ENGINE_BITS = 1
"""Raised by every change of arithmetic, draws or order: a session is continued only under the number it began with."""

LOOK_AHEAD = 65_536
"""Rows that are looked at beyond an attempt that was not sound."""

MOST_NAMED = 256
"""When more rows than that are not sound, the data are at fault and not some rows of them."""

Timed = Callable[[str, Callable[..., Any]], Callable[..., Any]]
"""Takes a label and a function; returns a function that does the same and adds its time to the label."""


class Run:
    """One run of training in one process: `start` or `resume` makes it, `advance` moves it to the next grid step."""

    def __init__(
        self,
        plan: Plan,
        dataset: Dataset,
        *,
        step: int = 0,
        control: Control | None = None,
        initial: state.Tensors | None = None,
    ) -> None:
        self.plan, self.step = plan, step
        self.control = control or Control.of(plan.request.early_stopping)
        self._dataset = dataset
        self._setup = TrainingSetup.of(plan, dataset, initial, step)
        # What a decision changes in the loss is for training: models stay comparable.
        same = self._setup.learner.request.loss == plan.request.loss
        self._judge = Judge(
            self._setup.learner if same else Learner(plan.request, dataset.facts), plan.resolved, dataset
        )
        self._mirror = state.Mirror()
        self._timed: Timed | None = None
        self._concluded = step > 0 and self.finished

    @classmethod
    def start(cls, plan: Plan, dataset: Dataset, *, initial: state.Tensors | None = None) -> Self:
        """From step 0, with weights that follow from the request, or those of `model.init` it was resolved with."""
        if plan.begins:
            message = f"this plan goes on from the state of step {plan.begins}, and none is handed in"
            raise NotVerified(message, cure="Hand in the state that its genesis names.")
        if ("" if initial is None else initial_root(initial)) != plan.resolved.initial:
            cure = "Hand in the tensors of the very file that the session was claimed with."
            raise NotVerified("these are not the weights that the session begins with", cure=cure)
        return cls(plan, dataset, initial=initial)

    @classmethod
    def resume(
        cls, plan: Plan, dataset: Dataset, tensors: state.Tensors, step: int, *, control: Control | None = None
    ) -> Self:
        """From a checkpoint's tensors after `step` attempts; `control` is folded from the evaluations up to there."""
        run = cls(plan, dataset, step=step, control=control)
        state.restore(run._setup.tensors(), tensors)
        return run

    def change(self, change: Change) -> None:
        """Apply a decision at the present step; the next window belongs to a new segment."""
        if change.step != self.step:
            raise ValueError(f"a change for step {change.step} cannot be made at step {self.step}; resume from there")
        self.plan = self.plan.after(change)
        self._concluded = False

    def measured(self, timed: Timed) -> None:
        """Measure the fetching of rows and the evaluations with the caller's clock; results do not change."""
        self._timed = timed
        feed, judge = self._setup.feed, self._judge
        feed.batch = timed("data", feed.batch)  # type: ignore[method-assign]
        judge.values = timed("evaluation", judge.values)  # type: ignore[method-assign]

    @property
    def finished(self) -> bool:
        """Whether no step is left: the plan has ended, or early stop has ended it."""
        return self.step >= self.plan.last_step or self.control.stop

    def advance(self) -> Report:
        """Train to the next grid step and report what happened; where the plan ends already, report only how."""
        if self._concluded:
            raise ValueError(f"this run ended at step {self.step}; there is nothing to advance to")
        window = None if self.finished else self._train(self.plan.next_grid(self.step))
        evaluation = self._evaluated(fresh=window is not None)
        self._concluded = self.finished
        early = self._concluded and self.step < self.plan.last_step
        return Report(self.step, window, evaluation, self._worth(evaluation), self._concluded, early)

    def rehearse(self) -> float:
        """Go forward and backward over the first batch without a move, and give its loss; the run is spent then."""
        resolved = self.plan.resolved_at(0)
        (parts,) = self._parts(0, self._setup.sampler.take(0, resolved.batch * resolved.accumulate))
        loss, _ = descend(self._setup, parts)
        return float(loss)

    def tensors(self, into: state.Tensors | None = None) -> dict[str, Tensor]:
        """A copy of all state on the CPU; given the buffers of an earlier one it takes no new memory."""
        return state.copied(self._setup.tensors(), into)

    def hidden(self) -> dict[str, str]:
        """What the workload and its model keep outside the state, in words: a restart does not bring it back."""
        return hidden(self._setup.learner.workload, self._setup.model)

    @property
    def aliases(self) -> dict[str, str]:
        """For tied tensors, each further name and the name under which the tensor is kept."""
        return state.aliases(self._setup.model)

    def weights_digest(self) -> str:
        """The root over parameters and buffers as they are now."""
        return state.root(self._mirror.of(state.weights(self._setup.model)))

    def bisect(self, last: int) -> PoisonedRows:
        """Train on to the first attempt up to `last` that is not sound, and name the rows that make it so.

        With the weights before that attempt, the attempts that follow are looked at in the same way, up to one epoch of
        rows or `LOOK_AHEAD`: rows that no weights can bear are named before they come. The run is spent then.
        """
        while self.plan.next_grid(self.step) < last and not self.finished:
            self.advance()
        self._settle()
        first, resolved = self.step, self.plan.resolved
        taken = resolved.batch * resolved.accumulate
        seen = EvaluationsView(self.control.costs)
        sampler, course = self._setup.sampler.after(seen, taken), self.plan.course(seen)
        self._setup.feed.follow(sampler.turns)
        before = self.tensors()
        parts = self._parts(first, sampler.take(first * taken, (last - first) * taken))
        at = unsound_attempt(self._setup, parts, course, first)
        if at is None:
            return PoisonedRows(0, (), 0)
        state.restore(self._setup.tensors(), before)
        for step in range(at):
            attempt(self._setup, course(first + step), parts[step], look=False)
        search = RowSearch(self._setup)
        named = set(search.named(parts[at]))
        if named:
            ahead = min(self.plan.last_step - (first + at + 1), min(resolved.rows, LOOK_AHEAD) // taken)
            rows = sampler.take((first + at + 1) * taken, ahead * taken)
            for following in self._parts(first + at + 1, rows) if ahead > 0 else ():
                named.update(search.named(following))
        rows_named = tuple(sorted(row + 1 for row in named)) if len(named) <= MOST_NAMED else ()
        return PoisonedRows(first + at + 1, rows_named, search.looked)

    def _settle(self) -> None:
        """Bring model, loss and optimizer to what decisions have made of the request by now, with the same state."""
        wanted = self.plan.request_at(self.step)
        if wanted is self._setup.learner.request or wanted == self._setup.learner.request:
            return
        tensors = self.tensors()
        self._setup = TrainingSetup.of(self.plan, self._dataset, step=self.step)
        state.restore(self._setup.tensors(), tensors)
        self._mirror = state.Mirror()
        if self._timed is not None:
            feed = self._setup.feed
            feed.batch = self._timed("data", feed.batch)  # type: ignore[method-assign]

    def _train(self, last: int) -> Window:
        self._settle()
        first, resolved = self.step, self.plan.resolved
        # Evaluations fall on grid steps, so that all of these steps see the same ones.
        seen = EvaluationsView(self.control.costs)
        sampler = self._setup.sampler.after(seen, resolved.batch * resolved.accumulate)
        self._setup.feed.follow(sampler.turns)
        rows = sampler.take(
            first * resolved.batch * resolved.accumulate, (last - first) * resolved.batch * resolved.accumulate
        )
        parts = self._parts(first, rows)
        course = self.plan.course(seen)
        felt, final = list[StepResult](), last - 1
        successive = GradientWatch(self._setup.movement) if resolved.sensors else None
        for step in range(first, final):
            looking = successive if step >= final - PAIRS else None
            felt.append(attempt(self._setup, course(step), parts[step - first], look=False, watch=looking))
        with LayerWatch(self._setup.model, self._setup.movement) as watch:
            felt.append(attempt(self._setup, course(final), parts[-1], look=True, watch=successive))
        self.step = last
        window = self._window(first, rows, felt, course(final).learning_rate, watch.layers(felt[-1]))
        if successive is None:
            return window
        odd: tuple[int, ...] = ()
        if not window.finite:
            size = self.plan.resolved_at(first).batch
            odd = self._setup.feed.rows_not_finite(rows, size, left_out(self.plan, first))
        return replace(window, sensors=read_sensors(watch, successive, odd))

    def _parts(self, first: int, rows: np.ndarray) -> list[list[Part]]:
        """For each attempt its micro-steps, each a seed and its rows."""
        resolved = self.plan.resolved_at(first)
        taken = resolved.batch * resolved.accumulate
        batches = self._setup.feed.batches(rows, resolved.batch, first * taken, left_out(self.plan, first))
        seeds = random_keys.step_seeds(resolved.seed, first * resolved.accumulate, len(batches))
        micro = list(zip(seeds, batches, strict=True))
        return [micro[at : at + resolved.accumulate] for at in range(0, len(micro), resolved.accumulate)]

    def _window(
        self, first: int, rows: np.ndarray, felt: list[StepResult], rate: float, layers: tuple[LayerEvidence, ...]
    ) -> Window:
        losses = _packed([one.loss for one in felt])
        norm = felt[-1].norm
        grad_norm = math.nan if norm is None else float(norm)
        return Window(
            segment=self.plan.segment_at(first),
            first=first,
            last=self.step,
            losses=losses,
            grad_norm=grad_norm,
            learning_rate=rate,
            index_digest=state.digest(rows.astype("<i8").tobytes()),
            weights_digest=self.weights_digest(),
            layers=layers,
            finite=math.isfinite(grad_norm) and bool(np.isfinite(np.frombuffer(losses, "<f4")).all()),
            scalars={name: _packed([_scalar(one, name) for one in felt]) for name in _named(felt)},
        )

    def _evaluated(self, *, fresh: bool) -> Evaluation | None:
        """Evaluate when it is due at this step, and update best, patience and early stop by the result."""
        epoch = self.plan.evaluated_epoch(self.step)
        if epoch is None or (not fresh and self.plan.regular_epoch(self.step) is not None):
            return None
        with self._setup.average.standing_in():
            values = self._judge.values(self._setup.model, self.plan.resolved_at(self.step - 1).evaluation_batch)
        self.control = self.control.after(self.step, values[self.control.metric])
        control = self.control
        return Evaluation(
            segment=self.plan.segment_at(self.step - 1),
            step=self.step,
            epoch=epoch,
            values=values,
            metric=control.metric,
            improved=control.improved,
            best=control.best,
            best_step=control.best_step,
            patience_left=control.patience_left,
            stop=control.stop,
        )

    def _worth(self, evaluation: Evaluation | None) -> Literal["", "planned", "best", "final"]:
        """Why the state at this step is kept as a checkpoint; empty when it is not, as for state that is not finite."""
        improved = evaluation is not None and evaluation.improved
        wanted = self.finished or improved or self.plan.is_planned(self.step)
        if not wanted or not state.finite(self._setup.tensors()):
            return ""
        return "final" if self.finished else "best" if improved else "planned"


def _named(felt: Sequence[StepResult]) -> Sequence[str]:
    """The scalars that attempts recorded; those that saw no rows recorded none."""
    return list(next((one.scalars for one in felt if one.scalars), ()))


def _scalar(felt: StepResult, name: str) -> Tensor:
    return felt.scalars[name] if felt.scalars else felt.loss


def _packed(scalars: Sequence[Tensor]) -> bytes:
    values: np.ndarray = torch.stack(list(scalars)).float().cpu().numpy()
    return values.astype("<f4").tobytes()


FLOAT = 8
"""Hexadecimal digits of one float32."""


def step_trace(first: int, reports: Sequence[Report], run: Run, tensors: state.Tensors | None = None) -> StepTrace:
    """What these reports say of the steps after `first`, with the digests of all tensors as they are now.

    A copy of these may be handed in.
    """
    told: list[StepRecord] = []
    for report in reports:
        told += _window_records(report.window) if report.window is not None else ()
        if (seen := report.evaluation) is not None:
            for name, value in seen.values.items():
                told.append(StepRecord(seen.step, f"{name} of the evaluation at step {seen.step}", value.hex()))
    return StepTrace(first, told, state.leaves(run.tensors() if tensors is None else tensors), run.hidden())


def repeat_steps(run: Run, until: int) -> StepTrace:
    """Advance a resumed run up to a step, and say what that gave."""
    first, reports = run.step, []
    while run.step < until:
        reports.append(run.advance())
    return step_trace(first, reports, run)


def _window_records(window: Window) -> Iterator[StepRecord]:
    yield StepRecord(window.first, f"the order of rows after step {window.first}", window.index_digest)
    for what, packed in {"the loss": window.losses, **window.scalars}.items():
        digits = packed.hex()
        for step, at in enumerate(range(0, len(digits), FLOAT), window.first + 1):
            yield StepRecord(step, f"{what} of step {step}", digits[at : at + FLOAT])
