"""What the resource monitor costs, as a share of one processor: its beats on this machine, with several children.

    python benchmarks/monitor.py [--quick]

A beat is what the monitor does each second while sessions train: it reads the machine and every child, judges the
thresholds, adds the sample to what each session used, writes its line and publishes it. Beats are run one after the
other here, without the second between them, and the processor time of this process is taken for each.
GPUs are read through a stand-in with eight devices whose answers cost nothing: what the driver takes is not in the
figure, and shows with `--gpus` on a machine that has some.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parents[1]))

from agents.resource_monitor import agent as monitor
from agents.resource_monitor.gpus import Gpus, find_gpus
from agents.resource_monitor.machine import MachineReader, processes
from benchmarks.report import parser, report
from runtime.jobs.children import RunningProcess
from tests import harness

DEVICES = 8


def stand_in() -> Gpus:
    """Eight devices that answer at once with figures as a data-centre device gives them."""

    class Refused(Exception):
        pass

    def nothing_new(*_: object) -> object:
        raise Refused

    return Gpus(
        SimpleNamespace(
            NVMLError=Refused,
            nvmlDeviceGetCount=lambda: DEVICES,
            nvmlDeviceGetHandleByIndex=lambda index: index,
            nvmlDeviceGetName=lambda _: "a device",
            nvmlDeviceGetUtilizationRates=lambda _: SimpleNamespace(gpu=97),
            nvmlDeviceGetMemoryInfo=lambda _: SimpleNamespace(used=60 << 30, total=139 << 30),
            nvmlDeviceGetTemperature=lambda *_: 61,
            nvmlDeviceGetPowerUsage=lambda _: 640_000,
            nvmlDeviceGetClockInfo=lambda *_: 1755,
            nvmlDeviceGetMaxClockInfo=lambda *_: 1980,
            nvmlDeviceGetCurrentClocksThrottleReasons=lambda _: 4,
            nvmlDeviceGetTotalEccErrors=lambda *_: 0,
            nvmlDeviceGetTotalEnergyConsumption=lambda _: 5_000_000,
            nvmlDeviceGetComputeRunningProcesses=lambda _: [],
            nvmlDeviceGetProcessUtilization=lambda *_: [],
            nvmlEventSetCreate=object,
            nvmlDeviceRegisterEvents=lambda *_: None,
            nvmlEventSetWait_v2=nothing_new,
            nvmlEventSetFree=lambda _: None,
            nvmlShutdown=lambda: None,
        )
    )


async def beats(home: Path, sessions: int, children: int, count: int, gpus: Gpus | None) -> list[float]:
    """Processor seconds of each beat, with so many sessions in training and children at work for each."""
    spent = []
    monitor.find_gpus = lambda: gpus
    sleepers = [subprocess.Popen(["sleep", "600"]) for _ in range(children)]
    try:
        async with harness.crew(home, ("resource_monitor",)) as made:
            agent = made.supervisors["resource_monitor"].agent
            assert isinstance(agent, monitor.ResourceMonitor)
            names = [
                await made.ground.submit(harness_request(), "training", asked_by="benchmark") for _ in range(sessions)
            ]
            for name in names:
                await made.ground.speak("trainer", name, harness.claim(1), made.tail.history(name).state.genesis_id)
            assert all(made.tail.history(name).state.state == "training" for name in names)
            running = [
                RunningProcess(one.pid, "train", names[at % sessions]) for at, one in enumerate(sleepers) if sessions
            ]
            made.children.running = lambda: running  # type: ignore[method-assign]
            for _ in range(count + 1):
                begun = time.process_time()
                await agent.watch()
                await agent.warn()
                await agent.measure()
                spent.append(time.process_time() - begun)
        return spent[1:]
    finally:
        for one in sleepers:
            one.kill()
            one.wait()


def harness_request() -> dict[str, object]:
    """A request whose session waits to be prepared: nobody else is there, and it counts as one that runs."""
    from contracts.request import read_request

    return read_request(harness.small_request()).resolved()


def main() -> None:
    asked = parser(__doc__ or "")
    asked.add_argument("--gpus", action="store_true", help="the devices of this machine instead of the stand-in")
    given = asked.parse_args()
    count = 200 if given.quick else 2000
    figures: dict[str, float] = {}
    gpus = find_gpus() if given.gpus else stand_in()
    for name, sessions, children in (("idle", 0, 0), ("one session", 1, 2), ("four sessions", 4, 8)):
        with tempfile.TemporaryDirectory() as folder:
            spent = asyncio.run(beats(Path(folder) / "home", sessions, children, count, gpus))
        figures[f"{name}, % of a core"] = 100 * statistics.fmean(spent)
        figures[f"{name}, median ms of a beat"] = 1e3 * statistics.median(spent)
    with tempfile.TemporaryDirectory() as folder:
        reader, begun = MachineReader(Path(folder)), time.process_time()
        for _ in range(count):
            reader.read()
        figures["reading the machine, us"] = 1e6 * (time.process_time() - begun) / count
    begun = time.process_time()
    for _ in range(count):
        processes([os.getpid()])
    figures["reading a process, us"] = 1e6 * (time.process_time() - begun) / count
    report(given, figures, {"gpus": "this machine's" if given.gpus else f"a stand-in with {DEVICES}"})


if __name__ == "__main__":
    main()
