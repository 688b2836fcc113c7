"""Changes by chance are functions of seed, row and coming: whatever the batch, the cut, or who is missing beside it."""

from __future__ import annotations

import hashlib
import random
import threading

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from agents.data_manager.store import key_of
from contracts.errors import InvalidRequest
from contracts.request import read_request
from contracts.request.sampler import Augment
from runtime.engine.batches import AugmentationChain, BatchRows, Feed, Prefetch, check_augment
from runtime.engine.draws import Draws
from runtime.engine.facts import describe
from runtime.engine.learner import Learner
from runtime.engine.loop import Run
from runtime.engine.sampling import sampler_of
from runtime.engine.workload import Workload, register
from tests.runtime.engine.plans import finished, planned

EVERY = [
    {"type": "shift", "pixels": 2},
    {"type": "flip"},
    {"type": "flip", "axis": "vertical", "share": 0.25},
    {"type": "jitter"},
    {"type": "noise", "scale": 0.2},
    {"type": "drop"},
    {"type": "erase", "pixels": 3},
]
ROWS = 4000


def options(*raw):
    return [TypeAdapter(Augment).validate_python(one) for one in raw]


def changed(x, *raw, seed=1, turns=None, rows=None):
    """What becomes of rows."""
    facts = describe({"train": {"x": np.asarray(x), "y": np.zeros(len(x), np.int64)}}, "classification")
    turns = np.zeros(len(x), np.int64) if turns is None else turns
    rows = torch.arange(len(x)) if rows is None else rows
    return AugmentationChain(options(*raw), facts, seed)({"x": torch.as_tensor(x)}, turns, rows)["x"].numpy()


@pytest.fixture(scope="module")
def pictures():
    """Rows on which every pixel is another number."""
    return (np.arange(ROWS * 64, dtype=np.float32) % 9973).reshape(ROWS, 1, 8, 8)


def feed(images, **changes):
    plan = planned(images, **changes)
    return Learner(plan.request, images.facts).training_feed(images, "cpu", sampler_of(plan.request, images))


def test_a_row_is_changed_alike_in_every_batch_and_whoever_is_missing(images):
    one, rows = feed(images, augment=EVERY), np.arange(16)
    whole = one.batch(one.batches(rows, 16, 0)[0])["x"]
    halves = [one.batch(half)["x"] for half in one.batches(rows, 8, 0)]
    assert torch.equal(torch.cat(halves), whole)
    without = np.zeros(one.rows, dtype=bool)
    without[[3, 4, 11]] = True
    thinned = one.batch(one.batches(rows, 16, 0, without)[0])["x"]
    assert torch.equal(thinned, whole[~without[:16]])


def test_a_row_that_comes_again_and_another_seed_are_changed_anew(pictures):
    x = pictures[:50]
    first = changed(x, *EVERY)
    assert not (changed(x, *EVERY, turns=np.ones(50, np.int64)) == first).all(axis=(1, 2, 3)).any()
    assert not (changed(x, *EVERY, seed=2) == first).all(axis=(1, 2, 3)).any()
    assert np.array_equal(changed(x, *EVERY), first)


def test_what_is_evaluated_is_never_changed(images):
    plan = planned(images, augment=EVERY)
    plain = Learner(plan.request, images.facts).training_feed(images, "cpu", sampler_of(plan.request, images))
    assert torch.equal(plain.slice(0, 8)["x"], torch.as_tensor(np.array(images.columns("train")["x"][:8])))


def test_an_augmented_training_resumes_to_the_same_bits(images):
    plan = planned(images, augment=EVERY, early_stopping={"enabled": False})
    run = Run.start(plan, images)
    first = run.advance().window
    kept = run.tensors()
    rest = finished(run)
    assert [one.window for one in finished(Run.resume(plan, images, kept, 10))] == [one.window for one in rest]
    plain = Run.start(planned(images, early_stopping={"enabled": False}), images).advance().window
    assert plain.index_digest == first.index_digest
    assert plain.weights_digest != first.weights_digest


