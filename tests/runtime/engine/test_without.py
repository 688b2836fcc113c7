"""Rows left out keep the order and weigh nothing: batches are what they would be had these rows never stood there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from runtime.engine import state, workload
from runtime.engine.dataset import Dataset, write
from runtime.engine.facts import describe
from runtime.engine.loop import Run
from runtime.engine.ragged import Ragged
from runtime.engine.workload import Workload
from tests.runtime.engine.plans import ROWS, columns, finished, planned

PLAIN = {"architecture": "mlp", "hidden": [16], "dropout": 0.0}


def leaving(plan, places):
    """The plan without these rows, by their places from 0."""
    return replace(plan, without=tuple((one + 1, one + 1) for one in sorted(places)))


def first_rows(run, steps=1):
    resolved = run.plan.resolved
    return run._setup.sampler.take(0, steps * resolved.batch * resolved.accumulate)


def windows(plan, dataset):
    return [one.window for one in finished(Run.start(plan, dataset))]


def test_until_one_of_them_comes_every_bit_is_the_same(images):
    plan = planned(images)
    whole, order = Run.start(plan, images), first_rows(Run.start(plan, images), 20)
    late = [row for row in range(ROWS["train"]) if row not in order[: 16 * 5]][:3]
    thinned = Run.start(leaving(plan, late), images)
    before = [run.advance().window for run in (whole, thinned)]
    seen = np.flatnonzero(np.isin(order, late))[0] // 16
    losses = [np.frombuffer(one.losses, "<f4") for one in before]
    assert losses[0][: seen + 1].tolist()[:5] == losses[1][: seen + 1].tolist()[:5]
    assert losses[0].tolist() != losses[1].tolist()
    assert before[0].index_digest == before[1].index_digest, "the order is that of all rows"


def test_an_attempt_goes_down_the_mean_over_the_rows_that_stay(images):
    plan = planned(images, model=PLAIN, optimizer={"type": "sgd", "learning_rate": 0.5}, training={"grad_clip": None})
    run = Run.start(replace(plan, resolved=replace(plan.resolved, window=1)), images)
    batch = first_rows(run)[: run.plan.resolved.batch]
    run = Run.start(leaving(run.plan, batch[:5]), images)
    model, rest = run._setup.model, torch.from_numpy(np.sort(batch[5:]).copy())
    split = {name: torch.from_numpy(np.asarray(one)) for name, one in images.columns("train").items()}
    loss = functional.cross_entropy(model(split["x"][rest]), split["y"][rest])
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    wanted = [one.detach() - 0.5 * gradient for one, gradient in zip(model.parameters(), gradients, strict=True)]
    window = run.advance().window
    assert np.frombuffer(window.losses, "<f4")[0] == pytest.approx(float(loss.detach()), rel=1e-5)
    for one, other in zip(model.parameters(), wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_parts_of_an_attempt_weigh_as_many_rows_as_they_have_left(images):
    training = {"epochs": 12, "batch_size": 8, "accumulate": 4}
    plan = planned(images, model=PLAIN, training=training)
    order = first_rows(Run.start(plan, images))
    gone = [*order[:8], *order[8:13]]
    run, whole = Run.start(leaving(plan, gone), images), Run.start(planned(images, model=PLAIN), images)
    one = run._parts(0, order)[0]
    together = whole._setup.feed.batches(order[13:][None].reshape(-1), len(order) - 13, 0)
    from runtime.engine.step import descend

    loss, _ = descend(run._setup, [part for part in one if len(part[1].rows)])
    other, _ = descend(whole._setup, [(one[0][0], together[0])])
    assert float(loss) == pytest.approx(float(other), rel=1e-5)
    pairs = zip(run._setup.model.parameters(), whole._setup.model.parameters(), strict=True)
    for mine, its in pairs:
        assert torch.allclose(mine.grad, its.grad, atol=1e-6)


def test_an_attempt_of_which_no_row_is_left_counts_and_moves_nothing(images):
    sections = {
        "optimizer": {"type": "adam"},
        "gradients": [{"type": "grokfast"}],
        "training": {"epochs": 12, "batch_size": 16, "ema": {"decay": 0.9}},
    }
    plan = planned(images, **sections)
    plan = replace(plan, resolved=replace(plan.resolved, window=1))
    order = first_rows(Run.start(plan, images), 3)
    run = Run.start(leaving(plan, order[16:32]), images)
    run.advance()
    before = state.root(run.tensors())
    idle = run.advance()
    assert state.root(run.tensors()) == before
    assert (run.step, idle.window.finite, idle.window.grad_norm) == (2, True, 0.0)
    assert np.frombuffer(idle.window.losses, "<f4").tolist() == [0.0]
    assert [(one.gradient, one.update) for one in idle.window.layers] == [(0.0, 0.0)] * len(idle.window.layers)
    assert idle.window.layers
    run.advance()
    assert state.root(run.tensors()) != before


def test_evaluations_see_every_row_of_their_split(images):
    plan = planned(images, model=PLAIN)
    seen = [
        Run.start(one, images)._judge.values(Run.start(plan, images)._setup.model)
        for one in (plan, leaving(plan, range(40)))
    ]
    assert seen[0] == seen[1]


def test_a_thinned_training_resumes_to_the_same_bits(images):
    plan = leaving(planned(images, early_stopping={"enabled": False}), range(0, 150, 7))
    run = Run.start(plan, images)
    run.advance()
    kept = run.tensors()
    rest = [one.window for one in finished(run)]
    assert [one.window for one in finished(Run.resume(plan, images, kept, 10))] == rest


class Noted(Workload):
    """Draws for each row from what it is handed, records what it drew, and sums values of any length."""

    def build(self, o, facts):
        return torch.nn.Linear(64, 4)

    def loss(self, model, batch):
        loss = functional.cross_entropy(model(batch["x"].flatten(1)), batch["y"])
        starts, ends = batch["tokens.offsets"][:-1], batch["tokens.offsets"][1:]
        assert len(starts) == len(batch["y"])
        return {"loss": loss, "drawn": batch["drawn"].sum(), "tokens": (ends - starts).sum().float()}

    def augment(self, sample, draw):
        return sample | {"drawn": np.float32(draw.uniform())}


workload.register("noted", Noted)


def noted(directory):
    splits = {name: columns(rows, 10 * at) for at, (name, rows) in enumerate(ROWS.items(), 1)}
    for one in splits.values():
        one["tokens"] = Ragged.of([np.arange(at % 5, dtype=np.uint8) for at in range(len(one["y"]))])
    write(directory, splits, describe(splits, "classification"))
    return Dataset.open(directory)


def test_rows_that_stay_draw_what_they_would_have_drawn_and_keep_their_lengths(tmp_path):
    dataset = noted(tmp_path)
    plan = planned(dataset, model={"architecture": "workload", "workload": "noted"}, loss={"type": "auto"})
    plan = replace(plan, resolved=replace(plan.resolved, window=1))
    order = first_rows(Run.start(plan, dataset))
    gone = order[[0, 3, 4, 15]]
    drawn = {}
    for name, one in {"all": plan, "thinned": leaving(plan, gone)}.items():
        run = Run.start(one, dataset)
        batch = run._setup.feed.batch(run._parts(0, order)[0][0][1])
        drawn[name] = dict(zip(batch["y"].tolist(), batch["drawn"].tolist(), strict=True)), batch
    (_, whole), (_, rest) = drawn["all"], drawn["thinned"]
    stays = [at for at in range(16) if at not in (0, 3, 4, 15)]
    assert rest["drawn"].tolist() == whole["drawn"][stays].tolist()
    assert rest["y"].tolist() == whole["y"][stays].tolist()
    lengths = np.diff(whole["tokens.offsets"].numpy())[stays]
    assert np.diff(rest["tokens.offsets"].numpy()).tolist() == lengths.tolist()
    empty = Run.start(leaving(plan, order), dataset)
    report = empty.advance()
    assert report.window.scalars == {}
    assert set(empty.advance().window.scalars) == {"drawn", "tokens"}
