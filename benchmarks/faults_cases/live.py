"""The same requests in a swarm that runs: a host, a broker, agents in their own time; what they decided is compared."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.faults_cases.kept import decisions_in
from runtime.api.swarm import Swarm
from runtime.home.home import Home
from runtime.log.archive import Archive

PATIENCE = 300.0
"""Seconds in which all sessions together are sealed."""


async def decided_live(
    home: Path, rows: Path, requests: Sequence[Mapping[str, Any]], workload: Path
) -> list[list[str]]:
    """What was decided in each request's session, which all are held at once in a swarm of a home of its own."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "settings.toml").write_text(f'data_roots = ["{rows}"]\n')
    swarm = [sys.executable, "-P", "-m", "runtime.cli.start"]
    subprocess.run([*swarm, "workload", "add", str(workload), "--name", "fault_bench", "--home", str(home)], check=True)
    try:
        async with Swarm.start(home=home) as running:
            ids = [await running.submit(one, folder=rows) for one in requests]
            return [await _decided(running, home, one) for one in ids]
    finally:
        await asyncio.to_thread(subprocess.run, [*swarm, "down", "--home", str(home)], check=False)


async def _decided(running: Swarm, home: Path, session: str) -> list[str]:
    async with asyncio.timeout(PATIENCE):
        while not (await running.session(session)).get("sealed"):
            await asyncio.sleep(0.2)
    return decisions_in(Archive(Home(home)).history(session))
