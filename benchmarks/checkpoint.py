"""What a checkpoint costs the training thread: our staged copy, beside writing in the thread by torch and safetensors.

    stall_ms_100mb         training stands still: all state is copied and handed to the thread that writes
    memcpy_ms_100mb        as many bytes in one piece by the C library's memcpy: what the memory of this machine allows
    stall_over_memcpy      the median of the ratios turn by turn
    finite_ms_100mb        before that: the look whether all state is finite, which no peer takes
    total_ms_100mb         until the bytes are on disk under their digest, in a thread while training goes on
    first_stall_ms_100mb   the stall the first time, when the copy's memory is new
    torch_save_ms_100mb    torch.save of the same tensors, in the training thread, and a sync
    safetensors_ms_100mb   safetensors' save_file of the same tensors, in the training thread, and a sync

The state is that of AdamW over a perceptron of 8.3 million parameters: 25 tensors, some of 16 MB, some of kilobytes.
Medians of several turns, ours and the peers' in alternation. One thread. `--quick` takes fewer turns.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from agents.trainer.jobs.train import Keeper, PhaseSeconds
from benchmarks.report import filesystem, options, report
from bus.blobs import DirectoryBlobs
from runtime.engine import state

OURS = ("finite", "stall", "total")
PEERS = ("memcpy", "torch_save", "safetensors")
WIDTH, LAYERS = 2040, 2
"""Two hidden layers of this width, 64 inputs and 10 outputs; AdamW keeps two moments of each parameter."""


def alive() -> dict[str, Tensor]:
    """All state of a training, about 100 MB."""
    widths = [64, *[WIDTH] * (LAYERS + 1), 10]
    draw = torch.Generator().manual_seed(0)
    found = {"optimizer.step": torch.zeros(())}
    for number, (inner, outer) in enumerate(pairwise(widths)):
        for name, shape in (("weight", (outer, inner)), ("bias", (outer,))):
            for kind in ("model", "optimizer.first_moment", "optimizer.second_moment"):
                found[f"{kind}.{number}.{name}"] = torch.rand(shape, generator=draw)
    return found


class Training:
    """What the keeper of checkpoints sees of a run: its step, and a copy of its state."""

    plan = SimpleNamespace(segment_at=lambda step: 1)
    aliases: Mapping[str, str] = {}

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.step = 0
        self._tensors = tensors

    def tensors(self, into: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """As `Run.tensors`."""
        return state.copied(self._tensors, into)

    def train(self) -> None:
        """Move every tensor, so that no two checkpoints have the same bytes."""
        self.step += 50
        for one in self._tensors.values():
            one.add_(1e-3)

    def sound(self) -> bool:
        """What the engine asks before it wants a checkpoint."""
        return state.finite(self._tensors)


def ours(keeper: Keeper, run: Any) -> tuple[float, float, float]:
    """Seconds of the look, of the copy, and of everything until the bytes were on disk."""
    begun = time.perf_counter()
    assert run.sound()
    looked = time.perf_counter()
    keeper.keep(run, "planned")
    copied = time.perf_counter()
    keeper.finish()
    return looked - begun, copied - looked, time.perf_counter() - begun


def peer(write: Callable[[Path], None], path: Path) -> float:
    """Seconds that writing in the training thread takes, the sync included."""
    begun = time.perf_counter()
    write(path)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    took = time.perf_counter() - begun
    path.unlink()
    return took


class Memory:
    """So many bytes, and room for them once more."""

    def __init__(self, size: int) -> None:
        self._here, self._there = np.ones(size, np.uint8), np.zeros(size, np.uint8)

    def copied(self) -> float:
        """Seconds that the C library needs to copy them."""
        self._here += 1
        begun = time.perf_counter()
        np.copyto(self._there, self._here)
        return time.perf_counter() - begun


def main() -> None:
    """Measure and report."""
    asked = options(__doc__ or "")
    turns = 5 if asked.quick else 21
    torch.set_num_threads(1)
    tensors = alive()
    run, size = Training(tensors), sum(one.nbytes for one in tensors.values())
    per_100mb = 1000 * 1e8 / size
    told: list[str] = []
    job: Any = SimpleNamespace(tell=lambda kind, **_: told.append(kind))
    taken: dict[str, list[float]] = {name: [] for name in (*OURS, *PEERS)}
    memory = Memory(size)
    with tempfile.TemporaryDirectory(dir=os.environ.get("SWARM_BENCH_DIR", ".")) as name:
        folder = Path(name)
        keeper = Keeper(job, DirectoryBlobs(folder / "blobs"), PhaseSeconds())
        for turn in range(turns + 1):
            run.train()
            for key, seconds in zip(OURS, ours(keeper, run), strict=True):
                taken[key].append(seconds)
            if turn:
                taken["memcpy"].append(memory.copied())
                taken["torch_save"].append(peer(lambda path: torch.save(tensors, path), folder / "peer"))
                taken["safetensors"].append(peer(lambda path: save_file(tensors, path), folder / "peer"))
            for blob in (folder / "blobs").rglob("?" * 64):
                blob.unlink()
        assert len(told) == turns + 1
        first = {name: taken[name].pop(0) for name in OURS}
        figures = {"first_stall_ms_100mb": per_100mb * first["stall"]}
        figures = {f"{key}_ms_100mb": per_100mb * statistics.median(found) for key, found in taken.items()} | figures
        ratios = [one / other for one, other in zip(taken["stall"], taken["memcpy"], strict=True)]
        figures |= {"stall_over_memcpy": statistics.median(ratios)}
        figures |= {"state_mb": size / 1e6, "tensors": len(tensors)}
        report(asked, figures, {"filesystem": filesystem(folder), "torch": torch.__version__, "turns": str(turns)})


if __name__ == "__main__":
    main()
