"""The ladder: remedies in the order of their ratings, one at a time, and a session that says where it ends."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.trainer.decisions import hopeless_proposals
from contracts.diagnostician import DiagnosisReached, InterventionProposed, OutcomeJudged, ProblemDiagnosed
from contracts.envelope import Fact
from contracts.trainer import AttemptBisected, InterventionDeclined, WindowSensors
from runtime.diagnosis.evidence import Evidence, RuleFinding, TaskFacts, rules
from runtime.diagnosis.fold import MOST_REWINDS, DiagnosisState
from runtime.diagnosis.remedies import LADDERS, RUNGS, Trouble, next_rung
from runtime.engine.plain_kinds import read_levers
from tests.agents.test_diagnostician import NAN, SESSION, Log, only
from tests.contracts.told import Told

PAGE = Path(__file__).parents[2] / "docs" / "remedies.md"
SPOILED = [1.0, NAN] * 25


class SensedLog(Log):
    """A session whose windows have sensors."""

    sensors = WindowSensors()

    def bisected(self, *rows: int) -> Fact:
        unsound = self.history.state.training.unsound
        assert unsound is not None
        about = {"segment": self.segment, "first": unsound.first, "last": unsound.last, "looked": 50}
        return self.say("trainer", AttemptBisected(**about, step=unsound.first + 2, rows=list(rows)))

    def proposed(self, fact: Fact) -> tuple[InterventionProposed, str]:
        """What is proposed because of a fact, and under which identity."""
        (proposed,) = only(InterventionProposed, self.answer(fact))
        return proposed, self.say("diagnostician", proposed, cause=fact.id).id


def test_every_ladder_is_in_the_order_of_its_ratings_and_the_page_tells_them_all() -> None:
    page = PAGE.read_text()
    for rule, ladder in LADDERS.items():
        assert rule in rules.all, rule
        assert [rung.order for rung in ladder] == sorted(rung.order for rung in ladder)
        assert f"| `{rule}` | {', '.join(f'`{rung.name}`' for rung in ladder)} |" in page
    for rung in RUNGS.values():
        assert {rung.impact, rung.effort, rung.risk} <= {1, 2, 3}
        who = "by itself" if rung.automatic else "a person"
        assert f"| `{rung.name}` | {rung.words} | {rung.impact} | {rung.effort} | {rung.risk} | {who} |" in page
        assert rung.another == (rung.effort == 3)
    assert not RUNGS["raise_tenfold"].automatic
    assert not RUNGS["new_seed"].automatic


def test_columns_that_give_the_answer_away_are_left_out_beside_those_that_were() -> None:
    finding = RuleFinding("leakage", "warning", 0, 9, "", "", ())
    request = {"data": {"source": "csv", "ignore": ["id"]}}
    seen = Evidence(request=request, task=TaskFacts(telling=("'paid on'",)))
    rung, changes = next_rung(Trouble(finding, seen), ()) or pytest.fail("there is no remedy")
    assert (rung.name, changes) == ("ignore_columns", {"data.ignore": ["id", "paid on"]})
    images = replace(seen, request={"data": {"source": "npz"}})
    assert next_rung(Trouble(finding, images), ()) is None, "arrays have no columns by name"


@pytest.mark.parametrize(
    ("rule", "optimizer", "factor", "changes"),
    [
        ("oscillation", {"type": "adamw", "learning_rate": 0.002}, 1.0, {"learning_rate": 0.1}),
        ("oscillation", {"type": "sgd", "learning_rate": 50.0, "momentum": 0.9}, 1.0, {"learning_rate": 2e-3}),
        ("oscillation", {"type": "sgd", "learning_rate": 50.0, "momentum": 0.9}, 2e-3, {"learning_rate": 0.1}),
        ("oscillation", {"type": "own", "learning_rate": 50.0}, 1.0, {"learning_rate": 2e-4}),
        ("creeping", {"type": "adamw", "learning_rate": 1e-6}, 1.0, {"learning_rate": 1e3}),
        ("creeping", {"type": "adamw", "learning_rate": 1e-6}, 1e3, {"learning_rate": 1e2}),
    ],
)
def test_a_rate_far_from_the_usual_one_of_its_optimizer_is_brought_there_at_once(
    rule: str, optimizer: dict[str, Any], factor: float, changes: dict[str, float]
) -> None:
    finding = RuleFinding(rule, "warning", 10, 20, "", "", (), {"update_ratio": 3e-5})
    seen = Evidence(request={"optimizer": optimizer})
    rung, found = next_rung(Trouble(finding, seen, factor=factor), ()) or pytest.fail("there is no remedy")
    assert rung.name in ("lower_rate", "raise_rate")
    assert found == pytest.approx(changes)


def test_where_the_schedule_is_at_fault_the_rate_that_was_asked_for_is_kept() -> None:
    optimizer = {"type": "adamw", "learning_rate": 1e-3}
    burst = {"type": "composite", "phases": [{"share": 0.1, "level": 300.0}, {"share": 0.9, "level": 1.0}]}
    fallen = {"type": "step", "every_steps": 10, "factor": 0.03}
    for rule, schedule in (("exploding", burst), ("dead_units", burst), ("creeping", fallen)):
        finding = RuleFinding(rule, "warning", 10, 20, "", "", (), {"update_ratio": 3e-5})
        seen = Evidence(request={"optimizer": optimizer, "schedule": schedule})
        rung, changes = next_rung(Trouble(finding, seen), ()) or pytest.fail("there is no remedy")
        assert (rung.name, changes) == ("constant_schedule", {"schedule": {"type": "constant"}})
        cosine = replace(seen, request={"optimizer": optimizer, "schedule": {"type": "cosine"}})
        other, _ = next_rung(Trouble(finding, cosine), ()) or pytest.fail("there is no remedy")
        assert other.name in ("lower_rate", "raise_rate")


def test_a_handful_of_rows_to_judge_by_becomes_a_fifth_and_then_more_patience() -> None:
    split = {"train": 0.89, "val": 0.01, "test": 0.1, "folds": None}
    request: dict[str, Any] = {"data": {"split": split}, "early_stopping": {"patience": 1}}
    trouble = Trouble(RuleFinding("noisy_validation", "warning", 0, 9, "", "", ()), Evidence(request=request))
    rung, changes = next_rung(trouble, ()) or pytest.fail("there is no remedy")
    assert (rung.name, changes) == (
        "more_validation",
        {"data.split": split | {"train": pytest.approx(0.7), "val": 0.2}},
    )
    enough = replace(trouble, seen=Evidence(request=request | {"data": {"split": split | {"val": 0.2}}}))
    assert next_rung(enough, ()) == (RUNGS["more_patience"], {"early_stopping.patience": 10})


def test_a_workload_is_tried_with_the_options_of_its_author_and_without_a_loss_that_is_not_its_own() -> None:
    model = {"architecture": "workload", "workload": "mine", "options": {"twice": 1}}
    seen = Evidence(request={"model": model, "loss": {"type": "auto"}}, task=TaskFacts(kind="classification"))
    finding = RuleFinding("double_activation", "warning", 0, 9, "", "", ())
    rung, changes = next_rung(Trouble(finding, seen), ()) or pytest.fail("there is no remedy")
    assert (rung.name, changes) == ("usual_options", {"model.options": {}})
    noisy = Trouble(replace(finding, rule="label_noise"), seen)
    assert RUNGS["smooth_labels"].pull(noisy) is None
    assert RUNGS["smooth_labels"].pull(replace(noisy, seen=replace(seen, request={"loss": {"type": "auto"}})))


def test_rows_are_named_before_a_remedy_is_chosen_and_left_out_first() -> None:
    log = SensedLog()
    log.window(1.0)
    spoiled = log.window(SPOILED)
    assert only(InterventionProposed, log.answer(spoiled)) == []
    assert log.answer(log.window(NAN)) == [], "what comes before the answer will be superseded"
    proposed, _ = log.proposed(log.bisected(7, 8, 30))
    assert (proposed.remedy, proposed.changes) == ("skip_rows", {"skip_rows": [[7, 8], [30, 30]]})
    assert (proposed.rewind_to, proposed.automatic, proposed.waits) == (0, True, False)


def test_the_next_remedy_follows_when_one_failed_and_the_last_finding_says_how_a_person_goes_on() -> None:
    log, pulled = SensedLog(training={"grad_clip": None}), []
    for _ in range(MOST_REWINDS):
        log.window(1.0)
        log.window(SPOILED)
        proposed, id = log.proposed(log.bisected())
        assert len(proposed.changes) == 1, "one lever at a time"
        pulled.append(proposed.remedy)
        log.applied(id, 0)
    assert pulled == ["lower_rate", "lower_rate", "clip"]
    log.window(1.0)
    last = log.window(SPOILED)
    told = only(ProblemDiagnosed, log.answer(last))[0]
    assert only(InterventionProposed, log.answer(last)) == []
    assert only(InterventionProposed, log.answer(log.bisected())) == []
    assert f"{MOST_REWINDS} automatic rewinds did not help" in told.cure
    assert f"swarm fork {SESSION} --at 0 --set " in told.cure


def test_a_remedy_that_the_trainer_declines_is_followed_by_the_next() -> None:
    log = SensedLog(training={"grad_clip": None})
    log.window(1.0)
    log.window(SPOILED)
    _, id = log.proposed(log.bisected(3))
    proposed, _ = log.proposed(log.say("trainer", InterventionDeclined(proposal=id, reason="it does not fit")))
    assert proposed.remedy == "lower_rate"


def test_no_rate_is_lowered_for_a_training_whose_first_loss_is_no_number() -> None:
    log = SensedLog()
    log.window(NAN)
    assert only(InterventionProposed, log.answer(log.bisected())) == []
    named = SensedLog()
    named.window(NAN)
    assert named.proposed(named.bisected(5))[0].changes == {"skip_rows": [[5, 5]]}


def test_in_the_mode_propose_everything_waits_and_nothing_is_passed_over() -> None:
    log = SensedLog(total=150, diagnosis={"mode": "propose"})
    log.window(1.0)
    log.window(SPOILED)
    log.window(NAN)
    assert only(DiagnosisReached, log.answer(log.evaluation(NAN))) == [], "its proposal is still to come"
    answer = log.answer(log.bisected())
    (proposed,) = only(InterventionProposed, answer)
    assert (proposed.waits, proposed.automatic, proposed.remedy) == (True, False, "lower_rate")
    assert only(DiagnosisReached, answer)
    assert log.history.derived(DiagnosisState()).pending is None


@pytest.mark.parametrize(("mode", "told"), [("off", False), ("observe", True)])
def test_who_wants_nothing_done_is_told_or_left_alone(mode: str, told: bool) -> None:
    log = SensedLog(diagnosis={"mode": mode})
    log.window(1.0)
    answers = [*log.answer(log.window(SPOILED)), *log.answer(log.bisected(3))]
    assert bool(only(ProblemDiagnosed, answers)) == told
    assert only(InterventionProposed, answers) == []


def test_a_judgement_sets_the_control_metric_beside_as_many_steps_before() -> None:
    log = SensedLog(every=50)
    for value in (1.0, 0.9, 0.8, 0.7):
        log.window(1.0)
        log.evaluation(value)
    log.window(SPOILED)
    _, id = log.proposed(log.bisected())
    applied = log.applied(id, 200)
    verdicts: list[Any] = []
    for value in (0.6, 0.5, 0.4, 0.3):
        log.window(0.5)
        verdicts += only(OutcomeJudged, log.answer(log.evaluation(value)))
    (judged,) = verdicts
    assert (judged.proposal, judged.helped) == (applied.id, True)
    figures = judged.figures
    assert (figures["metric_before"], figures["metric_after"], figures["step"]) == (0.7, 0.4, 350.0)
    assert math.isclose(figures["metric_gain"], 0.3)
    assert math.isclose(figures["metric_gain_before"], 0.3)
    assert "val_loss went from 0.7 to 0.4 in 150 steps" in judged.message


def test_what_a_remedy_changes_is_a_lever_that_can_be_read() -> None:
    log = SensedLog(training={"grad_clip": None})
    log.window(1.0)
    log.window(SPOILED)
    proposed, _ = log.proposed(log.bisected(2))
    assert [lever.recorded for lever in read_levers(proposed.changes)] == list(proposed.changes.values())


def test_classes_whose_rows_were_not_counted_are_not_balanced() -> None:
    told = Told({"loss": {"type": "auto"}, "model": {"architecture": "mlp"}})
    asked = {"segment": 1, "rewind_to": 0, "reason": "", "automatic": False, "waits": True}
    changes: Any = {"class_weights": "balanced"}
    id = told.say("diagnostician", InterventionProposed(rule="missing_class", changes=changes, **asked))
    assert hopeless_proposals(told.now) == []
    told.prepared(train=80, val=20)
    assert hopeless_proposals(told.now) == [
        (id, "how many rows each class has was not counted when the data were prepared")
    ]
    finding = RuleFinding("missing_class", "warning", 0, 9, "", "", ())
    seen = Evidence(request=told.now.request, task=TaskFacts("classification", classes=2))
    assert RUNGS["balance_classes"].pull(Trouble(finding, seen)) is None
    counted = replace(seen, task=TaskFacts("classification", classes=2, counts=(60, 20)))
    assert RUNGS["balance_classes"].pull(Trouble(finding, counted)) == changes
