"""A workload of the fault bench: a small network with its loss, sound as it stands, and wrong in ways that code can be.

`swarm workload add benchmarks/faults_cases/workload.py --name fault_bench` makes it known as the bench's requests do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import BaseModel
from torch import Tensor, nn
from torch.nn import functional

from stigmergy import Workload


class Scaled(nn.Module):
    """Features as the training rows are spread: mean 0, deviation 1."""

    def __init__(self, facts: Any) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(facts.mean, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(facts.scale, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """The rows, flat and scaled."""
        flat = x.float().flatten(1)
        if len(self.mean) not in (1, flat.shape[1]):
            per = flat.shape[1] // len(self.mean)
            return (flat - self.mean.repeat_interleave(per)) / self.scale.repeat_interleave(per)
        return (flat - self.mean) / self.scale


class FaultBench(Workload):
    """Fully connected layers for classes or numbers."""

    class Options(BaseModel):
        """`twice` squashes answers so often before the loss does, `by` what; `loss` is what is minimised."""

        hidden: list[int] = [48, 48]
        twice: int = 0
        by: Literal["usual", "sigmoid"] = "usual"
        loss: Literal[
            "right", "index", "shifted", "negative", "raw_target", "cubed", "log_ratio", "entropy", "mean"
        ] = "right"

    def build(self, o: Any, facts: Any) -> nn.Module:
        width = 1
        for side in facts.shape:
            width *= side
        layers: list[nn.Module] = [Scaled(facts)]
        for wanted in o.hidden:
            layers += [nn.Linear(width, wanted), nn.ReLU()]
            width = wanted
        layers.append(nn.Linear(width, facts.outputs))
        classes = facts.task == "classification"
        usual = nn.Softmax(1) if classes else nn.ReLU()
        layers += [usual if o.by == "usual" else nn.Sigmoid() for _ in range(o.twice)]
        model = nn.Sequential(*layers)
        model.kind, model.classes = o.loss, classes
        model.target = (facts.target_mean, facts.target_scale)
        return model

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        answers, y = model(batch["x"]), batch["y"]
        if not model.classes:
            return _of_numbers(answers.flatten(), y.float(), model)
        match model.kind:
            case "index":
                places = torch.arange(answers.shape[1], dtype=torch.float32)
                return functional.mse_loss(answers.softmax(1) @ places, y.float())
            case "shifted":
                return functional.cross_entropy(answers, (y + 1) % answers.shape[1])
            case "negative":
                return -functional.cross_entropy(answers, y).clamp(max=20.0)
            case "entropy":
                return -(answers.softmax(1) * answers.log_softmax(1)).sum(1).mean()
        return functional.cross_entropy(answers, y)

    def predict(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        answers: Tensor = model(batch["x"])
        if model.classes:
            return answers
        mean, scale = model.target
        return answers.flatten() if model.kind == "raw_target" else answers.flatten() * scale + mean


def _of_numbers(answers: Tensor, y: Tensor, model: nn.Module) -> Tensor:
    mean, scale = model.target
    wanted = (y - mean) / scale
    match model.kind:
        case "raw_target":
            return functional.mse_loss(answers, y)
        case "mean":
            return (answers.mean() - wanted.mean()).square()
        case "cubed":
            return ((answers - wanted) ** 3).mean().clamp(min=-20.0)
        case "log_ratio":
            return ((answers.abs() + 1.0).log() - (wanted.abs() + 1.0).log()).square().mean()
    return functional.mse_loss(answers, wanted)
