"""Whether a device gives the same bits again: fingerprints, replays, a killed training, a whole swarm."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from benchmarks.on_device.jobs import DeviceTask, measured
from benchmarks.trained import Bench, Told
from tests import chaos
from tests.harness import small_request

Figures = dict[str, float]
Rows = dict[str, Any]
EVERY = 50
PATIENCE = 30.0


def request(**sections: Any) -> dict[str, Any]:
    """Two hundred steps in windows of fifty, two evaluations, a checkpoint at every window."""
    base: dict[str, Any] = {
        "data": {"source": "csv", "path": "made-up.csv", "target": "y"},
        "validation": {"every_epochs": 2},
        "checkpoints": {"every_steps": EVERY},
        "early_stopping": {"enabled": False},
        "export": {"formats": []},
    }
    training = {"epochs": 4, "batch_size": 64, "threads": 1} | sections.pop("training", {})
    return base | sections | {"training": training}


def rows(kind: str, *, quick: bool = False) -> Rows:
    """Rows for two hundred steps: fifty batches an epoch."""
    return {"kind": kind, "count": 400 if quick else 3200, "val": 64 if quick else 512}


def cases(device: str, *, quick: bool) -> Mapping[str, tuple[dict[str, Any], Rows]]:
    """What is trained twice, by name: a request and its rows; every model family and every precision is among them."""
    half = "fp16" if device == "cuda" else "bf16"
    on = {"device": device, "batch_size": 8 if quick else 64}
    wide, depth = (8, 1) if quick else (16, 2)
    models: dict[str, dict[str, Any]] = {
        "mlp": {"architecture": "mlp", "hidden": [346], "dropout": 0.1},
        "cnn": {"architecture": "cnn", "channels": [wide, 2 * wide], "dropout": 0.1},
        "resnet": {"architecture": "resnet", "width": wide, "blocks": [1] * depth},
        "transformer": {"architecture": "transformer", "width": 4 * wide, "heads": 4, "layers": depth, "dropout": 0.1},
    }
    precise = on | {"precision": half}
    return {
        "mlp fp32": (request(model=models["mlp"], training=on), rows("numbers", quick=quick)),
        "cnn bf16": (
            request(model=models["cnn"], training=on | {"precision": "bf16", "ema": {"decay": 0.9}}),
            rows("images", quick=quick),
        ),
        "resnet fp32": (request(model=models["resnet"], training=on), rows("images", quick=quick)),
        f"transformer {half}": (request(model=models["transformer"], training=precise), rows("tokens", quick=quick)),
    }


async def fingerprints(bench: Bench) -> Figures:
    """Every precision in two fresh processes."""
    figures: Figures = {}
    precisions = ("fp32", "bf16", "fp16") if bench.device == "cuda" else ("fp32", "bf16")
    for precision in precisions:
        task = DeviceTask(bench.device, precision)
        one, other = [await bench.ask(measured, task) for _ in range(2)]
        if one["digest"] != other["digest"] or not (one["same"] and other["same"]):
            raise AssertionError(f"two fingerprints of {precision} differ")
        figures |= {
            f"fingerprint_{precision}_s": other["again_s"],
            f"fingerprint_{precision}_first_s": other["first_s"],
            f"fingerprint_{precision}_unable": len(one["unable"]),
        }
    return figures


async def replayed(bench: Bench, name: str, asked: dict[str, Any], of: Rows) -> Figures:
    """Two hundred steps twice, in fresh processes; then once more, killed on the way and taken up again."""
    word = name.replace(" ", "_")
    plan = await bench.plan(asked, of)
    whole, again = await bench.train(plan, of, f"{word}-1"), await bench.train(plan, of, f"{word}-2")
    _same(whole, again, f"{name} trained twice")
    until = random.SystemRandom().choice((2 * EVERY, 3 * EVERY))
    broken = await bench.train(plan, of, f"{word}-3", until=until)
    if not broken.killed:
        raise AssertionError(f"{name}: the child had ended before it was killed")
    rest = await bench.train(plan, of, f"{word}-3", after=broken)
    _same(whole, rest, f"{name} resumed")
    steps = whole.of("window.recorded")[-1]["last"]
    return {f"replayed_steps_{word}": steps, f"resumed_steps_{word}": steps - _begins(rest)}


def _begins(told: Told) -> int:
    return int(told.of("window.recorded")[0]["first"])


def _same(whole: Told, other: Told, what: str) -> None:
    """Every window and evaluation from where the other begins, and the root over all state at the end."""
    wanted, found = whole.path(_begins(other)), other.path()
    for one, another in zip(wanted, found, strict=False):
        if one != another:
            differing = sorted(key for key in one[1] if one[1][key] != another[1].get(key))
            raise AssertionError(f"{what}: {one[0]} up to step {one[1].get('last', one[1].get('step'))}: {differing}")
    if len(wanted) != len(found) or whole.root != other.root:
        raise AssertionError(f"{what}: {len(found)} records of {len(wanted)}, root {other.root} not {whole.root}")


async def swarm(bench: Bench) -> Figures:
    """One session of a real swarm whose training child is killed; every span of it is computed again by an audit."""
    asked = small_request(
        model={"architecture": "mlp", "hidden": [64], "dropout": 0.1},
        training={"epochs": 400, "batch_size": 64, "device": bench.device},
        validation={"every_epochs": 20},
        checkpoints={"every_steps": 200},
        early_stopping={"enabled": False},
    )
    undisturbed = await chaos.undisturbed(bench.folder / "undisturbed", asked)
    arena = chaos.Arena(bench.folder / "swarm")
    try:
        await chaos.risen(arena)
        begun = time.perf_counter()
        session = await arena.submit(asked, "on a device")
        await chaos.grown(arena, session, by=20)
        killed = await _kill_trainer(arena)
        await arena.ended(session)
        took = time.perf_counter() - begun
        found = await arena.judge(session, undisturbed)
        audit = (await arena.swarm("audit", session, "--mode", "full")).json
    finally:
        await arena.down()
    if not killed:
        raise AssertionError("no training child was there to be killed")
    if found or audit.get("verdict") != "pass":
        raise AssertionError("; ".join([*found, f"audit: {audit}"])[:2000])
    return {
        "swarm_kills": killed,
        "swarm_session_s": took,
        "swarm_spans_checked": audit["spans_checked"],
        "swarm_spans_total": audit["spans_total"],
    }


async def _kill_trainer(arena: chaos.Arena) -> int:
    """SIGKILL to the child that trains, as soon as the host names it; how many there were when time was up."""
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while True:
                host = arena.home.host()
                named = [one["pid"] for one in host.children if one["purpose"] == "train"] if host else []
                with suppress(ProcessLookupError):
                    for pid in named:
                        os.kill(pid, signal.SIGKILL)
                        return 1
                await asyncio.sleep(0.02)
    return 0
