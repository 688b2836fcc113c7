"""What the diagnostician does for real trainings, when its proposals are carried out as a trainer would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from contracts import ids
from contracts.diagnostician import DiagnosisReached, InterventionProposed, OutcomeJudged, ProblemDiagnosed
from contracts.envelope import Fact
from contracts.event import Event
from contracts.operator import RULES, SessionRequested
from contracts.request import read_request
from contracts.trainer import AttemptBisected, InterventionApplied
from runtime.diagnosis.fold import DiagnosisState
from runtime.engine.dataset import Dataset, write
from runtime.engine.facts import describe
from runtime.engine.loop import Run
from runtime.engine.plan import Change, Plan
from runtime.engine.report import Report
from runtime.engine.resolve import resolve
from runtime.log.session_log import SessionLog
from runtime.replay.comparison import evaluation_event, window_event
from tests.agents.cases import tell
from tests.harness import claim

SESSION = ids.session_for("repaired")
DIGEST = "0" * 64
BAD = (101, 700, 1203)
"""Training rows that no weights can bear, by their places from 1: their values are numbers, and too large."""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    images, labels = load_digits(return_X_y=True)
    images, labels = (images / 16).reshape(-1, 1, 8, 8).astype("f4"), labels.astype("i8")
    cut = {"train": slice(0, 1400), "val": slice(1400, 1600), "test": slice(1600, None)}
    splits = {name: {"x": images[rows], "y": labels[rows]} for name, rows in cut.items()}
    place: Path = tmp_path_factory.mktemp("digits")
    write(place, splits, describe(splits, "classification", labels=[str(n) for n in range(10)]))
    return Dataset.open(place)


@pytest.fixture(scope="module")
def poisoned(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The same rows, but three of those trained on."""
    splits = {name: {**digits.columns(name)} for name in ("train", "val", "test")}
    splits["train"]["x"] = np.array(splits["train"]["x"])
    for row in BAD:
        splits["train"]["x"][row - 1, 0, 4, 4] = 3e38
    place: Path = tmp_path_factory.mktemp("poisoned")
    write(place, splits, digits.facts)
    return Dataset.open(place)


class Session:
    """One session in one process: a trainer that hears of a proposal `lag` windows after it was made."""

    def __init__(self, digits: Dataset, *, lag: int, epochs: int, clip: float | None, **optimizer: Any) -> None:
        request = read_request(
            {
                "data": {"source": "digits"},
                "model": {"architecture": "mlp", "hidden": [64, 64]},
                "optimizer": optimizer,
                "training": {"epochs": epochs, "grad_clip": clip},
                "early_stopping": {"enabled": False},
            }
        )
        self.history, self.digits, self.lag = SessionLog(SESSION), digits, lag
        self.plan = Plan(request, resolve(request, digits.facts, cores=1))
        self.say(
            "operator",
            SessionRequested(kind="training", request=request.resolved(), keyring="", asked_by="me", rules=RULES),
        )
        self.say("trainer", claim(1, self.plan.resolved.as_json()))
        self.said: list[Event] = []
        self._train()

    def say(self, lane: str, event: Event, cause: str | None = None) -> Fact:
        (fact,) = tell(self.history, lane, event, cause=cause)
        return fact

    def _heard(self, event: Event) -> None:
        fact = self.say("trainer", event)
        found = self.history.derived(DiagnosisState())
        assert found.at == fact.id
        self.said += [*found.said, *found.verdicts]
        for proposed in found.said:
            if isinstance(proposed, InterventionProposed):
                self.say("diagnostician", proposed, cause=fact.id)

    def _train(self) -> None:
        while True:
            run, late = self._from(self.plan.changes[-1].step if self.plan.changes else 0), self.lag
            while True:
                pending = self.history.derived(DiagnosisState()).pending
                if pending and (run.finished or late == 0):
                    break
                late -= pending is not None
                if run.finished:
                    return
                report = run.advance()
                for event in self._events(report):
                    self._heard(event)
            if pending.proposal is None:
                self._heard(self._bisected())
            pending = self.history.derived(DiagnosisState()).pending
            if pending is None or pending.proposal is None:
                return
            proposal = pending.proposal
            assert proposal.rewind_to is not None
            self.plan = self.plan.after(Change.read(proposal.rewind_to, proposal.changes))
            self._heard(
                InterventionApplied(
                    proposal=pending.id,
                    by=proposal.rule,
                    segment=len(self.plan.changes) + 1,
                    step=proposal.rewind_to,
                    changes=proposal.changes,
                    reproducible=True,
                )
            )

    def _bisected(self) -> AttemptBisected:
        """What a trainer records of the segment's first window that is not finite."""
        window = self.history.state.training.unsound
        assert window is not None
        found = self._from(window.first).bisect(window.last)
        about = {"segment": window.segment, "first": window.first, "last": window.last, "looked": found.looked}
        return AttemptBisected(**about, step=found.step, rows=list(found.rows))

    def _from(self, step: int) -> Run:
        """A run at a step, its state recomputed from the beginning."""
        run = Run.start(self.plan, self.digits)
        while run.step < step:
            run.advance()
        return run

    def _events(self, report: Report) -> Iterator[Event]:
        if report.window:
            yield window_event(report.window)
        if report.evaluation:
            yield evaluation_event(report.evaluation)

    def outcome(self) -> tuple[list[tuple[int, int | None]], str]:
        """What was proposed, and the digest of the last weights."""
        proposals = [one for one in self.said if isinstance(one, InterventionProposed)]
        last = self.history.state.training.last_window
        return [(one.segment, one.rewind_to) for one in proposals], last.weights_digest if last else ""

    def accuracy(self) -> float:
        return self.history.state.training.evaluations[-1].values["val_accuracy"]

    def problems(self) -> list[str]:
        return [one.rule for one in self.said if isinstance(one, ProblemDiagnosed)]


