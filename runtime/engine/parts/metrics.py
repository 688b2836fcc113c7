"""Metrics of the answers for a split; where sums are taken, they are exact. Loading them loads no torch."""

from __future__ import annotations

import math
from abc import abstractmethod
from array import array
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from contracts.request.section import Task
from runtime.engine.plain_kinds import ExactSum, StreamingMetric, metric, total

if TYPE_CHECKING:
    from torch import Tensor

Batch = Mapping[str, "Tensor"]


class RowMean(NamedTuple):
    """The exact sum of some terms, and how many they are."""

    sum: ExactSum = ExactSum()
    rows: int = 0


class MeanMetric(StreamingMetric[RowMean]):
    """A metric that is the mean of terms, or follows from it."""

    def begin(self) -> RowMean:
        return RowMean()

    def take(self, seen: RowMean, answers: Tensor, batch: Batch) -> RowMean:
        terms = self.terms(answers, batch)
        return RowMean(seen.sum.plus(terms), seen.rows + len(terms))

    def value(self, seen: RowMean) -> float:
        return seen.sum.value / seen.rows

    @abstractmethod
    def terms(self, answers: Tensor, batch: Batch) -> list[float]:
        """One number for each answer of a batch."""


@metric("accuracy")
class Accuracy(StreamingMetric[tuple[int, int]]):
    """The share of rows answered with the right class. Right answers over all answers; exact."""

    task: ClassVar[Task] = "classification"

    def begin(self) -> tuple[int, int]:
        return 0, 0

    def take(self, seen: tuple[int, int], answers: Tensor, batch: Batch) -> tuple[int, int]:
        right, rows = seen
        return right + int((answers.argmax(1) == batch["y"]).sum()), rows + len(answers)

    def value(self, seen: tuple[int, int]) -> float:
        right, rows = seen
        return right / rows


ClassCounts = tuple[list[int], list[int]]
"""For each class: rows that were answered with it rightly, and rows of it plus rows answered with it."""


@metric("f1_macro")
class F1Macro(StreamingMetric[ClassCounts]):
    """The mean over classes of the harmonic mean of precision and recall.

    Classes that neither occur nor are answered do not count; from whole counts, exact.
    """

    task: ClassVar[Task] = "classification"

    def begin(self) -> ClassCounts:
        return [], []

    def take(self, seen: ClassCounts, answers: Tensor, batch: Batch) -> ClassCounts:
        classes = answers.shape[1]
        truth, said = batch["y"], answers.argmax(1)
        hits = truth[truth == said].bincount(minlength=classes).tolist()
        sizes = (truth.bincount(minlength=classes) + said.bincount(minlength=classes)).tolist()
        if not seen[0]:
            return hits, sizes
        return _added(seen[0], hits), _added(seen[1], sizes)

    def value(self, seen: ClassCounts) -> float:
        scores = [2 * hit / size for hit, size in zip(*seen, strict=True) if size]
        return math.fsum(scores) / len(scores)


def _added(ours: list[int], theirs: list[int]) -> list[int]:
    return [one + other for one, other in zip(ours, theirs, strict=True)]


def _errors(answers: Tensor, batch: Batch) -> list[float]:
    errors: list[float] = (answers.double().reshape(-1) - batch["y"].double().reshape(-1)).tolist()
    return errors


@metric("rmse")
class Rmse(MeanMetric):
    """The root of the mean squared error."""

    task: ClassVar[Task] = "regression"
    lower_is_better: ClassVar[bool] = True

    def terms(self, answers: Tensor, batch: Batch) -> list[float]:
        return [error * error for error in _errors(answers, batch)]

    def value(self, seen: RowMean) -> float:
        return math.sqrt(super().value(seen))


@metric("mae")
class Mae(MeanMetric):
    """The mean absolute error."""

    task: ClassVar[Task] = "regression"
    lower_is_better: ClassVar[bool] = True

    def terms(self, answers: Tensor, batch: Batch) -> list[float]:
        return [abs(error) for error in _errors(answers, batch)]


