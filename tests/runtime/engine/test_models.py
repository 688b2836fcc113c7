"""Models answer in the shape of their task, learn it, and stay the same through any resume."""

from __future__ import annotations

import math
from collections import OrderedDict

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from contracts.errors import InvalidRequest
from contracts.request import read_request
from contracts.request.model import BuiltIn, Model
from runtime.engine import kinds, state
from runtime.engine.checkpoint import load_model
from runtime.engine.dataset import Dataset, write
from runtime.engine.evaluate import Judge
from runtime.engine.facts import Column, Facts, describe
from runtime.engine.learner import Learner
from runtime.engine.loop import Run
from runtime.engine.random_keys import uniform
from tests.runtime.engine.plans import ROWS, finished, planned

IMAGES = Facts("classification", {"train": 9}, {"x": Column("<f4", (1, 8, 8))}, 10, mean=(0.5,), scale=(2.0,))
COLOURS = Facts("classification", {"train": 9}, {"x": Column("<f4", (3, 64, 64))}, 7, mean=(0.5,) * 3, scale=(2.0,) * 3)
PLAIN = Facts("classification", {"train": 9}, {"x": Column("<f4", (5,))}, 3, mean=(0.0,) * 5, scale=(1.0,) * 5)
NUMBERS = Facts(
    "regression", {"train": 9}, {"x": Column("<f4", (3,))}, 1, mean=(1.0, 2.0, 3.0), scale=(1.0, 2.0, 4.0),
    target_mean=100.0, target_scale=10.0,
)  # fmt: skip
TOKENS = Facts("sequences", {"train": 9}, {"x": Column("<i4", (12,))}, 20)


def model_of(facts=IMAGES, **raw):
    chosen = TypeAdapter(Model).validate_python(raw)
    return kinds.models.of(chosen)(chosen, facts, kinds.layers.of(chosen.made_of))


def size(model):
    return sum(one.numel() for one in model.parameters())


@pytest.mark.parametrize("name", ["linear", "mlp", "cnn", "resnet", "transformer"])
def test_a_model_takes_raw_rows_and_answers_one_number_per_class(name):
    built = model_of(architecture=name)
    assert built(torch.rand(5, 1, 8, 8)).shape == (5, 10)
    assert built.inputs(torch.full((1, 1, 8, 8), 2.5)).eq(1).all()


@pytest.mark.parametrize("facts", [IMAGES, COLOURS])
def test_images_of_any_size_are_taken(facts):
    x = torch.rand(2, *facts.shape)
    small = {"cnn": {"channels": [4, 8]}, "resnet": {"width": 4}, "transformer": {"width": 8}}
    for name, raw in small.items():
        assert model_of(facts, architecture=name, **raw)(x).shape == (2, facts.outputs)


def test_files_of_exported_models_hold_classes_under_the_names_that_they_always_had():
    """Audits make such files again and compare digests: a class may move or be renamed, its stored name may not."""
    trained = [model_of(architecture=one) for one in ("linear", "mlp", "cnn", "resnet", "transformer", "autoencoder")]
    trained += [model_of(NUMBERS, architecture="mlp"), model_of(TOKENS, architecture="transformer")]
    classes = {type(module) for model in trained for module in model.modules()}
    names = sorted(f"{one.__module__}.{one.__qualname__}" for one in classes if not one.__module__.startswith("torch."))
    assert [(name.split(".")[-2], name.split(".")[-1]) for name in names] == [
        ("resnet", "Block"),
        *(("transformer", name) for name in ("Block", "Mean", "Pieces", "Tokens")),
        *(("standard", name) for name in ("Framed", "OfTokens", "Pooled", "Rebuilt", "Scaled", "Unscaled")),
    ]
    assert state.digest("\n".join(names).encode()) == "113f824b47a4d06643b1622ddfaf40b1042315bece5ac97b262fdbd5d4141aa5"


class Enclosed(kinds.LayerFactory):
    """Layers inside of others, as adapters have them."""

    def linear(self, inputs, outputs):
        return torch.nn.Sequential(OrderedDict(inside=torch.nn.Linear(inputs, outputs)))

    def convolution(self, inputs, outputs, size, *, stride=1):
        layer = torch.nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)
        return torch.nn.Sequential(OrderedDict(inside=layer))


