"""The model that is to leave the swarm, rebuilt in a child from checkpoint and request, and rows to ask it about."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agents.exporter.jobs.parity import ROWS, Ask, Columns
from contracts.request import Request
from runtime.engine.checkpoint import CheckpointContent
from runtime.engine.dataset import Dataset
from runtime.engine.facts import Facts
from runtime.engine.learner import Learner
from runtime.engine.ragged import SUFFIX, Ragged, apart, joined, some
from runtime.engine.state import finite
from runtime.engine.workload import Workload
from runtime.engine.wrappers import stored_as
from runtime.home.workloads import enlist
from runtime.model.rows import is_ragged
from runtime.model.trained import asked_columns, predicts_itself, read_checkpoint, rebuild, zeros
from runtime.node.capabilities import ExportTask


class Unexportable(Exception):
    """This model cannot become this file: a code for machines, a sentence and a cure for people."""

    def __init__(self, code: str, message: str, cure: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.cure = code, message, cure


@stored_as("agents.exporter.jobs.trained.Answering")
class Answering(nn.Module):
    """What is exported: the columns of a batch in, the answers by which metrics judge out."""

    def __init__(self, model: nn.Module, workload: Workload, columns: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self._predict = workload.predict
        self._columns = columns

    def forward(self, *columns: Tensor) -> Tensor:
        return self._predict(self.model, dict(zip(self._columns, columns, strict=True)))


@dataclass(frozen=True)
class ExportModel:
    """A trained model in evaluation mode on the CPU, with what is known about it."""

    answering: Answering
    inputs: tuple[str, ...]
    request: Request
    facts: Facts
    dataset: Dataset
    checkpoint: CheckpointContent
    task: str

    @property
    def output(self) -> str:
        """What the answers are called in files that name them."""
        return {"classification": "logits", "regression": "prediction"}.get(self.task, "answers")

    def about(self) -> dict[str, Any]:
        """What a file says about itself: where it comes from by digest, and how to read its answers."""
        return {
            "weights_digest": self.checkpoint.weights_digest,
            "step": self.checkpoint.step,
            "dataset": self.dataset.root,
            "task": self.task,
            "labels": list(self.facts.labels),
            "features": list(self.facts.features),
        }

    def answers(self, columns: Columns) -> np.ndarray:
        """The engine's own answers, in full precision."""
        return asking(self.answering, self.inputs)(columns)

    def example(self) -> tuple[Tensor, ...]:
        """Two rows of nothing, shaped like a batch: with one row, exporters take the batch size for a constant.

        Raises `Unexportable` when a column's rows have any length: a graph is made for rows of one shape.
        """
        if any_length := [name for name in self.inputs if name + SUFFIX in self.inputs]:
            names = ", ".join(map(repr, any_length))
            message = f"the model reads {names}, whose rows have any length, and a graph is made for rows of one shape."
            cure = "Export safetensors, or let `data` pad the rows and give them as one array."
            raise Unexportable("any-length", message, cure)
        return tuple(map(torch.from_numpy, apart(zeros(self.facts, self.inputs)).values()))


def asking(module: Callable[..., Tensor], inputs: Sequence[str]) -> Ask:
    """Asks a module of torch with arrays."""

    def ask(columns: Columns) -> np.ndarray:
        with torch.no_grad():
            answers: np.ndarray = module(*(torch.from_numpy(columns[name]) for name in inputs)).float().numpy()
        return answers

    return ask


def load(task: ExportTask) -> ExportModel:
    """The model of an order; `NotVerified` and `NotFound` say which digest did not hold."""
    order, blobs = task.order, task.blobs
    enlist(task.workloads)
    request = Request.model_validate(order.request)
    dataset = Dataset.open(blobs / "datasets" / order.dataset)
    checkpoint = read_checkpoint(blobs, order.blob, order.state_root)
    if not finite({name: value for name, value in checkpoint.tensors.items() if name.startswith("model.")}):
        cure = "Export an earlier checkpoint: --checkpoint STEP."
        raise Unexportable("not-finite", f"the weights of step {checkpoint.step} are not all finite.", cure)
    facts, learner = dataset.facts, Learner(request, dataset.facts)
    trained = rebuild(learner, request, facts, checkpoint)
    inputs = input_columns(trained.workload, facts)
    answering = Answering(trained.model, trained.workload, inputs).eval()
    return ExportModel(answering, inputs, request, facts, dataset, checkpoint, learner.task)


def input_columns(workload: Workload, facts: Facts) -> tuple[str, ...]:
    """The columns of a batch that answers depend on; one whose rows have any length is two: its values, and the
    places at which rows begin. Raises `Unexportable` when there is no `x` and the workload does not say otherwise.
    """
    if not predicts_itself(workload) and "x" not in facts.columns:
        message = f"the model answers from the column 'x', and the data have {', '.join(map(repr, facts.columns))}."
        raise Unexportable("no-answers", message, "Say in the workload's `predict` from which columns it answers.")
    asked = asked_columns(workload, facts)
    pairs = ((name, name + SUFFIX) if is_ragged(facts.columns[name]) else (name,) for name in asked)
    return tuple(name for pair in pairs for name in pair)


def some_rows(dataset: Dataset, split: str, most: int) -> dict[str, np.ndarray | Ragged]:
    """At most so many rows of a split, evenly spaced over it, in memory of their own."""
    total = dataset.facts.rows[split]
    chosen = np.unique(np.linspace(0, max(total - 1, 0), min(total, most)).astype(np.int64))
    return some({**dataset.columns(split), **dataset.ragged(split)}, chosen)


def questions(dataset: Dataset) -> dict[str, np.ndarray | Ragged]:
    """The rows that answers are compared on: of validation, and of training where that is short."""
    columns = some_rows(dataset, "val", ROWS)
    short = ROWS - len(next(iter(columns.values())))
    if short > 0:
        more = some_rows(dataset, "train", short)
        columns = {name: joined(values, more[name]) for name, values in columns.items()}
    return columns


def canonical(value: Any) -> str:
    """JSON text that is a function of the value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
