"""Trainers in homes of their own, on one server and one blob store: they share a queue and go on for each other."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from contracts.trainer import TrainingClaimed
from runtime.commands.client import SwarmClient
from runtime.home.home import Home
from runtime.log.archive import Archive
from tests.harness import small_request
from tests.runtime.strangers import Place, environment, place

LONG = small_request(training={"epochs": 60, "batch_size": 64}, early_stopping={"enabled": False})
QUICK = {"SWARM_TAKEOVER_AFTER_SECONDS": "1.5"}


@dataclass
class Cluster:
    """A host without a trainer, and trainers beside it by instance; all of them use the host's blobs."""

    host: Place
    trainers: dict[str, subprocess.Popen[str]]

    def instance(self, session: str) -> str:
        """Who holds the session."""
        return self.claims(session)[-1].incarnation.partition("/")[0]

    def claims(self, session: str) -> list[TrainingClaimed]:
        facts = Archive(Home(self.host.home)).read(session).history.facts
        return [fact.event for fact in facts if isinstance(fact.event, TrainingClaimed)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    root = tmp_path_factory.mktemp("cluster")
    with place(root / "host", "--without", "trainer") as host, ExitStack() as stack:
        url = host.command("status")["server"]["url"]
        trainers: dict[str, subprocess.Popen[str]] = {}
        for name in ("one", "two"):
            home = keyed(root / name, host.home, "trainer")
            more = {"SWARM_HOME": str(home), "SWARM_BLOBS": str(host.home / "blobs")} | QUICK
            process = stack.enter_context(host.running("trainer", "--url", url, env=more))
            (new,) = {one["instance"] for one in roster(host, "trainer")} - trainers.keys()
            trainers[new] = process
        yield Cluster(host, trainers)


def keyed(home: Path, host: Path, role: str) -> Path:
    """A home that holds what a role needs of a host's keys, and nothing else."""
    home.mkdir(parents=True)
    for folder in (home / "keys", home / "keys" / "nats"):
        folder.mkdir(mode=0o700)
    for name in (f"{role}.key", "root.pub"):
        shutil.copy(host / "keys" / name, home / "keys" / name)
    for file in (host / "keys" / "nats").glob(f"{role}*"):
        shutil.copy(file, home / "keys" / "nats" / file.name)
    return home


def roster(host: Place, role: str) -> list[dict[str, Any]]:
    """Who of a role was heard of."""

    async def asked() -> list[dict[str, Any]]:
        async with host.swarm() as swarm:
            while True:
                found = [one for one in (await swarm.command("status"))["roster"] if one["name"] == role]
                if found:
                    return found

    return asyncio.run(asked())


async def until(swarm: SwarmClient, session: str, name: str, times: int = 1) -> dict[str, Any]:
    """The event of that name, when it was said so many times."""
    async for line in swarm.events(session, follow=True):
        times -= line["name"] == name
        if not times:
            return line
    raise AssertionError(f"{name} was never said")


async def test_trainers_share_sessions_and_go_on_for_each_other_and_what_wakes_up_is_fenced_out(
    cluster: Cluster,
) -> None:
    async with cluster.host.swarm() as swarm:
        first, second = [await swarm.submit(LONG) for _ in range(2)]
        for session in (first, second):
            await until(swarm, session, "training.claimed")
        assert {cluster.instance(first), cluster.instance(second)} == set(cluster.trainers), "each takes one"
        for session in (first, second):
            await until(swarm, session, "session.sealed")
            assert [one.epoch for one in cluster.claims(session)] == [1], "no other trains it too"
        undisturbed = await swarm.session(second)

        third = await swarm.submit(LONG)
        await until(swarm, third, "checkpoint.written", times=2)
        sleeper = cluster.trainers[cluster.instance(third)]
        with stopped(sleeper):
            taken = await until(swarm, third, "training.claimed", times=2)
            assert taken["data"]["epoch"] == 2
            assert taken["data"]["resumed_from"] > 0
        await ended(swarm, cluster, third, undisturbed)
        lane = [line async for line in swarm.events(third) if line["lane"] == "trainer"]
        after = [line for line in lane if line["seq"] > taken["seq"]]
        assert {line["data"]["epoch"] for line in after if line["name"] == "attempt.ended"} == {2}
        assert not (await swarm.command("status"))["voids"]

        fourth = await swarm.submit(LONG)
        await until(swarm, fourth, "checkpoint.written", times=2)
        await swarm.command("pause", session=fourth)
        await until(swarm, fourth, "training.paused")
        await swarm.command("resume", session=fourth)
        await until(swarm, fourth, "training.resumed")
        victim = cluster.instance(fourth)
        os.kill(cluster.trainers[victim].pid, signal.SIGKILL)
        await until(swarm, fourth, "training.claimed", times=2)
        assert cluster.instance(fourth) in cluster.trainers.keys() - {victim}
        await ended(swarm, cluster, fourth, undisturbed)
        resumed = [line async for line in swarm.events(fourth) if line["name"] == "training.resumed"]
        assert len(resumed) == 1, "whoever takes over follows no wish that was followed"
        for session in (first, third, fourth):
            assert await asyncio.to_thread(cluster.host.audited, session) == "pass"


@contextmanager
def stopped(process: subprocess.Popen[str]) -> Iterator[None]:
    """The process and its children stand still meanwhile."""
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


async def ended(swarm: SwarmClient, cluster: Cluster, session: str, undisturbed: dict[str, Any]) -> None:
    """The session completes in the bits of the undisturbed one, after the one change of hands."""
    found = await swarm.wait(session, timeout=90)
    assert found["state"] == "completed", found
    assert found["weights_digest"] == undisturbed["weights_digest"]
    assert [one.epoch for one in cluster.claims(session)] == [1, 2]
    assert len({one.incarnation for one in cluster.claims(session)}) == 2


def test_the_doctor_tells_whether_all_of_them_use_one_store(cluster: Cluster, tmp_path: Path) -> None:
    shared = {one["what"]: one for one in cluster.host.command("doctor")["findings"]}
    assert shared["sharers"]["level"] == "ok"
    home = keyed(tmp_path / "apart", cluster.host.home, "validator")
    url = cluster.host.command("status")["server"]["url"]
    with cluster.host.running("validator", "--url", url, env={"SWARM_HOME": str(home)}):
        found = cluster.host.command("doctor", code=1)["findings"]
    (apart,) = [one for one in found if one["level"] == "fail"]
    assert "uses another store" in apart["message"]
    assert str(cluster.host.home / "blobs") in apart["cure"]


def test_blobs_that_lie_in_a_home_already_are_not_left_behind(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    home.prepare(str(tmp_path / "shared"))
    assert home.blobs.resolve() == tmp_path / "shared"
    home.prepare(str(tmp_path / "shared"))
    other = Home(tmp_path / "other")
    other.prepare()
    (other.blobs / "something").write_text("kept")
    more = {"SWARM_BLOBS": str(tmp_path / "shared")}
    refused = Place(other.root).command("up", "-d", code=6, env=environment(other.root) | more)
    assert "holds blobs already" in refused["error"]["message"]


def test_homes_that_share_their_keys_have_names_of_their_own(tmp_path: Path) -> None:
    names = set()
    for name in ("one", "two"):
        home = Home(tmp_path / name)
        home.prepare()
        assert Home(tmp_path / name).instance() == home.instance()
        names.add(home.instance())
    assert len(names) == 2
