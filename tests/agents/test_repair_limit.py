"""What no remedy can cure ends a session after a few tries, and what a row did is undone by leaving it out.

By the whole crew as it is, with audits of what came of it.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from bus.blobs import DirectoryBlobs
from bus.memory import MemoryBus
from contracts.diagnostician import InterventionProposed, OutcomeJudged, ProblemDiagnosed
from contracts.event import Event
from contracts.request import read_request
from contracts.roles import BUILT_IN
from contracts.session import SessionState
from contracts.trainer import AttemptBisected, AuditCompleted, InterventionApplied, TrainingCompleted, TrainingFailed
from runtime.audit.recomputation import recompute
from runtime.diagnosis.fold import MOST_REWINDS
from runtime.home.home import Home
from runtime.home.workloads import Workloads, inspect_file
from runtime.jobs.children import Children
from runtime.log.archive import Archive
from runtime.log.session_log import SessionLog
from runtime.replay.audit_plan import AuditOptions
from runtime.replay.audit_subject import AuditSubject
from runtime.replay.verdict import ReplayVerdict, Verdict
from tests.harness import beside, crew, small_request, until_ended, until_said

FILE = """
import numpy as np
import torch
from torch import nn
from stigmergy import Workload


class Counting(nn.Linear):
    def __init__(self):
        super().__init__(4, 2)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.seen += 1
        return super().forward(x)


class Poisoned(Workload):
    def data(self, o):
        x = np.random.default_rng(0).uniform(1, 2, (800, 4)).astype("f4")
        y = (x[:, 0] > 1.5).astype("i8")
        x[BAD, 0] = -1
        return {"x": x, "y": y}

    def build(self, o, facts):
        return Counting()

    def loss(self, model, batch):
        return LOSS
"""
OF_LOGARITHMS = "nn.functional.cross_entropy(model(torch.log(batch['x'])), batch['y'])"
BROKEN = "nn.functional.cross_entropy(model(batch['x']), batch['y']) * (1 + 0 * torch.log(15.5 - model.seen))"
"""No number any more after fifteen steps, at whatever rate."""

POISONED = FILE.replace("BAD", "500").replace("LOSS", OF_LOGARITHMS)
"""The workload with one such row."""


async def trained(
    home: Path, bad: list[int], loss: str, *, audited: bool = False, disturbed: str = ""
) -> tuple[SessionState, list[Event], str]:
    """The session, its events, and the verdict of a full audit of it."""
    file = home.parent / "poisoned.py"
    file.write_text(FILE.replace("BAD", repr(bad)).replace("LOSS", loss))
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
    bus = MemoryBus()
    if disturbed:
        async with crew(home, BUILT_IN, bus=bus) as made:
            session = await made.commands.submit(read_request(request).resolved(), request_id="r")
            await until_said(made, session, disturbed)
    async with crew(home, BUILT_IN, bus=bus) as made, AsyncExitStack() as more:
        if disturbed:
            await more.enter_async_context(beside(made, ("diagnostician",), "another"))
        session = await made.commands.submit(read_request(request).resolved(), request_id="r")
        ended = await until_ended(made, session, 90)
        events = [fact.event for fact in made.tail.history(session).facts]
        verdict = ""
        if audited:
            audit = await made.commands.verbs["audit"]({"session": session, "mode": "full"})
            outcome = (await until_ended(made, str(audit["session"]), 90)).outcome
            assert isinstance(outcome, AuditCompleted)
            verdict = f"{outcome.verdict} {outcome.found.spans_checked} of {outcome.found.spans_total}"
    return ended, events, verdict


async def test_rows_that_spoil_a_training_are_named_and_left_out_and_the_whole_of_it_can_be_computed_again(
    tmp_path: Path,
) -> None:
    ended, events, verdict = await trained(tmp_path / "bad", [300, 500, 777], OF_LOGARITHMS, audited=True)
    assert isinstance(ended.outcome, TrainingCompleted)
    disturbed, others, _ = await trained(
        tmp_path / "disturbed", [300, 500, 777], OF_LOGARITHMS, disturbed="attempt.bisected"
    )
    assert disturbed.weights_digest == ended.weights_digest, "judges that are killed and doubled change no bit"
    assert next(one for one in others if isinstance(one, InterventionApplied)).changes == ended.training.segment.changes
    named = [one for one in events if isinstance(one, AttemptBisected)]
    (applied,) = [one for one in events if isinstance(one, InterventionApplied)]
    assert len(named) == 1
    runs = [[row, row] for row in named[0].rows]
    assert applied.changes == {"skip_rows": runs}
    assert 1 <= len(runs) <= 3, "a row may have gone to another split"
    (judged,) = [one for one in events if isinstance(one, OutcomeJudged)]
    assert judged.helped, judged.message
    assert verdict.startswith("pass"), verdict
    assert verdict.split()[1] == verdict.split()[3]
    (told,) = named
    forgeries: list[dict[str, Any]] = [
        {"rows": told.rows[:-1]},
        {"rows": sorted({*told.rows, told.rows[0] + 1})},
        {"step": told.step + 1},
    ]
    children = Children()
    try:
        for forged in forgeries:
            found = await judged_anew(tmp_path / "bad", ended.id, told.model_copy(update=forged), children)
            assert (found.verdict, found.divergences[0].what) == ("fail", "attempt.bisected"), forged
            assert next(iter(forged)) in found.divergences[0].message
        elsewhere = told.model_copy(update={"first": told.first + 10, "last": told.last + 10})
        found = await judged_anew(tmp_path / "bad", ended.id, elsewhere, children)
        assert (found.verdict, found.divergences[0].what) == ("fail", "attempt.bisected")
        assert "not the first unsound window" in found.divergences[0].message
    finally:
        await children.close()


async def judged_anew(home: Path, session: str, told: AttemptBisected, children: Children) -> ReplayVerdict:
    """The verdict of a full audit, had the trainer, with its own key, named these rows."""
    kept, history = Archive(Home(home)).read(session), SessionLog(session)
    facts = kept.history.facts
    history.add([one._replace(event=told) if isinstance(one.event, AttemptBisected) else one for one in facts])
    subject = AuditSubject(replace(kept, history=history), DirectoryBlobs(Home(home).blobs), home / "anew", home)
    return await recompute(Verdict(session, "pass"), subject, AuditOptions("full"), children)


async def test_a_row_that_no_repair_helps_ends_the_session_after_a_few_tries(tmp_path: Path) -> None:
    ended, events, _ = await trained(tmp_path / "home", [], BROKEN)
    applied = [one for one in events if isinstance(one, InterventionApplied)]
    proposed = [one for one in events if isinstance(one, InterventionProposed) and one.automatic]
    assert len(proposed) == len(applied) == MOST_REWINDS
    assert not any(name.rows for name in events if isinstance(name, AttemptBisected))
    verdicts = [one for one in events if isinstance(one, OutcomeJudged)]
    assert len(verdicts) == len(applied)
    assert not any(one.helped for one in verdicts), [one.message for one in verdicts]
    assert isinstance(ended.outcome, TrainingFailed)
    last = [one for one in events if isinstance(one, ProblemDiagnosed) and one.rule == "non_finite"][-1]
    assert f"{MOST_REWINDS} automatic rewinds did not help" in last.cure
    assert f"swarm fork {ended.id} --at " in last.cure
    assert f"from step {int(last.figures['step'])} on" in ended.outcome.message
    assert f"--step {int(last.figures['step'])}" in ended.outcome.cure
