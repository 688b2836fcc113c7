"""The loop that anybody would write: batches by index, clipping, fused AdamW; nothing is recorded."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.peers.turns import Steps, Task, serve

Told = Callable[[int, Tensor, Tensor], None]


def begin(task: Task, told: Told | None = None, model: nn.Module | None = None) -> Steps:
    """The loop; `told` hears step, loss and gradient norm after every step."""
    x, y = task.data()
    model = task.model() if model is None else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    order = torch.randperm(len(x))
    done = 0

    def steps(count: int) -> float:
        nonlocal done
        begun = time.perf_counter()
        for step in range(done, done + count):
            at = step * task.batch % (len(x) - task.batch)
            rows = order[at : at + task.batch]
            loss = nn.functional.cross_entropy(model(x.index_select(0, rows)), y.index_select(0, rows))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if told is not None:
                told(step, loss, norm)
        done += count
        return 1e6 * (time.perf_counter() - begun) / count

    return steps


if __name__ == "__main__":
    serve(begin)
