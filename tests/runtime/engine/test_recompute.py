"""Computing activations again takes less memory and changes no bit."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from contracts.errors import InvalidRequest
from runtime.engine import state, workload
from runtime.engine.loop import Run
from runtime.engine.passes import recompute
from runtime.engine.workload import Workload
from tests.runtime.engine.plans import finished, planned

MODELS = {
    "mlp": {"architecture": "mlp", "hidden": [16, 16, 16], "dropout": 0.3},
    "cnn": {"architecture": "cnn", "channels": [4, 8], "dropout": 0.2},
}


def trained(images, model, **training):
    sections = {"model": model, "training": {"epochs": 4, "batch_size": 16, **training}}
    run = Run.start(planned(images, **sections), images)
    return run, finished(run)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", MODELS)
def test_the_bits_are_the_same_with_dropout_and_batch_norm(images, name, precision):
    one, reports = trained(images, MODELS[name], precision=precision)
    other, again = trained(images, MODELS[name], precision=precision, recompute=True)
    assert state.first_difference(one.tensors(), other.tensors()) is None
    assert reports == again


class Restless(nn.Module):
    """Counts its passes in a buffer that it replaces, and draws from every generator."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen = self.seen + 1
        return x * (1 + random.random() * 0.1 + np.random.rand() * 0.1) + torch.rand_like(x) * 0.1  # noqa: NPY002


class Chained(Workload):
    def build(self, o, facts):
        layers = [nn.Flatten(), nn.Linear(64, 16), Restless(), nn.ReLU(), nn.Linear(16, 16), Restless()]
        return nn.Sequential(*layers, nn.Linear(16, facts.classes))

    def loss(self, model, batch):
        return nn.functional.cross_entropy(model(batch["x"]), batch["y"])


def test_what_user_code_draws_and_counts_in_a_pass_is_drawn_and_counted_once(images):
    workload.register("chained", Chained)
    model = {"architecture": "workload", "workload": "chained"}
    one, _ = trained(images, model)
    other, _ = trained(images, model, recompute=True)
    assert state.first_difference(one.tensors(), other.tensors()) is None


def test_only_what_lies_between_the_pieces_is_kept():
    def held(cut):
        torch.manual_seed(1)
        layers = [layer for _ in range(32) for layer in (nn.Linear(64, 64), nn.Tanh())]
        model = nn.Sequential(nn.Identity(), nn.Sequential(*layers))
        if cut:
            recompute(model[1])
        seen = []
        with torch.autograd.graph.saved_tensors_hooks(lambda one: seen.append(one.numel()) or one, lambda one: one):
            model(torch.rand(8, 64, requires_grad=True))
        return sum(size for size in seen if size == 8 * 64)

    assert held(cut=True) * 4 < held(cut=False)


def test_a_model_without_a_chain_of_layers_is_told_so(images):
    class Single(Chained):
        def build(self, o, facts):
            return nn.Bilinear(64, 64, facts.classes)

    workload.register("chained", Single)
    sections = {"model": {"architecture": "workload", "workload": "chained"}, "training": {"recompute": True}}
    with pytest.raises(InvalidRequest, match="chain of layers"):
        planned(images, **sections)
