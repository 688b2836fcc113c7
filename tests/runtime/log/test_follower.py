"""What the tail promises to those who wait for a message: a fact when it says so, and never a wait without an end."""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bus.admission import Admission
from bus.chain import Draft, compose
from bus.decode import Reason, Voids
from bus.keys import HEADER
from bus.memory import MemoryBus
from bus.port import Record, StoredRecord
from contracts import ids
from contracts.event import Unknown
from runtime.log.follower import LogFollower, LogLineLimit
from tests.runtime.recorded_home import RecordedHome, evaluated, window
from tests.runtime.recorded_session import FootprintEstimated


@pytest.fixture
def recorded(tmp_path: Path) -> RecordedHome:
    return RecordedHome(tmp_path / "home")


def following(recorded: RecordedHome) -> LogFollower:
    tail = LogFollower(MemoryBus(), Admission(root=recorded.fingerprint))
    for stored in recorded.stream:
        tail.take(stored)
    return tail


def an_append(recorded: RecordedHome, session: str) -> list[StoredRecord]:
    before = len(recorded.stream)
    recorded.say(session, "trainer", window(0, 50), evaluated(50, 0.5))
    return recorded.stream[before:]


async def is_decided(tail: LogFollower, seq: int) -> bool:
    waiting = asyncio.ensure_future(tail.decided(seq))
    await asyncio.sleep(0)
    decided = waiting.done()
    waiting.cancel()
    return decided


async def test_the_middle_of_an_append_is_undecided_until_its_end_is_there(recorded: RecordedHome) -> None:
    session = recorded.requested()
    tail = following(recorded)
    first, last = an_append(recorded, session)
    assert tail.take(first) == []
    assert tail.seq == first.seq
    assert not await is_decided(tail, first.seq)
    assert len(tail.take(last)) == 2
    assert await is_decided(tail, first.seq)
    assert await is_decided(tail, last.seq)


async def test_an_append_that_never_ends_is_decided_by_whatever_comes_next(recorded: RecordedHome) -> None:
    session = recorded.requested()
    tail = following(recorded)
    first, last = an_append(recorded, session)
    tail.take(first)
    assert not await is_decided(tail, first.seq)
    tail.take(StoredRecord(last.seq, "swarm.ev.00.00-elsewhere.trainer.window_recorded", b"no event"))
    assert await is_decided(tail, first.seq)


async def test_a_second_beginning_in_the_lane_ends_the_first(recorded: RecordedHome) -> None:
    session = recorded.requested()
    tail = following(recorded)
    first, _ = an_append(recorded, session)
    tail.take(first)
    again = StoredRecord(first.seq + 1, first.subject, first.body, first.headers)
    tail.take(again)
    assert await is_decided(tail, first.seq)
    assert not await is_decided(tail, again.seq)


async def test_what_is_no_event_is_decided_at_once(recorded: RecordedHome) -> None:
    tail = following(recorded)
    seq = len(recorded.stream) + 1
    tail.take(StoredRecord(seq, "swarm.ev.00.00-elsewhere.trainer.window_recorded", b"no event"))
    assert await is_decided(tail, seq)
    assert [void.seq for void in tail.voids] == [seq]


def compose_footprint(recorded: RecordedHome, session: str) -> list[Record]:
    head, signer = recorded.admission.head(session, "guest_ant"), recorded.signers["guest_ant"]
    drafts = [Draft(FootprintEstimated(grams=12.5), str(ids.new_uuid()))]
    return compose(drafts, session=session, lane="guest_ant", head=head, signer=signer, source="/s", time="never")


def large(recorded: RecordedHome, session: str) -> StoredRecord:
    """A guest's event of a mebibyte that is many times as much in objects."""
    (record,) = compose_footprint(recorded, session)
    body = record.body.replace(b"12.5", b"[" + b",".join([b"{}"] * 349_000) + b"]")
    header = {HEADER: recorded.signers["guest_ant"].sign(body)}
    return StoredRecord(len(recorded.stream) + 1, record.subject, body, header)


def test_what_strangers_say_stays_bytes_and_is_read_when_somebody_asks(recorded: RecordedHome) -> None:
    """Eight admitted events of a mebibyte were 200 MB of objects for as long as their session was open."""
    session = recorded.requested(rules=1)
    tail = LogFollower(MemoryBus(), recorded.admission, copy=lambda _session, _stored: None)
    before = sys.getallocatedblocks()
    for _ in range(8):
        stored = large(recorded, session)
        recorded.stream.append(StoredRecord(stored.seq, "dropped", b""))
        (fact,) = tail.take(stored)
    assert isinstance(fact.event, Unknown)
    assert len(fact.event.data["grams"]) == 349_000
    assert sys.getallocatedblocks() - before < 50_000, "of 2,792,000 objects that they would be"


def test_a_guests_event_over_64_kib_is_void_where_rules_2_hold(recorded: RecordedHome) -> None:
    session = recorded.requested()
    recorded.admission.admit(large(recorded, session))
    assert [void.reason for void in recorded.admission.voids] == [Reason.SIZE]


def noise(recorded: RecordedHome, session: str, count: int) -> Iterator[StoredRecord]:
    """What a guest can store that is no event, in turn in a session and in one that nobody has begun."""
    seq = len(recorded.stream)
    for n in range(count):
        where = ids.session_id(ids.new_uuid()) if n % 2 else session
        subject = f"swarm.ev.00.{where}.guest.ant.footprint_estimated"
        yield StoredRecord(seq + n + 1, subject, b"nothing that is an event " * 400)


