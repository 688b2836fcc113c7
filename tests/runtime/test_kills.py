"""Whatever is killed, wherever it stands: the session completes with the same bits; what was said is there, once."""

from __future__ import annotations

import os
import random
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import SwarmError
from runtime.jobs.failpoints import NAMES
from tests import chaos
from tests.chaos import Arena, Result
from tests.harness import small_request

SEED = int(os.environ.get("CHAOS_SEED", "20261"))

DIVERGING = small_request(optimizer={"type": "sgd", "learning_rate": 1000.0}, training={"epochs": 8, "batch_size": 64})

BEFORE_A_SESSION = ("before-append:2", "between-append-and-ack:1")
WHILE_IT_IS_ASKED_FOR = "between-genesis-and-reply"
WHILE_IT_TRAINS = (
    ("between-claim-and-child",),
    ("before-window:3", "during-rename:2", "between-work-and-answer:9"),
    ("between-blob-and-event:3", "between-event-and-host-log:20"),
    ("between-ack-and-effect:1",),
    ("between-append-and-ack:9",),
    ("before-append:25",),
)
WHILE_STATE_IS_WRITTEN = (("during-rename:2",), ("between-blob-and-event:3",))
WHILE_IT_DRAINS = "between-drain-and-event"
AT_ITS_END = (("before-completion",), ("before-seal",), ("after-seal",))
WHILE_IT_IS_REPAIRED = (("between-ack-and-apply",), ("between-apply-and-next-window",))


def test_every_failpoint_is_killed_in_this_file() -> None:
    lives = [*WHILE_IT_TRAINS, *AT_ITS_END, *WHILE_IT_IS_REPAIRED]
    named = [*BEFORE_A_SESSION, WHILE_IT_IS_ASKED_FOR, WHILE_IT_DRAINS, *(one for life in lives for one in life)]
    assert {one.partition(":")[0] for one in named} == set(NAMES)


async def test_a_host_survives_a_kill_before_there_is_a_session(arena: Arena) -> None:
    for place in BEFORE_A_SESSION:
        await chaos.dies_at(arena, place)
    await chaos.risen(arena)
    await nobody_left(arena)


@pytest.mark.timeout(400)
async def test_a_session_survives_a_kill_at_every_failpoint(arena: Arena, tmp_path: Path) -> None:
    request = chaos.MODELS["mlp"]
    whole = await chaos.undisturbed(tmp_path / "undisturbed", request)
    life = await chaos.risen_with(arena, WHILE_IT_IS_ASKED_FOR)
    with suppress(SwarmError):
        await arena.submit(request, "asked twice")
    assert await life.passed() == ()
    session, left = "", tuple[str, ...]()
    for places in WHILE_IT_TRAINS:
        # Whoever dies first may take others with it, which then have their turn in the next life.
        life = await chaos.risen_with(arena, *left, *places)
        session = session or await arena.submit(request, "asked twice")
        left = await life.passed()
    while left:
        left = await (await chaos.risen_with(arena, *left)).passed()
    draining = await chaos.risen_with(arena, WHILE_IT_DRAINS)
    await chaos.grown(arena, session)
    assert (await arena.down()).code == 0
    assert await draining.passed() == ()
    for places in AT_ITS_END:
        assert await (await chaos.risen_with(arena, *places)).passed() == ()
    await end_of(arena, session, whole)


@pytest.mark.parametrize("model", ["cnn", pytest.param("transformer", marks=pytest.mark.long)])
async def test_the_state_of_every_kind_of_model_survives_kills_while_it_is_written(
    arena: Arena, tmp_path: Path, model: str
) -> None:
    """Where a process may die is walked above with one model; what others keep in memory differs in their state."""
    request = chaos.MODELS[model]
    whole = await chaos.undisturbed(tmp_path / "undisturbed", request)
    session = ""
    for places in WHILE_STATE_IS_WRITTEN:
        life = await chaos.risen_with(arena, *places)
        session = session or await arena.submit(request, "killed")
        assert await life.passed() == ()
    await chaos.risen(arena)
    await arena.target("child", 30.0)
    assert arena.kill("child", random.Random(SEED))
    await end_of(arena, session, whole)


async def test_a_repair_survives_a_kill_between_decision_and_effect(arena: Arena, tmp_path: Path) -> None:
    unrepaired = await chaos.undisturbed(tmp_path / "undisturbed", DIVERGING)
    first, second = WHILE_IT_IS_REPAIRED
    life = await chaos.risen_with(arena, *first)
    session = await arena.submit(DIVERGING, "repaired")
    assert await life.passed() == ()
    assert await (await chaos.risen_with(arena, *second)).passed() == ()
    await end_of(arena, session, unrepaired)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_sessions_survive_twenty_kills_at_random_moments(arena: Arena, undisturbed: Result) -> None:
    print(f"CHAOS_SEED={SEED}")
    rng, kills = random.Random(SEED), Counter[str]()
    await chaos.risen(arena)
    number = 0
    while kills.total() < 20:
        number += 1
        session = await arena.submit(chaos.LONG, f"session {number}")
        kills += await chaos.torment(
            arena, session, rng, 20 - kills.total(), kinds=("server", "host", "child"), longest=2.0
        )
        await arena.ended(session)
        assert await arena.judge(session, undisturbed) == [], (SEED, number, kills)
    assert set(kills) == {"server", "host", "child"}
    await nobody_left(arena)


async def end_of(arena: Arena, session: str, undisturbed: Result) -> None:
    await chaos.risen(arena)
    seen: dict[str, Any] = await arena.ended(session)
    assert seen["sealed"]
    assert await arena.judge(session, undisturbed) == []
    await nobody_left(arena)


async def nobody_left(arena: Arena) -> None:
    assert (await arena.down()).code == 0
    assert await arena.strays() == []
