"""What the resource monitor promises: cheap samples, one alert per crossing, sums that say how much was seen."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.resource_monitor import machine
from agents.resource_monitor.agent import ResourceMonitor
from agents.resource_monitor.gates import Gate, Limit, limits, values
from agents.resource_monitor.machine import MachineReader, MachineReading, ProcessReading, processes, size_of
from agents.resource_monitor.usage import Sample, SwarmProcess, Tally, sample, seconds_between
from bus import subjects
from contracts.request import read_request
from contracts.resource_monitor import ProcessUsage, ResourcesAlerted, ResourcesSummarised
from contracts.session import SessionState
from runtime.host.swarm_node import SwarmNode
from runtime.jobs import resources
from tests import harness

LIMIT = Limit("memory", 80, 90, 5, "")


def reading(uptime: float = 0.0, busy: float = 0.0, total: float = 0.0, **changes: int) -> MachineReading:
    levels = {"memory_used": 1, "memory_total": 4, "disk_free": 10**12, "received": 0, "sent": 0}
    return MachineReading(uptime, busy, total, **(levels | changes))


def sampled(**changes: Any) -> Sample:
    made = sample(reading(0.0, 0.0, 0.0), reading(1.0, 0.5, 2.0), (), ())
    return Sample(**{**{name: getattr(made, name) for name in Sample.__slots__}, **changes})


def member(pid: int, seconds: float, session: str = "s", purpose: str = "train", memory: int = 10) -> SwarmProcess:
    return SwarmProcess(purpose, session, ProcessReading(pid, seconds, memory))


# The machine


def test_this_machine_can_be_read_in_well_under_a_millisecond(tmp_path: Path) -> None:
    here = MachineReader(tmp_path)
    seen = here.read()
    assert 0 < seen.memory_used < seen.memory_total
    assert seen.disk_free > 0
    began = time.process_time()
    for _ in range(100):
        here.read()
    assert (time.process_time() - began) / 100 < 0.002


def test_a_process_tells_its_time_and_memory_and_one_that_has_ended_is_left_out() -> None:
    (mine,) = processes([os.getpid(), 2**22 + 1])
    assert mine.pid == os.getpid()
    assert mine.cpu_seconds > 0
    assert mine.memory_bytes > 1 << 20


def test_loopback_traffic_is_no_network_traffic() -> None:
    text = (
        "Inter-|   Receive  |  Transmit\n face |bytes packets\n"
        "    lo: 500 1 0 0 0 0 0 0 500 1 0 0 0 0 0 0\n"
        "  eth0: 70 1 0 0 0 0 0 0 30 1 0 0 0 0 0 0\n"
    )
    assert machine._network(text) == (70, 30)


def test_memory_that_can_be_had_back_is_not_used() -> None:
    text = b"MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 600 kB\n"
    assert resources.counted(text) == (400 * 1024, 1000 * 1024)


def test_a_container_has_the_memory_of_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 200\n")
    monkeypatch.setattr(resources, "CGROUP", tmp_path)
    assert resources.within_limit(4000, 8000) == (500, 1000)
    (tmp_path / "memory.max").write_text("max\n")
    assert resources.within_limit(4000, 8000) == (4000, 8000)


def test_time_waiting_for_a_disk_is_idle_time() -> None:
    busy, total = machine._cpu(b"cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 1 1 1\n")
    assert busy / total == pytest.approx(0.2)


def test_the_size_of_a_folder_is_that_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_bytes(b"12345")
    (tmp_path / "two").write_bytes(b"123")
    assert size_of(tmp_path) == 8
    assert size_of(tmp_path / "none") == 0


# Samples


def test_a_sample_is_what_lies_between_two_readings() -> None:
    before, now = reading(10.0, 5.0, 40.0, received=100), reading(12.0, 8.0, 48.0, received=300, sent=50)
    seen = sample(before, now, [member(1, 1.0)], [member(1, 2.0), member(2, 1.0)])
    assert seen.cpu_percent == pytest.approx(37.5)
    assert seen.cpu_percent_of_others == pytest.approx(12.5)
    assert (seen.received_per_s, seen.sent_per_s) == (100.0, 25.0)


def test_counters_that_were_set_back_make_no_negative_rates() -> None:
    seen = sample(reading(10.0, 5.0, 40.0, received=100), reading(11.0, 4.0, 44.0), [member(1, 5.0)], [member(1, 1.0)])
    assert seen.cpu_percent == 0.0
    assert seen.received_per_s == 0.0


def test_a_session_is_shown_its_own_processes() -> None:
    shown = sampled(members=(member(1, 1.0, "mine"), member(2, 1.0, "another"))).telemetry("mine")
    assert [one["pid"] for one in shown["children"]] == [1]
    orjson.dumps(shown)


# Thresholds


def test_a_level_falls_only_a_margin_below_where_it_rose() -> None:
    gate, levels = Gate(LIMIT), []
    for value in (79, 80, 79, 76, 74, 91, 86, 84, 70):
        gate = gate.after(value)
        levels.append(gate.level)
    assert levels == ["", "warning", "warning", "warning", "", "critical", "critical", "warning", ""]


def test_a_level_rises_only_when_a_value_stays() -> None:
    gate = Gate(Limit("cpu", 80, 90, 5, "", samples=3))
    for value in (95, 95, 10, 95, 95):
        gate = gate.after(value)
        assert gate.level == ""
    assert gate.after(95).level == "critical"


def test_little_room_is_what_is_wrong_with_a_disk() -> None:
    gate = Gate(Limit("disk", 400, 100, 50, "", below=True))
    assert [gate.after(value).level for value in (500, 400, 99)] == ["", "warning", "critical"]
    assert gate.after(99).after(140).level == "critical"
    assert gate.after(99).after(160).level == "warning"


def test_what_is_not_known_crosses_nothing() -> None:
    assert Gate(LIMIT).after(95).after(None).level == "critical"
    assert Gate(LIMIT).after(None) == Gate(LIMIT)


@given(st.lists(st.floats(0, 100), max_size=60), st.integers(1, 4))
def test_a_value_that_trembles_within_the_margin_is_told_once(found: list[float], samples: int) -> None:
    gate, levels = Gate(Limit("memory", 80, 90, 5, "", samples=samples)), [""]
    for value in found:
        gate = gate.after(value)
        levels.append(gate.level)
        if value < 75:
            assert gate.level == ""
    rises = sum(levels[n] != "critical" and levels[n + 1] == "critical" for n in range(len(levels) - 1))
    assert rises <= 1 + sum(value < 85 for value in found)


def test_every_resource_has_a_limit_and_a_value() -> None:
    known = {limit.resource for limit in limits(min_free_disk=1, store_bytes=100)}
    hot = machine.GpuReading(0, "x", 1.0, 99, 100, 95.0, 100.0)
    found = values(sampled(gpus=(hot,)), 95)
    assert set(found) == known
    gates = {limit.resource: Gate(limit) for limit in limits(min_free_disk=1, store_bytes=100)}
    assert gates["store"].after(found["store"]).level == "critical"
    for _ in range(5):
        gates["gpu_temperature"] = gates["gpu_temperature"].after(found["gpu_temperature"])
    alert = gates["gpu_temperature"].alert()
    assert alert is not None
    assert (alert.level, alert.value, alert.threshold) == ("critical", 95.0, 92)


# Sums


def test_a_sum_has_means_and_maxima_and_says_how_many_samples_it_is_of() -> None:
    tally = Tally()
    tally.add("s", sampled(cpu_percent=20.0, memory_bytes=5, members=(member(1, 1.0), member(2, 4.0, memory=30))))
    tally.add("s", sampled(cpu_percent=40.0, memory_bytes=9, members=(member(1, 3.0), member(9, 7.0, "another"))))
    summed = tally.summary(seconds=2.0, memory_total=100, disk_free=50)
    assert (summed.samples, summed.cpu_percent_mean, summed.cpu_percent_max) == (2, 30.0, 40.0)
    assert summed.memory_bytes_max == 9
    assert summed.children == {"train": ProcessUsage(processes=2, cpu_seconds=7.0, memory_bytes_max=40)}


def test_energy_is_power_times_time() -> None:
    tally = Tally()
    for watts in (100.0, 200.0):
        tally.add("s", sampled(seconds=2.0, gpus=(machine.GpuReading(0, "x", 50.0, 10, 100, 60.0, watts),)))
    (one,) = tally.summary(seconds=1.0, memory_total=1, disk_free=1).gpus
    assert (one.joules, one.watts_mean, one.celsius_max) == (600.0, 150.0, 60.0)


def test_nothing_seen_is_said_to_be_nothing() -> None:
    assert Tally().summary(seconds=1.5, memory_total=1, disk_free=1).samples == 0


def test_a_session_lasts_from_its_request_to_its_end() -> None:
    assert seconds_between("2026-01-01T00:00:00.000000Z", "2026-01-01T00:01:00.500000Z") == 60.5


# GPUs


class NoDevice(Exception):
    """What a driver raises."""


def driver(**changes: Any) -> SimpleNamespace:
    """A stand-in for NVML with one device that does not tell its power."""

    def unknown(*_: Any) -> Any:
        raise NoDevice

    calls = {
        "NVMLError": NoDevice,
        "NVML_TEMPERATURE_GPU": 0,
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda _: b"A GPU",
        "nvmlDeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=42),
        "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(used=10, total=40),
        "nvmlDeviceGetTemperature": lambda *_: 55,
        "nvmlDeviceGetPowerUsage": unknown,
    }
    return SimpleNamespace(**(calls | changes))


def test_a_device_tells_what_it_knows() -> None:
    found = machine.Gpus(driver())
    assert found.read() == [machine.GpuReading(0, "A GPU", 42.0, 10, 40, 55.0, None)]
    found.close()


def test_without_a_driver_a_library_or_a_device_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise NoDevice

    for stand_in in (driver(nvmlInit=refuse), driver(nvmlDeviceGetCount=lambda: 0)):
        monkeypatch.setattr(machine.importlib, "import_module", lambda _, found=stand_in: found)
        assert machine.find_gpus() is None

    def missing(_: str) -> Any:
        raise ImportError

    monkeypatch.setattr(machine.importlib, "import_module", missing)
    assert machine.find_gpus() is None


# The agent in a swarm


async def trained(made: SwarmNode, **changes: Any) -> SessionState:
    session = await made.ground.submit(request_for(**changes), "training", asked_by="me")
    return await harness.until_ended(made, session)


def request_for(**changes: Any) -> dict[str, Any]:
    return read_request(harness.small_request(**changes)).resolved()


async def test_a_session_is_sampled_while_it_trains_and_summed_up_when_it_ends(tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []

    async def listen(made: SwarmNode) -> None:
        async with made.bus.hear(subjects.TELEMETRY) as samples:
            async for subject, body in samples:
                if subject.endswith(".resources"):
                    heard.append(orjson.loads(body))

    async with harness.crew(tmp_path) as made:
        listening = asyncio.create_task(listen(made))
        ended = await trained(made, training={"epochs": 60, "batch_size": 16})
        listening.cancel()
    summed = ended.training.resources
    assert isinstance(summed, ResourcesSummarised)
    assert summed.samples >= 1
    assert summed.seconds > 1
    assert summed.children["train"].memory_bytes_max > 1 << 20
    assert heard
    assert heard[-1]["step"] > 0


async def test_data_that_cannot_be_used_are_summed_up_too(tmp_path: Path) -> None:
    async with harness.crew(tmp_path / "home") as made:
        source = {"source": "csv", "path": str(tmp_path / "none.csv"), "target": "y"}
        ended = await trained(made, data=source, loss={"type": "auto"})
    assert ended.state == "failed"
    assert ended.training.resources is not None


async def test_a_crossing_is_told_once_to_every_running_session_and_not_again_after_a_restart(tmp_path: Path) -> None:
    async with harness.crew(tmp_path, ("resource_monitor",)) as made:
        agent = made.supervisors["resource_monitor"].agent
        assert isinstance(agent, ResourceMonitor)
        # With a limit above any disk, the disk is short of room from the first sample on.
        short = Limit("disk", 1e18, 1, 1, "Free space.", below=True)
        agent._gates["disk"] = Gate(short)
        sessions = [await made.ground.submit(request_for(), "training", asked_by="me") for _ in range(2)]
        for session in sessions:
            fact = await harness.until_said(made, session, "resources.alerted")
            assert isinstance(fact.event, ResourcesAlerted)
            assert (fact.event.resource, fact.event.level) == ("disk", "warning")
        # A new monitor knows from the log what was told: it takes samples, and says nothing.
        await agent.begin()
        agent._gates["disk"] = Gate(short)
        for _ in range(3):
            await agent.watch()
            await agent.warn()
        assert [len(made.tail.history(session).state.training.alerts) for session in sessions] == [1, 1]
        # Room again, and short again: that is another crossing.
        agent._gates["disk"] = Gate(Limit("disk", 0, 0, 0, "", below=True))
        await agent.watch()
        await agent.warn()
        agent._gates["disk"] = Gate(short)
        await agent.watch()
        await agent.warn()
        assert [len(made.tail.history(session).state.training.alerts) for session in sessions] == [2, 2]


async def test_the_host_is_none_of_the_other_programs(tmp_path: Path) -> None:
    async with harness.crew(tmp_path, ("resource_monitor",)) as made:
        agent = made.supervisors["resource_monitor"].agent
        assert isinstance(agent, ResourceMonitor)
        agent._sample()
        seen = agent._sample()
        assert seen is not None
        assert [(one.purpose, one.session) for one in seen.members if one.process.pid == os.getpid()] == [("host", "")]


async def test_an_idle_monitor_costs_next_to_nothing(tmp_path: Path) -> None:
    async with harness.crew(tmp_path, ("resource_monitor",)) as made:
        agent = made.supervisors["resource_monitor"].agent
        assert isinstance(agent, ResourceMonitor)
        began, beats = time.process_time(), 200
        for _ in range(beats):
            await agent.watch()
            await agent.warn()
            await agent.weigh()
        # One beat stands for one second.
        assert (time.process_time() - began) / beats < 0.003


def test_a_busy_processor_is_never_critical() -> None:
    cpu = next(one for one in limits(min_free_disk=1, store_bytes=1) if one.resource == "cpu")
    assert (cpu.reached(59), cpu.reached(61), cpu.reached(100)) == ("", "warning", "warning")
