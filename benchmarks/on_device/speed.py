"""What a device's time goes into: strictness, roots, checkpoints, and our training beside a bare loop."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from agents.resource_monitor.gpus import find_gpus
from benchmarks.on_device import jobs
from benchmarks.on_device.bits import Figures, Rows, request, rows
from benchmarks.on_device.jobs import DeviceTask
from benchmarks.trained import Bench

LARGE = {"kind": "images", "count": 20_000, "val": 512}
MANY = {"kind": "numbers", "count": 20_000, "val": 512}


def _models(*, quick: bool) -> dict[str, tuple[dict[str, Any], Rows]]:
    """Small and large ones: what waits for launches, and what waits for arithmetic."""
    wide = {"architecture": "mlp", "hidden": [1024, 1000], "dropout": 0.0}
    if quick:
        return {"mlp_1m": ({"model": wide}, MANY | {"count": 2000})}
    deep = {"architecture": "resnet", "width": 64, "blocks": [2, 2, 2, 2]}
    attends = {"architecture": "transformer", "width": 256, "heads": 8, "layers": 4, "dropout": 0.1}
    return {
        "mlp_1m": ({"model": wide}, MANY),
        "resnet_11m": ({"model": deep, "training": {"batch_size": 256, "precision": "bf16"}}, LARGE),
        "transformer_3m": ({"model": attends, "training": {"batch_size": 256, "precision": "bf16"}}, rows("tokens")),
    }


def _asked(sections: dict[str, Any], device: str, epochs: int) -> dict[str, Any]:
    training = {"device": device, "epochs": epochs} | sections.get("training", {})
    rest = {"validation": {"every_epochs": epochs}, "checkpoints": {"every_steps": "auto"}}
    return request(**sections | rest | {"training": training})


async def strictness(bench: Bench, *, quick: bool) -> Figures:
    """The bare loop strict, free, and free with TF32."""
    figures: Figures = {}
    for name, (sections, of) in _models(quick=quick).items():
        plan = await bench.plan(_asked(sections, bench.device, 1), of)
        given = {"turns": 3, "steps": 20 if quick else 100, "warm": 5 if quick else 30}
        taken = await bench.ask(jobs.strict, DeviceTask(bench.device, plan=plan, dataset=bench.rows(of), **given))
        figures |= {
            f"strict_us_{name}": statistics.median(taken["strict"]),
            f"strict_over_free_{name}": _ratio(taken["strict"], taken["free"]),
            f"strict_over_tf32_{name}": _ratio(taken["strict"], taken["tf32"]),
        }
    return figures


async def roots(bench: Bench, *, quick: bool) -> Figures:
    """A root over the weights every fifty steps: in line, as the engine has it, and on a stream of its own."""
    wide = {"architecture": "mlp", "hidden": [256] if quick else [2040, 2040, 2040], "dropout": 0.0}
    of = MANY | {"count": 2000} if quick else MANY
    plan = await bench.plan(_asked({"model": wide}, bench.device, 1), of)
    given = {"turns": 2 if quick else 3, "steps": 100 if quick else 400}
    taken = await bench.ask(jobs.roots, DeviceTask(bench.device, plan=plan, dataset=bench.rows(of), **given))
    if not taken["same"]:
        raise AssertionError("the roots that were computed aside are not those in line")
    return {
        "root_mb": taken["weights_mb"],
        "root_ms": taken["root_ms"],
        "root_bring_ms": taken["bring_ms"],
        "root_inline_over_none": _ratio(taken["inline"], taken["none"]),
        "root_aside_over_none": _ratio(taken["aside"], taken["none"]),
    }


async def stall(bench: Bench, *, quick: bool) -> Figures:
    """For how long training stands still for a checkpoint of 100 MB."""
    taken = await bench.ask(jobs.stall, DeviceTask(bench.device, turns=3 if quick else 15))
    return {"finite_ms_100mb": taken["finite"], "stall_ms_100mb": taken["stall"]}


async def utilisation(bench: Bench, *, quick: bool) -> Figures:
    """The real training job beside the bare loop: time per step, and how busy the device says it was."""
    figures: Figures = {}
    for name, (sections, of) in _models(quick=quick).items():
        ratios, busy, steps = [], {"ours": [], "bare": []}, 0
        for turn in range(1 if quick else 2):
            plan = await bench.plan(_asked(sections, bench.device, _epochs(name, quick=quick)), of)
            steps = plan["resolved"]["steps_total"]
            given = {"warm": 10, "turns": 1, "steps": steps}
            async with _watched(busy["bare"]):
                theirs = await bench.ask(
                    jobs.bare, DeviceTask(bench.device, plan=plan, dataset=bench.rows(of), **given)
                )
            async with _watched(busy["ours"]):
                ours = await bench.train(plan, of, f"use-{name}-{turn}")
            ratios.append(ours.us / theirs["us"][0])
        figures |= {f"ours_over_bare_{name}": statistics.median(ratios), f"bare_steps_{name}": steps}
        figures |= {f"busy_percent_{whose}_{name}": max(seen) for whose, seen in busy.items() if seen}
    return figures


def _epochs(name: str, *, quick: bool) -> int:
    return 4 if quick else {"mlp_1m": 4, "resnet_11m": 4, "transformer_3m": 20}[name]


@asynccontextmanager
async def _watched(seen: list[float]) -> AsyncIterator[None]:
    """Inside, the use of the first GPU is read five times a second; nothing where there is none."""
    gpus = find_gpus()
    if gpus is None:
        yield
        return

    async def read() -> None:
        while True:
            percent = gpus.read()[0].percent
            seen.extend([] if percent is None else [percent])
            await asyncio.sleep(0.2)

    reading = asyncio.create_task(read())
    try:
        yield
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        gpus.close()


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
