"""What a step costs when everything about it is logged and can be audited, beside the bare torch loop.

    ours_over_bare_26k, ours_over_bare_1m    wall time per step of the real training job (order, per-step seeds,
                                             windows with digests and layer evidence, checkpoints, frames to the host)
                                             over that of a bare loop: the same model, batches by index_select,
                                             clip_grad_norm_, fused AdamW

One thread each, in forks of one sealed zygote, in alternation; the figure is the median of the ratios of neighbours.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import filesystem, options, report
from contracts.request import read_request
from runtime.children import Children
from runtime.job import Job
from runtime.profiles import torch_profile

ROWS = 20_000
WIDTHS = {"26k": [346], "1m": [1024, 1000]}
BATCH = 64


def main() -> None:
    """Measure both sizes."""
    asked = options(__doc__ or "")
    turns, steps = (3, {"26k": 4000, "1m": 400}) if asked.quick else (9, {"26k": 12_000, "1m": 1500})
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="overhead") as folder:
        place = Path(folder)
        for size, widths in WIDTHS.items():
            ours, bare = asyncio.run(measured(place, widths, steps[size], turns))
            ratios = [one / other for one, other in zip(ours, bare, strict=True)]
            figures |= {
                f"bare_us_{size}": statistics.median(bare),
                f"ours_us_{size}": statistics.median(ours),
                f"ours_over_bare_{size}": statistics.median(ratios),
            }
        report(asked, figures, {"filesystem": filesystem(place), "turns": str(turns), "threads": "1"})


async def measured(place: Path, widths: list[int], steps: int, turns: int) -> tuple[list[float], list[float]]:
    """Microseconds per step of both, turn by turn."""
    children = Children()
    profile = torch_profile(1)
    ours, bare = [], []
    try:
        args = {"folder": str(place / "data"), "widths": widths, "steps": steps}
        async with children.job("benchmarks.overhead:prepare", args, profile=profile, purpose="prepare") as child:
            plan = (await child.wait())["plan"]
        for turn in range(turns + 1):
            async with children.job("benchmarks.overhead:bare", args, profile=profile, purpose="probe") as child:
                bare.append((await child.wait())["us"])
            ours.append(await logged(children, place / f"blobs{len(widths)}{turn}", args, plan))
    finally:
        await children.close()
    # The first turn warms caches and is not counted.
    return ours[1:], bare[1:]


async def logged(children: Children, blobs: Path, args: dict[str, Any], plan: dict[str, Any]) -> float:
    """Microseconds per step between the first window and the last of the real training job."""
    given = {
        "plan": plan,
        "seal": {"threads": 1, "profile": "exact"},
        "dataset": args["folder"],
        "verify": False,
        "blobs": str(blobs),
        "resume": None,
        "evaluations": [],
        "every_seconds": None,
        "workloads": [],
    }
    seen: list[tuple[int, float]] = []
    async with children.job(
        "agents.trainer.jobs.train:main", given, profile=torch_profile(1), purpose="train"
    ) as child:
        async for frame in child:
            if frame.kind == "window.recorded":
                seen.append((frame.data["data"]["last"], time.perf_counter()))
            if frame.kind == "finished":
                await child.order("leave", keep=False)
    (first, begin), (last, end) = seen[0], seen[-1]
    return 1e6 * (end - begin) / (last - first)


def request(widths: list[int], steps: int) -> dict[str, Any]:
    """A training of about this many steps, evaluated at its end alone."""
    epochs = max(1, steps * BATCH // ROWS)
    return {
        "data": {"source": "digits"},
        "model": {"architecture": "mlp", "hidden": widths, "dropout": 0.0},
        "optimizer": {"type": "adamw", "learning_rate": 1e-3},
        "training": {"epochs": epochs, "batch_size": BATCH, "grad_clip": 1.0, "threads": 1},
        "validation": {"every_epochs": epochs},
        "early_stopping": {"enabled": False},
        "export": {"formats": []},
    }


def prepare(job: Job) -> dict[str, Any]:
    """In a job: rows of noise as a canonical dataset, and the plan that trains on them."""
    import numpy as np

    from runtime.engine import dataset
    from runtime.engine.facts import describe
    from runtime.engine.plan import Plan
    from runtime.engine.resolve import resolve

    noise = np.random.default_rng(1)
    splits = {
        name: {"x": noise.normal(size=(rows, 64)).astype("<f4"), "y": noise.integers(0, 10, rows).astype("<i8")}
        for name, rows in (("train", ROWS), ("val", 1000))
    }
    facts = describe(splits, "classification", labels=[str(n) for n in range(10)])
    if not Path(job.args["folder"]).exists():
        dataset.write(Path(job.args["folder"]), splits, facts)
    asked = read_request(request(job.args["widths"], job.args["steps"]))
    return {"plan": Plan(asked, resolve(asked, facts, cores=1)).as_json()}


def bare(job: Job) -> dict[str, Any]:
    """In a job: the loop that anybody would write, and how long a step of it takes."""
    import torch

    from runtime.engine import seal
    from runtime.engine.dataset import Dataset

    seal.apply(threads=1, profile="exact")
    columns = Dataset.open(Path(job.args["folder"]), verify=False).columns("train")
    x, y = (torch.from_numpy(columns[name].copy()) for name in ("x", "y"))
    widths = [64, *job.args["widths"]]
    layers: list[torch.nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [torch.nn.Linear(a, b), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(widths[-1], 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    order = torch.randperm(len(x))
    begin = time.perf_counter()
    for step in range(job.args["steps"]):
        at = step * BATCH % (len(x) - BATCH)
        rows = order[at : at + BATCH]
        loss = torch.nn.functional.cross_entropy(model(x.index_select(0, rows)), y.index_select(0, rows))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return {"us": 1e6 * (time.perf_counter() - begin) / job.args["steps"]}


if __name__ == "__main__":
    main()
