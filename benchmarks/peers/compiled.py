"""The bare loop with its model compiled; other bits than the loop's, so it is a profile of its own."""

from __future__ import annotations

import torch

from benchmarks.peers import bare
from benchmarks.peers.turns import Steps, Task, serve


def begin(task: Task) -> Steps:
    """Compiled before the first turn is timed."""
    steps = bare.begin(task, model=torch.compile(task.model()))  # type: ignore[arg-type]
    steps(20)
    return steps


if __name__ == "__main__":
    serve(begin)
