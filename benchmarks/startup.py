"""How soon a swarm is there, and what it costs to keep it.

ready_s              `swarm up -d` from nothing to all agents ready (median)
first_step_s         a warm swarm: from submitting a request to the first recorded window (median)
help_cpu_ms          processor time of `swarm --help` (median)
idle_cpu_percent     host and server together, of one core, while nothing happens
host_mb, server_mb   resident memory of the light host and of the server then
"""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import filesystem, options, report
from runtime.commands.client import SwarmClient
from runtime.home import settings
from runtime.home.home import Home

SWARM = [sys.executable, "-m", "runtime.cli.start"]
TICKS = os.sysconf("SC_CLK_TCK")
REQUEST = {
    "name": "startup",
    "data": {"source": "digits"},
    "model": {"architecture": "mlp", "hidden": [32]},
    "training": {"epochs": 2, "batch_size": 64},
    "export": {"formats": []},
}


def main() -> None:
    """Measure one after the other."""
    asked = options(__doc__ or "")
    turns = 3 if asked.quick else 7
    with tempfile.TemporaryDirectory(prefix="startup") as folder:
        figures = {
            "help_cpu_ms": help_cpu_ms(turns),
            "ready_s": statistics.median(ready_s(Path(folder) / f"home{n}") for n in range(turns)),
            **idle_and_warm(Path(folder) / "warm", turns, idle=10 if asked.quick else 60),
        }
        report(asked, figures, {"filesystem": filesystem(Path(folder)), "turns": str(turns)})


def swarm(home: Path, *words: str) -> None:
    """Run one command on a home."""
    subprocess.run([*SWARM, "--home", str(home), *words], check=True, stdout=subprocess.DEVNULL)


def help_cpu_ms(turns: int) -> float:
    """User and system time of the process that prints the help."""
    spent = []
    for _ in range(turns + 1):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*SWARM, "--help"], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(1000 * (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime))
    return statistics.median(spent[1:])


def ready_s(home: Path) -> float:
    """A new home, from the command to its return."""
    begin = time.perf_counter()
    swarm(home, "up", "-d")
    took = time.perf_counter() - begin
    swarm(home, "down")
    return took


def idle_and_warm(home: Path, turns: int, *, idle: int) -> dict[str, float]:
    """What an idle swarm costs, and how soon a session's first window is there."""
    swarm(home, "up", "-d")
    try:
        host = Home(home).host()
        assert host is not None
        assert host.server_pid is not None
        asyncio.run(first_steps(home, 1))
        pids = (host.pid, host.server_pid)
        before, begin = sum(map(cpu_seconds, pids)), time.monotonic()
        time.sleep(idle)
        percent = 100 * (sum(map(cpu_seconds, pids)) - before) / (time.monotonic() - begin)
        memory = {"host_mb": resident_mb(host.pid), "server_mb": resident_mb(host.server_pid)}
        steps = asyncio.run(first_steps(home, turns))
    finally:
        swarm(home, "down")
    return {"idle_cpu_percent": percent, **memory, "first_step_s": statistics.median(steps)}


async def first_steps(home: Path, turns: int) -> list[float]:
    """Seconds from submitting to the first window, turn by turn; each session is seen to its end."""
    took = []
    async with SwarmClient.connect(settings.load(home=str(home))) as found:
        for _ in range(turns):
            begin = time.perf_counter()
            session = await found.submit(REQUEST)
            async for line in found.events(session, follow=True):
                if line["name"] == "window.recorded":
                    took.append(time.perf_counter() - begin)
                    break
            await found.wait(session)
    return took


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_mb(pid: int) -> float:
    """Memory that a process holds."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


if __name__ == "__main__":
    main()
