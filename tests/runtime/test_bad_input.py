"""What strangers, slips and forged messages may do to a swarm: be answered in a sentence, and nothing else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest

from bus import nkeys, subjects
from bus.admission import Admission
from bus.jetstream import JetStreamBus, connect
from bus.port import Record, StoredRecord
from bus.rights import seed_file
from contracts.errors import Conflict, Refused, TooLarge
from contracts.ids import new_uuid, sha256
from contracts.signed_command import CLIENT
from tests import chaos
from tests.chaos import LONG, Arena, Result

FORGERIES = (
    "no event",
    "an old event again",
    "a sequence of the future",
    "another body, the old signature",
    "no signature",
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """A swarm that is up while this file's tests last."""
    arena = Arena(tmp_path_factory.mktemp("world"))
    assert asyncio.run(arena.swarm("up", "-d")).code == 0
    yield arena
    asyncio.run(arena.swarm("down"))


@pytest.fixture(scope="module")
def undisturbed(world: Arena) -> Result:
    """What the request comes to in this swarm before anybody forges anything."""

    async def trained() -> Result:
        session = await world.submit(LONG, "undisturbed")
        await world.ended(session)
        return world.result(session)

    return asyncio.run(trained())


async def asked(world: Arena, body: bytes, verb: str = "train") -> dict[str, Any]:
    """The error with which the desk answers these very bytes."""
    async with connect(url(world), CLIENT, key(world, CLIENT)) as bus:
        answer = orjson.loads(await bus.ask(subjects.command(verb), body))
    assert answer.keys() == {"error"}, answer
    error: dict[str, Any] = answer["error"]
    assert error["message"]
    assert error["cure"]
    assert "Traceback" not in error["message"]
    return error


def url(world: Arena) -> str:
    host = world.home.host()
    assert host is not None
    return host.url


def key(world: Arena, identity: str) -> nkeys.UserKey:
    return nkeys.read(seed_file(world.home.seeds, identity))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{nope", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1, 2]", "not an object"),
        (b'"train"', "not an object"),
        (b'{"training": {"epochs": NaN}}', "not JSON"),
        (b'{"training": {"epochs": 1e999}}', ""),
        (b"{" * 50_000, "not JSON"),
        (b'{"data":' * 2000 + b"1" + b"}" * 2000, ""),
    ],
    ids=["garbage", "bytes", "list", "text", "nan", "infinity", "open braces", "deep"],
)
async def test_what_is_no_request_is_answered_with_the_cure(world: Arena, body: bytes, says: str) -> None:
    error = await asked(world, body)
    assert error["code"] in ("invalid", "invalid-request")
    assert says in error["message"]


async def test_every_problem_of_a_request_is_named_with_its_path(world: Arena) -> None:
    body = {"data": {"source": "digits"}, "modle": {}, "training": {"epochs": "many", "batch_size": -1}, "loss": 7}
    error = await asked(world, orjson.dumps(body))
    paths = {one["path"] for one in error["problems"]}
    assert {"modle", "training.epochs", "training.batch_size", "loss"} <= paths
    assert all(one["cure"] for one in error["problems"])


async def test_an_unknown_command_is_answered_with_those_that_there_are(world: Arena) -> None:
    error = await asked(world, b"{}", verb="explode")
    assert error["code"] == "not-found"
    assert "train" in error["cure"]


async def test_a_body_over_the_limit_is_refused_before_it_is_sent_and_the_client_lives(world: Arena) -> None:
    async with connect(url(world), CLIENT, key(world, CLIENT)) as bus:
        with pytest.raises(TooLarge, match="above the limit") as refused:
            await bus.ask(subjects.command("train"), b" " * 2_000_000)
        assert refused.value.cure
        assert b"agents" in await bus.ask(subjects.command("status"), b"{}")


