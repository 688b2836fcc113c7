"""What a step costs when everything about it is logged and can be audited, beside the bare torch loop and its peers.

    ours_over_bare_26k, ours_over_bare_1m    wall time per step of the real training job (order, per-step seeds,
                                             windows with digests and layer evidence, checkpoints, frames to the host)
                                             over that of a bare loop: the same model, batches by index_select,
                                             clip_grad_norm_, fused AdamW
    kernels_over_bare_26k, kernels_over_bare_1m   the bare loop with the kernels that ours calls, without torch's Python
                                             around optimizer and clipping: why ours may be under 1
    PEER_over_bare_26k, PEER_over_bare_1m    the same of each file in `benchmarks/peers/`: the loop with a DataLoader,
                                             compiled, with TensorBoard and MLflow at every step, Lightning, Hugging
                                             Face's Trainer and Accelerate, Keras on torch

One thread each, all in the environment and with the torch settings that our own training is sealed with, turn by turn;
a figure is the median of the ratios to the bare loop of the same turn. Peers other than torch's own are run with
`--peers DIR`: an environment of their own, made there if it is not. A peer keeps one process.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.peers.contender import contender, environment
from benchmarks.report import filesystem, parser, report
from benchmarks.trained import Bench
from runtime.jobs.children import Children

WIDTHS = {"26k": [346], "1m": [1024, 1000]}
BATCH = 64
ALWAYS = {"bare": 1.0, "kernels": 1.0, "loader": 1.0}
COMPILED = {"compiled": 1.0}
OTHERS = {
    "tensorboard_scalars": 0.5,
    "mlflow_metrics": 0.1,
    "lightning_trainer": 0.25,
    "hf_trainer": 0.25,
    "hf_accelerate": 0.5,
    "keras_fit": 0.25,
}
"""Each with the share of the bare loop's steps that it takes in a turn; slow ones take fewer."""

LEAST = 100
"""Steps in a turn below which nothing can be timed."""


def main() -> None:
    """Measure both sizes."""
    asks = parser(__doc__ or "")
    asks.add_argument("--peers", type=Path, help="where the environment of the peers is, or is to be made")
    asks.add_argument("--turns", type=int, help="how often each takes its turn (9; quick: 3)")
    asked = asks.parse_args()
    turns = asked.turns or (3 if asked.quick else 9)
    steps = {"26k": 1500, "1m": 100} if asked.quick else {"26k": 4000, "1m": 400}
    python = environment(asked.peers) if asked.peers else Path(sys.executable)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="overhead") as folder:
        for size, count in steps.items():
            taken = asyncio.run(measured(asked, python, Path(folder) / size, WIDTHS[size], count, turns))
            for name, found in taken.items():
                ratios = [one / other for one, other in zip(found, taken["bare"], strict=True)]
                over = {} if name == "bare" else {f"{name}_over_bare_{size}": statistics.median(ratios)}
                figures |= {f"{name}_us_{size}": statistics.median(found)} | over
        report(asked, figures, {"filesystem": filesystem(Path(folder)), "turns": str(turns), "threads": "1"})


async def measured(
    asked: argparse.Namespace, python: Path, folder: Path, widths: list[int], steps: int, turns: int
) -> dict[str, list[float]]:
    """Microseconds per step of everybody, turn by turn."""
    children = Children()
    bench = Bench(children, folder)
    folder.mkdir()
    rows = {"kind": "numbers", "count": 6400 if asked.quick else 20_000, "val": 1000}
    task: dict[str, Any] = {"widths": widths, "rows": rows["count"], "batch": BATCH}
    shares = ALWAYS | ({} if asked.quick else COMPILED) | (OTHERS if asked.peers else {})
    async with AsyncExitStack() as stack:
        stack.push_async_callback(children.close)
        plan = await bench.plan(request(widths, steps * BATCH // rows["count"]), rows)
        peers = {
            name: await stack.enter_async_context(contender(python, name, task, folder / "peers")) for name in shares
        }
        taken: dict[str, list[float]] = {name: [] for name in ("ours", *shares)}
        # The first turn warms caches and is not counted.
        for turn in range(turns + 1):
            for name in taken:
                if name == "ours":
                    us = (await bench.train(plan, rows, f"blobs{turn}")).us
                else:
                    us = await peers[name].us(max(LEAST, round(shares[name] * steps)))
                taken[name] += [us] if turn else []
    return taken


def request(widths: list[int], epochs: int) -> dict[str, Any]:
    """A training that is evaluated at its end alone."""
    return {
        "data": {"source": "digits"},
        "model": {"architecture": "mlp", "hidden": widths, "dropout": 0.0},
        "optimizer": {"type": "adamw", "learning_rate": 1e-3},
        "training": {"epochs": epochs, "batch_size": BATCH, "grad_clip": 1.0, "threads": 1, "device": "cpu"},
        "validation": {"every_epochs": epochs},
        "early_stopping": {"enabled": False},
        "export": {"formats": []},
    }


if __name__ == "__main__":
    main()
