"""Optimizers move as torch's own do, in groups; what they remember is declared by name."""

from __future__ import annotations

import pytest
import torch

from contracts.errors import InvalidRequest, UserCodeFailed
from contracts.request import read_request
from contracts.request.optimizer import Adafactor, Adam, AdamW, Lion, ParameterGroup, Sgd
from runtime.engine import kinds, workload
from runtime.engine.loop import Run
from runtime.engine.update import OptimizerState, grouped
from runtime.engine.workload import Group, Memory, OptimizerPart, Workload
from tests.runtime.engine.plans import finished, planned

FUSED = {
    "sgd": (Sgd(type="sgd", learning_rate=0.1), torch.optim.SGD, {"lr": 0.1}),
    "momentum": (
        Sgd(type="sgd", momentum=0.9, nesterov=True, weight_decay=0.1),
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ),
    "adam": (Adam(type="adam", weight_decay=0.1), torch.optim.Adam, {"lr": 0.1, "weight_decay": 0.1}),
    "adamw": (AdamW(type="adamw", betas=(0.8, 0.99)), torch.optim.AdamW, {"lr": 0.1, "betas": (0.8, 0.99)}),
}


def movement_of(chosen, model, groups=None):
    return OptimizerState(
        kinds.optimizers.of(chosen), chosen, dict(model.named_parameters()), groups or [Group(list(model.parameters()))]
    )


def twins(seed=1):
    torch.manual_seed(seed)
    one, other = (torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.Linear(9, 7)) for _ in range(2))
    other.load_state_dict(one.state_dict())
    return one, other


def moved(movement, one, other, move_other, steps=5):
    """Both models after some steps down the same random gradients."""
    for _ in range(steps):
        for mine, its in zip(one.parameters(), other.parameters(), strict=True):
            mine.grad = torch.randn_like(mine)
            its.grad = mine.grad.clone()
        movement.move(0.1)
        move_other()
    return list(zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("name", FUSED)
def test_an_optimizer_moves_exactly_as_torchs_own(name):
    chosen, theirs, arguments = FUSED[name]
    one, other = twins()
    optimizer = theirs(other.parameters(), fused=True, **arguments)
    assert all(torch.equal(*pair) for pair in moved(movement_of(chosen, one), one, other, optimizer.step))


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adafactor_moves_as_torchs_own_but_for_rounding(decay):
    one, other = twins()
    optimizer = torch.optim.Adafactor(other.parameters(), lr=0.1, weight_decay=decay, foreach=False)
    chosen = Adafactor(type="adafactor", weight_decay=decay)
    pairs = moved(movement_of(chosen, one), one, other, optimizer.step)
    assert all(torch.allclose(*pair, rtol=1e-5, atol=1e-6) for pair in pairs)


def test_adafactor_remembers_rows_and_columns_only():
    model = torch.nn.Linear(300, 200)
    remembered = movement_of(Adafactor(type="adafactor"), model).tensors()
    assert sum(one.numel() for one in remembered.values()) == 200 + 300 + 200 + 1


def test_lion_moves_by_the_sign_of_its_momentum():
    one, other = twins()
    momenta = {its: torch.zeros_like(its) for its in other.parameters()}

    def step():
        with torch.no_grad():
            for its, momentum in momenta.items():
                its.mul_(1 - 0.1 * 0.3).sub_(0.1 * torch.sign(0.9 * momentum + 0.1 * its.grad))
                momentum.mul_(0.99).add_(0.01 * its.grad)

    chosen = Lion(type="lion", weight_decay=0.3)
    assert all(torch.allclose(*pair, atol=1e-6) for pair in moved(movement_of(chosen, one), one, other, step))


@pytest.mark.parametrize("chosen", [AdamW(type="adamw"), Lion(type="lion"), Adafactor(type="adafactor")])
def test_a_parameter_without_gradient_stays_as_it_is_and_so_does_its_memory(chosen):
    model = torch.nn.Linear(3, 2)
    movement = movement_of(chosen, model)
    bias = model.bias.detach().clone()
    model.weight.grad = torch.ones_like(model.weight)
    movement.move(0.1)
    assert torch.equal(model.bias, bias)
    for name, tensor in movement.tensors().items():
        assert bool(tensor.any()) == (not name.endswith("bias"))


def test_groups_have_their_own_rate_and_decay():
    model = torch.nn.Linear(3, 2)
    groups = [Group([model.weight], rate=0.0), Group([model.bias], weight_decay=0.5)]
    movement = movement_of(Sgd(type="sgd"), model, groups)
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    model.weight.grad, model.bias.grad = torch.ones(2, 3), torch.zeros(2)
    movement.move(0.1)
    assert torch.equal(model.weight, weight)
    assert torch.allclose(model.bias, bias * 0.95)


def test_a_request_groups_parameters_by_their_names_and_the_first_pattern_that_fits_takes_one():
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2))
    rules = [ParameterGroup(parameters=("*.bias",), weight_decay=0.0), ParameterGroup(parameters=("1.*",), rate=0.5)]
    own = [Group([model[0].weight, model[0].bias], rate=2.0, weight_decay=0.3), Group(list(model[1].parameters()))]
    found = [one for one in grouped(own, rules, model) if one.parameters]
    assert [(one.rate, one.weight_decay) for one in found] == [(2.0, 0.3), (2.0, 0.0), (1.0, 0.0), (0.5, None)]
    assert [[id(held) for held in one.parameters] for one in found] == [
        [id(model[0].weight)], [id(model[0].bias)], [id(model[1].bias)], [id(model[1].weight)]
    ]  # fmt: skip


