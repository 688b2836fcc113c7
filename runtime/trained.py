"""A trained model from the files of a home: its blob and its roots verified, rebuilt, asked. It trains nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bus.blobs import DirectoryBlobs
from contracts.errors import UserCodeFailed
from contracts.request import Request
from runtime.engine.checkpoint import load_model, unpack
from runtime.engine.facts import Facts
from runtime.engine.learner import Learner
from runtime.engine.ragged import Ragged, apart, some
from runtime.engine.workload import Workload
from runtime.workloads import enlist

BATCH = 256
TARGET = "y"


@dataclass(frozen=True)
class Trained:
    """A model in evaluation mode on the CPU, and what is needed to ask it about raw rows."""

    model: nn.Module
    workload: Workload
    facts: Facts
    step: int
    weights_digest: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that answers depend on: `x`, unless a workload says for itself how it predicts."""
        if type(self.workload).predict is Workload.predict:
            return ("x",)
        return tuple(name for name in self.facts.columns if name != TARGET)

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
        """One plain object per row: class and probability, or value, or whatever the workload answers."""
        answers = self.answers(columns)
        if self.facts.task == "classification" and answers.ndim == 2:
            return _classes(answers, self.facts)
        if self.facts.task == "regression" and answers.size == len(answers):
            return [{"value": float(one)} for one in answers.reshape(-1)]
        return [{"answer": one.tolist()} for one in answers]


def load(order: Mapping[str, Any]) -> Trained:
    """The model of `runtime.checkpoints.order`; `NotVerified` and `NotFound` say which digest did not hold."""
    enlist(order["workloads"])
    data = DirectoryBlobs(Path(order["blobs"])).get(order["blob"])
    kept = unpack(data, state_root=order["state_root"])
    request, facts = Request.model_validate(order["request"]), Facts.from_json(order["facts"])
    model = load_model(request, facts, kept.tensors)
    return Trained(model, Learner(request, facts).workload, facts, kept.step, kept.weights_digest)


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
