"""A cancel is obeyed within seconds, wherever the user's code hangs; nothing is attempted after it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from contracts.operator import CancelRequested, PauseRequested
from contracts.request import read_request
from contracts.session import SessionState
from contracts.trainer import TrainingCancelled
from runtime.home.home import Home
from runtime.home.workloads import Workloads, inspect_file
from runtime.host.swarm_node import SwarmNode
from runtime.jobs.children import RunningProcess
from tests.harness import crew, small_request, until_ended, until_said

ROLES = ("data_manager", "trainer", "checkpoint_keeper", "resource_monitor", "ledger")
MOST = 5.0
"""Seconds from the wish to the event that says that training is over."""

SOURCE = """
import ctypes
import time
import torch
from torch import nn
from stigmergy import Workload


def spin():
    while True:
        pass


class Mine(Workload):
    def data(self, o):
        {data}
        return {{"x": torch.eye(4).repeat(16, 1), "y": torch.arange(64) % 4}}

    def build(self, o, facts):
        {build}
        return nn.Linear(4, 4)

    def loss(self, model, batch):
        {loss}
        return nn.functional.cross_entropy(model(batch["x"]), batch["y"])
"""
SLEEPS = "time.sleep(10_000)"
STALLS = "ctypes.CDLL(None).sleep(10_000)"


def request(home: Path, **hangs: str) -> dict[str, object]:
    """A training with a workload of the home's that hangs where it is told to."""
    file = home.parent / "mine.py"
    file.write_text(SOURCE.format(**{"data": "pass", "build": "pass", "loss": "pass"} | hangs))
    Home(home).prepare()
    Workloads(home)._write({"mine": inspect_file(str(file))})
    data = {"source": "workload", "workload": "mine", "split": {"train": 0.75, "val": 0.25, "test": 0.0}}
    model = {"architecture": "workload", "workload": "mine"}
    asked = small_request(data=data, model=model, diagnosis={"auto_fix": False})
    del asked["loss"]
    return read_request(asked).resolved()


async def until_runs(made: SwarmNode, purpose: str) -> RunningProcess:
    """The first child of that purpose, once it is there."""
    async with asyncio.timeout(60):
        while True:
            for one in made.children.running():
                if one.purpose == purpose and one.pid:
                    return one
            await asyncio.sleep(0.02)


async def cancelled(made: SwarmNode, session: str) -> tuple[SessionState, float]:
    """The session once it has ended, and how long after the wish training was said to be over."""
    begun = time.monotonic()
    await made.ground.speak("operator", session, CancelRequested(asked_by="client", reason="enough"), "")
    history = made.tail.history(session)
    async with asyncio.timeout(30):
        while history.state.outcome is None:
            await history.grown(history.size)
    seconds = time.monotonic() - begun
    return await until_ended(made, session), seconds


@pytest.mark.parametrize(
    ("hangs", "purpose"),
    [
        ({"loss": SLEEPS}, "train"),
        ({"loss": STALLS}, "train"),
        ({"loss": "spin()"}, "train"),
        ({"build": SLEEPS}, "prepare"),
        ({"data": SLEEPS}, "prepare"),
    ],
    ids=["loss-sleeps", "loss-stalls-in-c", "loss-spins", "build-sleeps", "data-sleep"],
)
async def test_a_cancel_is_obeyed_in_seconds_though_user_code_hangs_and_nothing_is_attempted_after_it(
    tmp_path: Path, hangs: dict[str, str], purpose: str
) -> None:
    home = tmp_path / "home"
    asked = request(home, **hangs)
    async with crew(home, ROLES) as made:
        session = await made.commands.submit(asked)
        if "build" in hangs:
            await until_said(made, session, "dataset.prepared")
        hanging = await until_runs(made, purpose)
        state, seconds = await cancelled(made, session)
        assert isinstance(state.outcome, TrainingCancelled)
        assert (state.state, state.outcome.reason) == ("cancelled", "enough")
        names = [fact.name for fact in made.tail.history(session).facts]
        assert names.count("training.claimed") == (1 if "loss" in hangs else 0)
        async with asyncio.timeout(MOST):
            while hanging in made.children.running():
                await asyncio.sleep(0.02)
        assert [one for one in made.children.running() if one.session == session] == []
    assert seconds < MOST


async def test_a_pause_is_obeyed_once_the_child_that_hangs_was_ended_and_no_other_is_begun(tmp_path: Path) -> None:
    home = tmp_path / "home"
    asked = request(home, loss=SLEEPS)
    async with crew(home, ROLES, stall_after_seconds=1.0) as made:
        session = await made.commands.submit(asked)
        first = await until_runs(made, "train")
        await made.ground.speak("operator", session, PauseRequested(asked_by="client"), "")
        await until_said(made, session, "training.paused")
        assert made.tail.history(session).state.state == "paused"
        assert [one for one in made.children.running() if one.purpose == "train" and one != first] == []
        state, _ = await cancelled(made, session)
        assert state.state == "cancelled"
        ended = [fact.name for fact in made.tail.history(session).facts].count("child.ended")
    assert ended == 1