@pytest.mark.parametrize(
    "optimizer",
    [{"type": "sgd", "learning_rate": 1000.0}, {"type": "adamw", "learning_rate": 1.0}],
    ids=["not-finite", "dead"],
)
def test_a_training_that_diverges_ends_well_and_the_same_however_late_the_proposal_is_heard(
    digits: Dataset, optimizer: dict[str, Any]
) -> None:
    prompt = Session(digits, lag=0, epochs=8, clip=None, **optimizer)
    late = Session(digits, lag=5, epochs=8, clip=None, **optimizer)
    assert prompt.outcome() == late.outcome()
    assert prompt.outcome()[0]
    assert prompt.accuracy() > 0.7
    assert isinstance(prompt.said[-1], DiagnosisReached)
    assert prompt.history.state.training.evaluations == late.history.state.training.evaluations


@pytest.mark.parametrize(
    "optimizer",
    [
        {"type": "adamw", "learning_rate": 1e-3},
        {"type": "adamw", "learning_rate": 1e-2},
        {"type": "sgd", "learning_rate": 0.1, "momentum": 0.9},
    ],
    ids=["adamw", "fast-adamw", "sgd"],
)
def test_a_healthy_training_is_left_alone(digits: Dataset, optimizer: dict[str, Any]) -> None:
    session = Session(digits, lag=0, epochs=15, clip=1.0, **optimizer)
    assert session.outcome()[0] == []
    assert [rule for rule in session.problems() if rule != "overfitting"] == []
    assert session.accuracy() > 0.85


def test_rows_that_no_weights_can_bear_are_named_and_left_out_by_one_intervention(
    digits: Dataset, poisoned: Dataset
) -> None:
    optimizer = {"type": "adamw", "learning_rate": 1e-3}
    twin = Session(digits, lag=0, epochs=8, clip=1.0, **optimizer)
    prompt, late = (Session(poisoned, lag=lag, epochs=8, clip=1.0, **optimizer) for lag in (0, 5))
    (proposed,) = [one for one in prompt.said if isinstance(one, InterventionProposed)]
    assert (proposed.remedy, proposed.changes) == ("skip_rows", {"skip_rows": [[row, row] for row in BAD]})
    assert prompt.accuracy() > twin.accuracy() - 0.01
    assert prompt.outcome() == late.outcome()
    (judged,) = [one for one in prompt.said if isinstance(one, OutcomeJudged)]
    assert judged.helped, judged.message
