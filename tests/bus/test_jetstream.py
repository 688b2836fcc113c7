import asyncio
import contextlib
import os
import random
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bus import frames, stream_log
from bus.frames import WireMessage, publication
from bus.jetstream import JetStreamBus, connect
from bus.link import ConnectionClosedError
from bus.port import Record
from contracts.errors import Ambiguous, Conflict, InvalidInput, NotVerified, Unreachable
from tests.bus.conformance import ROOM, TRAINER, Conformance, fact, some, taken
from tests.bus.served import Served, served


class TestJetStream(Conformance):
    @pytest.fixture
    async def world(self, tmp_path: Path) -> AsyncIterator[Served]:
        async with served(tmp_path) as world:
            yield world

    @pytest.fixture
    async def small_world(self, tmp_path: Path) -> AsyncIterator[Served]:
        async with served(tmp_path, facts_bytes=ROOM) as world:
            yield world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as world:
        yield world


async def test_a_client_that_the_server_threw_out_for_good_is_built_anew(world: Served) -> None:
    async with world.bus() as bus, bus.read(TRAINER, follow=True) as records:
        after = await bus.append([fact(0)], lane=TRAINER, after=0)
        await some(records, 1)
        lost = asyncio.Event()
        bus._link.on_loss(lost.set)
        await bus._link.send(publication(fact(0).subject, "", b"", bytes(frames.MAX_PAYLOAD + 1)))
        await asyncio.wait_for(lost.wait(), 10)
        after = await bus.append([fact(1)], lane=TRAINER, after=after)
        assert [r.seq for r in await some(records, 1)] == [after] == [2]


async def test_a_client_whose_reading_died_is_not_taken_for_alive(world: Served) -> None:
    async with world.bus("desk") as bus, world.bus() as trainer:

        def broken(frame: WireMessage) -> None:
            raise ZeroDivisionError

        lost = asyncio.Event()
        bus._link.on_loss(lost.set)
        close = await bus._link.listen("swarm.tm.>", broken)
        await trainer.say("swarm.tm.00.00-x.steps", b"")
        await asyncio.wait_for(lost.wait(), 10)
        await close()
        assert await taken(bus, TRAINER) == []


async def test_a_server_that_does_not_answer_leaves_the_append_open(world: Served) -> None:
    pid = world.server.pid
    assert pid is not None
    async with world.bus("trainer") as bus:
        bus.ack_wait = 0.3
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(Ambiguous):
                await bus.append([fact(0)], lane=TRAINER, after=0)
        finally:
            os.kill(pid, signal.SIGCONT)
        # It may even be stored after the head was read: sending the same again settles it, for one of both conflicts.
        with contextlib.suppress(Conflict):
            await bus.append([fact(0)], lane=TRAINER, after=0)
        assert [r.body for r in await taken(bus, TRAINER)] == [fact(0).body]


async def test_nothing_is_sent_late_when_the_server_was_away(world: Served) -> None:
    async with world.bus("validator") as bus:
        lost = asyncio.Event()
        bus._link.on_loss(lost.set)
        await world.server.stop()
        await asyncio.wait_for(lost.wait(), 10)
        lane = TRAINER.replace("trainer", "validator")
        refused = asyncio.gather(
            *(bus.append([fact(n, "validator")], lane=lane, after=0) for n in range(3)), return_exceptions=True
        )
        with pytest.raises(Unreachable, match="does not answer"):
            await bus._link.connected(0.3)
        world.server.spawn()
        await world.server.ready()
        results = [type(result).__name__ for result in await refused]
        # They waited for the connection and were sent once: one wins, the others see a moved lane.
        assert sorted(results) == ["Conflict", "Conflict", "int"]
        assert len(await taken(bus, lane)) == 1