def test_a_pattern_that_fits_nothing_is_named_with_a_name_that_would():
    with pytest.raises(InvalidRequest) as caught:
        grouped([], [ParameterGroup(parameters=("0.weigth",))], torch.nn.Sequential(torch.nn.Linear(3, 2)))
    (problem,) = caught.value.problems
    assert problem.path == "optimizer.groups.0.parameters.0"
    assert "'0.weight'" in problem.cure


def test_a_group_of_the_request_moves_at_its_own_rate(images):
    still = {"type": "sgd", "groups": [{"parameters": ["body.4.*"], "rate": 0.0}]}
    run = Run.start(planned(images, optimizer=still), images)
    before = run.tensors()
    run.advance()
    changed = {name for name, one in run.tensors().items() if not torch.equal(one, before[name])}
    assert changed == {"model.body.1.weight", "model.body.1.bias"}


class Signs(Workload):
    """Moves by signs of a running sum, and counts its moves."""

    def build(self, o, facts):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, facts.classes))

    def loss(self, model, batch):
        return torch.nn.functional.cross_entropy(model(batch["x"]), batch["y"])

    def optimizer(self, o):
        return OptimizerPart(self._memory, self._update)

    def _memory(self, options, parameters):
        return Memory({"sum": [torch.zeros_like(one) for one in parameters]}, {"moves": torch.zeros(())})

    def _update(self, options, parameters, gradients, memory, rate):
        memory.shared["moves"].add_(1)
        for parameter, gradient, total in zip(parameters, gradients, memory.each["sum"], strict=True):
            total.add_(gradient)
            parameter.sub_(rate / memory.shared["moves"] * total.sign())


def test_a_workloads_own_optimizer_resumes_to_the_same_bits(images):
    workload.register("signs", Signs)
    sections = {"model": {"architecture": "workload", "workload": "signs"}, "optimizer": {"type": "own"}}
    plan = planned(images, **sections, early_stopping={"enabled": False})
    run = Run.start(plan, images)
    run.advance()
    kept = run.tensors()
    assert {"optimizer.sum.1.weight", "optimizer.sum.1.bias", "optimizer.moves.0"} <= kept.keys()
    assert kept["optimizer.moves.0"] == 10
    finished(run)
    resumed = Run.resume(plan, images, kept, 10)
    finished(resumed)
    assert resumed.weights_digest() == run.weights_digest()


def test_asked_for_an_own_optimizer_where_there_is_none_it_says_so(images):
    class Plain(Signs):
        optimizer = Workload.optimizer

    workload.register("signs", Plain)
    sections = {"model": {"architecture": "workload", "workload": "signs"}, "optimizer": {"type": "own"}}
    with pytest.raises(InvalidRequest, match="no optimizer of its own"):
        Run.start(planned(images, **sections), images)
    with pytest.raises(InvalidRequest, match="only a workload"):
        read_request(
            {"data": {"source": "digits"}, "model": {"architecture": "mlp"}, "optimizer": sections["optimizer"]}
        )


def test_groups_that_share_a_parameter_are_refused():
    model = torch.nn.Linear(3, 2)
    with pytest.raises(UserCodeFailed, match="share"):
        movement_of(Sgd(type="sgd"), model, [Group([model.weight]), Group([model.weight])])
