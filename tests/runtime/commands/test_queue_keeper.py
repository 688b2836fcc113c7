"""What a host says in the queue: decided from the log alone, so it goes on wherever another one stopped."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import reduce
from itertools import count
from pathlib import Path

import pytest

from bus import subjects
from bus.keys import KeyStore
from bus.memory import MemoryBus
from contracts.data_manager import DatasetPrepared, DatasetRejected
from contracts.errors import Full, InvalidRequest
from contracts.event import Event
from contracts.ids import PARTITION, session_id, uuid8
from contracts.kinds import SESSION_KINDS
from contracts.operator import KindName, PauseRequested, ResumeRequested, SessionRequested
from contracts.queue import Demand, Queue, QueueClosed, QueueOpened, TrainerRoom, objection, queue_session
from contracts.request import read_request
from contracts.roles import DESK, HYPERPARAMETER_SPECIALIST, OPERATOR
from contracts.session import SessionState, advance
from contracts.trainer import TrainingCancelled, TrainingPaused, TrainingResumed
from runtime.commands import deployment_keys, queue_keeper
from runtime.commands.queue_keeper import LARGEST, Applicant, QueueKeeper, decide, reopen
from runtime.home import settings
from runtime.home.home import Home
from runtime.host.local_swarm import make_node
from runtime.host.swarm_node import SwarmNode
from runtime.log.archive import Archive
from runtime.log.lane_writer import LaneWriter, Provenance
from runtime.node.presence import PRESENT, TrainingRoom
from runtime.views.view import why_waiting
from tests.contracts.told import Told, fact
from tests.harness import FAST, claim, small_request

A, B, C, D = (session_id(uuid8(name)) for name in "abcd")
PREPARED = DatasetPrepared(
    root="0" * 64,
    source_digest="0" * 64,
    rows=1,
    splits={"train": 1},
    bytes=1,
    source="test",
    facts={"task": "other"},
    findings=[],
)
OPEN = Queue().after(QueueOpened(keyring="0" * 64))


def ready(session: str, *, begun: bool = False) -> Applicant:
    return Applicant(session, wants=True, ready=True, begun=begun)


def said(queue: Queue, events: list[Event]) -> tuple[Queue, list[str]]:
    """The queue after these events, each of which may be said, and what they are in short."""
    numbers = count(1)
    for event in events:
        assert not objection(queue, event)
        queue = queue.after(event, str(next(numbers)))
    names = {A: "A", B: "B", C: "C", D: "D"}
    return queue, [f"{event.wire.partition('.')[2]} {names.get(getattr(event, 'session', ''), '')}" for event in events]


def decided(
    queue: Queue, applicants: list[Applicant], limit: int, idle: frozenset[str] = frozenset()
) -> tuple[Queue, list[str]]:
    return said(queue, decide(queue, applicants, limit, idle))


def test_the_first_that_is_ready_is_granted_and_what_is_not_ready_keeps_its_place() -> None:
    preparing = Applicant(A, wants=True, ready=False, begun=False)
    queue, events = decided(OPEN, [preparing, ready(B), ready(C)], 1)
    assert events == ["limited ", "queued A", "queued B", "queued C", "granted B"]
    queue, events = decided(queue, [ready(A), ready(C)], 1)
    assert events == ["returned B", "granted A"]
    assert decide(queue, [ready(A), ready(C)], 1) == []


def test_what_is_paused_or_ended_leaves_and_comes_back_ahead_of_what_has_not_begun() -> None:
    queue, _ = decided(OPEN, [ready(A), ready(B), ready(C)], 1)
    paused = Applicant(A, wants=False, ready=True, begun=True)
    queue, events = decided(queue, [paused, ready(C)], 1)
    assert events == ["returned A", "withdrawn B", "granted C"]
    queue, events = decided(queue, [paused, ready(C), ready(D)], 1)
    queue, events = decided(queue, [ready(A, begun=True), ready(C), ready(D)], 1)
    assert (events, queue.waiting) == (["queued A"], (A, D))


def test_a_slot_that_no_trainer_has_in_hand_goes_to_the_next_and_its_session_to_the_end() -> None:
    every = [ready(A), ready(B), ready(C)]
    queue, _ = decided(OPEN, every, 1)
    alone, _ = decided(OPEN, [ready(A)], 1)
    assert decide(alone, [ready(A)], 1, {A}) == []
    queue, events = decided(queue, every, 1, frozenset({A}))
    assert events == ["returned A", "granted B", "queued A"]
    assert queue.waiting == (C, A)


def test_a_lower_limit_lets_everything_go_on_and_grants_nothing_until_there_is_room() -> None:
    every = [ready(A), ready(B), ready(C)]
    queue, _ = decided(OPEN, every, 2)
    queue, events = decided(queue, every, 1)
    assert events == ["limited "]
    queue, events = decided(queue, every[1:], 1)
    assert events == ["returned A"]
    assert decided(queue, every[2:], 1)[1] == ["returned B", "granted C"]


@pytest.mark.parametrize("seed", range(20))
def test_wherever_a_host_dies_the_next_one_comes_to_the_same(seed: int) -> None:
    """Each append is stored or not; whoever decides next, with nothing in mind, ends where an undisturbed one does."""
    chance, names = random.Random(seed), [session_id(uuid8(n)) for n in range(12)]
    disturbed = undisturbed = OPEN
    living = dict[str, Applicant]()
    order, granted = list[str](), list[str]()
    for name in names:
        living[name] = ready(name)
        if chance.random() < 0.4:
            living.pop(chance.choice([*living]))
        applicants, limit = [*living.values()], chance.randint(1, 3)
        undisturbed, _ = said(undisturbed, decide(undisturbed, applicants, limit))
        for _ in range(30):
            due = decide(disturbed, applicants, limit)
            # What was not stored is lost; so is whatever was decided behind it.
            disturbed, _ = said(disturbed, due[: chance.randint(0, 1)])
        for queue in (disturbed, undisturbed):
            assert queue.slots.keys() | queue.queued.keys() == living.keys()
        assert (disturbed.limit, [*disturbed.slots], disturbed.waiting) == (
            undisturbed.limit,
            [*undisturbed.slots],
            undisturbed.waiting,
        )
        granted += [session for session in disturbed.slots if session not in granted]
        order.append(name)
    assert granted == [name for name in order if name in granted]


@pytest.mark.parametrize("seed", range(20))
def test_never_more_are_trained_than_there_are_slots_when_a_log_follows_another_at_any_time(seed: int) -> None:
    """A trainer goes on with what it has in hand, whether or not the newest log of the queue says that it may."""
    chance, slots = random.Random(seed), 2
    queue, trained, sessions = OPEN, set[str](), dict[str, Applicant]()
    for number in range(60):
        name = session_id(uuid8(seed, number))
        sessions[name] = ready(name)
        for name in chance.sample([*sessions], min(2, len(sessions))):
            sessions[name] = sessions[name]._replace(wants=chance.random() < 0.7)
        for name in [name for name in sessions if chance.random() < 0.05]:
            del sessions[name]
        trained = {name for name in trained if name in sessions and sessions[name].wants}
        if chance.random() < 0.5:
            before = queue
            queue, _ = said(Queue(), reopen("0" * 64, before, [*sessions.values()], slots))
            assert queue.slots.keys() == {name for name in before.slots if name in sessions and sessions[name].wants}
            assert [name for name in before.waiting if name in queue.queued] == [*queue.waiting]
        queue, _ = said(queue, decide(queue, [*sessions.values()], slots))
        # Of those with a slot one begins now, and its claim is in the log by the next decision.
        for name in chance.sample(sorted(queue.slots), min(1, len(queue.slots))):
            sessions[name], trained = sessions[name]._replace(begun=True), trained | {name}
        assert len(trained) <= slots
        assert trained <= queue.slots.keys()


def test_a_log_that_follows_gives_all_their_slots_again_though_fewer_are_offered_by_now() -> None:
    every = [ready(A, begun=True), ready(B), ready(C)]
    before, _ = decided(OPEN, every, 2)
    queue, events = said(Queue(), reopen("0" * 64, before, every, 1))
    assert events == ["opened ", "limited ", "queued A", "granted A", "queued B", "granted B", "queued C"]
    assert decided(queue, every, 1)[1] == ["limited "]


def test_very_many_requests_at_once_are_queued_in_parts_that_one_append_holds() -> None:
    many = [Applicant(session_id(uuid8(n)), wants=True, ready=True, begun=False) for n in range(2 * LARGEST)]
    queue, sizes = OPEN, list[int]()
    while events := decide(queue, many, 2):
        sizes.append(len(events))
        queue = reduce(Queue.after, events, queue)
    assert sizes == [LARGEST + 1, LARGEST, 2], "how many may train is said first"
    assert ([*queue.slots], len(queue.queued)) == ([one.session for one in many[:2]], 2 * LARGEST - 2)


def test_a_log_that_follows_knows_whose_turn_it_is_and_how_often_who_was_overtaken() -> None:
    every = [
        ready(A)._replace(asker="ann"),
        ready(B)._replace(asker="bob"),
        ready(C)._replace(asker="bob", needs=Demand(memory_bytes=9)),
        ready(D)._replace(asker="ann", priority=-1),
    ]
    small = (TrainerRoom(memory_bytes=8),)
    queue, _ = said(OPEN, decide(OPEN, every, 1, rooms=small))
    queue, events = said(queue, decide(queue, every[1:], 1, rooms=small))
    assert events == ["returned A", "granted B"]
    queue, events = said(queue, decide(queue, every[2:], 1, rooms=small))
    assert events == ["returned B", "granted D"], "C fits nowhere, and keeps nobody waiting"
    assert (queue.queued[C].overtaken, queue.fits(C)) == (1, False)
    again, _ = said(Queue(), reopen("0" * 64, queue, every[2:], 1, small))
    assert again.queued[C] == queue.queued[C]
    assert sorted(again.turns, key=again.turns.__getitem__) == ["bob", "ann"]
    assert (again.slots[D].asker, again.rooms) == ("ann", small)


async def test_a_priority_above_the_setting_is_the_owners_and_what_fits_no_trainer_is_refused_at_once(
    tmp_path: Path,
) -> None:
    async with host(tmp_path, MemoryBus(), "one") as made:
        keeper = QueueKeeper(made)
        urgent = read_request(small_request(training={"priority": 3})).resolved()
        with pytest.raises(InvalidRequest, match="client may ask for a priority of 0 at most, and this is 3"):
            await made.commands.submit(urgent, asked_by="client")
        needy = read_request(small_request(training={"needs": {"memory_bytes": 2 << 30}})).resolved()
        waits = await made.commands.submit(needy, asked_by="client")
        made.presence.offer("trainer", lambda: TrainingRoom(1, (), 1 << 30))
        made.presence.here("trainer")
        with pytest.raises(InvalidRequest, match=r"needs 2 GiB of memory, and no trainer .* more than 1 GiB"):
            await made.commands.submit(needy, asked_by="client")
        search = {"base": {"training": {"priority": "3"}}, "space": {}}
        with pytest.raises(InvalidRequest, match=r"base\.training\.priority"):
            await made.commands.submit(search, "search", asked_by="person_ann")
        parent = await made.commands.submit({"base": {}, "space": {}}, "search", asked_by="person_ann")
        with pytest.raises(InvalidRequest, match="person_ann may ask"):
            await made.commands.submit(urgent, "trial", asked_by=HYPERPARAMETER_SPECIALIST, parent=parent)
        plain = read_request(small_request()).resolved()
        trial = await made.commands.submit(plain, "trial", asked_by=HYPERPARAMETER_SPECIALIST, parent=parent)
        first = await made.commands.submit(urgent, asked_by="owner")
        for session in (waits, trial, first):
            await made.writer("data_manager").say(session, [PREPARED])
        assert await keeper.keep()
        queue = made.tail.queue
        assert queue is not None
        assert ([*queue.slots], queue.waiting) == ([first], (waits, trial))
        assert (queue.queued[trial].asker, queue.queued[waits].needs.memory_bytes) == ("person_ann", 2 << 30)
        why = "needs 2.1 GB, and no trainer that is there has more than 1.1 GB: ask for less in `training.needs`"
        assert why in why_waiting(queue, waits)


@pytest.mark.parametrize("kind", SESSION_KINDS)
def test_a_session_that_waits_for_children_or_trains_nothing_wants_no_slot(kind: KindName) -> None:
    genesis = SessionRequested(kind=kind, request={}, keyring="", asked_by="test", rules=1)
    state = advance(SessionState(A), fact(genesis, 1, lane="operator", session=A))
    assert (Applicant.of(state) is not None) == (kind in ("training", "trial"))


def test_what_a_session_is_to_the_queue_follows_from_its_log() -> None:
    told = Told()
    assert Applicant.of(SessionState(A)) is None
    assert Applicant.of(told.now) == Applicant(told.now.id, wants=True, ready=False, begun=False)
    told.prepared(train=1)
    told.say("operator", PauseRequested(asked_by="test"))
    assert Applicant.of(told.now) == Applicant(told.now.id, wants=False, ready=True, begun=False)
    told.say("operator", ResumeRequested(asked_by="test"))
    assert (Applicant.of(told.now), told.now.wishes) == (
        Applicant(told.now.id, wants=True, ready=True, begun=False),
        (),
    )
    told.claimed()
    assert Applicant.of(told.now) == Applicant(told.now.id, wants=True, ready=True, begun=True)
    told.say("trainer", TrainingPaused(by="drain", segment=1, step=0))
    assert Applicant.of(told.now) == Applicant(told.now.id, wants=True, ready=True, begun=True)
    told.say("trainer", TrainingPaused(by="person", segment=1, step=0))
    assert Applicant.of(told.now) == Applicant(told.now.id, wants=False, ready=True, begun=True)
    told.say("operator", ResumeRequested(asked_by="test"))
    assert Applicant.of(told.now) == Applicant(told.now.id, wants=True, ready=True, begun=True)
    told.say("trainer", TrainingResumed(segment=1, step=0))
    told.say("trainer", TrainingPaused(by="plan", segment=1, step=0))
    assert Applicant.of(told.now) == Applicant(told.now.id, wants=False, ready=True, begun=True)
    told.say("trainer", TrainingCancelled(segment=1, step=0, reason=""))
    assert Applicant.of(told.now) is None


@asynccontextmanager
async def host(folder: Path, bus: MemoryBus, name: str, after: int = 0) -> AsyncIterator[SwarmNode]:
    """A host without agents that follows the queue; what it decides is up to the test."""
    home, keys = Home(folder / name), Home(folder / "keys")
    home.prepare()
    keys.prepare()
    signers, options = deployment_keys.signers(KeyStore(keys.keys)), settings.load(home=str(home.root), **FAST)
    made = make_node(bus, options, signers, PARTITION)
    made.tail.admission.root = KeyStore(keys.keys).pinned()
    made.tail.follow_queue(made.tail.admission.root)
    async with made.working() as tasks:
        await made.follow(tasks, after=after)
        await deployment_keys.open_keyring(made.bus, made.tail, made.keys, KeyStore(keys.keys), made.source)
        yield made


def trainer(made: SwarmNode, slots: int, *sessions: str) -> None:
    """A trainer with so many slots is there, and has these sessions in hand."""
    made.presence.offer("trainer", lambda: TrainingRoom(slots, sessions))
    made.presence.here("trainer")


async def requested(made: SwarmNode, name: str) -> str:
    return await made.commands.submit(read_request(small_request(name=name)).resolved())


async def test_of_two_hosts_that_decide_at_once_one_is_first_and_the_other_decides_again(tmp_path: Path) -> None:
    bus = MemoryBus()
    async with host(tmp_path, bus, "one") as one, host(tmp_path, bus, "two") as two:
        keepers = [QueueKeeper(one), QueueKeeper(two)]
        trainer(one, 1)
        trainer(two, 1)
        sessions = [await requested(one, name) for name in ("first", "second", "third")]
        await two.tail.reached(one.tail.seq)
        assert await asyncio.gather(*(keeper.keep() for keeper in keepers)) == [True, True]
        queue = one.tail.queue
        assert queue is not None
        await two.tail.reached(one.tail.seq)
        await one.tail.reached(two.tail.seq)
        assert one.tail.queue == two.tail.queue
        assert [*queue.queued] == sessions
        log = one.tail.queue_log
        assert log is not None
        names = [fact.name for fact in log.facts]
        assert names == ["queue.opened", "queue.limited", *["session.queued"] * 3]


async def test_a_log_that_cannot_grow_stops_no_host_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise Full("no room.", cure="Free some.")

    async with host(tmp_path, MemoryBus(), "one") as made:
        keeper = QueueKeeper(made)
        with monkeypatch.context() as patch:
            patch.setattr(LaneWriter, "say", full)
            assert not await keeper.keep()
        assert made.tail.queue is None
        assert await keeper.keep()
        assert made.tail.queue is not None


async def test_a_long_log_is_closed_and_the_next_one_goes_on_where_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_keeper, "MOST_EVENTS", 4)
    bus = MemoryBus()
    async with host(tmp_path, bus, "one") as made:
        keeper = QueueKeeper(made)
        trainer(made, 1)
        for name in ("first", "second"):
            session = await requested(made, name)
            assert await keeper.keep()
            await made.ground.speak("data_manager", session, DatasetRejected(source="none", problems=[]), "")
            assert await keeper.keep()
        sessions = [await requested(made, name) for name in ("third", "fourth")]
        assert await keeper.keep()
        after, before, names = made.tail.seq, made.tail.queue, _logs(made)
        assert before is not None
        assert (before.limit, before.waiting) == (1, tuple(sessions))
        assert [name for name in names if name in made.tail.histories] == [names[2]]
        assert [fact.name for fact in Archive(made.home).history(names[1]).facts][-1] == "queue.closed"
        ends = [made.bus.head(subjects.session(name)) for name in names[:3]]
        last = [head.seq for head in [await end for end in ends] if head]
    # A start reads the newest log, and those before it only where they were not over yet.
    for behind in {after, *last, *(seq - 1 for seq in last)}:
        async with host(tmp_path, bus, f"from {behind}", after=behind) as made:
            assert made.tail.queue == before
            assert [name for name in names if name in made.tail.histories] == [names[2]]
            assert not made.tail.voids.total


async def test_who_trains_keeps_its_slot_in_the_next_log_though_one_that_has_begun_before_waits(tmp_path: Path) -> None:
    bus = MemoryBus()
    async with host(tmp_path, bus, "one") as made:
        keeper = QueueKeeper(made)
        trainer(made, 1)
        first, second = [await requested(made, name) for name in ("first", "second")]
        for session in (first, second):
            await made.writer("data_manager").say(session, [PREPARED])
            assert await keeper.keep()
        paused = TrainingPaused(by="person", segment=1, step=0)
        await made.writer("trainer").say(first, [claim(1), paused], Provenance(epoch=1))
        assert await keeper.keep()
        await made.commands.verbs["resume"]({"session": first})
        assert await keeper.keep()
        before, log = made.tail.queue, made.tail.queue_log
        assert before is not None
        assert log is not None
        assert ([*before.slots], before.waiting) == ([second], (first,))
        await made.writer(OPERATOR, DESK).say(log.id, [QueueClosed()], Provenance(after=log.size))
        after = made.tail.resume_after()
    async with host(tmp_path, bus, "two", after=after) as made:
        trainer(made, 1)
        assert await QueueKeeper(made).keep()
        queue = made.tail.queue
        assert queue is not None
        assert ([*queue.slots], queue.waiting, queue.limit) == ([second], (first,), 1)


def _logs(made: SwarmNode) -> list[str]:
    return [queue_session(made.tail.admission.root, PARTITION, number) for number in range(4)]


async def test_a_trainer_that_falls_silent_lowers_the_limit_after_a_while_and_one_that_comes_raises_it_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with host(tmp_path, MemoryBus(), "one") as made:
        keeper, clock = QueueKeeper(made), 1000.0
        monkeypatch.setattr("runtime.commands.queue_keeper.time.monotonic", lambda: clock)

        async def limit() -> int:
            await keeper.keep()
            assert made.tail.queue is not None
            return made.tail.queue.limit

        assert await limit() == 0
        trainer(made, 3)
        assert await limit() == 3
        made.presence.gone("trainer")
        assert await limit() == 3
        clock += PRESENT
        assert await limit() == 0