@pytest.mark.parametrize("name", ["linear", "mlp", "cnn", "resnet", "transformer", "autoencoder"])
def test_every_linear_and_convolution_layer_is_built_by_the_part_that_the_plan_names(images, monkeypatch, name):
    monkeypatch.setitem(kinds.layers.all, "enclosed", Enclosed())
    monkeypatch.setattr(BuiltIn, "made_of", "enclosed")
    model = Learner(planned(images, model={"architecture": name}).request, images.facts).build()
    layers = [path for path, one in model.named_modules() if isinstance(one, torch.nn.Linear | torch.nn.Conv2d)]
    assert layers
    assert all(path.endswith(".inside") for path in layers)
    assert model(torch.from_numpy(images.columns("val")["x"])).shape[0] == 40


def test_a_transformer_takes_features_one_by_one():
    assert model_of(PLAIN, architecture="transformer")(torch.rand(4, 5)).shape == (4, 3)
    assert model_of(NUMBERS, architecture="transformer")(torch.rand(4, 3)).shape == (4, 1)


def test_the_cnn_is_large_enough_to_be_called_one():
    assert size(model_of(architecture="cnn")) >= 100_000


def test_the_resnet_is_resnet_18():
    assert 11_000_000 < size(model_of(architecture="resnet")) < 11_300_000
    convolutions = [one for one in model_of(architecture="resnet").modules() if isinstance(one, torch.nn.Conv2d)]
    assert len(convolutions) == 1 + 2 * 8 + 3


def test_regression_answers_in_the_targets_units():
    built = model_of(NUMBERS, architecture="linear")
    torch.nn.init.zeros_(built.body[1].weight)
    torch.nn.init.zeros_(built.body[1].bias)
    assert built(torch.rand(4, 3)).eq(100).all()


def test_an_autoencoder_answers_in_the_shape_and_units_of_rows():
    built = model_of(IMAGES, architecture="autoencoder", hidden=[8], code=2)
    x = torch.rand(4, 1, 8, 8)
    assert built(x).shape == x.shape
    assert min(one.out_features for one in built.modules() if isinstance(one, torch.nn.Linear)) == 2
    for one in built.body.parameters():
        torch.nn.init.zeros_(one)
    assert built(x).eq(0.5).all()


def test_tokens_see_only_those_before_them():
    built = model_of(TOKENS, architecture="transformer").eval()
    one = torch.arange(12)[None].int()
    other = one.clone()
    other[0, 7] = 19
    answers, changed = built(one), built(other)
    assert answers.shape == (1, 12, 20)
    assert torch.equal(answers[:, :7], changed[:, :7])
    assert not torch.equal(answers[:, 7:], changed[:, 7:])


def test_heads_must_divide_the_width():
    with pytest.raises(InvalidRequest) as caught:
        read_request({"data": {"source": "digits"}, "model": {"architecture": "transformer", "width": 10, "heads": 4}})
    assert "multiple of 4" in caught.value.problems[0].cure


@pytest.mark.parametrize(
    ("data", "model"),
    [
        ("tokens", {"architecture": "mlp"}),
        ("tokens", {"architecture": "cnn"}),
        ("diabetes", {"architecture": "resnet"}),
    ],
)
def test_a_model_that_cannot_do_what_the_data_is_for_is_refused(data, model):
    with pytest.raises(InvalidRequest) as caught:
        read_request({"data": {"source": data}, "model": model})
    assert [problem.path for problem in caught.value.problems] == ["model.architecture"]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    """Rows that count on from where they begin."""
    splits = {}
    for at, (name, rows) in enumerate(ROWS.items(), 1):
        start = (uniform(at, rows) * 8).astype(np.int64)
        splits[name] = {"x": ((start[:, None] + np.arange(10)) % 8).astype(np.int32)}
    directory = tmp_path_factory.mktemp("tokens")
    write(directory, splits, describe(splits, "sequences"))
    return Dataset.open(directory)


