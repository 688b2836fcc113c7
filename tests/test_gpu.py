"""`benchmarks/gpu.py` is run where there is a device; here is seen that all of it works but the device."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu

ROOT = Path(__file__).parents[1]
PARTS = ("fingerprint", "replay mlp", "strictness", "roots", "stall", "utilisation")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *words]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)


@pytest.mark.long
def test_every_part_that_a_cpu_can_do_passes_there(tmp_path: Path) -> None:
    chosen = [word for name in PARTS for word in ("--only", name)]
    out = ("--json", str(tmp_path / "gpu.json"), "--report", str(tmp_path / "gpu.md"))
    ended = run("--device", "cpu", "--quick", *chosen, *out)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["failed"] == {}
    assert found["figures"]["replayed_steps_mlp_fp32"] == 200
    assert 0 < found["figures"]["resumed_steps_mlp_fp32"] < 200
    assert "No part failed." in (tmp_path / "gpu.md").read_text()


def test_without_a_device_the_page_says_that_nothing_was_measured(tmp_path: Path) -> None:
    ended = run("--report", str(tmp_path / "gpu.md"))
    assert ended.returncode == 6
    assert "nothing was measured" in (tmp_path / "gpu.md").read_text()


async def test_a_part_that_fails_is_told_with_its_reason_and_the_others_go_on() -> None:
    async def breaks() -> dict[str, float]:
        raise RuntimeError("no kernel for it")

    async def works() -> dict[str, float]:
        return {"figure": 1.0}

    async def lasts() -> dict[str, float]:
        await asyncio.Event().wait()
        return {"never": 0.0}

    found = gpu.Findings("cuda")
    await found.tried("first", breaks, 10)
    await found.tried("second", works, 10)
    await found.tried("third", lasts, 0)
    told = gpu.page(found)
    assert "- first: RuntimeError: no kernel for it" in told
    assert "- third: it had not ended" in told
    assert "| figure | 1 |" in told
    assert found.figures == {"figure": 1.0}


async def test_a_part_that_is_tried_again_replaces_what_an_earlier_run_said_of_it(tmp_path: Path) -> None:
    async def works() -> dict[str, float]:
        return {"figure": 1.0}

    async def breaks() -> dict[str, float]:
        raise RuntimeError("no kernel for it")

    kept, first = tmp_path / "gpu.json", gpu.Findings("cuda")
    await first.tried("sound", works, 10)
    await first.tried("broken", breaks, 10)
    first.keep(kept, None)
    second = gpu.Findings.before("cuda", kept)
    await second.tried("broken", works, 10)
    assert (second.figures, second.failed) == ({"figure": 1.0}, {})
    assert {"sound", "broken"} <= second.seconds.keys()
    assert gpu.Findings.before("cuda", tmp_path / "none.json").figures == {}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_precision_of_a_device_is_replayed(device: str) -> None:
    named = {name.rpartition(" ")[2] for name in gpu.bits.cases(device, quick=False)}
    assert named == {"fp32", "bf16"} | ({"fp16"} if device == "cuda" else set())
