"""What a person is told when a session has ended: the best and the last by name, and what could not be made."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.exporter import ExportRefused
from contracts.growing import GrowingTuple
from contracts.ids import ZERO
from contracts.operator import RULES, SessionRequested
from contracts.session import SessionState
from contracts.trainer import ControlEvaluated, InterventionApplied, TrainingCompleted
from contracts.training import TrainingState
from runtime.cli.exit_codes import session_exit_code
from runtime.views import terminal, view
from runtime.views.answer_pages import session_page
from runtime.views.sentences import sentence

SESSION = "00-agq7rxjuhn2hhptp3cs3bhofwa"


def evaluated(step: int, loss: float, *, improved: bool) -> ControlEvaluated:
    about = {"segment": 1, "epoch": 1, "metric": "val_loss", "best": 0.1, "best_step": 10, "patience_left": 1}
    return ControlEvaluated(step=step, values={"val_loss": loss}, improved=improved, stop=False, **about)


def shown(session: SessionState) -> str:
    return terminal.render(session_page(view.summary(session)))


def test_the_best_and_the_last_figures_are_told_apart() -> None:
    seen = GrowingTuple([evaluated(10, 0.1, improved=True), evaluated(20, 0.4, improved=False)])
    text = shown(SessionState(SESSION, own=TrainingState(evaluations=seen)))
    assert "val_loss=0.1  (best, at step 10)" in text
    assert "val_loss=0.4  (at step 20)" in text


def test_a_session_whose_last_step_is_its_best_says_it_once() -> None:
    text = shown(
        SessionState(SESSION, own=TrainingState(evaluations=GrowingTuple([evaluated(20, 0.1, improved=True)])))
    )
    assert "(best, at step 20)" in text
    assert text.count("val_loss") == 1


@pytest.mark.parametrize(("best", "says"), [(20, "best at 20: val_loss=0.4"), (10, "the best was at step 10")])
def test_the_end_of_a_training_never_passes_off_its_last_figures_as_the_best(best: int, says: str) -> None:
    about: Any = dict(segment=1, epochs=1, state_root=ZERO, final_blob=ZERO, weights_digest=ZERO)
    ended = TrainingCompleted(**about, stopped_early=False, step=20, best_step=best, values={"val_loss": 0.4})
    told = sentence(ended)
    assert says in told
    assert ("best at 10: val_loss" in told) is False


def test_interventions_are_listed_by_the_numbers_that_a_proof_asks_for() -> None:
    one = InterventionApplied(
        proposal="p", by="non_finite", segment=2, step=50, changes={"learning_rate": 0.1}, reproducible=True
    )
    text = shown(SessionState(SESSION, own=TrainingState(applied=(("an-id", one),))))
    assert "intervention 1" in text
    assert "by non_finite, from step 50: 0.1 of the learning rate" in text


@pytest.mark.parametrize(("formats", "code"), [(["onnx"], 1), (["safetensors"], 0)])
def test_a_file_that_could_not_be_made_is_told_and_is_no_success_when_it_was_asked_for(
    formats: list[str], code: int
) -> None:
    request = {"export": {"formats": formats}}
    asked = SessionRequested(kind="training", request=request, keyring="", asked_by="me", rules=RULES)
    no = ExportRefused(
        format="onnx", quantize="", checkpoint="best", code="x", message="No such operator.", cure="Try."
    )
    session = SessionState(SESSION, genesis=asked, own=TrainingState(refusals=(no,)))
    assert "onnx: No such operator. Try." in shown(session)
    assert session_exit_code({**view.summary(session), "state": "completed"}) == code
