"""The loop of the tutorials: as the bare one, but rows come from a shuffling DataLoader."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.peers.turns import Steps, Stopwatch, Task, serve


def begin(task: Task) -> Steps:
    """Epoch after epoch until the steps are done; iterators that begin an epoch are part of it."""
    loader, model = task.loader(), task.model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def steps(count: int) -> float:
        watch, left = Stopwatch(), count
        while left:
            for (x, y), _ in zip(loader, range(left), strict=False):
                loss = nn.functional.cross_entropy(model(x), y)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                watch.lap()
                left -= 1
        return watch.us

    return steps


if __name__ == "__main__":
    serve(begin)
