"""What a trial of a search costs beside its training: a search of 200 tiny trials in a swarm with two slots.

    trial_ms          wall time from the request of the search to its end, over its trials
    cpu_ms            processor time that the host, its children and the server used meanwhile, over the trials
    sealed            trials that are sealed when the search has ended
    audited, failed   trials that were drawn and computed again in full, and those of them that did not pass
    NAME_ms           by the clocks of the log, the median time of a trial: from its request until its dataset is
                      prepared (`prepare`), a trainer has claimed it (`claim`), its first window (`start`) and its
                      completion (`train`) are recorded, and it is sealed (`seal`); and from the latest end of a trial
                      that had to be known until the next one is requested (`choose`)

`--quick` has twenty trials and audits two of them. Audits come after what is timed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import filesystem, parser, report
from contracts.hyperparameter_specialist import SearchState
from runtime.commands.client import SwarmClient
from runtime.home import settings
from runtime.home.home import Home
from runtime.jobs import process
from runtime.log.archive import Archive
from runtime.log.session_log import SessionLog

SWARM = [sys.executable, "-m", "runtime.cli.start"]
SLOTS = 2
BASE = {
    "name": "tiny",
    "data": {"source": "digits"},
    "model": {"architecture": "mlp", "hidden": [16]},
    "training": {"epochs": 2, "batch_size": 64},
    "export": {"formats": []},
}
SPACE = {
    "optimizer.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "optimizer.weight_decay": {"type": "float", "low": 1e-6, "high": 1e-1, "log": True},
    "model.dropout": {"type": "float", "low": 0.0, "high": 0.5},
}
PHASES = {
    "dataset.prepared": "prepare_ms",
    "training.claimed": "claim_ms",
    "window.recorded": "start_ms",
    "training.completed": "train_ms",
    "session.sealed": "seal_ms",
}
"""The events with which the phases of a trial end."""


def main() -> None:
    """Search, then audit what is drawn."""
    asks = parser(__doc__ or "")
    asks.add_argument("--sampler", default="auto")
    asks.add_argument("--trials", type=int, default=200)
    asked = asks.parse_args()
    trials, audits = (20, 2) if asked.quick else (asked.trials, 10)
    with tempfile.TemporaryDirectory(prefix="trials", dir=os.environ.get("SWARM_BENCH_DIR")) as folder:
        home, load = Path(folder) / "home", os.getloadavg()[0]
        swarm(home, "up", "-d", "--slots", str(SLOTS))
        try:
            figures, sessions = asyncio.run(searched(home, trials, asked.sampler))
            drawn = random.Random(trials).sample(sessions, audits)
            verdicts = [audited(home, session) for session in drawn]
        finally:
            swarm(home, "down")
        figures |= {"audited": len(verdicts), "failed": sum(verdict != "pass" for verdict in verdicts)}
        notes = {"load": f"{load:.1f} before, {os.getloadavg()[0]:.1f} after", "filesystem": filesystem(home)}
        report(asked, figures, notes | {"sampler": asked.sampler})


def swarm(home: Path, *words: str) -> str:
    """What one command on a home prints."""
    done = subprocess.run([*SWARM, "--home", str(home), *words], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


async def searched(home: Path, trials: int, sampler: str) -> tuple[dict[str, float], list[str]]:
    """The figures of a search that was seen to its end, and the sessions of its trials."""
    host = Home(home).host()
    assert host is not None
    assert host.server_pid is not None
    async with SwarmClient.connect(settings.load(home=str(home))) as client:
        # The first training finds its zygote and the dataset, which is no matter of searches.
        await client.wait(await client.submit(BASE))
        request = {"base": BASE, "space": SPACE, "trials": trials, "parallel": SLOTS, "sampler": sampler}
        begun, used = time.perf_counter(), cpu_seconds(host.pid) + cpu_seconds(host.server_pid)
        search = await client.submit(request, kind="search")
        await client.wait(search)
        took = time.perf_counter() - begun
        used = cpu_seconds(host.pid) + cpu_seconds(host.server_pid) - used
    archive = Archive(Home(home))
    log = archive.read(search).history
    sessions = [trial.session for trial in SearchState.of(log.state).trials]
    logs = [archive.read(session).history for session in sessions]
    figures: dict[str, float] = {"trials": len(sessions), "trial_ms": 1000 * took / len(sessions)}
    figures |= {"cpu_ms": 1000 * used / len(sessions), "sealed": sum(log.state.sealed is not None for log in logs)}
    seconds = defaultdict[str, list[float]](list)
    for each in logs:
        for name, taken in phases(each):
            seconds[name].append(taken)
    for name, taken in choices(log):
        seconds[name].append(taken)
    return figures | {name: 1000 * median(taken) for name, taken in seconds.items()}, sessions


def phases(log: SessionLog) -> Iterator[tuple[str, float]]:
    """The seconds that each phase of a trial took."""
    before, left = at(log, 0), list(PHASES)
    for place, fact in enumerate(log.facts):
        if left and fact.name == left[0]:
            yield PHASES[left.pop(0)], at(log, place) - before
            before = at(log, place)


def choices(log: SessionLog) -> Iterator[tuple[str, float]]:
    """The seconds between the words of a search after which a trial may begin and those that it has begun."""
    for place, fact in enumerate(log.facts):
        if place and fact.name == "trial.started":
            yield "choose_ms", at(log, place) - at(log, place - 1)


def at(log: SessionLog, place: int) -> float:
    """When a fact was said, by its writer's clock."""
    return datetime.fromisoformat(log.facts[place].envelope.time).timestamp()


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and its children so far, of those that have ended too."""
    children = (each for list in Path(f"/proc/{pid}/task").glob("*/children") for each in list.read_text().split())
    return (process.cpu_seconds(pid) or 0.0) + sum(cpu_seconds(int(child)) for child in children)


def audited(home: Path, session: str) -> str:
    """The verdict of a full audit of a trial."""
    told = json.loads(swarm(home, "audit", session, "--mode", "full", "--json").splitlines()[-1])
    return str(told["verdict"])


if __name__ == "__main__":
    main()
