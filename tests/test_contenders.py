"""The peers of `benchmarks/overhead.py`: each is a process that is asked for steps and says how long one took."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.peers import bare, kernels
from benchmarks.peers.contender import REQUIREMENTS, contender
from benchmarks.peers.turns import Task

HERE = Path(sys.executable)
TASK = {"widths": [8], "rows": 640, "batch": 64}
ROOT = REQUIREMENTS.parents[2]


@pytest.mark.parametrize("name", ["bare", "kernels", "loader"])
async def test_a_peer_says_how_long_a_step_took_as_often_as_it_is_asked(name: str, tmp_path: Path) -> None:
    async with contender(HERE, name, TASK, tmp_path) as peer:
        assert await peer.us(20) > 0
        assert await peer.us(5) > 0


def test_the_loop_over_kernels_computes_what_the_bare_loop_does(tmp_path: Path) -> None:
    task = Task((8,), 640, 64, tmp_path)
    torch.manual_seed(1)
    trained = [task.model()]
    trained.append(copy.deepcopy(trained[0]))
    before = copy.deepcopy(trained[0].state_dict())
    for begin, model in zip((bare.begin, kernels.begin), trained, strict=True):
        torch.manual_seed(2)
        begin(task, model=model)(20)
    first, second = (one.state_dict() for one in trained)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], before[name]) for name in first)


async def test_a_peer_that_ends_leaves_its_last_words(tmp_path: Path) -> None:
    async with contender(HERE, "bare", TASK | {"widths": ["no width"]}, tmp_path) as peer:
        with pytest.raises(RuntimeError, match="TypeError"):
            await peer.us(1)


def test_every_peer_is_pinned_and_torch_is_the_build_that_we_run() -> None:
    lines = [one for one in REQUIREMENTS.read_text().splitlines() if not one.startswith("#")]
    assert all("==" in one for one in lines)
    (torch,) = [one for one in lines if one.startswith("torch==")]
    assert torch in (ROOT / "constraints.txt").read_text().splitlines()