async def test_a_store_that_was_set_back_is_an_incident_for_a_follower(world: Served) -> None:
    async with world.bus() as bus, bus.read(TRAINER, follow=True) as records:
        after = await bus.append([fact(0), fact(1)], lane=TRAINER, after=0)
        await some(records, after)
        await world.server.stop()
        store = world.home / "nats" / "store"
        store.rename(world.home / "nats" / "lost")
        world.server.spawn()
        await world.server.ready()
        await world.admin.provision()
        with pytest.raises(NotVerified, match="no longer holds record 2"):
            await some(records, 1)


async def test_a_reader_begins_again_where_a_delivery_is_missing(
    world: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deliveries are lost on the way to the reader, at random places: it still gives every record once, in order."""
    real, chance = stream_log.Mailbox.put, random.Random(7)

    def forgetful(mailbox: stream_log.Mailbox, frame: WireMessage) -> None:
        if chance.random() > 0.15:
            real(mailbox, frame)

    async with world.bus() as bus:
        await bus.append([fact(n) for n in range(60)], lane=TRAINER, after=0)
        monkeypatch.setattr(stream_log.Mailbox, "put", forgetful)
        monkeypatch.setattr(stream_log, "HEARTBEAT", 0.2)
        async with bus.read(TRAINER, follow=True) as records:
            assert [r.seq for r in await some(records, 60)] == list(range(1, 61))


async def test_hundreds_of_records_of_every_size_come_back_whole(world: Served) -> None:
    sizes = [0, 1, 2, 100, 4095, 4096, 4097, 65_535, 65_536, 65_537, 500_000]
    records = [Record(fact(0).subject, os.urandom(size), {"signature": str(size)}) for size in sizes]
    async with world.bus() as bus, world.bus("validator") as reader:
        after = 0
        for _ in range(5):
            after = await bus.append(records, lane=TRAINER, after=after)
        assert [(r.body, dict(r.headers)) for r in await taken(reader, TRAINER)] == [
            (record.body, record.headers) for record in records
        ] * 5


async def test_whoever_waits_on_a_closed_connection_is_told(world: Served) -> None:
    async with world.bus() as bus:
        async with bus.read(TRAINER, follow=True) as records:
            waiting = asyncio.create_task(some(records, 1))
            await bus.append([fact(0)], lane=TRAINER, after=0)
            assert (await waiting)[0].seq == 1
            waiting = asyncio.create_task(some(records, 1))
            await bus._link.close()
            with pytest.raises(ConnectionClosedError):
                await waiting
        with pytest.raises(ConnectionClosedError):
            await bus.append([fact(1)], lane=TRAINER, after=1)


async def test_only_who_is_cancelled_hears_so_when_a_connection_is_closed(
    world: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.bus() as bus:
        client, hangs = bus._link._client, asyncio.Event()
        close = client.close

        async def cancelled() -> None:
            await close()
            raise asyncio.CancelledError

        monkeypatch.setattr(client, "close", cancelled)
        await bus._link.close()
        monkeypatch.setattr(client, "close", hangs.wait)
        closing = asyncio.create_task(bus._link._close_client())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing


async def test_a_reader_that_is_cancelled_ends_whatever_it_was_doing(world: Served) -> None:
    """A guest's reader subscribes for every look anew: a cancellation that is dropped meanwhile leaves it running."""

    async def follow(bus: JetStreamBus) -> None:
        async with bus.read(TRAINER, follow=True) as records:
            async for _ in records:
                pass

    async with world.bus("client") as bus:
        for turns in range(40):
            following = asyncio.create_task(follow(bus))
            for _ in range(turns):
                await asyncio.sleep(0)
            following.cancel()
            ended, _ = await asyncio.wait([following], timeout=5)
            assert ended, f"it went on after a cancellation in turn {turns}"


@pytest.mark.parametrize("url", ["nats://127.0.0.1:port", "http://127.0.0.1:4222", "nats://:4222", "", "nats://a:0"])
async def test_what_is_no_address_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="no address"):
        async with connect(url, "host"):
            pass


async def test_a_server_that_says_nothing_is_told_of_with_a_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        with pytest.raises(Unreachable, match=r"\(\w.*\)"):
            async with connect(f"nats://127.0.0.1:{port}", "host", patience=0.3):
                pass
