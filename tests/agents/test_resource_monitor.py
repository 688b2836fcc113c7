"""What the resource monitor promises: cheap samples, one alert per crossing, sums that say how much was seen."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.resource_monitor import advice, gpus, history, machine
from agents.resource_monitor.advice import LESS_IS_BETTER, MOST_KEPT, AdviceBook, Situation, advise
from agents.resource_monitor.agent import ResourceMonitor
from agents.resource_monitor.gates import Gate, Limit, limits, values
from agents.resource_monitor.machine import MachineReader, MachineReading, ProcessReading, processes, size_of
from agents.resource_monitor.notices import Notifier
from agents.resource_monitor.usage import Sample, SwarmProcess, Tally, sample, seconds_between
from bus import process_facts, subjects
from contracts.errors import InvalidRequest
from contracts.request import read_request
from contracts.request.reading import flat
from contracts.resource_monitor import (
    AlertResource,
    ProcessUsage,
    ResourcesAdvised,
    ResourcesAlerted,
    ResourcesMeasured,
    ResourcesSummarised,
)
from contracts.session import SessionState
from runtime.home.settings import ALERTS, Receiver, Threshold
from runtime.host.swarm_node import SwarmNode
from runtime.jobs import resources
from runtime.views.blocks import Curves
from runtime.views.resources import resource_blocks, trend
from runtime.views.view import resources_reply
from tests import harness

LIMIT = Limit("memory", 80, 90, 5, "")


def reading(uptime: float = 0.0, busy: float = 0.0, total: float = 0.0, **changes: Any) -> MachineReading:
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


def test_only_whole_disks_count_and_a_process_tells_what_it_moved() -> None:
    text = (
        " 254 0 vda 10 0 8 5 20 0 16 9 0 7 14 0\n 254 1 vda1 10 0 8 5 20 0 16 9 0 7 14 0\n"
        "   7 0 loop0 1 0 99 0 1 0 99 0 0 0 0 0\n"
    )
    assert machine._disks(text, frozenset({"vda"})) == (8 * 512, 16 * 512)
    assert machine._moved("rchar: 9\nread_bytes: 4096\nwrite_bytes: 1\ncancelled_write_bytes: 7\n") == (4096, 1)
    assert machine._moved("") == (0, 0)


def test_waiting_for_disks_and_the_speed_of_the_network_are_unknown_where_nothing_tells(tmp_path: Path) -> None:
    told = "some avg10=0.48 avg60=0.80 avg300=1.63 total=1500000\nfull avg10=0.1 avg60=0.4 avg300=0.1 total=7\n"
    assert (machine._stalled(told), machine._stalled("")) == (1.5, None)
    for name, speed in {"eth0": "1000", "eth1": "-1", "veth7": "10000", "wlan0": "no number"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "speed").write_text(speed)
    assert machine._link(tmp_path) == 125e6
    assert machine._link(tmp_path / "none") == 0
    before, now = reading(0.0, stalled=1.0, link=100.0), reading(2.0, stalled=1.5, link=100.0, sent=40, received=20)
    seen, blind = sample(before, now, (), ()), sample(reading(0.0), reading(2.0), (), ())
    assert (seen.waiting_percent, seen.link_percent) == (25.0, 20.0)
    assert (blind.waiting_percent, blind.link_percent) == (None, None)


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


def test_each_child_is_told_with_what_it_took_since_the_sample_before() -> None:
    was, now = ProcessReading(1, 3.0, 10, 100, 0), ProcessReading(1, 4.0, 10, 300, 50)
    gpu = gpus.GpuReading(0, "x", 9.0, 5, 10, None, None, processes=(gpus.GpuProcess(1, 4, 7.0),))
    members = [SwarmProcess("train", "s", one) for one in (was, now)]
    (one,) = sample(reading(0.0), reading(2.0), members[:1], members[1:], [gpu]).members
    assert (one.cpu_percent, one.read_per_s, one.written_per_s) == (50.0, 100.0, 25.0)
    assert (one.gpu_memory_bytes, one.gpu_percent) == (4, 7.0)


def test_files_of_samples_stay_bounded_also_after_a_kill_within_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(history.MOST_LINES, history.SECONDS, 3)
    folder = tmp_path / "resources"
    for number in range(8):
        # Each line by another process, the third of which was killed while it wrote.
        history.BoundedLines(folder, history.SECONDS).add(b'{"n": %d}' % number)
        if number == 2:
            with (folder / "seconds.jsonl").open("ab") as file:
                file.write(b'{"n"')
    names = {path.name: path.read_bytes().splitlines() for path in folder.iterdir()}
    assert set(names) == {"seconds.jsonl", "seconds.before.jsonl"}
    assert all(len(lines) <= 3 for lines in names.values())
    assert names["seconds.jsonl"][-1] == b'{"n": 7}'
    history.BoundedLines(folder, history.SECONDS).add(b"x" * (history.LONGEST_LINE + 1))
    assert sum(path.stat().st_size for path in folder.iterdir()) < 200


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
    hot = gpus.GpuReading(0, "x", 1.0, 99, 100, 95.0, 100.0)
    found = values(sampled(gpus=(hot,)), 95)
    assert set(found) == known
    gates = {limit.resource: Gate(limit) for limit in limits(min_free_disk=1, store_bytes=100)}
    assert gates["store"].after(*found["store"]).level == "critical"
    for _ in range(5):
        gates["gpu_temperature"] = gates["gpu_temperature"].after(*found["gpu_temperature"])
    alert = gates["gpu_temperature"].alert()
    assert alert is not None
    assert (alert.level, alert.value, alert.threshold) == ("critical", 95.0, 92)


def test_settings_of_a_home_know_every_resource() -> None:
    assert (
        set(ALERTS) == set(get_args(AlertResource)) == {one.resource for one in limits(min_free_disk=1, store_bytes=1)}
    )


@pytest.mark.parametrize(
    ("resource", "figures", "levels"),
    [
        ("cpu", [61] * 30 + [55, 49], [""] * 29 + ["warning", "warning", ""]),
        ("memory", [96, 96, 96, 91, 89, 81, 79], ["", "", "critical", "critical", "warning", "warning", ""]),
        ("disk", [399, 99, 199, 201, 499, 501], ["warning", "critical", "critical", "warning", "warning", ""]),
        ("network", [95] * 30 + [71, 69], [""] * 29 + ["warning", "warning", ""]),
        ("disk_io", [61] * 30 + [41, 39], [""] * 29 + ["warning", "warning", ""]),
        ("gpu_memory", [93, 93, 93, 99, 99, 99, 87], ["", "", "warning", "warning", "warning", "critical", ""]),
        ("gpu_throttled", [100] * 10 + [0], [""] * 9 + ["warning", ""]),
        ("gpu_errors", [0, 1, 1, 2], ["", "critical", "critical", "critical"]),
    ],
)
def test_levels_rise_and_fall_as_in_the_table(resource: str, figures: list[float], levels: list[str]) -> None:
    known = {limit.resource: limit for limit in limits(min_free_disk=100, store_bytes=100)}
    gate, found = Gate(known[resource]), []
    for figure in figures:
        gate = gate.after(figure)
        found.append(gate.level)
    assert found == levels


def test_an_alert_tells_what_the_swarm_takes_and_advises_by_it() -> None:
    known = {limit.resource: limit for limit in limits(min_free_disk=1, store_bytes=100)}
    advised = {}
    for whose, memory in {"ours": 80, "theirs": 10}.items():
        seen = sampled(memory_bytes=96, memory_total_bytes=100, members=(member(1, 1.0, memory=memory),))
        value, swarm = values(seen, None)["memory"]
        gate = Gate(known["memory"]).after(value, swarm).after(value, swarm).after(value, swarm)
        alert = gate.alert()
        assert alert is not None
        assert (alert.value, alert.swarm) == (96.0, memory)
        advised[whose] = alert.advice
    assert "training.batch_size" in advised["ours"]
    assert "other programs" in advised["theirs"]
    held = gpus.GpuReading(0, "x", 9.0, 96, 100, 0, 0, processes=(gpus.GpuProcess(1, 90), gpus.GpuProcess(7, 6)))
    assert values(sampled(gpus=(held,), members=(member(1, 1.0),)), None)["gpu_memory"] == (96.0, 90.0)


def test_an_owner_s_thresholds_count_and_what_they_leave_out_stays() -> None:
    usual, changed = (
        {limit.resource: limit for limit in limits(min_free_disk=1, store_bytes=1, others=others)}
        for others in ((), (Threshold("memory", warning=50.0, samples=1),))
    )
    assert changed["memory"] == replace(usual["memory"], warning=50.0, samples=1)
    assert all(changed[name] == usual[name] for name in usual if name != "memory")


# Receivers


@asynccontextmanager
async def webhook(
    answer: bytes = b"HTTP/1.1 204 No Content\r\n\r\n",
) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """An address on this machine, and what was posted to it."""
    posted: list[dict[str, Any]] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = next(int(line.split(b":")[1]) for line in head.splitlines() if line.startswith(b"Content-Length"))
        posted.append(orjson.loads(await reader.readexactly(size)))
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?key=1", posted


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_webhook_is_told_of_an_alert_once_while_it_lasts(tmp_path: Path) -> None:
    async with webhook() as (url, posted):
        receivers = (Receiver("oncall", url=url), Receiver("quiet", url=url, level="critical"))
        async with harness.crew(tmp_path, ("resource_monitor",), notify=receivers) as made:
            agent = made.supervisors["resource_monitor"].agent
            assert isinstance(agent, ResourceMonitor)
            short, wide = (Limit("disk", size, 1, 1, "Free space.", below=True) for size in (1e18, 0))
            agent._gates["disk"] = Gate(short)
            wanted = request_for(notify=["oncall", "quiet"])
            sessions = [await made.ground.submit(wanted, "training", asked_by="me") for _ in range(2)]
            await made.ground.submit(request_for(), "training", asked_by="me")
            for session in sessions:
                await harness.until_said(made, session, "resources.alerted")
            for _ in range(3):
                await agent.watch()
                await agent.warn()
            await until(lambda: bool(posted))
            # Room again, and short again: that is another alert.
            for limit in (wide, short):
                agent._gates["disk"] = Gate(limit)
                await agent.watch()
                await agent.warn()
            await until(lambda: len(posted) > 1)
            await agent.warn()
    assert [(one["resource"], one["level"], one["session"] in sessions) for one in posted] == [
        ("disk", "warning", True),
        ("disk", "warning", True),
    ]


async def test_a_receiver_that_fails_or_hangs_delays_nobody_and_is_not_asked_too_often(tmp_path: Path) -> None:
    ran, stuck = tmp_path / "ran", tmp_path / "stuck"
    script = tmp_path / "page"
    script.write_text(f'#!/bin/sh\ncat > {ran}\necho "$1" >> {ran}\n')
    hang = tmp_path / "hang"
    hang.write_text(f"#!/bin/sh\necho $$ > {stuck}.new\nmv {stuck}.new {stuck}\nsleep 60\n")
    for program in (script, hang):
        program.chmod(0o700)
    async with webhook(b"HTTP/1.1 500 No\r\n\r\n") as (url, posted):
        notifier = Notifier(
            (
                Receiver("broken", url=url, per_hour=2),
                Receiver("away", url="http://127.0.0.1:9/"),
                Receiver("page", command=(str(script), "a b; exit 1")),
                Receiver("hang", command=(str(hang),), timeout_seconds=0.3),
            )
        )
        for label in ("broken", "broken", "broken", "away", "page", "hang"):
            notifier.tell(label, b'{"n":1}\n')
        await until(lambda: len(posted) == 2 and stuck.exists() and ran.exists() and b"exit" in ran.read_bytes())
        pid = int(stuck.read_text())
        await until(lambda: process_facts.read(pid) is None)
        await notifier.close()
    assert ran.read_text() == '{"n":1}\na b; exit 1\n'
    assert len(posted) == 2


@pytest.mark.parametrize("named", ["https://hooks.example/SECRET", "/bin/page", "me@example.org", "rm -rf", "oncall\n"])
def test_a_request_that_carries_an_address_is_refused_with_the_cure(named: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_request(harness.small_request(notify=["oncall", named]))
    (problem,) = refused.value.problems
    assert problem.path == "notify.1"
    assert problem.cure
    assert "SECRET" not in str(refused.value.as_json())


async def test_a_label_that_the_home_does_not_know_is_refused_and_one_that_it_knows_is_in_the_genesis(
    tmp_path: Path,
) -> None:
    assert "notify" not in request_for()
    assert read_request(request_for(notify=["oncall"])).notify == ("oncall",)
    async with harness.crew(tmp_path, (), notify=(Receiver("oncall", command=("/bin/true",)),)) as made:
        with pytest.raises(InvalidRequest) as refused:
            await made.ground.submit(request_for(notify=["oncal"]), "training", asked_by="me")
        assert "[[notify]]" in refused.value.problems[0].cure
        session = await made.ground.submit(request_for(notify=["oncall"]), "training", asked_by="me")
        assert made.tail.history(session).state.request["notify"] == ["oncall"]


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
        tally.add("s", sampled(seconds=2.0, gpus=(gpus.GpuReading(0, "x", 50.0, 10, 100, 60.0, watts),)))
    (one,) = tally.summary(seconds=1.0, memory_total=1, disk_free=1).gpus
    assert (one.joules, one.watts_mean, one.celsius_max) == (600.0, 150.0, 60.0)


def test_nothing_seen_is_said_to_be_nothing() -> None:
    assert Tally().summary(seconds=1.5, memory_total=1, disk_free=1).samples == 0


def test_a_trend_is_the_line_that_fits_best_and_is_none_of_few_figures() -> None:
    hours = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert trend("x", hours, [10.0, 12.0, 14.0, 16.0, 18.0, 20.0]) == ("x", 11.0, 19.0, 2.0)
    assert trend("x", hours[:5], hours[:5]) is None
    assert trend("x", [1.0] * 6, hours) is None


def test_a_session_lasts_from_its_request_to_its_end() -> None:
    assert seconds_between("2026-01-01T00:00:00.000000Z", "2026-01-01T00:01:00.500000Z") == 60.5


# Advice


def used_by(options: dict[str, Any] | None = None, **changes: Any) -> Situation:
    """A training of the usual request on two processors that leaves nothing to advise."""
    figures: dict[str, Any] = {
        "cuda": False,
        "threads": 1,
        "cores": 2,
        "spent": {"setup": 5.0, "step": 4.0, "evaluation": 1.0},
        "steps": 2000,
        "epochs": 20,
        "cores_used": 1.0,
        "cpu_percent": 60.0,
        "memory_percent": 40.0,
        "memory_bytes": 4 << 20,
        "memory_share": 0.7,
        "gpu_percent": 0.0,
        "gpu_memory_percent": 0.0,
    }
    return Situation(options=flat(request_for()) | (options or {}), **(figures | changes))


@pytest.mark.parametrize(
    ("changes", "advised"),
    [
        ({}, {}),
        ({"memory_percent": 91.0}, {"training.batch_size": 32, "training.accumulate": 2}),
        ({"memory_percent": 91.0, "memory_share": 0.2}, {}),
        (
            {"cuda": True, "gpu_percent": 70.0, "gpu_memory_percent": 95.0},
            {"training.batch_size": 32, "training.accumulate": 2},
        ),
        ({"cuda": True, "gpu_percent": 31.0, "gpu_memory_percent": 9.0}, {"training.batch_size": 128}),
        ({"cuda": True, "gpu_percent": 97.0, "gpu_memory_percent": 60.0}, {"training.precision": "bf16"}),
        ({"spent": {"step": 0.5}}, {"training.batch_size": 128}),
        ({"spent": {"step": 0.5}, "memory_percent": 75.0}, {}),
        ({"spent": {"step": 4.0, "evaluation": 4.0}}, {"validation.every_epochs": 2}),
        ({"spent": {"step": 4.0, "data": 2.0}}, {"data.workers": 1}),
        ({"spent": {"step": 4.0, "data": 2.0}, "options": {"data.workers": 2}}, {}),
        ({"spent": {"step": 4.0, "data": 2.0}, "cpu_percent": 96.0}, {}),
        (
            {
                "spent": {"step": 4.0, "data": 2.0},
                "cuda": True,
                "gpu_percent": 60.0,
                "gpu_memory_percent": 60.0,
                "options": {"data.workers": 2},
            },
            {"data.pin_memory": True},
        ),
        ({"spent": {"step": 40.0}, "cpu_percent": 50.0}, {"training.threads": 2}),
        ({"spent": {"step": 40.0}, "cpu_percent": 95.0}, {}),
        ({"spent": {"step": 40.0}, "cpu_percent": 50.0, "cores_used": 0.3}, {}),
    ],
)
def test_advice_names_options_their_values_and_what_they_are_worth(
    changes: dict[str, Any], advised: dict[str, Any]
) -> None:
    now = used_by(**changes)
    given = list(advise(now))
    assert {path: value for one in given for path, value in one.options.items()} == advised
    for one in given:
        read_request(harness.small_request(), overrides=[f"{path}={value}" for path, value in one.options.items()])
        assert one.instead_of == {path: now.options.get(path, 0) for path in one.options}
        assert one.value == now.figures()[one.figure]
        assert (one.factor < 1) == (one.figure in LESS_IS_BETTER)


def test_setting_up_and_holding_are_no_part_of_a_training_s_figures() -> None:
    figures = used_by(spent={"setup": 9.0, "held": 9.0, "step": 4.0, "evaluation": 1.0}).figures()
    assert figures == {"rows_per_second": 2000 * 64 / 5, "seconds_per_epoch": 0.25, "memory_bytes": 4 << 20}


def test_advice_is_judged_by_the_training_that_takes_it_and_by_no_other(tmp_path: Path) -> None:
    path = tmp_path / "advice.jsonl"
    before = used_by(spent={"step": 0.5})
    AdviceBook(path).keep("first", before, list(advise(before)))
    path.write_bytes(path.read_bytes() + b"half a li")
    assert path.stat().st_mode & 0o077 == 0
    taken = {"training.batch_size": 128}
    (held,) = AdviceBook(path).judge(used_by(taken, spent={"step": 0.5}, steps=1900))
    assert (held.session, held.options, held.before, held.after) == ("first", taken, 256_000.0, 486_400.0)
    assert held.held
    (broken,) = AdviceBook(path).judge(used_by(taken, spent={"step": 1.0}, steps=1000))
    assert not broken.held
    assert not list(AdviceBook(path).judge(used_by(taken | {"optimizer.learning_rate": 0.5})))
    assert not list(AdviceBook(path).judge(used_by()))
    for number in range(MOST_KEPT + 5):
        AdviceBook(path).keep(f"s{number}", before, list(advise(before)))
    assert len(path.read_bytes().splitlines()) == MOST_KEPT


async def test_what_advice_was_worth_is_said_in_the_session_that_took_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fewer_evaluations(now: Situation) -> ResourcesAdvised:
        options: dict[str, Any] = {"validation.every_epochs": 2}
        return ResourcesAdvised(
            options=options,
            instead_of={"validation.every_epochs": now.options["validation.every_epochs"]},
            figure="seconds_per_epoch",
            value=now.figures()["seconds_per_epoch"],
            factor=100.0,
            reason="a test asks for it",
        )

    monkeypatch.setattr(advice, "RULES", (fewer_evaluations,))
    monkeypatch.setattr(advice, "FEWEST_SAMPLES", 1)
    wanted = {"training": {"epochs": 4}, "early_stopping": {"enabled": False}}
    async with harness.crew(tmp_path) as made:
        agent = made.supervisors["resource_monitor"].agent
        assert isinstance(agent, ResourceMonitor)
        ended = []
        for more in ({}, {"validation": {"every_epochs": 2}}):
            session = await made.ground.submit(request_for(**wanted, **more), "training", asked_by="me")
            log = made.tail.history(session)
            while log.state.outcome is None:
                size = log.size
                await agent.watch()
                await log.grown(size)
            ended.append(await harness.until_ended(made, session))
    first, second = ended
    assert [one.options for one in first.training.advice] == [{"validation.every_epochs": 2}]
    assert not first.training.advice_taken
    (judged,) = second.training.advice_taken
    assert (judged.session, judged.before, judged.held) == (first.id, first.training.advice[0].value, True)
    page = str(resource_blocks(second))
    assert "advice taken" in page
    assert first.id in page
    shown = resources_reply(second)
    assert shown is not None
    assert first.id in shown["advice_taken"][0]


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
    found = gpus.Gpus(driver())
    assert found.read() == [gpus.GpuReading(0, "A GPU", 42.0, 10, 40, 55.0, None)]
    found.close()


def test_a_device_tells_of_its_clock_its_errors_its_energy_and_who_works_on_it() -> None:
    """The figures are those of a data-centre device under a training, with one XID error between two readings."""
    xids = [SimpleNamespace(eventType=8, eventData=79, device=0), SimpleNamespace(eventType=16, eventData=1, device=0)]

    def next_event(*_: Any) -> Any:
        if not xids:
            raise NoDevice
        return xids.pop(0)

    found = gpus.Gpus(
        driver(
            nvmlDeviceGetPowerUsage=lambda _: 688_140,
            nvmlDeviceGetClockInfo=lambda *_: 1755,
            nvmlDeviceGetMaxClockInfo=lambda *_: 1980,
            nvmlDeviceGetCurrentClocksThrottleReasons=lambda _: 0x01 | 0x04 | 0x40,
            nvmlDeviceGetTotalEccErrors=lambda _, kind, __: (3, 1)[kind],
            nvmlDeviceGetTotalEnergyConsumption=lambda _: 5_000,
            nvmlDeviceGetComputeRunningProcesses=lambda _: [SimpleNamespace(pid=7, usedGpuMemory=None)],
            nvmlDeviceGetProcessUtilization=lambda *_: [SimpleNamespace(pid=7, smUtil=88, timeStamp=12)],
            nvmlDeviceGetIndex=lambda device: device,
            nvmlEventSetCreate=object,
            nvmlDeviceRegisterEvents=lambda *_: None,
            nvmlEventSetWait_v2=next_event,
        )
    )
    (first,), (second,) = found.read(), found.read()
    assert (first.watts, first.mhz, first.mhz_most, first.joules) == (688.14, 1755.0, 1980.0, 5.0)
    assert first.throttled == ("power limit", "heat (hardware)")
    assert (first.ecc_corrected, first.ecc_uncorrected) == (3, 1)
    assert (first.xids, second.xids) == ((79,), ())
    assert first.processes == (gpus.GpuProcess(7, 0, 88.0),)


def test_errors_and_throttling_of_a_device_are_summed_up_and_its_own_counter_of_energy_is_believed() -> None:
    tally, device = Tally(), {"percent": 90.0, "memory_bytes": 5, "memory_total_bytes": 10, "celsius": 70.0}
    for joules, errors, xids in ((100.0, 2, ()), (450.0, 3, (79,))):
        seen = gpus.GpuReading(
            0, "x", watts=1.0, joules=joules, ecc_uncorrected=errors, xids=xids, throttled=("power limit",), **device
        )
        tally.add("s", sampled(seconds=1.0, gpus=(seen,)))
    (one,) = tally.summary(seconds=2.0, memory_total=1, disk_free=1).gpus
    assert (one.joules, one.ecc_uncorrected, one.xids, one.throttled) == (351.0, 1, [79], {"power limit": 2.0})


def test_without_a_driver_a_library_or_a_device_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise NoDevice

    for stand_in in (driver(nvmlInit=refuse), driver(nvmlDeviceGetCount=lambda: 0)):
        monkeypatch.setattr(gpus.importlib, "import_module", lambda _, found=stand_in: found)
        assert gpus.find_gpus() is None

    def missing(_: str) -> Any:
        raise ImportError

    monkeypatch.setattr(gpus.importlib, "import_module", missing)
    assert gpus.find_gpus() is None


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


async def test_epochs_are_summed_up_once_whatever_is_killed_and_started_again(tmp_path: Path) -> None:
    async with harness.crew(tmp_path) as made:
        agent = made.supervisors["resource_monitor"].agent
        assert isinstance(agent, ResourceMonitor)
        wanted = request_for(training={"epochs": 12}, early_stopping={"enabled": False})
        session = await made.ground.submit(wanted, "training", asked_by="me")
        log = made.tail.history(session)
        while log.state.outcome is None:
            size = log.size
            for beat in (agent.watch, agent.watch, agent.measure):
                await beat()
            # A process that was started again remembers nothing.
            await agent.begin()
            await log.grown(size)
        ended = await harness.until_ended(made, session)
        told = [fact.event for fact in log.telling((ResourcesMeasured,))]
    assert len(told) >= 3
    assert list(ended.training.measured) == told
    ends = [0, *(one.epoch for one in told if isinstance(one, ResourcesMeasured))]
    assert [one.epochs for one in told if isinstance(one, ResourcesMeasured)] == [
        last - first for first, last in itertools.pairwise(ends)
    ]
    lines = (tmp_path / "sessions" / session / "resources" / "seconds.jsonl").read_bytes().splitlines()
    assert {orjson.loads(line)["step"] for line in lines} <= set(range(ended.step + 1))
    titles = [block.title for block in resource_blocks(ended) if isinstance(block, Curves)]
    assert titles[:2] == ["Use in percent", "Memory in MB"]


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
        agent._sample([])
        seen = agent._sample([])
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
