"""Keras on torch: `fit` over arrays, without a progress bar."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "torch"

from typing import Any

import keras

from benchmarks.peers.turns import Steps, Stopwatch, Task, serve


class Laps(keras.callbacks.Callback):
    """Tells a stopwatch of every step, and ends after so many."""

    def __init__(self, watch: Stopwatch, steps: int) -> None:
        super().__init__()
        self._watch, self._left = watch, steps

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._left > 0:
            self._watch.lap()
            self._left -= 1


def begin(task: Task) -> Steps:
    """The same layers, loss, optimizer and clipping, by Keras' own names."""
    layers = [keras.layers.Dense(width, activation="relu") for width in task.widths]
    model = keras.Sequential([keras.Input((64,)), *layers, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-3, global_clipnorm=1.0), loss)
    x, y = (one.numpy() for one in task.data())

    def steps(count: int) -> float:
        watch = Stopwatch()
        epochs = -(-count * task.batch // task.rows)
        model.fit(x, y, task.batch, epochs, verbose=0, callbacks=[Laps(watch, count)])
        return watch.us

    return steps


if __name__ == "__main__":
    serve(begin)