@pytest.mark.usefixtures("traced")
def test_voids_and_made_up_sessions_cost_nothing_that_grows(recorded: RecordedHome) -> None:
    session, voids = recorded.requested(), recorded.admission.voids
    before, seq = bytes_in_use(), len(recorded.stream)
    for stored in noise(recorded, session, 10_000):
        recorded.admission.admit(stored)
    assert bytes_in_use() - before < 6e6
    assert voids.counts == {Reason.ENVELOPE: 5000, Reason.UNBEGUN: 5000}
    assert len(voids) == Voids.FIRST + Voids.NEWEST
    assert (voids[0].seq, voids[-1].seq) == (seq + 1, seq + 10_000)
    assert [void.seq for void in voids.since(9_997)] == [seq + 9_998, seq + 9_999, seq + 10_000]
    assert len(recorded.admission._sessions) == 2


def test_a_built_in_roles_made_up_sessions_are_remembered_up_to_a_number(recorded: RecordedHome) -> None:
    for n in range(600):
        subject = f"swarm.ev.00.{ids.session_id(ids.new_uuid())}.trainer.window_recorded"
        recorded.admission.admit(StoredRecord(len(recorded.stream) + n + 1, subject, b"nothing"))
    assert len(recorded.admission._unbegun) == 256
    assert len(recorded.trained()) > 0


def test_a_void_holds_no_long_text(recorded: RecordedHome) -> None:
    (record,) = compose_footprint(recorded, recorded.requested())
    body = record.body.replace(b'"grams"', b'"' + b"x" * 100_000 + b'":1,"grams"').replace(
        b"}}", b'},"' + b"y" * 100_000 + b'":1}'
    )
    recorded.admission.admit(StoredRecord(99, record.subject, body))
    recorded.admission.admit(StoredRecord(100, "x" * 4000, body))
    assert all(len(void.detail) <= Voids.TEXT >= len(void.subject) for void in recorded.admission.voids)


def test_what_is_void_is_not_kept_for_the_files(recorded: RecordedHome) -> None:
    session = recorded.requested()
    tail = following(recorded)
    kept: list[StoredRecord] = []
    tail._copy = lambda _session, stored: kept.extend(stored)
    for stored in noise(recorded, session, 20):
        tail.take(stored)
    assert not tail._pending
    assert not kept


def test_an_append_that_is_broken_off_anywhere_is_forgotten(recorded: RecordedHome) -> None:
    """Its bodies are remembered only as long as its end can still come."""
    first, second = recorded.requested(), recorded.requested()
    tail = following(recorded)
    tail._copy = lambda _session, _stored: None
    begun, _ = an_append(recorded, first)
    tail.take(begun)
    assert [*tail._pending] == [first]
    other, end = an_append(recorded, second)
    tail.take(other._replace(seq=begun.seq + 1))
    assert [*tail._pending] == [second]
    assert [(void.seq, void.reason) for void in tail.voids] == [(begun.seq, Reason.UNSIGNED)]
    assert len(tail.take(end._replace(seq=begun.seq + 2))) == 2
    assert not tail._pending


def test_a_host_writes_few_lines_about_what_strangers_store_however_much_it_is(recorded: RecordedHome) -> None:
    session = recorded.requested()
    tail, told = following(recorded), list[int]()
    tail.look_on_voids(lambda void: told.append(void.seq))
    with capture_logs() as written:
        for stored in noise(recorded, session, 3 * LogLineLimit.MOST):
            tail.take(stored)
    lines = [one["seq"] for one in written if one["event"] == "not admitted"]
    assert lines == told[: LogLineLimit.MOST]
    assert len(told) == tail.voids.total == 3 * LogLineLimit.MOST


def test_so_many_lines_again_are_written_after_a_minute_and_none_before() -> None:
    lines = LogLineLimit()
    for began in (0.0, 60.0, 200.0):
        assert [lines.take(began + n) for n in range(30)] == [True] * 20 + [False] * 10
        assert not lines.take(began + 59.9)


def bytes_in_use() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def test_of_a_session_sealed_long_ago_a_follower_remembers_its_place_and_its_seal(recorded: RecordedHome) -> None:
    sealed = [recorded.trained() for _ in range(3)]
    tail = LogFollower(MemoryBus(), Admission(root=recorded.fingerprint), keep_sealed=1)
    for stored in recorded.stream:
        tail.take(stored)
    assert not {*sealed[:2]} & tail.histories.keys()
    for session in sealed:
        standing = tail.admission._sessions[session]
        assert (standing.sealed, standing.position) == (
            recorded.admission.sealed(session),
            recorded.admission.position(session),
        )
        assert bool(standing.heads) == (session == sealed[2])
    # Whoever asks for it by name makes nothing that stays, and what is said into it comes too late as ever.
    assert tail.history(sealed[0]).size == 0
    assert sealed[0] not in tail.histories
    before, late = tail.voids.total, compose_footprint(recorded, sealed[0])
    recorded.store(sealed[0], *late)
    assert tail.take(recorded.stream[-1]) == []
    assert [void.reason for void in tail.voids.since(before)] == [Reason.LATE]
    assert not tail.admission._sessions[sealed[0]].heads
