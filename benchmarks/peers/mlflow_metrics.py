"""The bare loop that logs loss and gradient norm of every step to MLflow, into files."""

from __future__ import annotations

import os

os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"

import mlflow
from torch import Tensor

from benchmarks.peers import bare
from benchmarks.peers.turns import Steps, Task, serve


def begin(task: Task) -> Steps:
    """Two metrics a step, in one call."""
    mlflow.set_tracking_uri((task.folder.absolute() / "mlruns").as_uri())
    mlflow.start_run()

    def told(step: int, loss: Tensor, norm: Tensor) -> None:
        mlflow.log_metrics({"loss": loss.item(), "gradient_norm": norm.item()}, step=step)

    return bare.begin(task, told)


if __name__ == "__main__":
    serve(begin)
