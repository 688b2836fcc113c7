"""What a training will hold is counted exactly, from shapes alone, and what does not fit is refused at first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agents.trainer.jobs import AttemptTask, plan, train
from contracts.errors import InvalidRequest, OutOfMemory, Refused
from contracts.request import read_request
from runtime.engine.dataset import Dataset
from runtime.engine.resolve import Sizes, refuse_checkpoints_beyond, refuse_rows_beyond
from runtime.engine.step import TrainingSetup
from runtime.jobs import process, resources
from runtime.jobs.job import MOST_THREADS, Seal, most_threads, torch_profile
from runtime.node.capabilities import ResolveOrder
from tests.runtime.engine.plans import planned

MODELS = ["linear", "mlp", "cnn", "resnet"]
OPTIMIZERS = ["sgd", "adam", "adamw", "lion", "adafactor"]
HUGE = {"architecture": "mlp", "hidden": [65536] * 8}


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_sizes_counted_from_shapes_are_those_of_the_real_thing(
    images: Dataset, architecture: str, optimizer: str
) -> None:
    average = {"epochs": 1, "batch_size": 16, "ema": {"decay": 0.9}}
    model, filters = {"architecture": architecture}, [{"type": "grokfast"}, {"type": "centralise"}]
    plan = planned(images, model=model, optimizer={"type": optimizer}, training=average, gradients=filters)
    held = {name: one.numel() * one.element_size() for name, one in TrainingSetup.of(plan, images).tensors().items()}
    found = Sizes.of(plan.request, images.facts)
    assert found is not None
    optimizers = sum(size for name, size in held.items() if name.startswith("optimizer."))
    averages = sum(size for name, size in held.items() if name.startswith("ema."))
    filtered = sum(size for name, size in held.items() if name.startswith("gradients."))
    assert (found.optimizer, found.average, found.filters) == (optimizers, averages, filtered)
    assert found.weights == sum(held.values()) - optimizers - averages - filtered
    counted = Sizes.counted(plan.request, plan.resolved.parameters)
    assert found.parameters == plan.resolved.parameters
    assert found.state / 2 < counted.state <= found.state


def test_what_does_not_fit_is_refused_with_figures_and_the_cure(images: Dataset) -> None:
    asked = read_request({"data": {"source": "digits"}, "model": HUGE})
    found = Sizes.of(asked, images.facts)
    assert found is not None
    with pytest.raises(OutOfMemory, match=r"at least \d+\.\d\d GiB .*and 16\.00 GiB are free") as caught:
        found.refuse_beyond(16 << 30, device="cpu")
    assert "smaller model" in caught.value.cure
    found.refuse_beyond(found.least(device="cpu"), device="cpu")


def test_a_child_that_trains_asks_for_the_room_before_it_takes_it(
    images: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan = planned(images)
    monkeypatch.setattr(resources, "free_bytes", lambda: 1000)
    with pytest.raises(OutOfMemory, match="parameters"):
        train._begin(AttemptTask(plan.as_json(), Seal(1), "cpu", tmp_path, True, tmp_path, None, None, [], []))


@pytest.mark.parametrize("inherited", [None, {"threads": 10**9}])
def test_a_training_begins_with_no_more_threads_than_are_of_use_here(
    inherited: dict[str, int] | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process, "cores", lambda: 8)
    training = {} if inherited else {"threads": 10**9}
    asked = read_request({"data": {"source": "digits"}, "model": {"architecture": "linear"}, "training": training})
    order = ResolveOrder(asked.resolved(), tmp_path, tmp_path, tmp_path, "cpu", [], None, inherited)
    with pytest.raises(InvalidRequest, match=r"1000000000 threads are more than the 32 .* on 8 cores") as caught:
        plan.resolve_order(order)
    assert caught.value.problems[0].path == "training.threads"
    assert "at most 32" in caught.value.problems[0].cure


def test_any_machine_may_compute_with_as_many_threads_as_a_larger_one_and_none_with_more_than_an_audit() -> None:
    assert torch_profile(MOST_THREADS).threads == MOST_THREADS
    for threads in (0, MOST_THREADS + 1):
        with pytest.raises(Refused, match="no process is started"):
            torch_profile(threads)
    assert [most_threads(cores) for cores in (1, 4, 5, 64, 4096)] == [16, 16, 20, 256, MOST_THREADS]


def test_rows_of_a_step_and_of_a_window_are_counted_before_they_are_taken(images: Dataset) -> None:
    plan = planned(images, training={"epochs": 1_000_000, "batch_size": 1_000_000, "accumulate": 10_000})
    resolved = plan.resolved
    assert resolved.steps_total < resolved.window
    need = 8 * resolved.steps_total * 10**10 + 10**6 * (8 + 1 * 8 * 8 * 4)
    refuse_rows_beyond(need, resolved, images.facts)
    with pytest.raises(OutOfMemory, match=r"1 steps of 1000000 x 10000 rows take at least .* GiB of memory"):
        refuse_rows_beyond(need - 1, resolved, images.facts)
    ahead = 4 * 10**6 * (8 + 1 * 8 * 8 * 4)
    refuse_rows_beyond(need + ahead, resolved, images.facts, workers=2)
    with pytest.raises(OutOfMemory):
        refuse_rows_beyond(need + ahead - 1, resolved, images.facts, workers=2)
    few = planned(images).resolved
    refuse_rows_beyond(1 << 20, few, images.facts)


def test_checkpoints_that_are_kept_whatever_comes_are_counted_before_the_first(images: Dataset) -> None:
    plan = planned(images, checkpoints={"keep_last": 1000, "keep_best": 1000, "every_steps": 50})
    sizes, resolved = Sizes.counted(plan.request, plan.resolved.parameters), replace(plan.resolved, steps_total=10**6)
    refuse_checkpoints_beyond(2001 * sizes.state, sizes, plan.request, resolved)
    with pytest.raises(InvalidRequest, match=r"2001 checkpoints of .* GiB of disk, and") as caught:
        refuse_checkpoints_beyond(2001 * sizes.state - 1, sizes, plan.request, resolved)
    assert caught.value.problems[0].path == "checkpoints.keep_last"
    # No more are counted than a session of so many steps can have, and than its budget allows.
    refuse_checkpoints_beyond(7 * sizes.state, sizes, plan.request, replace(resolved, steps_total=100))
    budget = planned(images, checkpoints={"keep_last": 1000, "budget_bytes": 5 * sizes.state}).request
    refuse_checkpoints_beyond(5 * sizes.state, sizes, budget, resolved)
    with pytest.raises(InvalidRequest, match="5 checkpoints"):
        refuse_checkpoints_beyond(5 * sizes.state - 1, sizes, budget, resolved)
