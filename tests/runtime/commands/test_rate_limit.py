"""When a guest has said too much, and when not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from bus import subjects
from bus.memory import MemoryBus
from bus.port import Record, StoredRecord
from contracts.ids import new_uuid, session_id
from contracts.keyring import KeyAdmitted
from contracts.roles import DESK
from runtime.commands.guests import BESIDE, BURST_SECONDS, SHARE, VOID, Guests, GuestTotals, RateLimit
from runtime.host.swarm_node import SwarmNode
from runtime.log.lane_writer import Provenance
from tests.harness import crew

SESSION = session_id(new_uuid())
RATE = 10.0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def told(lane: str = "guest_ant", size: int = 0, subject: str = "") -> StoredRecord:
    return StoredRecord(1, subject or subjects.fact(SESSION, lane, "thing.said"), b"x" * size)


async def named(keeper: RateLimit) -> list[str]:
    found = []
    floods = keeper.floods()
    try:
        while True:
            async with asyncio.timeout(0.01):
                found.append(await anext(floods))
    except TimeoutError:
        return found


async def test_a_guest_may_answer_a_backlog_at_once_and_no_more() -> None:
    keeper = RateLimit(RATE, Clock())
    for _ in range(int(RATE * BURST_SECONDS)):
        keeper.see(told())
    assert await named(keeper) == []
    keeper.see(told())
    assert await named(keeper) == ["guest_ant"]


async def test_whoever_keeps_to_the_rate_is_never_named() -> None:
    clock = Clock()
    keeper = RateLimit(RATE, clock)
    for n in range(5000):
        clock.now = n / RATE
        keeper.see(told())
    assert await named(keeper) == []


async def test_a_flood_is_named_once_and_anew_after_it_was_forgotten() -> None:
    keeper = RateLimit(RATE, Clock())
    for _ in range(2):
        for _ in range(3 * int(RATE * BURST_SECONDS)):
            keeper.see(told())
        assert await named(keeper) == ["guest_ant"]
        keeper.forget("guest_ant")


async def test_few_and_large_messages_are_a_flood_too() -> None:
    keeper = RateLimit(RATE, Clock())
    for _ in range(3):
        keeper.see(told(size=512 * 1024))
    assert await named(keeper) == ["guest_ant"]


async def test_what_is_no_event_counts_and_what_built_in_roles_say_does_not() -> None:
    keeper = RateLimit(RATE, Clock())
    for _ in range(2 * int(RATE * BURST_SECONDS)):
        keeper.see(told("trainer"))
        keeper.see(told(subject="swarm.ev.00.junk.guest.bee.x.y.z"))
    assert await named(keeper) == ["guest_bee"]


async def test_a_guest_that_was_silent_for_long_may_say_no_more_at_once_than_any_other() -> None:
    clock = Clock()
    keeper = RateLimit(RATE, clock)
    keeper.see(told())
    clock.now = 1e6
    for _ in range(int(RATE * BURST_SECONDS)):
        keeper.see(told())
    assert await named(keeper) == []
    keeper.see(told())
    assert await named(keeper) == ["guest_ant"]


async def test_what_is_not_admitted_costs_a_guest_a_hundred_times_as_much() -> None:
    keeper = RateLimit(RATE, Clock())
    subject = subjects.fact(SESSION, "guest_ant", "thing.said")
    for _ in range(int(RATE * BURST_SECONDS / VOID)):
        keeper.see_void(subject)
        keeper.see_void(subjects.fact(SESSION, "trainer", "thing.said"))
    assert await named(keeper) == []
    keeper.see_void(subject)
    assert await named(keeper) == ["guest_ant"]


async def test_a_guest_that_keeps_to_the_rate_fills_no_more_than_its_share_of_the_log() -> None:
    clock = Clock()
    keeper = RateLimit(RATE, clock, budget=100_000)
    for n in range(9):
        clock.now = 10.0 * n
        keeper.see(told(size=11_000))
    assert await named(keeper) == []
    clock.now = 100.0
    keeper.see(told(size=11_000))
    assert await named(keeper) == ["guest_ant"]


@pytest.mark.parametrize("subject", [subjects.heartbeat("guest_ant", "here"), subjects.dead_letter("guest_ant")])
async def test_what_a_guest_says_beside_the_log_is_counted_and_lets_it_pass_everything(subject: str) -> None:
    keeper = RateLimit(RATE, Clock())
    for _ in range(int(RATE * BURST_SECONDS / BESIDE) - 1):
        keeper.see_beside(subject, b"")
    keeper.see_beside(subject.replace("guest_ant", "trainer"), b"x" * (32 << 20))
    assert await named(keeper) == []
    keeper.see_beside(subject, b"x" * 1024)
    assert await named(keeper) == ["guest_ant"]


async def say(bus: MemoryBus, lane: str, size: int, count: int = 1) -> int:
    """Have a guest store so many messages of so many bytes; the place of the last one."""
    last = 0
    for _ in range(count):
        session = session_id(new_uuid())
        subject = subjects.fact(session, lane, "thing.said")
        record = Record(subject, b"x" * (size - len(subject)))
        last = await bus.append([record], lane=subjects.lane(session, lane), after=0)
    return last


async def counted(
    bus: MemoryBus, admitted: dict[str, int], upto: int, before: GuestTotals | None = None
) -> dict[str, int]:
    keeper = RateLimit(RATE, Clock())
    await keeper.count(bus, admitted, upto, before or GuestTotals())
    return keeper.stored


async def test_what_guests_stored_in_another_life_of_the_host_is_counted_in_the_log() -> None:
    bus = MemoryBus()
    before = await say(bus, "guest_ant", 500)
    admitted = {"guest_ant": before, "guest_bee": 0}
    upto = max(await say(bus, "guest_ant", 1000, 3), await say(bus, "guest_bee", 200), await say(bus, "trainer", 300))
    await say(bus, "guest_ant", 5000)  # seen by the host itself
    await say(bus, "guest_cat", 300)  # whose key counts no more
    whole = {"guest_ant": 3000, "guest_bee": 200}
    assert await counted(bus, admitted, upto) == whole
    read = GuestTotals(before + 1, {"guest_ant": 1000, "guest_cat": 9})
    assert await counted(bus, admitted, upto, read) == whole, "of what was counted before nothing is read again"
    assert await counted(bus, {"guest_ant": upto}, upto, GuestTotals(before, {"guest_ant": 10**9})) == {}, (
        "admitted anew"
    )


async def test_who_has_filled_its_share_over_several_lives_of_the_host_is_named() -> None:
    bus = MemoryBus()
    upto = await say(bus, "guest_ant", 11_000, 9)
    keeper = RateLimit(RATE, Clock(), budget=100_000)
    await keeper.count(bus, {"guest_ant": 0}, upto, GuestTotals())
    assert await named(keeper) == []
    keeper.see(told(size=11_000))
    assert await named(keeper) == ["guest_ant"]


async def life(made: SwarmNode, monkeypatch: pytest.MonkeyPatch, size: int) -> list[str]:
    """The guests that are turned out while one host lives and `guest_ant` stores so much."""
    turned_out = list[str]()

    async def expel(_self: Guests, lane: str, _reason: str) -> None:
        turned_out.append(lane)

    monkeypatch.setattr(Guests, "expel", expel)
    guests = Guests(made, cast(Any, None), cast(Any, None))
    known = made.home.guests_stored()
    guests._limit.see(told(size=1))
    guests.remember()
    assert made.home.guests_stored() == known, "what is not counted yet is not written down"
    guests._limit.forget("guest_ant")
    watching = asyncio.create_task(guests.watch())
    async with asyncio.timeout(10):
        while not guests._is_counted:
            await asyncio.sleep(0)
        bus = made.bus
        assert isinstance(bus, MemoryBus)
        await made.tail.reached(await say(bus, "guest_ant", size))
    guests.remember()
    await asyncio.sleep(0)
    watching.cancel()
    return turned_out


async def test_a_guests_share_of_the_log_outlives_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with crew(tmp_path, (), store_bytes=16 * 100_000, guest_events_per_second=1e6) as made:
        ant = KeyAdmitted(role="guest_ant", public="0" * 64, guest=True, hears=[])
        await made.writer(DESK).say(made.tail.keyring, [ant], Provenance())
        assert SHARE * made.settings.store_bytes == 100_000
        assert await life(made, monkeypatch, 60_000) == []
        assert made.home.guests_stored() == (made.tail.seq, {"guest_ant": 60_000})
        (made.home.root / "guests.json").write_text("{half of it")
        assert await life(made, monkeypatch, 30_000) == [], "what was lost is counted again"
        assert made.home.guests_stored()[1] == {"guest_ant": 90_000}
        assert await life(made, monkeypatch, 20_000) == ["guest_ant"]
