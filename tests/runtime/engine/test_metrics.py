"""A metric is a fold over batches: the same bits however the rows come, one file, and no torch to know its name."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from contracts.errors import InvalidRequest
from contracts.request import Request, read_request
from runtime.engine import workload
from runtime.engine.evaluate import Judge
from runtime.engine.learner import Learner
from runtime.engine.loop import Run
from runtime.engine.plain_kinds import ExactSum, StreamingMetric, metric, metrics, total
from tests.runtime.engine.plans import finished, planned
from tests.runtime.engine.test_workload import Noisy

CUTS = ([100], [1] * 100, [37, 1, 62], [64, 36])


def batches(answers, truth, sizes):
    yield from zip(answers.split(sizes), ({"y": one} for one in truth.split(sizes)), strict=True)


@pytest.mark.parametrize("name", list(metrics.all))
def test_a_metric_has_the_same_bits_however_its_rows_are_divided(name):
    draw = torch.Generator().manual_seed(3)
    judge = metrics.of(name)
    width = {"regression": 1, "sequences": 3, "reconstruction": 1}.get(judge.task, 4)
    answers = torch.randn(100, width, generator=draw).exp() * 1e3
    numbers = torch.randn(100, generator=draw) * 1e3
    truth = numbers if judge.task == "regression" else torch.randint(0, 4, (100,), generator=draw)
    found = set()
    for sizes in CUTS:
        seen = judge.begin()
        for batch_answers, batch in batches(answers, truth, sizes):
            seen = judge.take(seen, batch_answers, batch)
        found.add(judge.value(seen).hex())
    assert len(found) == 1


def test_metrics_of_numbers_have_the_bits_of_their_formulas_over_all_answers():
    draw = torch.Generator().manual_seed(5)
    answers, truth = torch.randn(999, 1, generator=draw), torch.randn(999, generator=draw)
    errors = [float(one) for one in (answers.double().reshape(-1) - truth.double()).tolist()]
    squared, numbers = math.fsum(one * one for one in errors), truth.double().tolist()
    mean = math.fsum(numbers) / len(numbers)
    wanted = {
        "rmse": math.sqrt(squared / len(errors)),
        "mae": math.fsum(map(abs, errors)) / len(errors),
        "r2": 1 - squared / math.fsum((one - mean) ** 2 for one in numbers),
    }
    for name, value in wanted.items():
        seen = metrics.of(name).begin()
        for batch in batches(answers, truth, [256, 256, 256, 231]):
            seen = metrics.of(name).take(seen, *batch)
        assert metrics.of(name).value(seen).hex() == value.hex()


@given(st.lists(st.floats(), max_size=30), st.integers(0, 30), st.integers(0, 30))
@settings(deadline=None, max_examples=200)
def test_an_exact_sum_is_that_of_all_terms_at_once(terms, first, second):
    first, second = sorted((first, second))
    # Beyond the largest float both say NaN, which only differ in when they notice it.
    terms = [one for one in terms if not math.isfinite(one) or abs(one) < 1e305]
    found = ExactSum().plus(terms[:first]).plus(terms[first:second]).plus(terms[second:]).value
    assert found == total(terms) or (math.isnan(found) and math.isnan(total(terms)))


@pytest.fixture
def misses():
    """A metric in a file of its own: all that there is of it is this class."""

    @metric("miss_error")
    class Misses(StreamingMetric[tuple[int, int]]):
        task = "classification"
        lower_is_better = True

        def begin(self):
            return 0, 0

        def take(self, seen, answers, batch):
            wrong, rows = seen
            return wrong + int((answers.argmax(1) != batch["y"]).sum()), rows + len(answers)

        def value(self, seen):
            wrong, rows = seen
            return wrong / rows

    yield Misses
    del metrics._parts["miss_error"]


def test_a_new_metric_is_one_class(images, misses):
    plan = planned(
        images, validation={"metrics": ["miss_error", "accuracy"]}, early_stopping={"metric": "val_miss_error"}
    )
    seen = [one.evaluation for one in finished(Run.start(plan, images)) if one.evaluation]
    values = [one.values["val_miss_error"] for one in seen]
    assert seen[-1].best == min(values) < max(values)
    assert all(one.values["val_accuracy"] + one.values["val_miss_error"] == pytest.approx(1) for one in seen)
    schema = TypeAdapter(Request).json_schema()["$defs"]["Validation"]["properties"]["metrics"]
    assert "miss_error" in schema["oneOf"][0]["items"]["enum"]
    asked = {"data": {"source": "digits"}, "model": {"architecture": "mlp"}, "validation": {"metrics": ["mis_error"]}}
    with pytest.raises(InvalidRequest, match="Did you mean 'miss_error'"):
        read_request(asked)


def test_which_way_is_better_shows_in_a_metrics_name():
    with pytest.raises(ValueError, match="'brier' reads as if more were better"):
        metric("brier")(type("Brier", (type(metrics.of("rmse")),), {}))
    assert "brier" not in metrics.all


class Counting(StreamingMetric[list]):
    """Says how many rows each batch had, and what it was first asked about."""

    task = "classification"

    def begin(self):
        return []

    def take(self, seen, answers, batch):
        assert len(answers) == len(batch["x"])
        return [*seen, len(answers)]

    def value(self, seen):
        return float("".join(map(str, seen)))


class Judged(Noisy):
    def metrics(self):
        return {"batches": Counting(), "rows": lambda answers, batch: float(len(answers) + len(batch["y"]))}


def test_a_workload_may_have_both_kinds_of_metrics(images):
    workload.register("judged", Judged)
    sections = {
        "model": {"architecture": "workload", "workload": "judged"},
        "data": {"source": "workload", "workload": "judged"},
    }
    plan = planned(images, resolved={"evaluation_batch": 16}, **sections)
    learner = Learner(plan.request, images.facts)
    values = Judge(learner, plan.resolved, images).values(learner.build())
    assert {name: values[name] for name in ("val_batches", "val_rows")} == {"val_batches": 16168.0, "val_rows": 80.0}
    assert list(values) == ["val_loss", "val_batches", "val_rows"]


def test_no_torch_is_loaded_to_know_metrics_levers_and_rules():
    code = (
        "import sys; from contracts.request import read_request; from runtime.diagnosis.evidence import rules;"
        "read_request({'data': {'source': 'digits'}, 'model': {'architecture': 'mlp'},"
        " 'validation': {'metrics': ['accuracy']}, 'early_stopping': {'metric': 'val_f1_macro'}});"
        "assert rules.all and {f'runtime.engine.parts.{one}' for one in ('metrics', 'levers')} <= set(sys.modules);"
        " print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=Path.cwd())
    assert done.stdout.split() == ["False", "False"]