def learned(dataset, **sections):
    training = {"epochs": 30, "batch_size": 16}
    plan = planned(dataset, optimizer={"type": "adamw", "learning_rate": 0.01}, training=training, **sections)
    run = Run.start(plan, dataset)
    return plan, run, finished(run)


def judged_elsewhere(dataset, plan, run):
    model = load_model(plan.request, dataset.facts, run.tensors())
    return Judge(Learner(plan.request, dataset.facts), plan.resolved, dataset).values(model)


def test_sequences_are_learned_token_by_token(tokens):
    assert (tokens.facts.task, tokens.facts.outputs, tokens.facts.mean) == ("sequences", 8, ())
    plan, run, reports = learned(tokens, model={"architecture": "transformer", "width": 16, "layers": 1})
    values = reports[-1].evaluation.values
    assert values["val_perplexity"] < 1.5
    assert values["val_next_token_accuracy"] > 0.95
    assert judged_elsewhere(tokens, plan, run) == values
    assert math.log(values["val_perplexity"]) == pytest.approx(values["val_loss"], rel=1e-4)


def test_a_model_that_knows_nothing_wavers_among_all_tokens(tokens):
    plan = planned(tokens, model={"architecture": "transformer", "width": 16, "layers": 1})
    learner = Learner(plan.request, tokens.facts)
    model = learner.build()
    torch.nn.init.zeros_(model.body[-1].weight)
    torch.nn.init.zeros_(model.body[-1].bias)
    assert Judge(learner, plan.resolved, tokens).values(model)["val_perplexity"] == pytest.approx(8.0)


def test_rows_are_rebuilt_whatever_they_are_labelled_with(images, numbers):
    for dataset, code in ((images, 32), (numbers, 5)):
        plan, run, reports = learned(
            dataset, model={"architecture": "autoencoder", "hidden": [32], "code": code, "activation": "tanh"}
        )
        first, last = (one.evaluation.values for one in (reports[0], reports[-1]))
        assert set(last) == {"val_loss", "val_reconstruction_error"}
        assert last["val_reconstruction_error"] < 0.95 * first["val_reconstruction_error"]
        assert last["val_reconstruction_error"] == pytest.approx(math.sqrt(last["val_loss"]), rel=1e-5)
        assert judged_elsewhere(dataset, plan, run) == last


def test_answering_with_the_mean_costs_one(numbers):
    plan = planned(numbers, model={"architecture": "autoencoder", "hidden": [], "code": 2})
    learner = Learner(plan.request, numbers.facts)
    model = learner.build()
    for one in model.body.parameters():
        torch.nn.init.zeros_(one)
    assert Judge(learner, plan.resolved, numbers, "train").values(model)["train_reconstruction_error"] == pytest.approx(
        1
    )


MODELS = {
    "resnet": {"architecture": "resnet", "width": 4, "blocks": [1, 1]},
    "transformer": {"architecture": "transformer", "width": 8, "layers": 2, "activation": "relu"},
    "autoencoder": {"architecture": "autoencoder", "hidden": [16], "code": 4},
}


@pytest.mark.parametrize("name", MODELS)
def test_initial_weights_are_drawn_and_not_torchs(images, name):
    plan = planned(images, model=MODELS[name])
    torch.manual_seed(5)
    one = Run.start(plan, images)
    torch.manual_seed(6)
    other = Run.start(plan, images)
    assert state.first_difference(one.tensors(), other.tensors()) is None
    torchs = {"norm", "before", "between", "running", "batches", "mean", "inverse", "scale"}
    matrices = [name for name, tensor in one.tensors().items() if name.startswith("model.") and tensor.dim() > 1]
    for matrix in matrices:
        if not torchs & set(matrix.split(".")):
            tensor = one.tensors()[matrix].double() * math.sqrt(one.tensors()[matrix][0].numel())
            assert tensor.abs().max() <= 1


def test_units_of_sequences_are_the_last_dimension(images):
    run = Run.start(planned(images, model=MODELS["transformer"]), images)
    run._setup.model.body[1].wide.bias.data[:16] = -1000.0
    layers = {one.name: one for one in run.advance().window.layers}
    assert layers["body.1.wide"].dead == 0.5
    assert layers["body.2.wide"].dead < 0.5
