"""The peers of `benchmarks/overhead.py`: each is a process that is asked for steps and says how long one took."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.peers.contender import REQUIREMENTS, contender

HERE = Path(sys.executable)
TASK = {"widths": [8], "rows": 640, "batch": 64}
ROOT = REQUIREMENTS.parents[2]


@pytest.mark.parametrize("name", ["bare", "loader"])
async def test_a_peer_says_how_long_a_step_took_as_often_as_it_is_asked(name: str, tmp_path: Path) -> None:
    async with contender(HERE, name, TASK, tmp_path) as peer:
        assert await peer.us(20) > 0
        assert await peer.us(5) > 0


async def test_a_peer_that_ends_leaves_its_last_words(tmp_path: Path) -> None:
    async with contender(HERE, "bare", TASK | {"widths": ["no width"]}, tmp_path) as peer:
        with pytest.raises(RuntimeError, match="TypeError"):
            await peer.us(1)


def test_every_peer_is_pinned_and_torch_is_the_build_that_we_run() -> None:
    lines = [one for one in REQUIREMENTS.read_text().splitlines() if not one.startswith("#")]
    assert all("==" in one for one in lines)
    (torch,) = [one for one in lines if one.startswith("torch==")]
    assert torch in (ROOT / "constraints.txt").read_text().splitlines()
