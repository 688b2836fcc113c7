"""Without room: what has begun finishes or says why not, nothing new begins, and with room again all is as it was."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from contracts.request import read_request
from contracts.trainer import TrainingCompleted
from runtime.host.swarm_node import SwarmNode
from tests import chaos
from tests.chaos import Arena, Ended, Result
from tests.harness import crew, small_request, until_ended, until_said

RNG = random.Random(0)
TRAINING = ("data_manager", "trainer", "checkpoint_keeper", "ledger")
BRIEF = {"training": {"epochs": 20, "batch_size": 64}, "diagnosis": {"auto_fix": False}}
QUICK = read_request(small_request(**BRIEF | {"training": {"epochs": 80, "batch_size": 64}}))
"""It goes on for long enough that a disk can be filled after its first checkpoint on any machine."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid():
        pytest.skip("only root can make a small disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], check=True, capture_output=True)
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.fixture
async def cramped(small_disk: Path) -> AsyncIterator[Arena]:
    """A home on a disk that is soon full."""
    made = Arena(small_disk, {"SWARM_MIN_FREE_DISK_BYTES": str(16 << 20)})
    yield made
    await made.down()
    made.kill("all", RNG)


async def submitted(arena: Arena, request_id: str) -> Ended:
    path = arena.folder / "request.yaml"
    path.write_text(yaml.safe_dump(chaos.LONG))
    return await arena.swarm("submit", str(path), "--request-id", request_id)


def fill(disk: Path, *, leave: int = 0) -> Path:
    """A file that leaves so much room and no more."""
    filler = disk / "filler"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    with filler.open("wb") as file:
        try:
            file.write(bytes(free - leave))
        except OSError:
            assert not leave
    return filler


def refused(ended: Ended, *words: str) -> None:
    assert ended.code == 6, ended
    assert ended.error["code"] == "full"
    assert ended.error["cure"]
    assert all(word in ended.error["message"] + ended.error["cure"] for word in words), ended.error


@pytest.mark.long
async def test_near_a_full_disk_no_session_begins_and_those_that_have_begun_finish(
    cramped: Arena, undisturbed: Result
) -> None:
    await chaos.risen(cramped)
    session = await cramped.submit(chaos.LONG, "begun")
    await chaos.grown(cramped, session)
    filler = fill(cramped.folder, leave=12 << 20)
    refused(await submitted(cramped, "too late"), "are free", "running sessions go on")
    assert (await submitted(cramped, "begun")).json["session"] == session
    await cramped.ended(session)
    assert await cramped.judge(session, undisturbed) == []
    filler.unlink()
    assert (await submitted(cramped, "too late")).code == 0


@pytest.mark.long
async def test_a_disk_that_is_full_in_mid_training_ends_nobody_s_log_and_with_room_again_work_goes_on(
    cramped: Arena, undisturbed: Result
) -> None:
    await chaos.risen(cramped)
    session = await cramped.submit(chaos.LONG, "filled")
    await chaos.grown(cramped, session)
    (host,) = cramped.victims("host")
    filler = fill(cramped.folder)
    # How long it is full is what is tried here.
    await asyncio.sleep(5)
    assert cramped.victims("host") == [host]
    before = [fact.id for fact in cramped.facts(session)]
    assert (await cramped.swarm("show", session)).code == 0
    filler.unlink()
    seen = await cramped.ended(session)
    assert [fact.id for fact in cramped.facts(session)][: len(before)] == before
    assert seen["state"] == "completed"
    assert await cramped.judge(session, undisturbed) == []
    after = await cramped.submit(chaos.LONG, "after it")
    await cramped.ended(after)
    assert await cramped.judge(after, undisturbed) == []


async def test_a_checkpoint_for_which_there_is_no_room_is_waited_for_and_the_bits_are_the_same(
    small_disk: Path, tmp_path: Path
) -> None:
    async with crew(tmp_path / "home", TRAINING, blobs=str(small_disk / "blobs")) as made:
        session, filler = await without_room(made, small_disk)
        assert made.tail.history(session).state.outcome is None
        filler.unlink()
        state = await until_ended(made, session)
        assert isinstance(state.outcome, TrainingCompleted), state.outcome
        again = await until_ended(made, await made.commands.submit(QUICK.resolved()))
        assert again.weights_digest == state.weights_digest


async def test_a_session_that_waits_for_room_can_be_cancelled(small_disk: Path, tmp_path: Path) -> None:
    async with crew(tmp_path / "home", TRAINING, blobs=str(small_disk / "blobs")) as made:
        session, _ = await without_room(made, small_disk)
        await made.commands.verbs["cancel"]({"session": session})
        await until_said(made, session, "training.cancelled")


async def test_where_room_only_seems_to_be_tries_are_ever_farther_apart(small_disk: Path, tmp_path: Path) -> None:
    async with crew(tmp_path / "home", TRAINING, blobs=str(small_disk / "blobs")) as made:
        keeping = read_request(small_request(**BRIEF, checkpoints={"keep_last": 100}))
        session = await made.commands.submit(keeping.resolved())
        await until_said(made, session, "checkpoint.written")
        most_files(small_disk, 0)
        async with asyncio.timeout(60):
            first, second, third = await tried(made, session, 3)
        assert second - first >= 0.5
        assert third - second >= 1.0
        most_files(small_disk, 1000)
        state = await until_ended(made, session)
        assert isinstance(state.outcome, TrainingCompleted), state.outcome


def most_files(disk: Path, more: int) -> None:
    """Let there be so many files more than there are."""
    seen = os.statvfs(disk)
    most = f"remount,nr_inodes={seen.f_files - seen.f_ffree + more}"
    subprocess.run(["mount", "-o", most, disk], check=True)


async def tried(made: SwarmNode, session: str, times: int) -> list[float]:
    """When the session's children ended for want of room, once so many have."""
    history = made.tail.history(session)
    while True:
        ends = [fact for fact in history.facts if fact.name == "child.ended"]
        if len(ends) >= times:
            return [datetime.fromisoformat(fact.envelope.time).timestamp() for fact in ends[:times]]
        await history.grown(history.size)


async def without_room(made: SwarmNode, disk: Path) -> tuple[str, Path]:
    """A session that has a checkpoint and no room for the next, and what takes the room."""
    session = await made.commands.submit(QUICK.resolved())
    await until_said(made, session, "checkpoint.written")
    filler = fill(disk)
    waits = await until_said(made, session, "child.ended")
    assert "Training goes on from its last checkpoint when there is room." in waits.event.message
    return session, filler


@pytest.mark.long
async def test_above_nine_tenths_of_the_log_s_budget_no_session_begins_until_it_is_raised(
    arena: Arena, undisturbed: Result
) -> None:
    await chaos.risen(arena)
    await arena.ended(await arena.submit(chaos.LONG, "first"))
    used = sum(len(one.body) for one in await arena.stored())
    await arena.down()
    settings = arena.home.root / "settings.toml"
    settings.write_text(f"store_bytes = {used}\n")
    await chaos.risen(arena)
    refused(await submitted(arena, "second"), "of its", "store_bytes", "running sessions go on")
    assert (await arena.swarm("audit", "last")).code == 0
    await arena.down()
    settings.write_text(f"store_bytes = {10 * used}\n")
    await chaos.risen(arena)
    session = (await submitted(arena, "second")).json["session"]
    await arena.ended(session)
    assert await arena.judge(session, undisturbed) == []


@pytest.mark.long
async def test_a_session_that_meets_the_end_of_the_budget_waits_and_ends_in_the_same_bits_with_more(
    arena: Arena, undisturbed: Result
) -> None:
    settings = arena.home.root / "settings.toml"
    settings.parent.mkdir()
    settings.write_text("store_bytes = 200000\n")
    await chaos.risen(arena)
    session = await arena.submit(chaos.LONG, "squeezed")
    async with asyncio.timeout(60):
        while "has no room" not in arena.home.host_log.read_text():
            await asyncio.sleep(0.05)
    assert (await arena.swarm("show", session)).json["state"] == "training"
    arena.kill("host", RNG, signal.SIGKILL)
    settings.write_text("store_bytes = 20000000\n")
    await chaos.risen(arena)
    await arena.ended(session)
    assert await arena.judge(session, undisturbed) == []
