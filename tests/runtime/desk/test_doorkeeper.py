"""When a guest has said too much, and when not."""

from __future__ import annotations

import asyncio

import pytest

from bus import subjects
from bus.port import Stored
from contracts.ids import new_uuid, session_id
from runtime.desk.doorkeeper import BESIDE, BURST_SECONDS, VOID, Doorkeeper

SESSION = session_id(new_uuid())
RATE = 10.0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def told(lane: str = "guest_ant", size: int = 0, subject: str = "") -> Stored:
    return Stored(1, subject or subjects.fact(SESSION, lane, "thing.said"), b"x" * size)


async def named(keeper: Doorkeeper) -> list[str]:
    found = []
    floods = keeper.floods()
    try:
        while True:
            async with asyncio.timeout(0.01):
                found.append(await anext(floods))
    except TimeoutError:
        return found


async def test_a_guest_may_answer_a_backlog_at_once_and_no_more() -> None:
    keeper = Doorkeeper(RATE, Clock())
    for _ in range(int(RATE * BURST_SECONDS)):
        keeper.see(told())
    assert await named(keeper) == []
    keeper.see(told())
    assert await named(keeper) == ["guest_ant"]


async def test_whoever_keeps_to_the_rate_is_never_named() -> None:
    clock = Clock()
    keeper = Doorkeeper(RATE, clock)
    for n in range(5000):
        clock.now = n / RATE
        keeper.see(told())
    assert await named(keeper) == []


async def test_a_flood_is_named_once_and_anew_after_it_was_forgotten() -> None:
    keeper = Doorkeeper(RATE, Clock())
    for _ in range(2):
        for _ in range(3 * int(RATE * BURST_SECONDS)):
            keeper.see(told())
        assert await named(keeper) == ["guest_ant"]
        keeper.forget("guest_ant")


async def test_few_and_large_messages_are_a_flood_too() -> None:
    keeper = Doorkeeper(RATE, Clock())
    for _ in range(3):
        keeper.see(told(size=512 * 1024))
    assert await named(keeper) == ["guest_ant"]


async def test_what_is_no_event_counts_and_what_built_in_roles_say_does_not() -> None:
    keeper = Doorkeeper(RATE, Clock())
    for _ in range(2 * int(RATE * BURST_SECONDS)):
        keeper.see(told("trainer"))
        keeper.see(told(subject="swarm.ev.00.junk.guest.bee.x.y.z"))
    assert await named(keeper) == ["guest_bee"]


async def test_a_guest_that_was_silent_for_long_may_say_no_more_at_once_than_any_other() -> None:
    clock = Clock()
    keeper = Doorkeeper(RATE, clock)
    keeper.see(told())
    clock.now = 1e6
    for _ in range(int(RATE * BURST_SECONDS)):
        keeper.see(told())
    assert await named(keeper) == []
    keeper.see(told())
    assert await named(keeper) == ["guest_ant"]


async def test_what_is_not_admitted_costs_a_guest_a_hundred_times_as_much() -> None:
    keeper = Doorkeeper(RATE, Clock())
    subject = subjects.fact(SESSION, "guest_ant", "thing.said")
    for _ in range(int(RATE * BURST_SECONDS / VOID)):
        keeper.see_void(subject)
        keeper.see_void(subjects.fact(SESSION, "trainer", "thing.said"))
    assert await named(keeper) == []
    keeper.see_void(subject)
    assert await named(keeper) == ["guest_ant"]


async def test_a_guest_that_keeps_to_the_rate_fills_no_more_than_its_share_of_the_log() -> None:
    clock = Clock()
    keeper = Doorkeeper(RATE, clock, budget=100_000)
    for n in range(9):
        clock.now = 10.0 * n
        keeper.see(told(size=11_000))
    assert await named(keeper) == []
    clock.now = 100.0
    keeper.see(told(size=11_000))
    assert await named(keeper) == ["guest_ant"]


@pytest.mark.parametrize("subject", [subjects.heartbeat("guest_ant", "here"), subjects.dead_letter("guest_ant")])
async def test_what_a_guest_says_beside_the_log_is_counted_and_lets_it_pass_everything(subject: str) -> None:
    keeper = Doorkeeper(RATE, Clock())
    for _ in range(int(RATE * BURST_SECONDS / BESIDE) - 1):
        keeper.see_beside(subject, b"")
    keeper.see_beside(subject.replace("guest_ant", "trainer"), b"x" * (32 << 20))
    assert await named(keeper) == []
    keeper.see_beside(subject, b"x" * 1024)
    assert await named(keeper) == ["guest_ant"]
