"""What every bus promises, as one suite: `tests/bus/test_memory.py` and `test_jetstream.py` run it on a world each."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import pytest

from bus import frames, subjects
from bus.port import Admin, Log, Record, StoredRecord, Wake, Wakes, Wire
from contracts.errors import Ambiguous, Conflict, Full, InvalidInput, TooLarge, Unreachable

S = "00-06b3xhv0000000000000000000"
T = "00-06b3xhv0000000000000000001"
TRAINER = subjects.lane(S, "trainer")
VALIDATOR = subjects.lane(S, "validator")
WAKE_AGAIN = 1.0
ROOM = 256 * 1024


class Bus(Log, Wakes, Wire, Protocol):
    """All ports of one identity."""


class World(Protocol):
    """A bus with its administrator, and what can befall it."""

    admin: Admin

    def bus(self, identity: str = "trainer") -> AbstractAsyncContextManager[Bus]: ...

    async def restart(self) -> None:
        """The server dies and comes back with its store."""

    def cut(self, *, stored: bool) -> None:
        """The next append of `trainer` loses its answer, with or without being stored."""


def fact(n: int, lane: str = "trainer", session: str = S, name: str = "window.recorded") -> Record:
    return Record(subjects.fact(session, lane, name), b'{"n":%d}' % n, {"signature": f"sig{n}"})


async def taken(bus: Log, pattern: str, after: int = 0) -> list[StoredRecord]:
    async with bus.read(pattern, after=after) as records:
        return [stored async for stored in records]


async def settled(bus: Log, records: list[Record], *, lane: str, after: int) -> int:
    """Append as a writer of an exclusive lane does: until the outcome is known, the same again."""
    while True:
        try:
            return await bus.append(records, lane=lane, after=after)
        except (Ambiguous, Conflict):
            head = await bus.head(lane)
            if head is not None and head.body == records[-1].body:
                return head.seq
            assert (head.seq if head else 0) == after


async def some(records: AsyncIterator[StoredRecord], count: int) -> list[StoredRecord]:
    return [await asyncio.wait_for(anext(records), 20) for _ in range(count)]


class Conformance:
    """Needs the fixtures `world` and `small_world` (one whose log has room for `ROOM` bytes)."""

    async def test_records_come_back_as_they_were_in_the_order_in_which_they_were_stored(self, world: World) -> None:
        async with world.bus() as bus:
            last = await bus.append([fact(0)], lane=TRAINER, after=0)
            last = await bus.append([fact(1), fact(2), fact(3)], lane=TRAINER, after=last)
            records = await taken(bus, TRAINER)
        assert [r.body for r in records] == [fact(n).body for n in range(4)]
        assert [dict(r.headers) for r in records] == [{"signature": f"sig{n}"} for n in range(4)]
        assert [r.seq for r in records] == [1, 2, 3, 4]
        assert last == 4

    async def test_the_stream_numbers_its_records_without_gaps_over_all_lanes(self, world: World) -> None:
        async with world.bus() as trainer, world.bus("validator") as validator:
            first = await trainer.append([fact(0), fact(1)], lane=TRAINER, after=0)
            await validator.append([fact(0, "validator")], lane=VALIDATOR, after=0)
            await trainer.append([fact(2)], lane=TRAINER, after=first)
            assert [r.seq for r in await taken(trainer, subjects.session(S))] == [1, 2, 3, 4]
            assert [r.seq for r in await taken(trainer, TRAINER)] == [1, 2, 4]
            assert [r.seq for r in await taken(trainer, subjects.EVERYTHING, after=2)] == [3, 4]

    async def test_a_lane_nobody_wrote_has_no_head_and_no_records(self, world: World) -> None:
        async with world.bus() as bus:
            assert await bus.head(TRAINER) is None
            assert await taken(bus, TRAINER) == []

    async def test_the_head_is_the_last_record_at_once_after_the_append(self, world: World) -> None:
        async with world.bus() as bus:
            after = 0
            for n in range(20):
                after = await bus.append([fact(n)], lane=TRAINER, after=after)
                head = await bus.head(TRAINER)
                assert head is not None
                assert (head.seq, head.body, dict(head.headers)) == (after, fact(n).body, {"signature": f"sig{n}"})
                assert len(await taken(bus, TRAINER)) == n + 1

    @pytest.mark.parametrize("size", [1, 3])
    async def test_an_append_behind_a_moved_lane_conflicts_and_stores_nothing(self, world: World, size: int) -> None:
        async with world.bus() as bus:
            await bus.append([fact(0)], lane=TRAINER, after=0)
            for stale in (0, 2, 99):
                with pytest.raises(Conflict):
                    await bus.append([fact(n) for n in range(size)], lane=TRAINER, after=stale)
            assert len(await taken(bus, subjects.EVERYTHING)) == 1

    async def test_another_lane_of_the_session_does_not_disturb(self, world: World) -> None:
        async with world.bus() as trainer, world.bus("validator") as validator:
            last = await trainer.append([fact(0)], lane=TRAINER, after=0)
            await validator.append([fact(0, "validator")], lane=VALIDATOR, after=0)
            other = subjects.lane(T, "trainer")
            await trainer.append([fact(0, session=T)], lane=other, after=0)
            last = await trainer.append([fact(1)], lane=TRAINER, after=last)
            assert [one.subject for one in await taken(trainer, TRAINER)] == [fact(0).subject, fact(1).subject]
            assert last == len(await taken(trainer, subjects.EVERYTHING)) == 4

    async def test_a_batch_is_stored_whole_or_not_at_all(self, world: World) -> None:
        large = Record(fact(0).subject, bytes(frames.MAX_PAYLOAD))
        async with world.bus() as bus:
            with pytest.raises(TooLarge):
                await bus.append([fact(0), large, fact(1)], lane=TRAINER, after=0)
            with pytest.raises(InvalidInput):
                await bus.append([fact(0), fact(1, "validator")], lane=TRAINER, after=0)
            assert await bus.head(subjects.EVERYTHING) is None
            many = [fact(n) for n in range(frames.LARGEST_BATCH)]
            assert await bus.append(many, lane=TRAINER, after=0) == len(many)
            with pytest.raises(TooLarge):
                await bus.append([*many, fact(0)], lane=TRAINER, after=len(many))

    async def test_of_two_writers_on_one_lane_exactly_one_wins_each_round(self, world: World) -> None:
        async with world.bus() as one, world.bus() as two:
            after = 0
            for n in range(25):
                size = 1 + n % 3
                tries = [
                    writer.append([fact(n) for _ in range(size)], lane=TRAINER, after=after) for writer in (one, two)
                ]
                results = await asyncio.gather(*tries, return_exceptions=True)
                assert sorted(type(result).__name__ for result in results) == ["Conflict", "int"]
                after += size
            assert [r.seq for r in await taken(one, TRAINER)] == list(range(1, after + 1))

    async def test_many_writers_share_a_lane_by_reading_again_after_a_conflict(self, world: World) -> None:
        async def write(bus: Log, who: int) -> None:
            for n in range(5):
                while True:
                    head = await bus.head(TRAINER)
                    with contextlib.suppress(Conflict):
                        await bus.append([fact(100 * who + n)], lane=TRAINER, after=head.seq if head else 0)
                        break

        async with contextlib.AsyncExitStack() as stack:
            writers = [await stack.enter_async_context(world.bus()) for _ in range(4)]
            await asyncio.gather(*(write(bus, who) for who, bus in enumerate(writers)))
            bodies = [r.body for r in await taken(writers[0], TRAINER)]
        assert sorted(bodies) == sorted(fact(100 * who + n).body for who in range(4) for n in range(5))

    @pytest.mark.parametrize("size", [1, 3])
    @pytest.mark.parametrize("stored", [True, False])
    async def test_an_append_without_an_answer_is_settled_by_reading_the_head(
        self, world: World, size: int, stored: bool
    ) -> None:
        async with world.bus() as bus:
            after = await bus.append([fact(0)], lane=TRAINER, after=0)
            mine = [fact(n) for n in range(1, 1 + size)]
            world.cut(stored=stored)
            with pytest.raises(Ambiguous):
                await bus.append(mine, lane=TRAINER, after=after)
            head = await bus.head(TRAINER)
            assert head is not None
            assert (head.body == mine[-1].body) is stored
            if stored:
                with pytest.raises(Conflict):
                    await bus.append(mine, lane=TRAINER, after=after)
            else:
                await bus.append(mine, lane=TRAINER, after=head.seq)
            assert [r.body for r in await taken(bus, TRAINER)] == [fact(n).body for n in range(1 + size)]

    async def test_an_oversized_record_is_refused_and_the_client_goes_on(self, world: World) -> None:
        frame = len(b"NATS/1.0\r\nsignature: x\r\n\r\n")
        room = frames.MAX_PAYLOAD - frames.MARGIN - frame
        async with world.bus() as bus:
            for size in (room + 1, frames.MAX_PAYLOAD, 2 * frames.MAX_PAYLOAD):
                with pytest.raises(TooLarge, match="blob"):
                    await bus.append([Record(fact(0).subject, bytes(size), {"signature": "x"})], lane=TRAINER, after=0)
            fitting = Record(fact(0).subject, bytes(room), {"signature": "x"})
            last = await bus.append([fitting], lane=TRAINER, after=0)
            await bus.append([fitting, fitting], lane=TRAINER, after=last)
            assert [len(r.body) for r in await taken(bus, TRAINER)] == [room] * 3

    async def test_a_record_outside_the_lane_or_with_headers_of_the_bus_is_refused(self, world: World) -> None:
        async with world.bus() as bus:
            for wrong in (
                fact(0, session=T),
                Record("swarm.ev.>", b""),
                Record("", b""),
                Record(fact(0).subject, b"", {"Nats-Msg-Id": "1"}),
                Record(fact(0).subject, b"", {"a b": "1"}),
                Record(fact(0).subject, b"", {"a": "1\r\nb: 2"}),
            ):
                with pytest.raises(InvalidInput):
                    await bus.append([wrong], lane=TRAINER, after=0)
            with pytest.raises(InvalidInput):
                await bus.append([], lane=TRAINER, after=0)

    async def test_a_follower_gets_the_past_and_then_what_comes(self, world: World) -> None:
        async with world.bus() as bus, world.bus("validator") as reader:
            after = await bus.append([fact(0), fact(1)], lane=TRAINER, after=0)
            async with reader.read(TRAINER, after=1, follow=True) as records:
                assert [r.seq for r in await some(records, 1)] == [2]
                await bus.append([fact(2), fact(3)], lane=TRAINER, after=after)
                assert [r.seq for r in await some(records, 2)] == [3, 4]

    async def test_readers_miss_and_double_nothing_while_others_append(self, world: World) -> None:
        async def write(bus: Log, lane: str) -> None:
            after = 0
            for n in range(40):
                batch = [fact(n * 10 + i, lane) for i in range(1 + n % 7)]
                after = await bus.append(batch, lane=subjects.lane(S, lane), after=after)

        total = 2 * sum(1 + n % 7 for n in range(40))
        async with world.bus() as trainer, world.bus("validator") as validator:
            async with trainer.read(subjects.session(S), follow=True) as records:
                writing = asyncio.gather(write(trainer, "trainer"), write(validator, "validator"))
                followed = await some(records, total)
                await writing
            again = await taken(validator, subjects.session(S))
        assert [r.seq for r in followed] == list(range(1, total + 1))
        assert [(r.seq, r.subject, r.body) for r in again] == [(r.seq, r.subject, r.body) for r in followed]

    async def test_a_slow_reader_gets_everything(self, world: World) -> None:
        async with world.bus() as bus:
            after = 0
            for _ in range(10):
                after = await bus.append([Record(fact(0).subject, bytes(20_000))] * 100, lane=TRAINER, after=after)
            count = 0
            async with bus.read(TRAINER) as records:
                async for stored in records:
                    count += 1
                    assert stored.seq == count
                    if count % 100 == 0:
                        await asyncio.sleep(0.01)
        assert count == 1000

    async def test_a_follower_lives_through_restarts_of_the_server(self, world: World) -> None:
        async with world.bus() as bus, world.bus("validator") as reader:
            async with reader.read(TRAINER, follow=True) as records:
                after = await bus.append([fact(0)], lane=TRAINER, after=0)
                assert [r.seq for r in await some(records, 1)] == [1]
                for n in (1, 2):
                    await world.restart()
                    after = await settled(bus, [fact(n), fact(n)], lane=TRAINER, after=after)
                    assert [r.seq for r in await some(records, 2)] == [after - 1, after]
            assert [r.seq for r in await taken(bus, TRAINER)] == [1, 2, 3, 4, 5]

    async def test_a_full_log_says_so_and_stays_readable(self, small_world: World) -> None:
        async with small_world.bus() as bus:
            after, room = 0, True
            while room:
                try:
                    after = await bus.append([Record(fact(0).subject, bytes(9_000))] * 3, lane=TRAINER, after=after)
                except Full:
                    room = False
            assert len(await taken(bus, TRAINER)) == after > 0
            with pytest.raises(Full):
                await bus.append([Record(fact(0).subject, bytes(30_000))] * 2, lane=TRAINER, after=after)
            assert len(await taken(bus, TRAINER)) == after

    async def test_a_wake_up_comes_again_until_it_is_retired(self, world: World) -> None:
        await world.admin.consumer("validator", subjects.waking("window.recorded"))
        async with world.bus() as bus, world.bus("validator") as validator:
            await bus.append([fact(1), fact(2)], lane=TRAINER, after=0)
            async with validator.wakes("validator") as wakes:
                first, second = [await woken(wakes) for _ in range(2)]
                assert [first.stored.seq, second.stored.seq] == [1, 2]
                assert first.stored.body == fact(1).body
                assert first.stored.headers == {"signature": "sig1"}
                await first.done()
            async with validator.wakes("validator") as wakes:
                again = await woken(wakes)
                assert again.stored.seq == 2
                await again.done()
                await bus.append([fact(3)], lane=TRAINER, after=2)
                assert (await woken(wakes)).stored.seq == 3

    async def test_a_role_is_woken_only_by_what_it_hears(self, world: World) -> None:
        heard = [*subjects.waking("window.recorded"), *subjects.waking("checkpoint.written", "trainer")]
        await world.admin.consumer("validator", heard)
        await world.admin.consumer("validator", heard)
        names = ["window.recorded", "control.evaluated", "checkpoint.written", "training.completed", "window.recorded"]
        async with world.bus() as bus, world.bus("validator") as validator:
            await bus.append([fact(n, name=name) for n, name in enumerate(names)], lane=TRAINER, after=0)
            async with validator.wakes("validator") as wakes:
                assert [(await woken(wakes)).stored.seq for _ in range(3)] == [1, 3, 5]

    async def test_a_durable_that_is_made_again_goes_on_where_it_was(self, world: World) -> None:
        heard = subjects.waking("window.recorded")
        await world.admin.consumer("validator", heard)
        async with world.bus() as bus, world.bus("validator") as validator:
            after = await bus.append([fact(0)], lane=TRAINER, after=0)
            async with validator.wakes("validator") as wakes:
                await (await woken(wakes)).done()
            await world.admin.consumer("validator", heard)
            await bus.append([fact(1)], lane=TRAINER, after=after)
            async with validator.wakes("validator") as wakes:
                assert (await woken(wakes)).stored.seq == 2

    async def test_the_instances_of_a_role_share_its_wake_ups(self, world: World) -> None:
        await world.admin.consumer("validator", subjects.waking("window.recorded"))
        seen: list[tuple[str, int]] = []

        async def work(name: str, bus: Bus) -> None:
            async with bus.wakes("validator") as wakes:
                async for wake in wakes:
                    seen.append((name, wake.stored.seq))
                    await asyncio.sleep(0.01)
                    await wake.done()
                    if len(seen) == 20:
                        finished.set()

        finished = asyncio.Event()
        async with world.bus() as bus, world.bus("validator") as a, world.bus("validator") as b:
            tasks = [asyncio.create_task(work(name, each)) for name, each in (("a", a), ("b", b))]
            await bus.append([fact(n) for n in range(20)], lane=TRAINER, after=0)
            await asyncio.wait_for(finished.wait(), 20)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert sorted(seq for _, seq in seen) == list(range(1, 21))
        assert {name for name, _ in seen} == {"a", "b"}

    async def test_a_busy_role_keeps_its_wake_up_and_may_ask_for_it_again(self, world: World) -> None:
        await world.admin.consumer("validator", subjects.waking("window.recorded"))
        async with world.bus() as bus, world.bus("validator") as validator, world.bus("validator") as other:
            await bus.append([fact(1)], lane=TRAINER, after=0)
            async with validator.wakes("validator") as wakes, other.wakes("validator") as others:
                wake = await woken(wakes)
                stolen = asyncio.create_task(anext(others))
                for _ in range(5):
                    await asyncio.sleep(WAKE_AGAIN / 2)
                    await wake.busy()
                assert not stolen.done()
                await wake.again(0.05)
                second = await asyncio.wait_for(stolen, 10)
                assert second.stored.seq == 1
                await second.done()

    async def test_wake_ups_survive_a_restart_of_the_server(self, world: World) -> None:
        await world.admin.consumer("validator", subjects.waking("window.recorded"))
        async with world.bus() as bus, world.bus("validator") as role, role.wakes("validator") as wakes:
            waiting = asyncio.create_task(anext(wakes))
            await asyncio.sleep(0)
            await world.restart()
            await settled(bus, [fact(1)], lane=TRAINER, after=0)
            wake = await asyncio.wait_for(waiting, 20)
            assert wake.stored.seq == 1
            await wake.done()

    async def test_a_request_is_answered_and_an_unheard_one_says_so(self, world: World) -> None:
        async def reply(subject: str, body: bytes) -> bytes:
            return subject.encode() + b" " + body

        async with world.bus("host") as host, world.bus("desk") as desk:
            async with desk.answer(subjects.COMMANDS, reply, queue="desk"):
                assert await host.ask("swarm.cmd.train", b"{}") == b"swarm.cmd.train {}"
            with pytest.raises(Unreachable):
                await host.ask("swarm.cmd.train", b"{}", timeout=0.5)

    async def test_a_responder_that_refuses_breaks_or_says_too_much_answers_with_the_error(self, world: World) -> None:
        async def reply(subject: str, body: bytes) -> bytes:
            if body == b"large":
                raise TooLarge("too much", cure="less")
            if body == b"talkative":
                return b"." * (frames.MAX_PAYLOAD + 1)
            raise ZeroDivisionError("of all things")

        async with world.bus("host") as host, world.bus("desk") as desk, desk.answer(subjects.COMMANDS, reply):
            assert b'"too-large"' in await host.ask("swarm.cmd.train", b"large")
            assert b'"too-large"' in await host.ask("swarm.cmd.train", b"talkative")
            assert b"of all things" in await host.ask("swarm.cmd.train", b"")

    async def test_responders_of_one_queue_share_the_requests(self, world: World) -> None:
        counts = [0, 0]

        def responder(which: int):
            async def reply(subject: str, body: bytes) -> bytes:
                counts[which] += 1
                return b"ok"

            return reply

        async with world.bus("host") as host, world.bus("desk") as one, world.bus("desk") as two:
            first = one.answer(subjects.COMMANDS, responder(0), queue="desk")
            async with first, two.answer(subjects.COMMANDS, responder(1), queue="desk"):
                for _ in range(60):
                    await host.ask("swarm.cmd.status", b"")
        assert sum(counts) == 60
        assert min(counts) > 0

    async def test_what_is_said_is_heard_and_telemetry_is_kept(self, world: World) -> None:
        subject = subjects.telemetry(S, "resources")
        async with world.bus("resource_monitor") as monitor, world.bus("host") as host:
            async with host.hear(subjects.TELEMETRY) as heard:
                for n in range(3):
                    await monitor.say(subject, b"%d" % n)
                assert [await asyncio.wait_for(anext(heard), 10) for _ in range(3)] == [
                    (subject, b"%d" % n) for n in range(3)
                ]
            async with host.read(subjects.TELEMETRY, follow=True) as kept:
                assert [r.body for r in await some(kept, 3)] == [b"0", b"1", b"2"]

    async def test_dead_letters_are_kept_and_can_be_driven_again(self, world: World) -> None:
        letter = subjects.dead_letter("validator")

        async def redo(subject: str, body: bytes) -> bytes:
            return b"again " + body

        async with world.bus("validator") as validator, world.bus("desk") as desk:
            await validator.append([Record(letter, b'{"seq":7}')], lane=letter, after=0)
            dead = await taken(desk, subjects.DEAD_LETTERS)
            assert [(r.seq, r.subject, r.body) for r in dead] == [(1, letter, b'{"seq":7}')]
            async with validator.answer(subjects.redrive("validator"), redo, queue="validator"):
                assert await desk.ask(subjects.redrive("validator"), dead[0].body) == b'again {"seq":7}'


async def woken(wakes: AsyncIterator[Wake]) -> Wake:
    return await asyncio.wait_for(anext(wakes), 20)
