"""What a stretch of steps gave, told by the process that computed it. Whether it is the same again, others judge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from runtime.engine import digest
from runtime.engine.loop import Run
from runtime.engine.report import Evaluation, Report, Window
from runtime.engine.stretch import StepRecord, StepTrace

FLOAT = 8
"""Hexadecimal digits of one float32."""


def stretch(first: int, reports: Sequence[Report], run: Run) -> StepTrace:
    """What these reports say of the steps after `first`, with the digests of all tensors as they are now."""
    told: list[StepRecord] = []
    for report in reports:
        told += _of_window(report.window) if report.window is not None else ()
        told += _of_evaluation(report.evaluation) if report.evaluation is not None else ()
    return StepTrace(first, told, digest.leaves(run.tensors()), run.hidden())


def repeated(run: Run, until: int) -> StepTrace:
    """Advance a resumed run up to a step, and say what that gave."""
    first, reports = run.step, []
    while run.step < until:
        reports.append(run.advance())
    return stretch(first, reports, run)


def _of_window(window: Window) -> Iterator[StepRecord]:
    yield StepRecord(window.first, f"the order of rows after step {window.first}", window.index_digest)
    for what, packed in {"the loss": window.losses, **window.scalars}.items():
        digits = packed.hex()
        for step, at in enumerate(range(0, len(digits), FLOAT), window.first + 1):
            yield StepRecord(step, f"{what} of step {step}", digits[at : at + FLOAT])


def _of_evaluation(seen: Evaluation) -> Iterator[StepRecord]:
    for name, value in seen.values.items():
        yield StepRecord(seen.step, f"{name} of the evaluation at step {seen.step}", value.hex())