def test_noise_is_as_wide_as_it_says(pictures):
    difference = (changed(pictures, {"type": "noise", "scale": 0.5}) - pictures) / pictures.std()
    assert abs(difference.mean()) < 0.005
    assert abs(difference.std() - 0.5) < 0.005
    assert 1.0 < np.abs(difference).max() <= 0.5 * 3.5


def test_dropped_numbers_are_the_mean(pictures):
    found = changed(pictures, {"type": "drop", "share": 0.2})
    gone = found != pictures
    assert abs(gone.mean() - 0.2) < 0.01
    assert np.allclose(found[gone], pictures.mean(dtype=np.float64), rtol=1e-4)


def test_brightness_and_contrast_are_one_for_a_row(pictures):
    found = changed(pictures[:200], {"type": "jitter", "brightness": 0.5, "contrast": 0.25})
    factors = np.ptp(found.reshape(200, -1), axis=1) / np.ptp(pictures[:200].reshape(200, -1), axis=1)
    assert 0.74 < factors.min() < 0.8
    assert 1.2 < factors.max() < 1.26


def test_shifted_images_are_the_images_moved_with_their_border_going_on(pictures):
    found, seen = changed(pictures, {"type": "shift", "pixels": 2}), set()
    padded = np.pad(pictures[:, 0], ((0, 0), (2, 2), (2, 2)), mode="edge")
    windows = {(a, b): padded[:, a : a + 8, b : b + 8] for a in range(5) for b in range(5)}
    for at, image in enumerate(found[:400, 0]):
        seen |= {place for place, window in windows.items() if np.array_equal(window[at], image)}
        assert any(np.array_equal(window[at], image) for window in windows.values())
    assert len(seen) == 25


@pytest.mark.parametrize(("axis", "at"), [("horizontal", 3), ("vertical", 2)])
def test_flipped_images_are_mirrored_about_as_often_as_it_says(pictures, axis, at):
    found = changed(pictures, {"type": "flip", "axis": axis, "share": 0.3})
    mirrored = (found == np.flip(pictures, at)).all(axis=(1, 2, 3))
    assert (mirrored | (found == pictures).all(axis=(1, 2, 3))).all()
    assert abs(mirrored.mean() - 0.3) < 0.03


def test_an_erased_square_may_lie_over_the_border(pictures):
    found = changed(pictures, {"type": "erase", "pixels": 3, "share": 1.0})
    sizes = (found != pictures).sum(axis=(1, 2, 3))
    assert sizes.min() == 1
    assert sizes.max() == 9
    touched = (found != pictures).mean(axis=(0, 1))
    assert touched.min() > 0.05


def test_plain_rows_can_have_noise_and_gaps(numbers):
    plan = planned(numbers, augment=[{"type": "noise"}, {"type": "drop"}, {"type": "jitter"}])
    run = Run.start(plan, numbers)
    assert np.isfinite(np.frombuffer(run.advance().window.losses, "<f4")).all()


def test_what_needs_images_is_refused_elsewhere(numbers, images):
    with pytest.raises(InvalidRequest) as caught:
        Run.start(planned(numbers, augment=[{"type": "noise"}, {"type": "flip"}, {"type": "erase"}]), numbers)
    assert [problem.path for problem in caught.value.problems] == ["augment.1.type", "augment.2.type"]
    tokens = {"train": {"x": np.zeros((4, 8), np.int64)}}
    with pytest.raises(InvalidRequest, match="no column `x` of numbers"):
        check_augment(options({"type": "noise"}), describe(tokens, "sequences"))
    check_augment(options(*EVERY), images.facts)


def test_draws_are_even_and_bell_shaped():
    draws = Draws(np.arange(2000, dtype=np.uint64), torch.device("cpu"))
    even, bell, whole = draws.uniform(8), draws.bell(8), draws.below(5)
    assert 0 <= even.min() < 0.01
    assert 0.99 < even.max() < 1
    assert abs(bell.mean()) < 0.02
    assert abs(bell.std() - 1) < 0.02
    assert torch.bincount(whole).tolist() == pytest.approx([400] * 5, abs=80)


