"""A session of user code does not complete before a fresh process has repeated what it did, bit for bit."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from bus.memory import MemoryBus
from contracts.request import read_request
from contracts.session import SessionState
from contracts.trainer import TrainingCompleted, TrainingFailed
from runtime.home.home import Home
from runtime.home.workloads import Workloads, inspect_file
from runtime.host.swarm_node import SwarmNode
from tests.harness import crew, small_request, until_ended, until_said

TRAINING = ("data_manager", "trainer", "checkpoint_keeper", "ledger")
BARE = ("data_manager", "trainer", "ledger")
"""Nobody but the trainer has a checkpoint audited here."""

SOUND = """
import numpy as np
import torch
from torch import nn
from stigmergy import Workload


class Mine(Workload):
    def build(self, o, facts):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(0.2), nn.Linear(8, facts.classes))

    def loss(self, model, batch):
        loss = nn.functional.cross_entropy(model(batch["x"]), batch["y"])
        return {"loss": loss, "drawn": torch.tensor(np.random.rand())}
"""

KINDS = {
    "sound": "",
    "generator": """
    def __init__(self):
        self.rng = np.random.default_rng(7)

    def augment(self, sample, draw):
        return {**sample, "x": sample["x"] + self.rng.normal(0, 0.1)}
""",
    "counter": """
    seen = 0

    def param_groups(self, model):
        self.model = model
        model.seen = 0
        return super().param_groups(model)

    def loss(self, model, batch):
        model.seen += 1
        found = super().loss(model, batch)
        return {**found, "loss": found["loss"] / (1 + 0.01 * model.seen)}
""",
    "transform": """
    def __init__(self):
        rng = torch.Generator().manual_seed(3)
        self.transform = lambda x: x * torch.rand((), generator=rng).item()

    def augment(self, sample, draw):
        return {**sample, "x": self.transform(sample["x"])}
""",
    "cheat": """
    def loss(self, model, batch):
        import os
        from runtime.engine import loop, report, seal

        for module, name in ((loop, "compare_traces"), (report, "compare_traces")):
            setattr(module, name, lambda *_: None)
        found = super().loss(model, batch)
        return {**found, "loss": found["loss"] * (1 + os.urandom(1)[0] / 1000)}
""",
    "early": """
    def build(self, o, facts):
        torch.backends.cudnn.benchmark = True
        return super().build(o, facts)
""",
    "late": """
    def loss(self, model, batch):
        torch.backends.cudnn.benchmark = True
        return super().loss(model, batch)
""",
    "judge": """
    calls = 0

    def metrics(self):
        return {"mood": self.mood}

    def predict(self, model, batch):
        return model(batch["x"])

    def mood(self, answers, batch):
        Own.calls += 1
        return float(Own.calls)
