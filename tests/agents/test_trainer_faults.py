"""What goes wrong in the middle of a training ends in an event that says what and why, or is lived through."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agents.trainer import inbox
from bus.memory import MemoryBus
from bus.port import Record
from contracts.common import ChildEnded
from contracts.errors import Unreachable
from contracts.request import read_request
from contracts.trainer import TrainingCompleted, TrainingFailed
from runtime.home.home import Home
from runtime.home.workloads import Workloads, inspect_file
from runtime.host.swarm_node import SwarmNode
from runtime.jobs import process
from tests.harness import crew, small_request, until_ended, until_said

TRAINING = ("data_manager", "trainer", "checkpoint_keeper", "ledger")
PLAIN: dict[str, Any] = {"diagnosis": {"auto_fix": False}}

SOURCE = """
import torch
from torch import nn
from stigmergy import Workload


class Mine(Workload):
    rows = 0

    def build(self, o, facts):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, facts.classes))

    def augment(self, sample, draw):
        Mine.rows += 1
        if {fails}:
            {how}
        return sample

    def loss(self, model, batch):
        return nn.functional.cross_entropy(model(batch["x"]), batch["y"])
"""
AT_SEVENTY = {"fails": "Mine.rows > 0.7 * 1437", "how": 'raise OSError("row 1006 cannot be read")'}
WILD = {"fails": "True", "how": 'sample = {**sample, "x": sample["x"] * float("inf")}'}
GREEDY = {"fails": "Mine.rows > 100", "how": "torch.empty(1 << 50)"}
LETHAL = {"fails": "Mine.rows > 100", "how": "import os; os.abort()"}


async def submitted(made: SwarmNode, **changes: Any) -> str:
    request = {key: one for key, one in small_request(**PLAIN | changes).items() if one is not None}
    return await made.commands.submit(read_request(request).resolved())


@pytest.mark.parametrize(
    ("kind", "code", "says"),
    [
        (AT_SEVENTY, "user-code-failed", "row 1006"),
        (GREEDY, "out-of-memory", "memory"),
        (WILD, "non-finite", "not finite"),
        (LETHAL, "child-died", "3 times in a row"),
    ],
)
async def test_a_reader_that_raises_no_memory_a_loss_that_is_not_finite_and_deaths_in_a_row_are_told_with_the_cure(
    tmp_path: Path, kind: dict[str, str], code: str, says: str
) -> None:
    file, home = tmp_path / "mine.py", tmp_path / "home"
    file.write_text(SOURCE.format(**kind))
    Home(home).prepare()
    Workloads(home)._write({"mine": inspect_file(str(file))})
    async with crew(home, TRAINING) as made:
        model = {"architecture": "workload", "workload": "mine"}
        state = await until_ended(made, await submitted(made, model=model, loss=None))
        deaths = [fact.event for fact in made.tail.history(state.id).facts if isinstance(fact.event, ChildEnded)]
    assert isinstance(state.outcome, TrainingFailed), state.outcome
    assert state.outcome.code == code
    assert says in state.outcome.message
    assert state.outcome.cure
    if code == "non-finite":
        assert state.training.last_window is not None
        assert not state.training.last_window.finite
    elif code != "child-died":
        assert state.outcome.frame.startswith(f"{file}:")
        log = (Home(home).session(state.id) / "training.log").read_text()
        assert all(part in log for part in ("Traceback", "runtime/engine/", str(file), "in augment"))
    # A slow machine may record a window before the first death, after which deaths in a row are counted anew.
    assert len(deaths) >= 3 if code == "child-died" else not deaths
    assert all("crashed with SIGABRT" in one.message for one in deaths)


BUILT = "return nn.Sequential("
ENDLESS = f"held = [torch.empty(1 << 30, dtype=torch.uint8) for _ in range(4096)]\n        {BUILT}"
AGAIN = f"""import pathlib
        built = pathlib.Path(__file__ + ".built")
        if built.exists():
            {ENDLESS.splitlines()[0]}
        built.touch()
        {BUILT}"""
"""Four tebibytes that are asked for and never filled: a mistake that would cost nothing if it were allowed."""


@pytest.mark.parametrize(("build", "claimed"), [(ENDLESS, False), (AGAIN, True)], ids=["planned", "trained"])
async def test_a_model_of_the_users_own_that_memory_cannot_hold_fails_with_a_sentence(
    tmp_path: Path, build: str, *, claimed: bool
) -> None:
    file, home = tmp_path / "mine.py", tmp_path / "home"
    file.write_text(SOURCE.format(fails="False", how="pass").replace(BUILT, build))
    Home(home).prepare()
    Workloads(home)._write({"mine": inspect_file(str(file))})
    async with crew(home, TRAINING) as made:
        model = {"architecture": "workload", "workload": "mine"}
        state = await until_ended(made, await submitted(made, model=model, loss=None))
    assert isinstance(state.outcome, TrainingFailed), state.outcome
    assert state.outcome.code == "out-of-memory"
    assert state.outcome.frame.startswith(f"{file}:")
    assert (state.training.claim is not None) == claimed


class Away(MemoryBus):
    """A bus whose server can be away: then nothing is appended, and whoever asks hears so."""

    away = False

    async def append(self, records: Sequence[Record], *, lane: str, after: int) -> int:
        if self.away:
            raise Unreachable("The server is away.")
        return await super().append(records, lane=lane, after=after)


async def test_training_goes_on_while_the_log_is_away_then_stalls_and_nothing_is_lost_or_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "MOST_FRAMES", 4)
    long = {"training": {"epochs": 150, "batch_size": 64}, "early_stopping": {"enabled": False}}
    bus = Away()
    async with crew(tmp_path / "home", TRAINING, bus=bus) as made:
        session = await submitted(made, **long)
        await until_said(made, session, "control.evaluated")
        bus.away = True
        history = made.tail.history(session)
        before = history.size
        await stalled(made)
        assert history.size <= before + 1
        assert history.state.outcome is None
        bus.away = False
        state = await until_ended(made, session, 120)
        assert isinstance(state.outcome, TrainingCompleted), state.outcome
        windows = [fact.event for fact in history.facts if fact.name == "window.recorded"]
        assert [one.first for one in windows] == [0, *(one.last for one in windows[:-1])]
        assert [fact.name for fact in history.facts].count("training.claimed") == 1
        again = await until_ended(made, await submitted(made, **long), 120)
        assert again.weights_digest == state.weights_digest


async def stalled(made: SwarmNode) -> None:
    """Return once the training child uses no processor any more, for nobody reads what it has to tell."""
    used, still = -1.0, 0
    async with asyncio.timeout(60):
        while still < 10:
            (pid,) = [one.pid for one in made.children.running() if one.purpose == "train"]
            now = process.cpu_seconds(pid) or 0.0
            used, still = now, still + 1 if now == used else 0
            await asyncio.sleep(0.1)
