"""The DataLoader loop with its four objects prepared by Hugging Face's Accelerate."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import nn

from benchmarks.peers.turns import Steps, Stopwatch, Task, serve


def begin(task: Task) -> Steps:
    """Backward, clipping, step and rows go through the accelerator."""
    accelerator = Accelerator(cpu=True)
    own = task.model()
    moves = torch.optim.AdamW(own.parameters(), lr=1e-3, fused=True)
    model, optimizer, loader = accelerator.prepare(own, moves, task.loader())

    def steps(count: int) -> float:
        watch, left = Stopwatch(), count
        while left:
            for (x, y), _ in zip(loader, range(left), strict=False):
                loss = nn.functional.cross_entropy(model(x), y)
                optimizer.zero_grad()
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                watch.lap()
                left -= 1
        return watch.us

    return steps


if __name__ == "__main__":
    serve(begin)
