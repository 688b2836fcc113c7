"""The bare loop that writes loss and gradient norm of every step for TensorBoard."""

from __future__ import annotations

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from benchmarks.peers import bare
from benchmarks.peers.turns import Steps, Task, serve


def begin(task: Task) -> Steps:
    """Two scalars a step."""
    writer = SummaryWriter(str(task.folder))  # type: ignore[no-untyped-call]

    def told(step: int, loss: Tensor, norm: Tensor) -> None:
        writer.add_scalar("loss", loss.item(), step)  # type: ignore[no-untyped-call]
        writer.add_scalar("gradient_norm", norm.item(), step)  # type: ignore[no-untyped-call]

    return bare.begin(task, told)


if __name__ == "__main__":
    serve(begin)
