"""What a decision changes of a plan is a lever: read once from what a log has, applied to a segment, told in words."""

from __future__ import annotations

from dataclasses import dataclass, replace

import orjson
import pytest

from contracts.errors import InvalidInput, NewerThanCode
from runtime.engine.loop import Run
from runtime.engine.parts.levers import BalanceClasses, CutBatch
from runtime.engine.plain_kinds import Lever, SegmentPlan, lever, levers, read_levers
from runtime.engine.plan import Change, Plan
from runtime.views.formatting import levers_in_words
from tests.runtime.engine.plans import finished, planned
from tests.runtime.engine.test_plan import plan

SEGMENT = SegmentPlan(begins=100, last_step=469, grad_clip=1.0)


@pytest.mark.parametrize(
    ("changes", "after", "words"),
    [
        ({"learning_rate": 0.1}, replace(SEGMENT, rate_factors=(0.1,)), "0.1 of the learning rate"),
        ({"grad_clip": 2}, replace(SEGMENT, grad_clip=2), "gradients clipped at 2"),
        (
            {"skip_rows": [[7, 7], [9, 12]]},
            replace(SEGMENT, without=((7, 7), (9, 12))),
            "training rows 7, 9-12 left out",
        ),
        ({"warmup": 40}, replace(SEGMENT, warmups=((100, 40),)), "the learning rate warmed up again over 40 steps"),
        (
            {"weight_decay": 0.1, "dropout": 0.5},
            replace(SEGMENT, options=(("optimizer.weight_decay", 0.1), ("model.dropout", 0.5))),
            "a weight decay of 0.1 and a dropout of 0.5",
        ),
        (
            {"class_weights": "balanced"},
            replace(SEGMENT, options=(("loss.class_weights", "balanced"),)),
            "classes balanced by their weights",
        ),
        ({"halve_batch": 1}, replace(SEGMENT, cut=1), "evaluations in batches as large as a step's"),
        (
            {"halve_batch": 4},
            replace(SEGMENT, cut=4),
            "each batch in 4 parts, and evaluations in batches of that size",
        ),
        ({"stop": True}, replace(SEGMENT, last_step=100), "the end of the training"),
        ({"stop": False, "grad_clip": None}, SEGMENT, "no change"),
        ({}, SEGMENT, "no change"),
    ],
)
def test_a_lever_changes_the_plan_of_a_segment_and_says_so(changes, after, words):
    found = SEGMENT
    for one in read_levers(changes):
        found = one.apply(found)
    assert found == after
    assert levers_in_words(changes) == words


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), True, "0.1", [1]])
@pytest.mark.parametrize("name", ["learning_rate", "grad_clip"])
def test_a_value_that_a_lever_cannot_have_is_told_with_what_it_can(name, value):
    with pytest.raises(InvalidInput, match=f"'{name}' cannot be .* above 0"):
        read_levers({name: value})
    with pytest.raises(InvalidInput, match="true, or false"):
        read_levers({"stop": 1})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("skip_rows", [[], [[0, 1]], [[2, 1]], [[1, 5000]], [[1, 1]] * 257, [[1, 2.0]], [[True, 1]], "1", 1]),
        ("warmup", [0, -1, 1.5, True, "5", 10**10]),
        ("weight_decay", [-0.1, 11, float("nan"), True, "0.1"]),
        ("dropout", [0, 0.95, float("nan"), True]),
        ("class_weights", ["equal", [1, 2], True]),
        ("halve_batch", [0, -1, 1.5, True, "2", 10_001]),
    ],
)
def test_what_a_lever_can_be_is_bounded(name, values):
    for value in values:
        with pytest.raises(InvalidInput, match=f"'{name}' cannot be"):
            read_levers({name: value})


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({"learning_rate": 0.5}, {"optimizer.learning_rate": 0.25}),
        ({"grad_clip": 2}, {"training.grad_clip": 2}),
        ({"warmup": 40}, {"schedule.warmup_steps": 40}),
        ({"weight_decay": 0.1}, {"optimizer.weight_decay": 0.1}),
        ({"dropout": 0.5}, {"model.dropout": 0.5}),
        ({"class_weights": "balanced"}, {"loss": {"type": "cross_entropy", "class_weights": "balanced"}}),
        ({"halve_batch": 4}, {"training.batch_size": 16, "training.accumulate": 12}),
        ({"halve_batch": 1}, {}),
        ({"skip_rows": [[7, 7]]}, {}),
        ({"stop": True}, {}),
    ],
)
def test_a_lever_is_values_of_a_request_where_one_can_say_it(changes, values):
    training = {"batch_size": 64, "accumulate": 3}
    asked = {"optimizer": {"learning_rate": 0.5}, "loss": {"type": "auto"}, "training": training}
    (found,) = read_levers(changes)
    assert found.in_request(asked) == values
    focal = BalanceClasses().in_request({"loss": {"type": "focal"}})
    assert focal == {"loss.class_weights": "balanced"}


