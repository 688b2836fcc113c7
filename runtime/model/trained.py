"""A trained model from the files of a home: its blob and its roots verified, rebuilt, asked. It trains nothing."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Mapping, Sequence
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
from runtime.engine.checkpoint import load_model, unpack
from runtime.engine.facts import Facts
from runtime.engine.learner import Learner
from runtime.engine.ragged import ANY_LENGTH, SUFFIX, Ragged, apart, some
from runtime.engine.workload import Workload
from runtime.home.workloads import enlist

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
        if type(self.workload).predict is Workload.predict:
            return ("x",)
        known = tuple(name for name in self.facts.columns if name != TARGET)
        batch = _ColumnRecorder({name: torch.from_numpy(one) for name, one in apart(_zeros(self.facts, known)).items()})
        try:
            with torch.no_grad():
                self.workload.predict(self.model, batch)
        except Exception:  # noqa: BLE001 - the user's code may refuse zeros in any way; then nothing is known about it
            return known
        return tuple(name for name in known if name in batch.read or name + SUFFIX in batch.read) or known

    def answers(self, columns: Mapping[str, np.ndarray | Ragged]) -> np.ndarray:
        """What the model answers for rows, as float32."""
        count = len(next(iter(columns.values())))
        found = []
        with torch.no_grad():
            for first in range(0, count, BATCH):
                rows = apart(some(columns, np.arange(first, min(first + BATCH, count))))
                batch = {name: torch.from_numpy(one) for name, one in rows.items()}
                found.append(self.workload.predict(self.model, batch).float().cpu().numpy())
        answers = np.concatenate(found)
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
            return [{"value": float(one)} for one in answers.reshape(-1)]
        return [{"answer": one.tolist()} for one in answers]


class _ColumnRecorder(UserDict[str, Tensor]):
    """A batch that notes which of its columns are read."""

    def __init__(self, columns: Mapping[str, Tensor]) -> None:
        self.read: set[str] = set()
        super().__init__(columns)

    def __getitem__(self, name: str) -> Tensor:
        self.read.add(name)
        return super().__getitem__(name)


def _zeros(facts: Facts, names: Sequence[str]) -> dict[str, np.ndarray | Ragged]:
    """Two rows of zeros; where rows have any length, of one value each."""
    found: dict[str, np.ndarray | Ragged] = {}
    for name in names:
        column = facts.columns[name]
        any_length = column.shape[:1] == (ANY_LENGTH,)
        values = np.zeros((2, *(column.shape[1:] if any_length else column.shape)), np.dtype(column.dtype))
        found[name] = Ragged(values, np.arange(3)) if any_length else values
    return found


def load(order: Mapping[str, Any]) -> TrainedModel:
    """The model of `runtime.model.checkpoints.order`; `NotVerified` and `NotFound` say which digest did not hold."""
    enlist(order["workloads"])
    data = DirectoryBlobs(Path(order["blobs"])).get(order["blob"])
    kept = unpack(data, state_root=order["state_root"])
    request, facts = Request.model_validate(order["request"]), Facts.from_json(order["facts"])
    model = load_model(request, facts, kept.tensors)
    return TrainedModel(model, Learner(request, facts).workload, facts, kept.step, kept.weights_digest)


def _classes(logits: np.ndarray, facts: Facts) -> list[dict[str, Any]]:
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares = shifted / shifted.sum(axis=1, keepdims=True)
    labels = facts.labels or tuple(map(str, range(logits.shape[1])))
    best = shares.argmax(axis=1)
    return [
        {
            "label": labels[at],
            "probability": round(float(row[at]), 6),
            "probabilities": {label: round(float(one), 6) for label, one in zip(labels, row, strict=True)},
        }
        for at, row in zip(best, shares, strict=True)
    ]
