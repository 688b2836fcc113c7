"""The bare loop without torch's Python around optimizer and clipping: the very kernels that ours calls, and no more.

What it saves over `bare.py` is what ours saves before anything of ours is paid for: where ours is faster than the bare
loop, this is why.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from benchmarks.peers.turns import Steps, Task, serve


def begin(task: Task, model: nn.Module | None = None) -> Steps:
    """The loop; moments and the counter of steps are made once."""
    x, y = task.data()
    model = task.model() if model is None else model
    parameters: list[Tensor] = list(model.parameters())
    first = [torch.zeros_like(one) for one in parameters]
    second = [torch.zeros_like(one) for one in parameters]
    counter = torch.zeros(())
    order = torch.randperm(len(x))
    done = 0

    def move() -> None:
        gradients: list[Tensor] = [one.grad for one in parameters if one.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))  # noqa: SLF001
        torch._foreach_mul_(gradients, torch.clamp(1.0 / (norm + 1e-6), max=1.0))
        steps = [counter.add_(1)] * len(parameters)
        settings = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "weight_decay": 1e-2, "eps": 1e-8}
        torch._fused_adamw_(parameters, gradients, first, second, [], steps, amsgrad=False, maximize=False, **settings)
        for parameter in parameters:
            parameter.grad = None

    def steps(count: int) -> float:
        nonlocal done
        begun = time.perf_counter()
        for step in range(done, done + count):
            at = step * task.batch % (len(x) - task.batch)
            rows = order[at : at + task.batch]
            nn.functional.cross_entropy(model(x.index_select(0, rows)), y.index_select(0, rows)).backward()
            with torch.no_grad():
                move()
        done += count
        return 1e6 * (time.perf_counter() - begun) / count

    return steps


if __name__ == "__main__":
    serve(begin)