def test_a_lever_says_why_it_changes_nothing_in_a_training():
    asked = {"model": {"architecture": "linear"}, "loss": {"type": "mse"}, "optimizer": {"type": "workload"}}
    found = read_levers({"dropout": 0.5, "class_weights": "balanced", "weight_decay": 0.1, "warmup": 5})
    words = ["without dropout", "no weights of classes", "no weight decay", ""]
    assert all(
        word in one.misfit(asked) and bool(word) == bool(one.misfit(asked))
        for one, word in zip(found, words, strict=True)
    )


def test_a_lever_that_there_is_not_is_an_error_that_names_it():
    raw = plan().as_json() | {"changes": [{"step": 50, "sharpness": 0.5}]}
    with pytest.raises(NewerThanCode, match="no lever 'sharpness' in this version, which has class_weights, dropout, "):
        Plan.from_json(raw)
    assert levers_in_words({"sharpness": 0.5}) == "sharpness 0.5"


@pytest.fixture
def shorten():
    """A lever in a file of its own: all that there is of it is this class."""

    @lever("at_most")
    @dataclass(frozen=True)
    class Shorten(Lever):
        value: float
        values = "a step"

        @classmethod
        def read(cls, value):
            return cls(value)

        def apply(self, plan):
            return replace(plan, last_step=min(plan.last_step, int(self.value)))

        def sentence(self):
            return f"at most {self.value:g} steps"

    yield Shorten
    del levers._parts["at_most"]


def test_a_new_lever_is_one_class(shorten):
    changed = plan().after(Change.read(100, {"learning_rate": 0.5, "at_most": 300}))
    assert (changed.last_step, changed.at(100).learning_rate) == (300, 0.5e-3)
    assert changed.at(99).learning_rate == 1e-3
    assert Plan.from_json(orjson.loads(orjson.dumps(changed.as_json()))) == changed
    assert levers_in_words({"at_most": 300}) == "at most 300 steps"


def test_a_batch_is_halved_or_cut_into_the_next_parts_of_one_size():
    def below(batch, rows, accumulate=1, **asked):
        request = {"training": {"batch_size": batch, "accumulate": accumulate}, **asked}
        return found.value if (found := CutBatch.below(request, rows)) else None

    assert [below(64, 64), below(64, 32), below(64, 1), below(63, 63), below(63, 21), below(7, 7)] == [
        *(2, 4, None, 3, 7, 7),
    ]
    assert [below(2, 2, 5000), below(2, 2, 5001)] == [2, None], "a request can say no more parts"
    normed = {"model": {"architecture": "cnn"}}
    assert [below(4, 4, **normed), below(4, 2, **normed), below(7, 7, **normed)] == [2, None, None]
    one = {"training": {"batch_size": 1}}
    assert (CutBatch.below(one, 1, 256), CutBatch.below(one, 1, 1)) == (CutBatch(1), None), "evaluations alone"
    weighed = {"loss": {"type": "cross_entropy"}}
    assert [bool(BalanceClasses().misfit(weighed, counted=counted)) for counted in (True, False)] == [False, True]
    assert "cannot be taken in 5 parts" in CutBatch(5).misfit({"training": {"batch_size": 64}})
    with pytest.raises(InvalidInput, match="64 rows cannot be taken in 5 parts"):
        CutBatch(5).sizes(64, 1, 256)


def test_a_step_in_smaller_parts_has_the_rows_it_had_and_the_bits_of_a_request_that_says_so(images):
    whole = planned(images, training={"epochs": 4, "batch_size": 16})
    smaller = planned(images, training={"epochs": 4, "batch_size": 4, "accumulate": 4})
    cut = whole.after(Change.read(0, {"halve_batch": 4}))
    ends = [Run.start(plan, images) for plan in (whole, smaller, cut)]
    told = [finished(run) for run in ends]
    orders = [[one.window.index_digest for one in reports] for reports in told]
    assert orders[0] == orders[1] == orders[2]
    assert ends[1].weights_digest() == ends[2].weights_digest() != ends[0].weights_digest()
    late = Run.start(whole, images)
    reports = [late.advance() for _ in range(2)]
    late.change(Change.read(late.step, {"halve_batch": 2}))
    assert [one.window.index_digest for one in [*reports, *finished(late)]] == orders[0]
    again = late.plan.resolved_at(late.step)
    assert (again.batch, again.accumulate, again.evaluation_batch, late.plan.resolved) == (8, 2, 8, whole.resolved)
    assert late.plan.resolved_at(0) == whole.resolved, "what was trained before is computed again as it was"


def test_no_more_rows_are_judged_at_once_than_a_cut_step_takes(images):
    plan = planned(images, training={"epochs": 1, "batch_size": 16})
    seen = []
    for one in (plan, plan.after(Change.read(0, {"halve_batch": 4}))):
        run, sizes = Run.start(one, images), []
        run._setup.model.register_forward_hook(
            lambda model, x, y, sizes=sizes: None if model.training else sizes.append(len(x[0]))
        )
        finished(run)
        seen.append(max(sizes))
    assert seen == [40, 4]
