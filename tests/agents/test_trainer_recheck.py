"""With `training.recheck` another process computes windows again while a session trains; a difference ends it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults_cases.flipped_live import WORKLOAD
from bus.memory import MemoryBus
from contracts.common import ChildEnded
from contracts.errors import InvalidRequest
from contracts.event import Event
from contracts.request import read_request
from contracts.session import SessionState
from contracts.trainer import (
    CheckpointWritten,
    DivergenceFound,
    TrainingCompleted,
    TrainingFailed,
    WindowRechecked,
    WindowRecorded,
)
from runtime.home.home import Home
from runtime.home.workloads import Workloads, inspect_file
from tests.harness import crew, kill_child, small_request, until_ended, until_said

CREW = ("data_manager", "trainer", "checkpoint_keeper", "ledger")
FILE = """
from pathlib import Path

import torch
from torch import nn
from stigmergy import Workload


class Counting(nn.Linear):
    def __init__(self):
        super().__init__(64, 10)
        self.register_buffer("seen", torch.zeros(()))


class Flipping(Workload):
    def build(self, o, facts):
        return nn.Sequential(nn.Flatten(), Counting())

    def loss(self, model, batch):
        counting = model[1]
        loss = nn.functional.cross_entropy(model(batch["x"]), batch["y"])
        if model.training:
            counting.seen += 1
            if counting.seen == 70 and self.arrival() in WRONG:
                loss = loss * (1 + 2 ** -20)
        return loss

    def arrival(self):
        for number in range(99):
            try:
                Path(f"MARK-{number}").touch(exist_ok=False)
                return number
            except FileExistsError:
                pass
"""


def asked(recheck: int, epochs: int = 10, **changes: Any) -> dict[str, Any]:
    training = {"epochs": epochs, "batch_size": 64} | ({"recheck": recheck} if recheck else {})
    request = small_request(training=training, diagnosis={"mode": "off"}, **changes)
    return read_request(request).resolved()


async def ended(home: Path, request: dict[str, Any], *, disturbed: bool = False) -> tuple[SessionState, list[Event]]:
    bus = MemoryBus()
    async with crew(home, CREW, bus=bus) as made:
        session = await made.commands.submit(request, request_id="r")
        if disturbed:
            await until_said(made, session, "window.rechecked")
            await kill_child(made, "audit")
            await kill_child(made, "train")
            await until_said(made, session, "child.ended")
        else:
            await until_ended(made, session)
    async with crew(home, CREW, bus=bus) as made:
        state = await until_ended(made, session)
        assert not list(made.home.root.glob("work/*/birth-*")), "what was staged is gone"
        return state, [fact.event for fact in made.tail.history(session).facts]


async def flipping(home: Path, *wrong: int) -> tuple[SessionState, list[Event]]:
    """A session of which the processes with these numbers, in the order of their coming, compute step 70 wrongly."""
    file = home.parent / "flipping.py"
    file.write_text(FILE.replace("MARK", str(home.parent / "mark")).replace("WRONG", repr(wrong)))
    return await ended(home, of_workload(home, file))


def of_workload(home: Path, file: Path, **options: Any) -> dict[str, Any]:
    """The request of a session that rechecks every window of this workload, which the home knows from now on."""
    Home(home).prepare()
    known = Workloads(home)
    known._write(known._added() | {"flipping": inspect_file(str(file))})
    model = {"architecture": "workload", "workload": "flipping", "options": options}
    return asked(1, epochs=5, model=model, loss={"type": "auto"})


def only(kind: type[Event], told: list[Event]) -> list[Any]:
    return [one for one in told if isinstance(one, kind)]


async def test_every_nth_window_is_computed_again_once_and_no_bit_changes_by_it(tmp_path: Path) -> None:
    plain, without = await ended(tmp_path / "plain", asked(0))
    state, told = await ended(tmp_path / "home", asked(2), disturbed=True)
    assert isinstance(state.outcome, TrainingCompleted), state.outcome
    assert only(ChildEnded, told)
    assert state.weights_digest == plain.weights_digest
    assert only(WindowRechecked, without) == []
    every = state.training.claim.resolved["window"] if state.training.claim else 0
    due = [(one.first, one.last) for one in only(WindowRecorded, told) if one.first // every % 2 == 1]
    checked = only(WindowRechecked, told)
    assert [(one.first, one.last) for one in checked] == due
    assert len(due) > 1
    assert all(one.upheld and not one.fields and one.recorded == one.computed for one in checked)


async def test_a_window_that_only_one_process_computes_so_ends_the_session_and_names_the_way_on(tmp_path: Path) -> None:
    state, told = await flipping(tmp_path / "home", 0)
    assert isinstance(state.outcome, TrainingFailed), state.outcome
    (checked,) = [one for one in only(WindowRechecked, told) if one.fields]
    assert (checked.first < 70 <= checked.last, checked.upheld) == (True, False)
    assert checked.recorded != checked.computed
    assert "window.recorded.losses" in checked.fields
    (found,) = only(DivergenceFound, told)
    assert (found.first, found.last) == (checked.first, checked.last)
    before = max(one.step for one in only(CheckpointWritten, told) if one.step <= checked.first)
    assert f"swarm fork {state.id} --at {before}" in state.outcome.cure
    assert only(WindowRecorded, told)[-1].last - checked.last <= 2 * (checked.last - checked.first), "told at once"


async def test_a_record_that_a_third_process_upholds_stands_and_the_difference_is_told(tmp_path: Path) -> None:
    state, told = await flipping(tmp_path / "home", 1)
    assert isinstance(state.outcome, TrainingCompleted), state.outcome
    (checked,) = [one for one in only(WindowRechecked, told) if one.fields]
    assert checked.upheld
    assert checked.recorded != checked.computed
    assert only(DivergenceFound, told) == []


async def test_a_checkpoint_that_is_not_the_state_of_two_processes_ends_the_session(tmp_path: Path) -> None:
    flip = {"place": "checkpoint", "step": 70, "draw": "0", "mark": str(tmp_path / "mark")}
    home = tmp_path / "home"
    state, told = await ended(home, of_workload(home, WORKLOAD, **flip))
    assert isinstance(state.outcome, TrainingFailed), state.outcome
    (found,) = only(DivergenceFound, told)
    assert (found.field, found.first > 70) == ("checkpoint.written.state_root", True)
    assert not [one for one in only(WindowRechecked, told) if one.fields], "every window was computed alike"


def test_what_promises_no_bits_is_not_rechecked_and_a_request_without_is_the_bytes_it_was() -> None:
    assert "recheck" not in asked(0)["training"]  # type: ignore[operator]
    with pytest.raises(InvalidRequest, match="promises no bits"):
        asked(1, reproducibility={"deterministic": False})
