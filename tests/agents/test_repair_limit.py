"""One poisoned row is repaired a limited number of times, by the whole crew as it is, and then named as the reason."""

from __future__ import annotations

from pathlib import Path

from contracts.diagnostician import InterventionProposed, OutcomeJudged, ProblemDiagnosed
from contracts.request import read_request
from contracts.roles import BUILT_IN
from contracts.trainer import InterventionApplied, TrainingFailed
from runtime.diagnosis.fold import MOST_REWINDS
from runtime.home.home import Home
from runtime.home.workloads import Workloads, inspect_file
from tests.harness import crew, small_request, until_ended

POISONED = """
import numpy as np
import torch
from torch import nn
from stigmergy import Workload


class Poisoned(Workload):
    def data(self, o):
        x = np.random.default_rng(0).uniform(1, 2, (800, 4)).astype("f4")
        y = (x[:, 0] > 1.5).astype("i8")
        x[500, 0] = -1
        return {"x": x, "y": y}

    def build(self, o, facts):
        return nn.Linear(4, 2)

    def loss(self, model, batch):
        return nn.functional.cross_entropy(model(torch.log(batch["x"])), batch["y"])
"""


async def test_a_row_that_no_repair_helps_ends_the_session_after_a_few_tries(tmp_path: Path) -> None:
    home, file = tmp_path / "home", tmp_path / "poisoned.py"
    file.write_text(POISONED)
    Home(home).prepare()
    known = Workloads(home)
    known._write(known._added() | {"poisoned": inspect_file(str(file))})
    request = small_request(
        model={"architecture": "workload", "workload": "poisoned"},
        data={"source": "workload", "workload": "poisoned"},
        training={"epochs": 6, "batch_size": 64},
        checkpoints={"every_steps": 10},
    )
    del request["loss"]
    async with crew(home, BUILT_IN) as made:
        session = await made.commands.submit(read_request(request).resolved())
        ended = await until_ended(made, session, 90)
        events = [fact.event for fact in made.tail.history(session).facts]
    applied = [one for one in events if isinstance(one, InterventionApplied)]
    assert len([one for one in events if isinstance(one, InterventionProposed)]) == len(applied) == MOST_REWINDS
    verdicts = [one for one in events if isinstance(one, OutcomeJudged)]
    assert len(verdicts) == len(applied)
    assert not any(one.helped for one in verdicts), [one.message for one in verdicts]
    assert isinstance(ended.outcome, TrainingFailed)
    last = [one for one in events if isinstance(one, ProblemDiagnosed) and one.rule == "non_finite"][-1]
    assert f"from step {int(last.figures['step'])} on" in ended.outcome.message
    assert f"--step {int(last.figures['step'])}" in ended.outcome.cure