""",
}


def source(kind: str) -> str:
    """The sound workload, or one that derives from it and spoils something."""
    return SOUND + (f"\n\nclass Own(Mine):{KINDS[kind]}" if KINDS[kind] else "")


def added(home: Path, kind: str) -> None:
    """Make the workload of that kind known in a home, as if a child had tried it."""
    file = home.parent / f"{kind}.py"
    file.write_text(source(kind))
    Home(home).prepare()
    known = Workloads(home)
    known._write(known._added() | {kind: inspect_file(str(file))})


async def asked(made: SwarmNode, kind: str, **changes: Any) -> str:
    changes = {"training": {"epochs": 3, "batch_size": 64}, "diagnosis": {"auto_fix": False}} | changes
    request = small_request(name=kind, model={"architecture": "workload", "workload": kind}, **changes)
    del request["loss"]
    return await made.commands.submit(read_request(request).resolved())


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SessionState]:
    """How a session of each kind of user code ended."""
    return asyncio.run(_ended(tmp_path_factory.mktemp("place") / "home"))


async def _ended(home: Path) -> dict[str, SessionState]:
    for kind in KINDS:
        added(home, kind)
    async with crew(home, TRAINING) as made:
        mood = {"early_stopping": {"enabled": False, "metric": "val_mood"}}
        sessions = {kind: await asked(made, kind, **(mood if kind == "judge" else {})) for kind in KINDS}
        found = {kind: await until_ended(made, session) for kind, session in sessions.items()}
        order = [fact.name for fact in made.tail.history(sessions["sound"]).facts]
        assert order.index("birth.audited") < order.index("training.completed")
        assert not list(made.home.root.glob("work/*/birth-*")), "what was staged is gone"
    return found


def test_sound_code_completes_and_the_log_says_that_it_was_repeated(ended: dict[str, SessionState]) -> None:
    assert isinstance(ended["sound"].outcome, TrainingCompleted), ended["sound"].outcome
    (said,) = ended["sound"].training.births
    assert (said.difference, said.tensor, said.suspects) == ("", "", [])
    assert said.evaluated
    assert said.first > 0, "the first window has no memory behind it"


@pytest.mark.parametrize(
    ("kind", "suspect"), [("generator", "workload.rng (a generator"), ("counter", "model.seen ("), ("transform", "")]
)
def test_code_that_hangs_on_more_than_the_state_is_stopped_with_the_tensor_and_the_cure(
    ended: dict[str, SessionState], kind: str, suspect: str
) -> None:
    outcome, (said,) = ended[kind].outcome, ended[kind].training.births
    assert isinstance(outcome, TrainingFailed), outcome
    assert outcome.code == "not-repeatable"
    assert said.tensor.startswith(("model.", "optimizer."))
    assert said.tensor in outcome.message
    assert said.difference in outcome.message
    assert suspect in " ".join(said.suspects)
    assert suspect in outcome.cure
    assert "register_buffer" in outcome.cure


def test_code_that_changes_the_comparing_functions_is_compared_all_the_same(ended: dict[str, SessionState]) -> None:
    outcome = ended["cheat"].outcome
    assert isinstance(outcome, TrainingFailed), outcome
    assert outcome.code == "not-repeatable"


@pytest.mark.parametrize("kind", ["early", "late"])
def test_code_that_changes_torchs_settings_is_stopped_before_an_evaluation_is_told(
    ended: dict[str, SessionState], kind: str
) -> None:
    outcome = ended[kind].outcome
    assert isinstance(outcome, TrainingFailed), outcome
    assert "torch is not sealed: cudnn.benchmark is True" in outcome.message
    assert not ended[kind].training.evaluations
    assert not ended["early"].training.checkpoints, "it is stopped before anything was computed"


def test_an_evaluation_that_comes_out_otherwise_is_named(ended: dict[str, SessionState]) -> None:
    outcome = ended["judge"].outcome
    assert isinstance(outcome, TrainingFailed), outcome
    assert "val_mood of the evaluation at step" in outcome.message


async def test_an_evaluation_far_behind_the_second_window_is_repeated_as_well(tmp_path: Path) -> None:
    added(tmp_path / "home", "sound")
    async with crew(tmp_path / "home", TRAINING) as made:
        session = await asked(made, "sound", training={"epochs": 4, "batch_size": 8}, validation={"every_epochs": 4})
        state = await until_ended(made, session)
        assert isinstance(state.outcome, TrainingCompleted), state.outcome
        second, judged = state.training.births
        assert (second.first, second.last, second.evaluated) == (50, 100, False)
        assert (judged.last, judged.evaluated) == (state.step, True)


async def test_who_takes_over_repeats_what_has_no_verdict_though_nothing_is_left_to_train(tmp_path: Path) -> None:
    bus, home = MemoryBus(), tmp_path / "home"
    added(home, "sound")
    async with crew(home, BARE, bus=bus) as made:
        session = await asked(made, "sound", training={"epochs": 2, "batch_size": 64})
        await stopped(made)
        history = made.tail.history(session)
        async with asyncio.timeout(60):
            while not [one for one in history.state.training.checkpoints if one.written.reason == "final"]:
                await history.grown(history.size)
        final = list(history.state.training.checkpoints)[-1].written
        assert history.state.outcome is None, "it waits for the verdict"
    async with crew(home, BARE, bus=bus) as made:
        state = await until_ended(made, session)
        assert isinstance(state.outcome, TrainingCompleted), state.outcome
        assert state.outcome.state_root == final.state_root
        assert [one.difference for one in state.training.births] == [""]
        assert not [one for one in made.tail.history(session).facts if one.name == "divergence.found"]


async def test_a_repetition_whose_process_dies_is_done_again(tmp_path: Path) -> None:
    added(tmp_path / "home", "sound")
    async with crew(tmp_path / "home", BARE) as made:
        session = await asked(made, "sound")
        os.kill(await stopped(made), signal.SIGKILL)
        state = await until_ended(made, session)
        assert isinstance(state.outcome, TrainingCompleted), state.outcome
        assert state.training.births


async def test_code_that_is_changed_and_added_again_changes_no_session_that_has_begun(tmp_path: Path) -> None:
    bus, home = MemoryBus(), tmp_path / "home"
    added(home, "sound")
    long: dict[str, Any] = {"training": {"epochs": 20, "batch_size": 64}, "early_stopping": {"enabled": False}}
    async with crew(home, TRAINING, bus=bus) as made:
        undisturbed = await until_ended(made, await asked(made, "sound", **long))
        session = await asked(made, "sound", **long)
        await until_said(made, session, "control.evaluated")
        made.draining.set()
        await until_said(made, session, "training.paused")
    file = tmp_path / "sound.py"
    file.write_text(SOUND.replace('{"loss": loss,', '{"loss": 2 * loss,'))
    Workloads(home)._write({"sound": inspect_file(str(file))})
    async with crew(home, TRAINING, bus=bus) as made:
        state = await until_ended(made, session)
        assert isinstance(state.outcome, TrainingCompleted), state.outcome
        assert state.weights_digest == undisturbed.weights_digest
        claims = [fact.event for fact in made.tail.history(session).facts if fact.name == "training.claimed"]
        assert [one.epoch for one in claims] == [1, 2]
        assert len({one.sources["sound"] for one in claims}) == 1


async def stopped(made: SwarmNode) -> int:
    """Stop the first process that repeats something; its pid."""
    async with asyncio.timeout(60):
        while True:
            for one in made.children.running():
                if one.purpose == "audit" and one.pid:
                    os.kill(one.pid, signal.SIGSTOP)
                    return one.pid
            await asyncio.sleep(0.002)
