"""What each identity cannot do on a real server, tried with raw messages as an attacker would."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from bus import subjects
from bus.conf import ServerPlace, accounts, embedded, variables
from bus.durables import Layout, StreamAdmin
from bus.frames import publication
from bus.jetstream import JetStreamBus
from bus.link import api
from bus.port import Record, StoredRecord
from bus.rights import ROLES, rights
from contracts.errors import Failed, InvalidInput, Refused
from contracts.signed_command import CLIENT
from tests.bus.conformance import TRAINER, WAKE_AGAIN, S, fact, some, taken, woken
from tests.bus.served import Served, served

GUESTS = ("good", "evil")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as world:
        for guest in GUESTS:
            await world.guest(guest)
            await world.admin.consumer(f"guest_{guest}", subjects.waking("window.recorded"))
        yield world


async def stored(world: Served) -> list[StoredRecord]:
    return await taken(world.admin, subjects.EVERYTHING)


async def shout(bus: JetStreamBus, subject: str, body: bytes = b"{}", reply: str = "") -> None:
    """Publish raw and wait until the server has dealt with it."""
    await bus._link.send(publication(subject, reply, b"", body))
    await bus._link._client.flush()


async def denied(bus: JetStreamBus, subject: str, body: bytes = b"") -> None:
    with pytest.raises(Refused, match="may not publish"):
        await bus._link.ask(subject, body, patience=5)


@pytest.mark.parametrize("role", [role for role in ROLES if role not in ("admin", "host")])
async def test_a_role_writes_its_own_lane_and_no_other(world: Served, role: str) -> None:
    mine = {"desk": "operator"}.get(role, role)
    async with world.bus(role) as bus:
        await bus.append([fact(0, mine)], lane=subjects.lane(S, mine), after=0)
        for other in (*ROLES, "guest_good", "operator"):
            if other not in (mine, role):
                with pytest.raises(Refused, match="may not publish"):
                    await bus.append([fact(0, other)], lane=subjects.lane(S, other), after=0)
                with pytest.raises(Refused, match="may not publish"):
                    await bus.append([fact(0, other), fact(1, other)], lane=subjects.lane(S, other), after=0)
    assert len(await stored(world)) == 1


async def test_a_host_that_holds_all_keys_speaks_for_its_roles_and_for_no_guest(world: Served) -> None:
    async with world.bus("host") as host:
        for role in (role for role in ROLES if role != "admin"):
            await host.append([fact(0, role)], lane=subjects.lane(S, role), after=0)
        with pytest.raises(Refused, match="may not publish"):
            await host.append([fact(0, "guest_good")], lane=subjects.lane(S, "guest_good"), after=0)


async def test_a_role_cannot_touch_streams_or_durables(world: Served) -> None:
    await world.admin.consumer("validator", subjects.waking("window.recorded"))
    async with world.bus() as bus:
        for verb in (
            "STREAM.DELETE.EV_00",
            "STREAM.PURGE.EV_00",
            "STREAM.UPDATE.EV_00",
            "STREAM.CREATE.EV_01",
            "STREAM.MSG.DELETE.EV_00",
            "STREAM.SNAPSHOT.EV_00",
            "CONSUMER.CREATE.EV_00",
            "CONSUMER.CREATE.EV_00.validator",
            "CONSUMER.DURABLE.CREATE.EV_00.validator",
            "CONSUMER.DELETE.EV_00.validator",
            "CONSUMER.MSG.NEXT.EV_00.validator",
            "CONSUMER.PAUSE.EV_00.validator",
        ):
            await denied(bus, f"$JS.API.{verb}", b"{}")
        await denied(bus, "$JS.ACK.EV_00.validator.1.1.1.1.0", b"+ACK")


async def test_a_reader_is_named_by_the_server_so_nobody_can_redirect_a_durable(world: Served) -> None:
    await world.admin.consumer("validator", subjects.waking("window.recorded"))
    async with world.bus() as bus, world.bus("validator") as validator:
        for name in ("name", "durable_name"):
            asked = {"filter_subject": "swarm.ev.nowhere.>", "ack_policy": "explicit", name: "validator"}
            body = orjson.dumps({"stream_name": "EV_00", "config": asked})
            await bus._link.ask("$JS.API.READER.EV_00", body)
        await bus.append([fact(0)], lane=TRAINER, after=0)
        async with validator.wakes("validator") as wakes:
            assert (await woken(wakes)).stored.seq == 1


async def test_nobody_hears_what_is_not_for_him(world: Served) -> None:
    async with world.bus() as trainer, world.bus("guest_evil") as evil, world.bus(CLIENT) as client:
        for bus, others in (
            (trainer, ("_INBOX.host.>", "_INBOX.>", subjects.COMMANDS, "$SYS.>", ">", "$JS.API.>")),
            (evil, ("_GUEST.good.>", "_GUEST.>", "_INBOX.>", subjects.EVERYTHING, "$SYS.>", ">")),
            (client, ("_GUEST.>", subjects.COMMANDS, subjects.EVERYTHING, "$SYS.>", ">")),
        ):
            for other in others:
                with pytest.raises(Refused, match="may not hear"):
                    async with bus.hear(other):
                        pass


async def test_a_guest_speaks_only_for_itself(world: Served) -> None:
    lane = subjects.lane(S, "guest_evil")
    async with world.bus("guest_evil") as evil:
        assert await evil.append([fact(0, "guest_evil"), fact(1, "guest_evil")], lane=lane, after=0) == 2
        for other in ("trainer", "operator", "guest_good"):
            with pytest.raises(Refused, match="may not publish"):
                await evil.append([fact(0, other)], lane=subjects.lane(S, other), after=0)
        for subject in (
            "swarm.cmd.train",
            "swarm.owner.train",
            "swarm.redrive.trainer",
            "swarm.dlq.trainer",
            "swarm.tm.00.x.y",
            subjects.heartbeat("trainer", "1"),
            subjects.heartbeat("guest_good", "1"),
            "$JS.API.CONSUMER.CREATE.EV_00",
            "LOG.API.CONSUMER.CREATE.EV_00",
            "LOG.API.CONSUMER.MSG.NEXT.EV_00.guest_good",
            "LOG.API.CONSUMER.MSG.NEXT.EV_00.trainer",
            "$JS.ACK.EV_00.guest_good.1.1.1.1.0",
            "$JS.API.READER.EV_00",
            "$JS.API.STREAM.DELETE.EV_00",
            "LOG.API.STREAM.DELETE.EV_00",
            "_R_.a.b",
        ):
            await denied(evil, subject, b"{}")
    assert {record.subject.split(".")[5] for record in await stored(world)} == {"evil"}


def alignments(stranger: str, victim: str) -> Iterator[str]:
    """Every subject of 7 to 14 tokens that acknowledges with the stranger's name anywhere, and with the victim's
    durable where servers look for one."""
    for count in range(7, 15):
        for at in range(2, count):
            for stream in (2, 4):
                tokens = ["$JS", "ACK", *("1" for _ in range(count - 2))]
                if stream + 1 < count and at not in (stream, stream + 1):
                    tokens[stream], tokens[stream + 1], tokens[at] = "EV_00", victim, stranger
                    yield ".".join(tokens)


@pytest.mark.parametrize("thief", ["guest_evil", "validator"])
async def test_nobody_takes_the_wake_ups_of_others_however_an_acknowledgement_is_aligned(
    world: Served, thief: str
) -> None:
    await world.admin.consumer("trainer", subjects.waking("window.recorded"))
    async with world.bus() as trainer, world.bus(thief) as evil:
        await trainer.append([fact(0)], lane=TRAINER, after=0)
        for subject in alignments(thief, "trainer"):
            await denied(evil, subject, b"+NXT")
        async with trainer.wakes("trainer") as wakes:
            assert (await asyncio.wait_for(anext(wakes), WAKE_AGAIN / 2)).stored.seq == 1


@pytest.mark.parametrize("identity", ["trainer", "guest_x"])
def test_a_role_may_acknowledge_in_every_form_that_servers_use(identity: str) -> None:
    given = rights(identity).publish
    delivery = "1.2.3.1700000000000000000.0"
    for subject in (
        f"$JS.ACK.EV_00.{identity}.{delivery}",
        f"$JS.ACK.hub.AHASH.EV_00.{identity}.{delivery}",
        f"$JS.ACK._.AHASH.EV_00.{identity}.{delivery}.random",
    ):
        assert any(matches(right, subject) for right in given), subject


def matches(right: str, subject: str) -> bool:
    """Whether a right covers a subject, as NATS has it."""
    pattern = re.escape(right).replace(r"\*", "[^.]+").replace(">", ".+")
    return re.fullmatch(pattern, subject) is not None


async def test_a_guest_is_heard_is_woken_and_reads_everything(world: Served) -> None:
    async with world.bus() as trainer, world.bus("guest_good") as good, world.bus("host") as host:
        after = await trainer.append([fact(0), fact(1)], lane=TRAINER, after=0)
        async with good.wakes("guest_good") as wakes:
            first = await woken(wakes)
            await first.busy()
            await first.done()
            second = await woken(wakes)
            await second.again(0.05)
            again = await woken(wakes)
            assert [first.stored.seq, second.stored.seq, again.stored.seq] == [1, 2, 2]
            assert again.stored.headers == {"signature": "sig1"}
            await again.done()
        async with host.hear(subjects.heartbeats()) as beats:
            await good.say(subjects.heartbeat("guest_good", "1"), b"here")
            assert await asyncio.wait_for(anext(beats), 10) == ("swarm.sys.guest_good.1.hb", b"here")
        mine = subjects.lane(S, "guest_good")
        async with good.read(subjects.session(S), follow=True) as records:
            assert [r.seq for r in await some(records, 2)] == [1, 2]
            await good.append([fact(0, "guest_good")], lane=mine, after=0)
            await trainer.append([fact(2)], lane=TRAINER, after=after)
            assert [r.seq for r in await some(records, 2)] == [3, 4]
        head = await good.head(mine)
        assert head is not None
        assert head.seq == 3
        letter = subjects.dead_letter("guest_good")
        await good.say(letter, b"broken")
        async with host.read(letter, follow=True) as letters:
            assert (await some(letters, 1))[0].body == b"broken"


async def test_a_guest_follows_and_is_woken_through_restarts(world: Served) -> None:
    async with world.bus() as trainer, world.bus("guest_good") as good:
        async with good.wakes("guest_good") as wakes, good.read(TRAINER, follow=True) as records:
            after = 0
            for n in range(3):
                waiting = asyncio.create_task(anext(wakes))
                after = await trainer.append([fact(n)], lane=TRAINER, after=after)
                assert (await some(records, 1))[0].seq == after
                wake = await asyncio.wait_for(waiting, 20)
                assert wake.stored.seq == after
                await wake.done()
                await world.restart()
        assert [r.seq for r in await taken(good, TRAINER)] == [1, 2, 3]


async def test_a_client_asks_and_reads_and_writes_nothing(world: Served) -> None:
    async def reply(subject: str, body: bytes) -> bytes:
        return b"accepted"

    async with world.bus() as trainer, world.bus(CLIENT) as client, world.bus("desk") as desk:
        await trainer.append([fact(0)], lane=TRAINER, after=0)
        async with desk.answer(subjects.COMMANDS, reply, queue="desk"):
            assert await client.ask("swarm.cmd.train", b"{}") == b"accepted"
        assert len(await taken(client, subjects.EVERYTHING)) == 1
        async with client.hear(f"live.{subjects.TELEMETRY}") as heard:
            await trainer.say(subjects.telemetry(S, "steps"), b"7")
            assert await asyncio.wait_for(anext(heard), 10) == (f"live.{subjects.telemetry(S, 'steps')}", b"7")
        for subject in (
            subjects.owner_command("train"),
            fact(0).subject,
            "swarm.tm.00.x.y",
            "swarm.dlq.trainer",
            "swarm.ev.00.s.guest.good.x_y",
        ):
            await denied(client, subject)
    assert len(await stored(world)) == 1


async def test_a_reply_subject_from_the_edge_stores_nothing(world: Served) -> None:
    """Whoever answers a request publishes to the subject the asker chose; across accounts that leads nowhere."""

    async def reply(subject: str, body: bytes) -> bytes:
        return b"{}"

    targets = [fact(9, lane, name="x.happened").subject for lane in ("trainer", "guest_good", "guest_evil")]
    async with world.bus() as trainer, world.bus(CLIENT) as client, world.bus("desk") as desk:
        await trainer.append([fact(0)], lane=TRAINER, after=0)
        async with world.bus("guest_evil") as evil, desk.answer(subjects.COMMANDS, reply):
            for target in targets:
                await shout(client, "swarm.cmd.train", reply=target)
                await shout(client, "LOG.API.STREAM.MSG.GET.EV_00", b'{"seq":1}', target)
                await shout(evil, "LOG.API.STREAM.MSG.GET.EV_00", b'{"seq":1}', target)
                await shout(evil, "LOG.API.STREAM.INFO.EV_00", b"", target)
                await shout(evil, "LOG.API.DIRECT.GET.EV_00", b'{"seq":1}', target)
                await shout(evil, "LOG.API.CONSUMER.MSG.NEXT.EV_00.guest_evil", b"1", target)
            # Whatever these brought about happened before this answer, on the same connections.
            await client.ask("swarm.cmd.train", b"{}")
            await taken(evil, subjects.EVERYTHING)
    assert [record.subject for record in await stored(world)] == [fact(0).subject]


async def test_a_reply_subject_inside_the_log_account_stores_what_admission_must_void(world: Served) -> None:
    """A built-in role can make the server's own API answer into a foreign lane. Permissions do not stop that; what is
    stored is an API answer, no event: it has no envelope and no signature, so every reader voids it."""
    target = fact(9, "validator", name="x.happened").subject
    async with world.bus() as trainer, world.bus("host") as host, world.bus("desk") as desk:
        await trainer.append([fact(0)], lane=TRAINER, after=0)

        async def reply(subject: str, body: bytes) -> bytes:
            return b"forged"

        async with desk.answer(subjects.COMMANDS, reply):
            await shout(host, "swarm.cmd.train", reply=fact(9, "guest_good").subject)
            assert await host.ask("swarm.cmd.train", b"") == b"forged"
        await shout(trainer, "$JS.API.STREAM.MSG.GET.EV_00", b'{"seq":1}', target)
        async with world.admin.read(subjects.EVERYTHING, follow=True) as records:
            first, forged = await some(records, 2)
    assert first.subject == fact(0).subject
    assert forged.subject == target
    assert orjson.loads(forged.body)["type"] == "io.nats.jetstream.api.v1.stream_msg_get_response"
    assert forged.headers == {}
    assert b"forged" not in forged.body
    async with world.bus("validator") as validator:
        # The lane's next writer expects the sequence of the void record, and goes on.
        lane = subjects.lane(S, "validator")
        await validator.append([fact(0, "validator")], lane=lane, after=forged.seq)


async def test_a_push_consumer_cannot_be_aimed_at_the_log(world: Served) -> None:
    async with world.bus() as bus:
        asked = {"deliver_subject": fact(0, "validator").subject, "ack_policy": "none"}
        answer = await bus._link.ask("$JS.API.READER.EV_00", orjson.dumps({"stream_name": "EV_00", "config": asked}))
        assert b"forms a cycle" in answer.body


def test_nobody_may_answer_where_the_asker_wants() -> None:
    text = embedded(variables(), ServerPlace(Path("/x"), 1))
    assert "allow_responses" not in text
    assert "no_auth_user" not in text
    assert re.search(r"SYS \{\s+mappings", text)
    assert "users" not in text[text.index("SYS {") : text.index("LOG {")]


def test_only_the_administrator_may_do_all() -> None:
    for identity in (*ROLES, CLIENT, "guest_x"):
        given = rights(identity)
        everything = {"swarm.ev.>", "$JS.API.>", "$SYS.>", ">"}
        assert bool(everything & {*given.publish, *given.subscribe}) is (identity == "admin")
    with pytest.raises(InvalidInput, match="no identity of the bus"):
        rights("stranger")


def test_the_edge_imports_what_the_design_lists_and_nothing_else() -> None:
    text = accounts(variables())
    imports = text[text.index("imports:") :]
    services = set(re.findall(r'service: \{ account: LOG, subject: "([^"]+)"', imports))
    assert services == {
        "swarm.cmd.>",
        "swarm.owner.>",
        "swarm.signed.>",
        "swarm.ev.*.*.guest.>",
        "swarm.sys.*.*.hb",
        "swarm.dlq.*",
        "$JS.API.DIRECT.GET.*",
        "$JS.API.DIRECT.GET.*.>",
        "$JS.API.STREAM.MSG.GET.*",
        "$JS.API.STREAM.INFO.*",
        "$JS.API.CONSUMER.MSG.NEXT.*.*",
        "$JS.ACK.>",
    }
    assert set(re.findall(r'stream: \{ account: LOG, subject: "([^"]+)"', imports)) == {"swarm.ev.>", "swarm.tm.>"}


async def test_streams_that_are_there_and_different_are_not_touched(world: Served) -> None:
    await world.admin.provision()
    with pytest.raises(Refused, match="num_replicas"):
        await StreamAdmin(world.admin._link, Layout(replicas=3)).provision()


async def test_the_budget_of_a_stream_grows_and_never_shrinks(world: Served) -> None:
    await world.admin.provision()
    link = world.admin._link
    before = await max_bytes(link)
    more = before + 2**20
    for wanted, found in ((before // 2, before), (more, more), (before, more)):
        await StreamAdmin(link, Layout(facts_bytes=wanted)).provision()
        assert await max_bytes(link) == found


async def max_bytes(link: Any) -> int:
    found = await api(link, "STREAM.INFO.EV_00")
    return int(found["config"]["max_bytes"])


async def test_not_even_the_administrator_deletes_a_fact(world: Served) -> None:
    async with world.bus() as bus:
        await bus.append([fact(0)], lane=TRAINER, after=0)
    for verb, asked in (("STREAM.MSG.DELETE.EV_00", {"seq": 1}), ("STREAM.PURGE.EV_00", {"filter": ">"})):
        with pytest.raises((Failed, Refused)):
            await api(world.admin._link, verb, asked)
    assert len(await stored(world)) == 1


async def test_a_record_is_in_the_log_only_with_its_own_headers(world: Served) -> None:
    async with world.bus("guest_good") as good, world.bus() as trainer:
        lane = subjects.lane(S, "guest_good")
        record = Record(fact(0, "guest_good").subject, b"{}", {"content-type": "application/json", "signature": "s"})
        await good.append([record, record], lane=lane, after=0)
        for reader in (good, trainer):
            assert [r.headers for r in await taken(reader, lane)] == [record.headers] * 2
            head = await reader.head(lane)
            assert head is not None
            assert head.headers == record.headers