@metric("r2")
class R2(StreamingMetric[tuple[ExactSum, "array[float]"]]):
    """The share of the target's variance that is explained; 0 when the target does not vary.

    Every target is kept, eight bytes each: their mean is known last, and each deviation from it is rounded by itself.
    """

    task: ClassVar[Task] = "regression"

    def begin(self) -> tuple[ExactSum, array[float]]:
        return ExactSum(), array("d")

    def take(self, seen: tuple[ExactSum, array[float]], answers: Tensor, batch: Batch) -> tuple[ExactSum, array[float]]:
        missed, truth = seen
        truth.extend(batch["y"].double().reshape(-1).tolist())
        return missed.plus(error * error for error in _errors(answers, batch)), truth

    def value(self, seen: tuple[ExactSum, array[float]]) -> float:
        missed, truth = seen
        mean = total(truth) / len(truth)
        variance = total((value - mean) ** 2 for value in truth)
        return 1 - missed.value / variance if variance else 0.0


class TokenSums(NamedTuple):
    """Of the tokens of all rows: their surprise, how many were guessed, and how many there were."""

    surprise: ExactSum = ExactSum()
    right: ExactSum = ExactSum()
    tokens: ExactSum = ExactSum()


class TokenMetric(StreamingMetric[TokenSums]):
    """A metric of what the task kept of the tokens of each row."""

    task: ClassVar[Task] = "sequences"

    def begin(self) -> TokenSums:
        return TokenSums()

    def take(self, seen: TokenSums, answers: Tensor, batch: Batch) -> TokenSums:
        kept = answers.double().unbind(1)
        return TokenSums(*(sum.plus(row.tolist()) for sum, row in zip(seen, kept, strict=True)))


LARGEST = 700.0


@metric("perplexity")
class Perplexity(TokenMetric):
    """Among how many equally likely tokens the model wavered, on average."""

    lower_is_better: ClassVar[bool] = True

    def value(self, seen: TokenSums) -> float:
        mean = seen.surprise.value / seen.tokens.value
        return math.exp(mean) if mean < LARGEST else mean * math.inf


@metric("next_token_accuracy")
class NextTokenAccuracy(TokenMetric):
    """The share of tokens that were guessed; exact."""

    def value(self, seen: TokenSums) -> float:
        return seen.right.value / seen.tokens.value


@metric("reconstruction_error")
class ReconstructionError(MeanMetric):
    """How well rows were rebuilt, from what the task kept of each row.

    The root of the mean squared error, in deviations: always answering the mean costs 1.
    """

    task: ClassVar[Task] = "reconstruction"
    lower_is_better: ClassVar[bool] = True

    def terms(self, answers: Tensor, batch: Batch) -> list[float]:
        squares: list[float] = answers.double().reshape(-1).tolist()
        return squares

    def value(self, seen: RowMean) -> float:
        return math.sqrt(super().value(seen))


CHUNK = 1024


@metric("neighbour_accuracy")
class NeighbourAccuracy(StreamingMetric[list[tuple["Tensor", "Tensor"]]]):
    """Whether rows of a class are near each other.

    The share of rows whose nearest other row, by direction, is of their class; exact but for the distances. All answers
    are kept: any row may be the nearest one.
    """

    task: ClassVar[Task] = "embedding"

    def begin(self) -> list[tuple[Tensor, Tensor]]:
        return []

    def take(self, seen: list[tuple[Tensor, Tensor]], answers: Tensor, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        seen.append((answers, batch["y"]))
        return seen

    def value(self, seen: list[tuple[Tensor, Tensor]]) -> float:
        # At hand wherever there are answers; imported here, it does not burden those who ask for names.
        import torch

        answers, classes = (torch.cat(side) for side in zip(*seen, strict=True))
        directions = torch.nn.functional.normalize(answers.float(), dim=1)
        right = 0
        for first in range(0, len(directions), CHUNK):
            alike = directions[first : first + CHUNK] @ directions.T
            rows = torch.arange(len(alike))
            alike[rows, first + rows] = -torch.inf
            right += int((classes[alike.argmax(1)] == classes[first : first + CHUNK]).sum())
        return right / len(answers)
