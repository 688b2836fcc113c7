"""Lightning's Trainer with everything switched off that can be, fed by a DataLoader."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from benchmarks.peers.turns import Steps, Stopwatch, Task, serve


class Module(lightning.LightningModule):
    """The perceptron, its loss and its optimizer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
        x, y = batch
        return nn.functional.cross_entropy(self.model(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3, fused=True)


class Laps(lightning.Callback):
    """Tells a stopwatch of every step."""

    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch

    def on_train_batch_end(self, *_: Any) -> None:
        self._watch.lap()


def begin(task: Task) -> Steps:
    """No logger, no progress bar, no checkpoints, no summary."""
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    module, loader = Module(task.model()), task.loader()
    off = dict.fromkeys(("logger", "enable_progress_bar", "enable_checkpointing", "enable_model_summary"), False)

    def steps(count: int) -> float:
        watch = Stopwatch()
        trainer = lightning.Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=count,
            gradient_clip_val=1.0,
            callbacks=[Laps(watch)],
            default_root_dir=str(task.folder),
            **off,  # type: ignore[arg-type]
        )
        trainer.fit(module, loader)
        return watch.us

    return steps


if __name__ == "__main__":
    serve(begin)
