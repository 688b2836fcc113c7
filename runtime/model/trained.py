"""A trained model from the files of a home: its blob and its roots verified, rebuilt, asked. It trains nothing."""

from collections import UserDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bus.blobs import DirectoryBlobs
from contracts.errors import UserCodeFailed
from contracts.request import Request
from runtime.engine.checkpoint import CheckpointContent, load_model, unpack
from runtime.engine.facts import Facts
from runtime.engine.learner import Learner
from runtime.engine.ragged import SUFFIX, Ragged, apart, some
from runtime.engine.workload import Workload
from runtime.home.workloads import enlist
from runtime.model.checkpoints import ModelOrder
from runtime.model.rows import is_ragged

BATCH = 256
TARGET = "y"


@dataclass(frozen=True)
class TrainedModel:
    """A model in evaluation mode on the CPU, and what is needed to ask it about raw rows."""

    model: nn.Module
    workload: Workload
    facts: Facts
    step: int
    weights_digest: str

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """The columns that answers depend on: `x`, unless a workload says for itself how it predicts.

        Then those that it reads when it is asked about two rows of zeros; all but the target when that cannot be seen.
        """
        if not predicts_itself(self.workload):
            return ("x",)
        known = asked_columns(self.workload, self.facts)
        zero_rows = apart(zeros(self.facts, known))
        batch = _ColumnRecorder({name: torch.from_numpy(values) for name, values in zero_rows.items()})
        try:
            with torch.no_grad():
                self.workload.predict(self.model, batch)
        except Exception:  # noqa: BLE001 - the user's code may refuse zeros in any way; then nothing is known about it
            return known
        return tuple(name for name in known if name in batch.read or name + SUFFIX in batch.read) or known

    def answers(self, columns: Mapping[str, np.ndarray | Ragged]) -> np.ndarray:
        """What the model answers for rows, as float32."""
        count = len(next(iter(columns.values())))
        parts = []
        with torch.no_grad():
            for first in range(0, count, BATCH):
                rows = apart(some(columns, np.arange(first, min(first + BATCH, count))))
                batch = {name: torch.from_numpy(values) for name, values in rows.items()}
                parts.append(self.workload.predict(self.model, batch).float().cpu().numpy())
        answers = np.concatenate(parts)
        if len(answers) != count:
            message = f"`predict` answered {len(answers)} rows and was asked about {count}."
            raise UserCodeFailed(message, cure="Answer once per row of the batch.")
        return answers

    def predictions(self, columns: Mapping[str, np.ndarray | Ragged]) -> list[dict[str, Any]]:
        """One plain object per row: class and probability, or value, or the fields that the workload answers."""
        answers = self.answers(columns)
        if self.facts.task == "classification" and answers.ndim == 2:
            return _classes(answers, self.facts)
        if self.facts.task == "regression" and answers.size == len(answers):
            return [{"value": float(value)} for value in answers.reshape(-1)]
        return [{"answer": answer.tolist()} for answer in answers]


class _ColumnRecorder(UserDict[str, Tensor]):
    """A batch that notes which of its columns are read."""

    def __init__(self, columns: Mapping[str, Tensor]) -> None:
        self.read: set[str] = set()
        super().__init__(columns)

    def __getitem__(self, name: str) -> Tensor:
        self.read.add(name)
        return super().__getitem__(name)


def predicts_itself(workload: Workload) -> bool:
    """Whether the workload says how it predicts, instead of asking the model about the column `x`."""
    return type(workload).predict is not Workload.predict


def asked_columns(workload: Workload, facts: Facts) -> tuple[str, ...]:
    """The columns that answers may depend on: `x`, or all but the target where a workload predicts for itself."""
    return tuple(name for name in facts.columns if name != TARGET) if predicts_itself(workload) else ("x",)


def zeros(facts: Facts, names: Iterable[str]) -> dict[str, np.ndarray | Ragged]:
    """Two rows of zeros; where rows have any length, of one value each."""
    rows: dict[str, np.ndarray | Ragged] = {}
    for name in names:
        column = facts.columns[name]
        shape = column.shape[1:] if is_ragged(column) else column.shape
        values = np.zeros((2, *shape), np.dtype(column.dtype))
        rows[name] = Ragged(values, np.arange(3)) if is_ragged(column) else values
    return rows


def read_checkpoint(blobs: Path, blob: str, state_root: str | None) -> CheckpointContent:
    """The state in a blob; `NotVerified` and `NotFound` say which digest did not hold."""
    return unpack(DirectoryBlobs(blobs).get(blob), state_root=state_root)


def rebuild(learner: Learner, request: Request, facts: Facts, checkpoint: CheckpointContent) -> TrainedModel:
    """The model that a request describes and its learner trains, with the weights of a checkpoint."""
    model = load_model(request, facts, checkpoint.tensors)
    return TrainedModel(model, learner.workload, facts, checkpoint.step, checkpoint.weights_digest)


def load(order: ModelOrder) -> TrainedModel:
    """The model of `runtime.model.checkpoints.order`; `NotVerified` and `NotFound` say which digest did not hold."""
    enlist(order.workloads)
    checkpoint = read_checkpoint(order.blobs, order.blob, order.state_root)
    request, facts = Request.model_validate(order.request), Facts.from_json(order.facts)
    return rebuild(Learner(request, facts), request, facts, checkpoint)


def _classes(logits: np.ndarray, facts: Facts) -> list[dict[str, Any]]:
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares = shifted / shifted.sum(axis=1, keepdims=True)
    labels = facts.labels or tuple(map(str, range(logits.shape[1])))
    best = shares.argmax(axis=1)
    return [
        {
            "label": labels[at],
            "probability": round(float(row[at]), 6),
            "probabilities": {label: round(float(share), 6) for label, share in zip(labels, row, strict=True)},
        }
        for at, row in zip(best, shares, strict=True)
    ]
