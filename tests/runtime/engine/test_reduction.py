"""The gradients of a team add up to one, with the same bits for every rank and in whatever order they arrive."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
import torch

from contracts.errors import InvalidInput, InvalidRequest
from contracts.request import read_request
from runtime.engine import step
from runtime.engine.loop import Run
from runtime.engine.plan import Plan
from runtime.engine.reduction import RankGradients, reduce_gradients
from runtime.engine.step import TrainingSetup, attempt, descend
from tests.runtime.engine.plans import finished, planned


def brought(rank, rows, *places, size=257):
    drawn = torch.Generator().manual_seed(rank)
    gradients = [torch.randn(size, generator=drawn) * 10.0 ** (rank - 1) for _ in places]
    return RankGradients(rank, rows, places, gradients)


def bits(reduced):
    held, gradients = reduced
    return list(held), [one.numpy().tobytes() for one in gradients]


def test_gradients_are_added_by_rank_however_they_arrive():
    team = [brought(0, 16, 0, 1), brought(1, 7, 0, 1), brought(2, 0), brought(3, 16, 0, 1, 3)]
    before = [gradient.clone() for one in team for gradient in one.gradients]
    held, gradients = reduce_gradients(team, 4)
    assert held == [0, 1, 3]
    for place in (0, 1):
        shares = [team[rank].gradients[place] * (team[rank].rows / 39) for rank in (0, 1, 3)]
        assert torch.equal(gradients[place], (shares[0] + shares[1]) + shares[2])
        assert not torch.equal(gradients[place], (shares[2] + shares[1]) + shares[0]), "another order, other bits"
    assert torch.equal(gradients[2], team[3].gradients[2] * (16 / 39)), "a rank without a gradient adds nothing"
    assert {str(bits(reduce_gradients(list(order), 4))) for order in permutations(team)} == {
        str(bits((held, gradients)))
    }
    assert all(
        torch.equal(one, then) for one, then in zip((g for r in team for g in r.gradients), before, strict=True)
    ), "what was brought stays as it was"


def test_a_team_of_one_gets_back_the_tensors_that_it_brought():
    own = brought(0, 16, 2, 5)
    held, gradients = reduce_gradients([own], 1)
    assert held is own.held
    assert gradients is own.gradients


@pytest.mark.parametrize(("ranks", "size"), [([0], 2), ([0, 0], 2), ([0, 2], 2), ([1], 1), ([0, 1], 1), ([], 1)])
def test_nothing_is_added_up_unless_every_rank_is_there_once(ranks, size):
    with pytest.raises(InvalidInput, match="ranks"):
        reduce_gradients([brought(rank, 16, 0) for rank in ranks], size)


def test_every_step_goes_through_the_reduction(images, monkeypatch):
    seen = []

    def reduce(gathered, world_size):
        seen.append(([one.rank for one in gathered], [one.rows for one in gathered], world_size))
        return reduce_gradients(gathered, world_size)

    monkeypatch.setattr(step, "reduce_gradients", reduce)
    plan = planned(images, training={"epochs": 1, "batch_size": 16, "accumulate": 2})
    run = Run.start(plan, images)
    finished(run)
    assert seen == [([0], [32], 1)] * run.step


def test_ranks_that_share_a_batch_move_to_the_same_weights_and_to_those_of_one_process(images):
    plan = planned(images, model={"architecture": "mlp", "hidden": [16]})
    (now, rows) = plan.at(0), torch.arange(24)
    alone, first, second = (TrainingSetup.of(plan, images) for _ in range(3))
    halves = [[(1, *first.feed.batches(part.numpy(), len(part), 0))] for part in (rows[:16], rows[16:])]
    own = {}
    for rank, one in enumerate((first, second)):
        descend(one, halves[rank])
        own[rank] = RankGradients(rank, 16 - 8 * rank, *one.movement.gradients())
        own[rank] = replace(own[rank], gradients=[gradient.clone() for gradient in own[rank].gradients])
        one.movement.adopt((), ())
    for rank, one in enumerate((first, second)):
        team = replace(one, rank=rank, world_size=2, gather=lambda mine, rank=rank: (own[1 - rank], mine))
        attempt(team, now, halves[rank], look=True)
    attempt(alone, now, [(1, *alone.feed.batches(rows.numpy(), 24, 0))], look=True)
    for name, tensor in first.tensors().items():
        assert torch.equal(tensor, second.tensors()[name]), name
        torch.testing.assert_close(tensor, alone.tensors()[name], rtol=1e-4, atol=1e-6)


def test_the_plan_of_a_team_says_so_and_that_of_one_process_has_the_form_that_it_always_had(images):
    plan = planned(images)
    assert (plan.resolved.rank, plan.resolved.world_size) == (0, 1)
    assert not {"rank", "world_size"} & plan.resolved.as_json().keys()
    assert "world_size" not in plan.request.resolved()["training"]
    team = replace(plan, resolved=replace(plan.resolved, rank=1, world_size=2))
    assert team.resolved.as_json() == plan.resolved.as_json() | {"rank": 1, "world_size": 2}
    assert Plan.from_json(team.as_json()) == team
    setup = TrainingSetup.of(team, images)
    with pytest.raises(InvalidInput, match="team of 2"):
        attempt(setup, team.at(0), [(1, *setup.feed.batches(torch.arange(16).numpy(), 16, 0))], look=False)


@pytest.mark.parametrize("size", [0, 2, "2", True, None, [1]])
def test_a_request_for_a_team_is_refused_with_a_sentence(size):
    raw = {"data": {"source": "digits"}, "model": {"architecture": "mlp"}}
    assert read_request({**raw, "training": {"world_size": 1}}) == read_request(raw)
    with pytest.raises(InvalidRequest, match="this version trains with one") as error:
        read_request({**raw, "training": {"world_size": size}})
    assert [one.path for one in error.value.problems] == ["training.world_size"]
