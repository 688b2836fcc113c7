"""What the diagnostician promises: problems found with evidence, proposals that do not depend on arrival."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.diagnostician.agent import Diagnostician
from contracts import ids
from contracts.common import ChildEnded
from contracts.diagnostician import DiagnosisReached, InterventionProposed, OutcomeJudged, ProblemDiagnosed
from contracts.envelope import Fact
from contracts.event import Event, pack
from contracts.kind import owed
from contracts.operator import RULES, SessionRequested
from contracts.resource_monitor import ResourcesAlerted
from contracts.trainer import (
    ControlEvaluated,
    InterventionApplied,
    InterventionDeclined,
    Layer,
    TrainingCompleted,
    TrainingFailed,
    WindowRecorded,
    WindowSensors,
    evidence,
)
from runtime.diagnosis.evidence import Evidence, Remedy, Rule, RuleFinding, rule, rules
from runtime.diagnosis.fold import MOST_REWINDS, DiagnosisState, Pending
from runtime.engine.parts.levers import RateFactor
from runtime.log.session_log import SessionLog
from runtime.node.agent_context import Wakeup
from tests.agents.cases import tell
from tests.harness import claim

SESSION = ids.session_for("diagnosed")
DIGEST = "0" * 64
NAN = math.nan


class Log:
    """A session's facts, said one after the other."""

    sensors: WindowSensors | None = None
    """Of every window; sessions whose windows have some are judged by all rules, and have ladders."""

    def __init__(self, *, auto_fix: bool = True, total: int = 1000, every: int = 100, **asked: Any) -> None:
        self.history = SessionLog(SESSION)
        self.segment, self.step, self.total = 1, 0, total
        request = {"diagnosis": {"auto_fix": auto_fix}, "optimizer": {"learning_rate": 0.1}} | asked
        self.say("operator", SessionRequested(kind="training", request=request, keyring="", asked_by="me", rules=RULES))
        resolved = {"steps_total": total, "every_steps": every, "window": 50}
        self.say("trainer", claim(1, resolved))

    def say(self, lane: str, event: Event, cause: str | None = None) -> Fact:
        (fact,) = tell(self.history, lane, event, cause=cause)
        return fact

    def window(
        self,
        loss: float | Sequence[float] = 1.0,
        *,
        norm: float = 1.0,
        layers: Sequence[Layer] = (),
        steps: int = 50,
    ) -> Fact:
        losses = list(loss) if isinstance(loss, Sequence) else [loss] * steps
        first, self.step = self.step, self.step + len(losses)
        event = WindowRecorded(
            segment=self.segment,
            first=first,
            last=self.step,
            losses=pack(struct.pack(f"<{len(losses)}f", *losses)),
            gradient_norm=norm,
            learning_rate=0.1,
            index_digest="",
            weights_digest=DIGEST,
            finite=all(map(math.isfinite, losses)) and math.isfinite(norm),
            **evidence(layers),
            sensors=self.sensors,
        )
        return self.say("trainer", event)

    def evaluation(self, loss: float = 1.0, *, stop: bool = False, improved: bool = False) -> Fact:
        event = ControlEvaluated(
            segment=self.segment,
            step=self.step,
            epoch=1,
            values={"val_loss": loss},
            metric="val_loss",
            improved=improved,
            best=loss,
            best_step=self.step,
            patience_left=1,
            stop=stop,
        )
        return self.say("trainer", event)

    def applied(self, proposal: str, step: int, *, by: str = "non_finite", **changes: Any) -> Fact:
        self.segment, self.step = self.segment + 1, step
        changes = changes or {"learning_rate": 0.1}
        event = InterventionApplied(
            proposal=proposal, by=by, segment=self.segment, step=step, changes=changes, reproducible=True
        )
        return self.say("trainer", event)

    def completed(self) -> Fact:
        event = TrainingCompleted(
            segment=self.segment,
            step=self.step,
            epochs=1,
            stopped_early=False,
            best_step=None,
            weights_digest=DIGEST,
            state_root=DIGEST,
            final_blob=DIGEST,
            values={},
        )
        return self.say("trainer", event)

    def answer(self, fact: Fact) -> list[Event]:
        """What the diagnostician says because of a fact, with nobody else having answered yet."""
        found = self.history.derived(DiagnosisState(), fact.position)
        return [*found.said, *found.verdicts] if found.at == fact.id else []

    def proposal_id(self, fact: Fact) -> str:
        """Say what is proposed because of a fact, under an identity that nobody can compute, and return that."""
        (proposed,) = only(InterventionProposed, self.answer(fact))
        return self.say("diagnostician", proposed, cause=fact.id).id

    def pending(self) -> Pending | None:
        """What the trainer may answer; it is said first, for the trainer hears only what was said."""
        pending = self.history.derived(DiagnosisState()).pending
        if pending and not pending.id:
            self.proposal_id(next(fact for fact in self.history.facts if fact.id == pending.cause))
        return self.history.derived(DiagnosisState()).pending

    def everything(self) -> list[Event]:
        return [event for fact in self.history.facts for event in self.answer(fact)]


