"""A peer in a process of its own: it is asked for so many steps, again and again, and says how long one took.

It is started as `python -P -m benchmarks.peers.NAME`, reads a task as a line of JSON, then a number of steps per line,
and answers each with a line. Only torch and the peer's own packages are imported here.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

Steps = Callable[[int], float]
"""Train for so many steps; the microseconds that one took."""


@dataclass(frozen=True)
class Task:
    """What every contender trains: a perceptron on rows of 64 numbers in ten classes, one thread."""

    widths: tuple[int, ...]
    rows: int
    batch: int
    folder: Path

    def data(self) -> tuple[Tensor, Tensor]:
        """Noise, and classes that have nothing to do with it."""
        draw = torch.Generator().manual_seed(1)
        return torch.randn(self.rows, 64, generator=draw), torch.randint(10, (self.rows,), generator=draw)

    def model(self) -> nn.Sequential:
        """Layer and relu for each width, then the answer."""
        widths = [64, *self.widths]
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(widths):
            layers += [nn.Linear(a, b), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(widths[-1], 10))

    def loader(self) -> torch.utils.data.DataLoader[tuple[Tensor, ...]]:
        """The rows as tutorials feed them: shuffled, in this process."""
        pairs = torch.utils.data.TensorDataset(*self.data())
        return torch.utils.data.DataLoader(pairs, self.batch, shuffle=True, drop_last=True)


class Stopwatch:
    """The time between the end of the first step and the end of the last."""

    def __init__(self) -> None:
        self._ends: list[float] = []

    def lap(self) -> None:
        """A step has ended."""
        self._ends.append(time.perf_counter())

    @property
    def us(self) -> float:
        """Microseconds per step."""
        return 1e6 * (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)


def seal() -> None:
    """Set in torch what our own training processes have set, by torch's public functions."""
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_float32_matmul_precision("highest")


def serve(begin: Callable[[Task], Steps]) -> None:
    """Answer until nobody asks any more; what frameworks print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    seal()
    raw = json.loads(sys.stdin.readline())
    steps = begin(Task(tuple(raw["widths"]), raw["rows"], raw["batch"], Path(raw["folder"])))
    for line in sys.stdin:
        print(json.dumps({"us": steps(int(line))}), file=answers, flush=True)
