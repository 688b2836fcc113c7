"""Who is taken for present, and what a heartbeat tells besides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bus import subjects
from bus.memory import MemoryBus
from runtime.node.presence import Presence


class _DoneError(Exception):
    """The test is over."""


@asynccontextmanager
async def two(bus: MemoryBus) -> AsyncIterator[tuple[Presence, Presence]]:
    """One that hears, and one that beats elsewhere."""
    here, there = Presence(bus, "here"), Presence(bus, "there")
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(here.hear())
            tasks.create_task(there.beat())
            await asyncio.sleep(0)
            yield here, there
            raise _DoneError
    except* _DoneError:
        pass


async def until(condition: object) -> None:
    async with asyncio.timeout(2):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)


async def test_whoever_arrives_is_heard_at_once() -> None:
    async with two(MemoryBus()) as (here, there):
        assert not here.heard("validator")
        there.here("validator")
        await until(lambda: here.heard("validator"))
        assert here.silent_seconds("validator") < 1


async def test_whoever_was_never_heard_is_not_there_however_short_the_silence() -> None:
    here = Presence(MemoryBus(), "here")
    assert here.silent_seconds("guest_ant") < 1
    assert not here.heard("guest_ant")


async def test_that_there_is_nothing_to_say_is_told_beside_the_log() -> None:
    async with two(MemoryBus()) as (here, there):
        await there.let_pass("guest_ant", "an-event")
        await until(lambda: here.passed("guest_ant", "an-event"))
        assert not here.passed("guest_bee", "an-event")
        assert here.heard("guest_ant")


async def test_a_heartbeat_that_is_no_json_is_a_heartbeat() -> None:
    bus = MemoryBus()
    async with two(bus) as (here, _):
        for body in (b"\xff", b"[]", b'{"passed": 7}', b""):
            await bus.say(subjects.heartbeat("guest_ant", "x"), body)
        await bus.say(subjects.heartbeat("guest_bee", "y"), b"")
        await until(lambda: here.heard("guest_bee"))
        assert [(one.role, one.instance) for one in here.roster()] == [("guest_ant", "x"), ("guest_bee", "y")]


async def test_instances_that_a_guest_makes_up_are_forgotten_and_push_out_nobody_else() -> None:
    bus = MemoryBus()
    async with two(bus) as (here, there):
        there.here("trainer")
        await there.let_pass("validator", "an-event")
        await until(lambda: here.heard("trainer") and here.passed("validator", "an-event"))
        for n in range(3000):
            await bus.say(subjects.heartbeat("guest_ant", f"i{n}"), b'{"passed": "another"}')
        await until(lambda: any(one.instance == "i2999" for one in here.roster()))
        assert [one.instance for one in here.roster() if one.role == "trainer"] == ["there"]
        assert len([one for one in here.roster() if one.role == "guest_ant"]) == 8
        assert here.heard("trainer")
        assert here.passed("validator", "an-event")