def layer(name: str, gradient: float = 1.0, dead: float | None = None) -> Layer:
    return Layer(name=name, gradient=gradient, weight=1.0, update=0.001, dead=dead)


def only(kind: type[Event], events: Sequence[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


# The rules


def test_rules_are_asked_in_the_order_of_their_file_and_a_new_one_is_one_class() -> None:
    oldest = ["non_finite", "exploding", "dead_layer", "dead_units", "vanishing", "overfitting", "plateau"]
    # What a session of any age did not survive is repaired in it.
    assert [name for name, one in rules.all.items() if one.edition == 1] == [*oldest, "out_of_memory"]

    @rule
    @dataclass(frozen=True)
    class Slow(Rule):
        name = "slow"
        edition = 1

        def look(self, seen: Evidence) -> RuleFinding | None:
            remedy = Remedy(0, (RateFactor(2.0),), "It is slow")
            return RuleFinding(self.name, "note", 0, seen.step, "It is slow.", "Hurry.", ("it",), remedy=remedy)

    try:
        log = Log()
        diagnosed, proposed = log.answer(log.window(1.0))
    finally:
        del rules._parts["slow"]  # type: ignore[attr-defined]
    assert isinstance(diagnosed, ProblemDiagnosed)
    assert isinstance(proposed, InterventionProposed)
    assert (diagnosed.rule, proposed.changes) == ("slow", {"learning_rate": 2.0})
    assert proposed.reason == "It is slow; from step 0 again with 2 of the learning rate."


def test_a_loss_that_is_no_number_leads_back_to_the_planned_checkpoint_before_its_window() -> None:
    log = Log()
    for _ in range(5):
        log.window(1.0)
    spoiled = log.window([1.0] * 20 + [NAN] * 30)
    diagnosed, proposed = log.answer(spoiled)
    assert isinstance(diagnosed, ProblemDiagnosed)
    assert (diagnosed.rule, diagnosed.severity, diagnosed.first, diagnosed.last) == ("non_finite", "critical", 250, 300)
    assert diagnosed.evidence == [spoiled.id]
    assert diagnosed.figures["step"] == 271
    assert isinstance(proposed, InterventionProposed)
    assert (proposed.segment, proposed.rewind_to, proposed.automatic) == (1, 200, True)
    assert proposed.changes == {"learning_rate": 0.1, "grad_clip": 1.0}


def test_when_the_first_loss_of_a_window_is_spoiled_the_checkpoint_at_its_beginning_is_not_trusted() -> None:
    log = Log()
    for _ in range(4):
        log.window(1.0)
    _, proposed = log.answer(log.window(NAN))
    assert isinstance(proposed, InterventionProposed)
    assert proposed.rewind_to == 100


def test_a_loss_that_was_never_a_number_is_told_and_not_retried() -> None:
    log = Log()
    (diagnosed,) = log.answer(log.window(NAN))
    assert isinstance(diagnosed, ProblemDiagnosed)
    assert "before any step" in diagnosed.message


def test_a_gradient_or_a_validation_loss_that_is_no_number_is_found_as_well() -> None:
    log = Log()
    log.window(1.0)
    assert only(InterventionProposed, log.answer(log.window(1.0, norm=math.inf)))
    log = Log()
    log.window(1.0)
    log.window(1.0)
    (proposed,) = only(InterventionProposed, log.answer(log.evaluation(NAN)))
    assert proposed.rewind_to == 0


def test_a_loss_far_above_that_of_an_untrained_model_is_exploding_and_a_spike_is_not() -> None:
    log = Log()
    log.window([2.3] + [2.0] * 49)
    log.window(20.0)
    log.window(1.5)
    assert log.everything() == []
    first = log.window(40.0)
    second = log.window(90.0)
    assert log.answer(first) == []
    diagnosed, proposed = log.answer(second)
    assert isinstance(diagnosed, ProblemDiagnosed)
    assert (diagnosed.rule, diagnosed.first, diagnosed.evidence) == ("exploding", 150, [first.id, second.id])
    assert isinstance(proposed, InterventionProposed)
    assert proposed.rewind_to == 100


def test_a_model_that_forgets_what_it_had_learned_is_exploding() -> None:
    log = Log()
    log.window([2.3] + [0.5] * 49)
    log.window(4.0)
    (diagnosed, _) = log.answer(log.window(4.0))
    assert isinstance(diagnosed, ProblemDiagnosed)
    assert diagnosed.figures["lowest_loss"] == pytest.approx(0.5)


def test_gradients_a_thousand_times_larger_count_only_together_with_the_loss() -> None:
    log = Log()
    for _ in range(6):
        log.window(2.3)
    log.window(2.3, norm=5000.0)
    log.window(2.3, norm=5000.0)
    assert only(ProblemDiagnosed, log.everything()) == []
    log.window(4.0, norm=5000.0)
    assert [one.rule for one in only(ProblemDiagnosed, log.answer(log.window(4.0, norm=9000.0)))] == ["exploding"]


def test_silent_units_are_advice_and_a_layer_without_any_living_unit_is_gone_back_for() -> None:
    log = Log()
    for _ in range(3):
        log.window(0.5, layers=[layer("a", dead=0.75), layer("b", dead=0.1), layer("c")])
    (diagnosed,) = log.everything()
    assert isinstance(diagnosed, ProblemDiagnosed)
    assert (diagnosed.rule, diagnosed.severity, list(diagnosed.figures)) == ("dead_units", "warning", ["dead:a"])
    log = Log()
    for _ in range(3):
        log.window(2.3, layers=[layer("a", dead=1.0), layer("b")])
    assert [one.rewind_to for one in only(InterventionProposed, log.everything())] == [0]


def test_a_layer_that_no_gradient_reaches_any_more_is_gone_back_for_unless_the_model_has_learned() -> None:
    for loss, problems, proposals in (
        (2.3, ["dead_units", "vanishing", "dead_layer"], ["dead_layer"]),
        (0.1, ["dead_units"], []),
    ):
        log = Log()
        log.window([2.3] + [loss] * 49)
        for gradient in (0.1, 0.1, 0.1, 0.0, 0.0, 0.0):
            log.window(loss, layers=[layer("a", gradient=gradient, dead=0.9), layer("b")])
        assert [one.rule for one in only(ProblemDiagnosed, log.everything())] == problems
        assert [one.rule for one in only(InterventionProposed, log.everything())] == proposals


def test_units_that_come_back_to_life_are_not_dead() -> None:
    log = Log()
    for share in (0.9, 0.9, 0.2, 0.9, 0.9):
        log.window(1.0, layers=[layer("a", dead=share)])
    assert log.everything() == []


def test_gradients_that_vanish_on_the_way_to_the_first_layer_are_advice() -> None:
    log = Log()
    for _ in range(3):
        log.window(2.3, layers=[layer("first", gradient=1e-6), layer("last", gradient=0.1)])
    (diagnosed,) = log.everything()
    assert isinstance(diagnosed, ProblemDiagnosed)
    assert diagnosed.rule == "vanishing"
    assert "'first'" in diagnosed.message


def test_small_gradients_in_a_model_that_has_learned_are_nothing() -> None:
    log = Log()
    log.window([2.3] + [0.1] * 49, layers=[layer("first", gradient=1e-6), layer("last", gradient=0.1)])
    for _ in range(5):
        log.window(0.1, layers=[layer("first", gradient=1e-6), layer("last", gradient=0.1)])
    assert log.everything() == []


def test_validation_that_rises_while_training_falls_is_overfitting() -> None:
    log = Log()
    for trained, judged in ((1.0, 1.0), (0.8, 0.8), (0.6, 0.9), (0.4, 1.0), (0.3, 1.2)):
        log.window(trained)
        log.evaluation(judged)
    (diagnosed,) = log.everything()
    assert isinstance(diagnosed, ProblemDiagnosed)
    assert (diagnosed.rule, diagnosed.first, diagnosed.last) == ("overfitting", 100, 250)
    assert len(diagnosed.evidence) == 4


@pytest.mark.parametrize(("untrained", "risen"), [(0.0105, 0.0106), (0.0105, 0.0112), (2.3, 0.02)])
def test_a_loss_that_rises_by_little_or_from_next_to_nothing_is_not_overfitting(untrained: float, risen: float) -> None:
    """By 6 % or 12 % of the best; or to twice the best, where both are small beside the loss of an untrained model."""
    log = Log()
    for trained, judged in (
        ([untrained] + [0.01] * 49, 0.01),
        ([0.008] * 50, risen),
        ([0.006] * 50, risen),
        ([0.004] * 50, risen),
    ):
        log.window(trained)
        log.evaluation(judged)
    assert log.everything() == []


def test_a_metric_that_stands_still_is_a_plateau_and_one_that_creeps_on_is_not() -> None:
    log = Log()
    for n in range(7):
        log.window(0.5)
        log.evaluation(0.6, improved=n == 0)
    assert [one.rule for one in only(ProblemDiagnosed, log.everything())] == ["plateau"]
    log = Log()
    for n in range(9):
        log.window(0.5)
        log.evaluation(0.6 - n / 1000, improved=True)
    assert log.everything() == []


# Segments, proposals and the end


def test_a_segment_gets_one_automatic_proposal_and_what_follows_it_is_passed_over() -> None:
    log = Log()
    log.window(1.0)
    assert only(InterventionProposed, log.answer(log.window([1.0, NAN] * 25)))
    for _ in range(4):
        assert log.answer(log.window(NAN)) == []
    assert log.answer(log.evaluation(NAN)) == []


def test_a_new_segment_may_be_proposed_for_again_but_rewinding_ends() -> None:
    log = Log()
    for number in range(1, MOST_REWINDS + 2):
        log.window(1.0)
        fact = log.window([1.0, NAN] * 25)
        proposals = only(InterventionProposed, log.answer(fact))
        assert [one.segment for one in proposals] == ([number] if number <= MOST_REWINDS else [])
        if proposals:
            log.applied(log.proposal_id(fact), 0)
    (last,) = only(ProblemDiagnosed, log.answer(fact))
    assert "3 automatic rewinds did not help" in last.cure


def test_what_was_recorded_after_the_beginning_of_a_segment_is_forgotten() -> None:
    log = Log()
    log.window([2.3] + [0.5] * 49)
    log.window([0.5, NAN] * 25)
    log.applied("somebody's", 50)
    log.window(0.5)
    assert [one.last for one in log.history.derived(DiagnosisState()).evidence.windows] == [50, 100]


def test_without_auto_fix_a_problem_is_told_once_and_nothing_is_proposed() -> None:
    log = Log(auto_fix=False)
    log.window(1.0)
    for _ in range(5):
        log.window([1.0, NAN] * 25)
    assert [type(one) for one in log.everything()] == [ProblemDiagnosed]


def test_the_end_of_the_plan_is_said_once_the_last_window_and_its_evaluation_are_in() -> None:
    log = Log(total=100)
    log.window(1.0)
    log.evaluation(1.0)
    assert log.answer(log.window(1.0)) == []
    assert log.answer(log.evaluation(1.0)) == [DiagnosisReached(segment=1, step=100)]


def test_an_early_stop_is_an_end_too_and_auto_fix_does_not_matter() -> None:
    log = Log(auto_fix=False)
    log.window(1.0)
    assert log.answer(log.evaluation(1.0, stop=True)) == [DiagnosisReached(segment=1, step=50)]


def test_the_end_comes_after_everything_else_that_is_said_with_it() -> None:
    log = Log(total=100, auto_fix=False)
    log.window(1.0)
    log.window(1.0)
    assert [type(one) for one in log.answer(log.evaluation(NAN))] == [ProblemDiagnosed, DiagnosisReached]


def test_a_segment_that_will_be_gone_back_from_has_no_end_unless_the_trainer_declines() -> None:
    log = Log(total=100)
    log.window(1.0)
    spoiled = log.window([1.0, NAN] * 25)
    assert only(DiagnosisReached, log.answer(spoiled)) == []
    assert log.answer(log.evaluation(NAN)) == []
    declined = log.say("trainer", InterventionDeclined(proposal=log.proposal_id(spoiled), reason="no"))
    assert log.answer(declined) == [DiagnosisReached(segment=1, step=100)]


def test_after_a_rewind_the_end_is_that_of_the_new_segment() -> None:
    log = Log(total=100)
    log.window(1.0)
    spoiled = log.window([1.0, NAN] * 25)
    log.evaluation(NAN)
    log.applied(log.proposal_id(spoiled), 0)
    log.window(1.0)
    log.window(1.0)
    assert DiagnosisReached(segment=2, step=100) in log.answer(log.evaluation(1.0))


def test_a_change_at_the_very_end_is_an_end_of_its_own() -> None:
    log = Log(total=100)
    log.window(1.0)
    log.window(1.0)
    log.evaluation(1.0)
    assert log.answer(log.applied("a person's", 100)) == [DiagnosisReached(segment=2, step=100)]


def test_a_proposal_is_known_by_its_cause_and_its_rule_not_by_an_identity_that_was_foretold() -> None:
    log = Log()
    log.window(1.0)
    spoiled = log.window([1.0, NAN] * 25)
    (proposed,) = only(InterventionProposed, log.answer(spoiled))
    for cause, by in (("another fact", proposed.rule), (spoiled.id, "another rule")):
        log.say("diagnostician", proposed.model_copy(update={"rule": by}), cause=cause)
        pending = log.history.derived(DiagnosisState()).pending
        assert pending is not None
        assert pending.id == ""
    identity = log.proposal_id(spoiled)
    pending = log.pending()
    assert pending is not None
    assert pending.id == identity


def test_what_is_applied_for_somebody_else_is_no_rewind_of_the_rules() -> None:
    log = Log()
    log.window(1.0)
    log.proposal_id(log.window([1.0, NAN] * 25))
    log.applied("a person's", 0, by="person")
    assert log.history.derived(DiagnosisState()).rewinds == 0


# Verdicts


def test_an_intervention_helped_when_its_problem_stays_away() -> None:
    log = Log()
    for _ in range(3):
        log.window(1.0)
    spoiled = log.window([1.0, NAN] * 25)
    applied = log.applied(log.proposal_id(spoiled), 100)
    log.window(0.9)
    log.window(0.8)
    log.window(0.7)
    (judged,) = only(OutcomeJudged, log.answer(log.window(0.6)))
    assert (judged.proposal, judged.helped) == (applied.id, True)
    assert judged.figures["loss_after"] == pytest.approx(0.6)


def test_an_intervention_did_not_help_when_its_problem_comes_back() -> None:
    log = Log()
    log.window(1.0)
    spoiled = log.window([1.0, NAN] * 25)
    applied = log.applied(log.proposal_id(spoiled), 0)
    again = log.answer(log.window([1.0, NAN] * 25))
    (judged,) = only(OutcomeJudged, again)
    assert (judged.proposal, judged.helped) == (applied.id, False)
    assert only(InterventionProposed, again)


def test_whatever_is_unjudged_when_the_session_ends_is_judged_then_and_nothing_is_owed() -> None:
    log = Log()
    log.window(1.0)
    first = log.applied("a person's", 50, by="person")
    log.window(0.5)
    second = log.applied("another's", 100, by="person")
    end = log.completed()
    assert {duty.cause for duty in owed(log.history.state) if duty.role == "diagnostician"} == {first.id, second.id}
    for verdict in log.answer(end):
        log.say("diagnostician", verdict, cause=end.id)
    assert [duty for duty in owed(log.history.state) if duty.role == "diagnostician"] == []


def test_a_failed_session_says_why_nothing_was_shown() -> None:
    log = Log()
    log.window(1.0)
    log.applied("a person's", 50, by="person")
    failed = TrainingFailed(segment=2, step=50, code="x", message="the disk is full")
    (judged,) = log.answer(log.say("trainer", failed))
    assert isinstance(judged, OutcomeJudged)
    assert not judged.helped
    assert "the disk is full" in judged.message


# Independence of arrival

Move = tuple[str, float]
moves = st.lists(
    st.one_of(
        st.tuples(st.just("window"), st.sampled_from([0.3, 1.0, 2.0, 9.0, 80.0, NAN])),
        st.tuples(st.just("evaluation"), st.sampled_from([0.4, 1.0, 1.5, NAN])),
        st.tuples(st.just("apply"), st.just(0.0)),
        st.tuples(st.just("decline"), st.just(0.0)),
        st.tuples(st.just("noise"), st.just(0.0)),
    ),
    max_size=40,
)


def told(story: Sequence[Move], *, noise: bool = True) -> Log:
    """A lane as a trainer may write it, which applies or declines what is pending at some later moment."""
    log = Log()
    for kind, value in story:
        pending = log.pending() if kind in ("apply", "decline") else None
        match kind:
            case "window" if log.step < log.total:
                log.window(value)
            case "evaluation":
                log.evaluation(value)
            case "apply" if pending and pending.finding.remedy:
                log.applied(pending.id, pending.finding.remedy.rewind_to)
            case "decline" if pending:
                log.say("trainer", InterventionDeclined(proposal=pending.id, reason="no"))
            case "noise" if noise:
                alert = ResourcesAlerted(resource="cpu", level="warning", value=1.0, threshold=1.0, advice="")
                log.say("resource_monitor", alert)
                death = ChildEnded(purpose="train", code=1, signal=None, max_rss_bytes=1, message="")
                log.say("trainer", death)
    return log


@settings(max_examples=150, deadline=None)
@given(moves, st.randoms(use_true_random=False))
def test_an_answer_is_the_same_whenever_and_in_whatever_order_it_is_asked_for(
    story: list[Move], chance: random.Random
) -> None:
    log = told(story)
    expected = {fact.id: log.answer(fact) for fact in log.history.facts}
    # Another process reads the same facts in batches of its own and is woken in any order, some wake-ups twice.
    other = Log.__new__(Log)
    other.history = SessionLog(SESSION)
    left = list(log.history.facts)
    while left:
        size = chance.randint(1, 7)
        other.history.add(left[:size])
        left = left[size:]
        fact = chance.choice(other.history.facts)
        assert repr(other.answer(fact)) == repr(expected[fact.id])
    for fact in chance.sample(log.history.facts, log.history.size):
        assert repr(other.answer(fact)) == repr(expected[fact.id])


@settings(max_examples=100, deadline=None)
@given(moves)
def test_facts_of_other_lanes_and_of_other_attempts_change_nothing(story: list[Move]) -> None:
    with_noise, without = told(story), told(story, noise=False)
    kept = [fact for fact in with_noise.history.facts if not isinstance(fact.event, ResourcesAlerted | ChildEnded)]
    said = [[type(one) for one in with_noise.answer(fact)] for fact in kept]
    assert said == [[type(one) for one in without.answer(fact)] for fact in without.history.facts]


@settings(max_examples=100, deadline=None)
@given(moves, st.integers(0, 6), st.integers(0, 6))
def test_how_late_the_trainer_hears_a_proposal_changes_neither_what_is_proposed_next_nor_why(
    story: list[Move], early: int, late: int
) -> None:
    windows = [(kind, value) for kind, value in story if kind == "window"]

    def path(lag: int) -> list[tuple[int, int | None]]:
        log, queue = Log(total=10_000), list(windows)
        while queue:
            pending = log.pending()
            if pending and pending.finding.remedy:
                for _ in range(lag):
                    log.window(NAN)
                log.applied(pending.id, pending.finding.remedy.rewind_to)
            else:
                log.window(queue.pop(0)[1])
        return [(one.segment, one.rewind_to) for one in only(InterventionProposed, log.everything())]

    assert path(early) == path(late)


@settings(max_examples=60, deadline=None)
@given(moves)
def test_a_segment_is_never_proposed_for_twice_and_a_problem_is_told_once(story: list[Move]) -> None:
    said = told(story).everything()
    proposed = [one.segment for one in only(InterventionProposed, said)]
    diagnosed = [(one.rule, one.segment) for one in only(ProblemDiagnosed, said)]
    assert len(set(proposed)) == len(proposed)
    assert len(set(diagnosed)) == len(diagnosed)
    assert len(proposed) - 1 <= MOST_REWINDS + sum(kind == "decline" for kind, _ in story)


# The agent


def case_of(log: Log, fact: Fact) -> Wakeup:
    return Wakeup(fact, log.history.states[fact.position], log.history, None, fact.position)  # type: ignore[arg-type]


async def test_once_a_session_has_ended_only_what_it_is_owed_is_said() -> None:
    log = Log(total=100)
    log.window(1.0)
    applied = log.applied("a person's", 50, by="person")
    last = log.window(1.0)
    end = log.evaluation(1.0)
    agent = Diagnostician()
    assert [type(one) for one in await agent.judge(end.event, case_of(log, end))] == [DiagnosisReached]
    log.completed()
    assert await agent.judge(end.event, case_of(log, end)) == []
    (judged,) = await agent.judge(last.event, case_of(log, last))
    assert isinstance(judged, OutcomeJudged)
    assert judged.proposal == applied.id


async def test_a_guest_that_says_windows_is_not_listened_to() -> None:
    log = Log()
    real = log.window(1.0)
    fact = log.say("guest_liar", real.event)
    assert await Diagnostician().judge(fact.event, case_of(log, fact)) == []


# The second edition of the rules


def later(log: Log) -> list[ProblemDiagnosed]:
    """What all rules say of a log, as they do of sessions whose windows have sensors."""
    state, said = DiagnosisState(Evidence(edition=2)), []
    for fact in log.history.facts:
        state = state.advance(fact)
        said += state.said if state.at == fact.id else ()
    return only(ProblemDiagnosed, said)


def test_a_session_that_older_rules_began_is_judged_by_those_alone() -> None:
    log = Log()
    for _ in range(10):
        log.window(1.0, layers=[layer("a")])
        log.evaluation(1.0)
    assert {one.rule for one in only(ProblemDiagnosed, log.everything())} == {"plateau"}
    assert [one.rule for one in later(log)] == ["no_learning", "plateau"]


def test_of_several_problems_the_smallest_priority_is_the_cause() -> None:
    log = Log(auto_fix=False)
    log.window([2.3] + [2.2] * 49, layers=[layer("a", dead=1.0), layer("b")])
    log.window(90.0, layers=[layer("a", dead=1.0), layer("b")])
    log.window(95.0, layers=[layer("a", dead=1.0), layer("b")])
    found = later(log)
    assert min(found, key=lambda one: one.priority).rule == "exploding"
    assert {one.rule for one in found} >= {"exploding", "dead_layer"}
    assert all(one.priority > 0 and one.confidence for one in found)
