"""A model, its loss and its data of one's own: two spirals that a small network learns to tell apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel
from torch import Tensor, nn

from stigmergy import Workload


class Spirals(Workload):
    """Two classes, each a spiral. `swarm workload add mine.py` makes it known as `mine`."""

    class Options(BaseModel):
        """What a request may set under `model.options` and `data.options`."""

        width: int = 32
        rows: int = 600
        turns: float = 1.5

    def build(self, o: Options, facts: Any) -> nn.Module:
        layers = [nn.Linear(2, o.width), nn.Tanh(), nn.Linear(o.width, o.width), nn.Tanh()]
        return nn.Sequential(*layers, nn.Linear(o.width, facts.outputs))

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        answers = model(batch["x"])
        loss = nn.functional.cross_entropy(answers, batch["y"])
        return {"loss": loss, "confidence": answers.softmax(1).amax(1).mean()}

    def data(self, o: Options) -> Mapping[str, np.ndarray]:
        y = np.arange(o.rows) % 2
        along = np.linspace(0.1, 1.0, o.rows)
        angle = 2 * np.pi * o.turns * along + np.pi * y
        x = np.stack([along * np.cos(angle), along * np.sin(angle)], axis=1)
        return {"x": x.astype(np.float32), "y": y}