async def test_a_client_that_ignores_the_limit_loses_its_own_connection_and_nobody_else_s(world: Arena) -> None:
    async with connect(url(world), CLIENT, key(world, CLIENT)) as bus:
        place = urlsplit(url(world))
        rude = socket.create_connection((place.hostname or "", place.port or 0), 5)
        with rude:
            rude.sendall(b"CONNECT {}\r\nPUB swarm.cmd.train 2000000\r\n")
            said = b""
            while chunk := await asyncio.to_thread(rude.recv, 4096):
                said += chunk
        assert b"-ERR" in said
        assert b"agents" in await bus.ask(subjects.command("status"), b"{}")


async def test_a_client_cannot_speak_in_any_lane(world: Arena, undisturbed: Result) -> None:
    session = newest(world)
    async with connect(url(world), CLIENT, key(world, CLIENT)) as bus:
        for lane, name in (("trainer", "window.recorded"), ("operator", "cancel.requested"), ("root", "key.admitted")):
            with pytest.raises(Refused, match="may not publish"):
                await bus.append(
                    [Record(subjects.fact(session, lane, name), b"{}")], lane=subjects.lane(session, lane), after=0
                )


async def test_what_a_role_forges_is_listed_as_void_and_the_session_ends_in_the_same_bits(
    world: Arena, undisturbed: Result
) -> None:
    before = len(await voids(world))
    async with connect(url(world), "host", key(world, "host")) as bus:
        log = Read(bus)
        await log.on()
        session = await world.submit(LONG, "forged")
        await chaos.grown(world, session, by=20)
        sent = []
        for lane in ("trainer", "checkpoint_keeper"):
            await log.spoken(session, lane)
            sent += [await forge(log, session, lane, how) for how in FORGERIES]
    await world.ended(session)
    listed = await voids(world)
    assert sorted(one["seq"] for one in listed[before:]) == sorted(sent)
    assert {one["reason"] for one in listed[before:]} >= {"envelope", "replayed", "laneseq", "signature", "unsigned"}
    assert [line for line in await world.judge(session, undisturbed) if not line.startswith("void ")] == []


class Read:
    """The stream as far as it was read: the session must not be over before everything was forged in it."""

    def __init__(self, bus: JetStreamBus) -> None:
        self.bus = bus
        self._admission, self._stream = Admission(), dict[int, StoredRecord]()

    async def spoken(self, session: str, lane: str) -> None:
        """Read until a lane has a first fact: until then there is nothing in it that could be forged."""
        async with asyncio.timeout(60):
            while not self._admission.head(session, lane).admitted:
                await asyncio.sleep(0.02)
                await self.on()

    async def on(self) -> None:
        """Read up to the present."""
        async with self.bus.read(subjects.EVERYTHING, after=max(self._stream, default=0)) as records:
            async for stored in records:
                self._admission.admit(stored)
                self._stream[stored.seq] = stored

    def newest(self, session: str, lane: str) -> tuple[StoredRecord, int]:
        """The last event of a lane that is a fact and signed, and the sequence of the last message of any kind."""
        head = self._admission.head(session, lane)
        return self._stream[head.admitted], head.stored


async def forge(log: Read, session: str, lane: str, how: str) -> int:
    """Append one bad message at the lane's end, however often the role itself is faster; its sequence."""
    while True:
        await log.on()
        last, stored = log.newest(session, lane)
        signed = dict(last.headers)
        body = orjson.loads(last.body)
        following = body | {"id": str(new_uuid()), "laneseq": body["laneseq"] + 1, "prev": sha256(last.body)}
        forged = {
            "no event": (b"\x00 no event", {}),
            "an old event again": (last.body, signed),
            "a sequence of the future": (orjson.dumps(following | {"laneseq": 10**6}), signed),
            "another body, the old signature": (orjson.dumps(following), signed),
            "no signature": (orjson.dumps(following), {}),
        }
        record = Record(last.subject, *forged[how])
        try:
            return await log.bus.append([record], lane=subjects.lane(session, lane), after=stored)
        except Conflict:
            continue


def newest(world: Arena) -> str:
    return max(world.home.session_ids(), key=lambda one: world.home.log(one).stat().st_mtime)


async def voids(world: Arena) -> list[dict[str, Any]]:
    ended = await world.swarm("dlq")
    assert ended.code == 0, ended
    found: list[dict[str, Any]] = ended.json["voids"]
    return found