def test_the_changes_are_those_that_engine_bits_names(pictures):
    found = changed(pictures[:100], *EVERY)
    assert hashlib.sha256(found.tobytes()).hexdigest() == (
        "8c7ca1c89fa5af6e152ccf07bb431f35c1e587c245f5baac914983c039fa90b1"
    )


# Workers


class Drawing(Workload):
    """Its changes draw from the generators that a step seeds, and so does its model."""

    def build(self, o, facts):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4), torch.nn.Dropout(0.5))

    def loss(self, model, batch):
        return torch.nn.functional.cross_entropy(model(batch["x"]), batch["y"])

    def augment(self, sample, draw):
        return {**sample, "x": sample["x"] + np.float32(draw.uniform() * random.random())}


register("drawing", Drawing)


def windows(dataset, workers, **sections):
    data = {"source": "csv", "path": "x.csv", "target": "y", "workers": workers}
    reports = finished(Run.start(planned(dataset, data=data, early_stopping={"enabled": False}, **sections), dataset))
    return [(one.window.losses, one.window.weights_digest) for one in reports]


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"augment": [{"type": "jitter"}, {"type": "noise", "scale": 0.2}], "sampler": {"type": "balanced"}},
        {"training": {"epochs": 4, "batch_size": 8, "accumulate": 2}},
        {"model": {"architecture": "workload", "workload": "drawing"}, "augment": [{"type": "jitter"}]},
    ],
)
def test_any_number_of_workers_makes_the_same_bits(images, sections):
    assert windows(images, 0, **sections) == windows(images, 1, **sections) == windows(images, 2, **sections)


def test_batches_are_made_before_they_are_wanted_each_for_its_rows_and_errors_come_with_theirs():
    begun, go_on = threading.Semaphore(0), threading.Event()

    def make(rows):
        begun.release()
        assert go_on.wait(20)
        if rows.position == 5:
            raise ValueError("five")
        return {"x": rows.rows * 10}

    coming = [BatchRows(torch.arange(at, at + 2) if at != 3 else torch.arange(0), at) for at in range(8)]
    ahead = Prefetch(make, 2)
    ahead.expect(coming)
    # Two are being made though nobody has asked for one.
    assert begun.acquire(timeout=20)
    assert begun.acquire(timeout=20)
    go_on.set()
    assert [ahead.take(coming[at])["x"].tolist() for at in (0, 1, 4)] == [[0, 10], [10, 20], [40, 50]]
    with pytest.raises(ValueError, match="five"):
        ahead.take(coming[5])
    # Out of its turn, or again, or of another window: made at once.
    assert ahead.take(coming[1])["x"].tolist() == [10, 20]
    assert ahead.take(BatchRows(torch.arange(2), 0))["x"].tolist() == [0, 10]
    assert ahead.take(coming[7])["x"].tolist() == [70, 80]
    ahead.expect(coming[:1])
    assert ahead.take(coming[0])["x"].tolist() == [0, 10]


def test_workers_are_no_part_of_a_dataset_and_of_no_genesis_without_them():
    raw = {"model": {"architecture": "mlp"}}
    plain, two = (read_request(raw | {"data": {"source": "iris", "workers": many}}).resolved() for many in (0, 2))
    assert "workers" not in plain["data"]
    assert two["data"] == plain["data"] | {"workers": 2}
    assert "pin_memory" not in plain["data"]
    pinned = read_request(raw | {"data": {"source": "iris", "pin_memory": True}}).resolved()
    assert pinned["data"] == plain["data"] | {"pin_memory": True}
    assert key_of("d", plain["data"]) == key_of("d", two["data"]) == key_of("d", pinned["data"])


def test_locked_memory_changes_nothing_where_rows_stay_where_they_are(images):
    rows = np.arange(8)
    plain, pinned = (Feed(images, "train", "cpu", pin_memory=pin) for pin in (False, True))
    ours, theirs = (feed.batch(feed.batches(rows, 8, 0)[0]) for feed in (plain, pinned))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
