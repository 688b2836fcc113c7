"""Hugging Face's Trainer with everything switched off that can be, fed by its own DataLoader."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.peers.turns import Steps, Stopwatch, Task, serve


class Rows(Dataset[dict[str, Tensor]]):
    """Rows one by one, under the names of the model's arguments."""

    def __init__(self, task: Task) -> None:
        self._x, self._y = task.data()

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, at: int) -> dict[str, Tensor]:
        return {"x": self._x[at], "labels": self._y[at]}


class Model(nn.Module):
    """The perceptron, which gives its loss."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        answers = self.body(x)
        return {"loss": nn.functional.cross_entropy(answers, labels), "logits": answers}


class Laps(TrainerCallback):
    """Tells a stopwatch of every step."""

    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._watch.lap()


def begin(task: Task) -> Steps:
    """No reports, no logging, no checkpoints, no progress bar."""
    model, rows = Model(task.model()), Rows(task)

    def steps(count: int) -> float:
        watch = Stopwatch()
        told = TrainingArguments(
            output_dir=str(task.folder),
            max_steps=count,
            per_device_train_batch_size=task.batch,
            learning_rate=1e-3,
            max_grad_norm=1.0,
            optim="adamw_torch_fused",
            lr_scheduler_type="constant",
            report_to=[],
            logging_strategy="no",
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            dataloader_pin_memory=False,
        )
        Trainer(model=model, args=told, train_dataset=rows, callbacks=[Laps(watch)]).train()
        return watch.us

    return steps


if __name__ == "__main__":
    serve(begin)
