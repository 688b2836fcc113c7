"""Who waits, who has a slot, and what may be said of either."""

from __future__ import annotations

from functools import reduce

import pytest

from contracts.event import Event
from contracts.ids import session_id, sha256, uuid8
from contracts.keyring import keyring_of
from contracts.queue import (
    MOST_OVERTAKEN,
    Queue,
    QueueClosed,
    QueueLimited,
    QueueOpened,
    SessionGranted,
    SessionQueued,
    SessionReturned,
    SessionWithdrawn,
    TrainerRoom,
    objection,
    queue_session,
)
from contracts.session import SessionState, advance
from tests.contracts.told import fact

ROOT = sha256(b"root")
A, B, C = (session_id(uuid8(name)) for name in "abc")
OPENED = QueueOpened(keyring=ROOT)


def folded(*events: Event) -> Queue:
    facts = (fact(event, n, lane="operator", session=queue_session(ROOT)) for n, event in enumerate(events, 1))
    return reduce(lambda queue, said: queue.advance(said), facts, Queue())


def opened(limit: int, *events: Event) -> Queue:
    return folded(OPENED, QueueLimited(limit=limit), *events)


def test_the_session_derives_from_the_root_and_names_partition_and_number() -> None:
    names = {queue_session(ROOT), queue_session(sha256(b"other")), queue_session(ROOT, number=1), keyring_of(ROOT)}
    assert len(names) == 4
    assert queue_session(ROOT, "07").startswith("07-")


def test_sessions_are_granted_in_the_order_in_which_they_came_and_those_that_have_begun_go_ahead() -> None:
    queue = opened(1, *(SessionQueued(session=one) for one in (A, B)), SessionQueued(session=C, begun=True))
    assert queue.waiting == (C, A, B)
    assert [queue.place(one) for one in (C, A, B, queue_session(ROOT))] == [1, 2, 3, 0]


def test_a_slot_names_the_event_that_granted_it_and_is_free_when_it_is_returned() -> None:
    granted = opened(1, SessionQueued(session=A), SessionGranted(session=A))
    assert (granted.slots[A].grant, granted.waiting) == ("4", ())
    returned = granted.advance(fact(SessionReturned(session=A, reason="ended"), 5, lane="operator"))
    assert (returned.slots, returned.queued, returned.events) == ({}, {}, 5)


def test_a_lower_limit_takes_no_slot_away_and_grants_none() -> None:
    queued = [SessionQueued(session=one) for one in (A, B, C)]
    queue = opened(2, *queued, SessionGranted(session=A), SessionGranted(session=B), QueueLimited(limit=1))
    assert set(queue.slots) == {A, B}
    after = queue.advance(fact(SessionReturned(session=A, reason="ended"), 9, lane="operator"))
    assert objection(after, SessionGranted(session=C)) == "1 of 1 slots are taken"


QUEUED, GRANTED = opened(1, SessionQueued(session=A)), opened(1, SessionQueued(session=A), SessionGranted(session=A))


@pytest.mark.parametrize(
    ("queue", "event", "why"),
    [
        (Queue(), SessionQueued(session=A), "not open yet"),
        (QUEUED, OPENED, "open already"),
        (QUEUED, SessionQueued(session=A), "is in the queue already"),
        (GRANTED, SessionQueued(session=A), "is in the queue already"),
        (QUEUED, SessionGranted(session=B), "is not queued"),
        (QUEUED.advance(fact(QueueLimited(limit=2), 9, lane="operator")), SessionGranted(session=B), "is not queued"),
        (GRANTED, SessionGranted(session=A), "1 of 1 slots are taken"),
        (opened(0, SessionQueued(session=A)), SessionGranted(session=A), "0 of 0 slots are taken"),
        (QUEUED, SessionReturned(session=A, reason="ended"), "has no slot"),
        (GRANTED, SessionWithdrawn(session=A, reason="ended"), "is not queued"),
        (opened(1, QueueClosed()), QueueLimited(limit=2), "is closed"),
    ],
)
def test_what_may_not_be_said_changes_nothing(queue: Queue, event: Event, why: str) -> None:
    assert why in objection(queue, event)
    after = queue.advance(fact(event, 9, lane="operator"))
    assert (after.events, after.queued, after.slots, after.limit) == (
        queue.events + 1,
        queue.queued,
        queue.slots,
        queue.limit,
    )


def test_of_sessions_that_have_left_nothing_remains() -> None:
    said: list[Event] = []
    for n in range(100):
        name = session_id(uuid8(n))
        said += [
            SessionQueued(session=name),
            SessionGranted(session=name),
            SessionReturned(session=name, reason="ended"),
        ]
    queue = opened(1, *said, SessionQueued(session=A), SessionWithdrawn(session=A, reason="paused"))
    assert (queue.queued, queue.slots, queue.events) == ({}, {}, 304)


def test_what_the_queue_says_means_nothing_in_a_session_that_is_trained() -> None:
    state = SessionState(A)
    after = advance(state, fact(SessionGranted(session=A), 1, lane="operator", session=A))
    assert (after.state, after.genesis, after.training.claim) == (state.state, None, None)


def named(number: int) -> str:
    return session_id(uuid8(number))


def granted(queue: Queue) -> tuple[Queue, str]:
    """The queue once the next one has a slot, and whose session that is."""
    following = queue.next(queue.queued)
    asker = queue.queued[following].asker
    return queue.advance(fact(SessionGranted(session=following), 99, lane="operator")), asker


def test_who_asks_for_much_keeps_nobody_waiting_and_each_one_keeps_the_order_of_their_own() -> None:
    asked = ["ann"] * 6 + ["bob"] * 2 + ["eve"]
    queue = opened(4, *(SessionQueued(session=named(n), asker=asker) for n, asker in enumerate(asked)))
    assert queue.waiting == tuple(map(named, (0, 6, 8, 1, 7, 2, 3, 4, 5)))
    order = []
    for _ in range(4):
        queue, asker = granted(queue)
        order.append(asker)
    assert order == ["ann", "bob", "eve", "ann"]
    # A slot goes to whoever holds the fewest, and not to whoever is next by the clock.
    queue = queue.advance(fact(SessionReturned(session=named(8), reason="ended"), 98, lane="operator"))
    assert granted(queue)[1] == "bob"
    held = opened(9, *(SessionQueued(session=named(n), asker=asker) for n, asker in enumerate(["ann", "ann", "bob"])))
    for n in (0, 1, 2):
        held = held.advance(fact(SessionGranted(session=named(n)), 90 + n, lane="operator"))
    held = held.advance(fact(SessionReturned(session=named(2), reason="ended"), 98, lane="operator"))
    for n, asker in ((3, "ann"), (4, "bob")):
        held = held.advance(fact(SessionQueued(session=named(n), asker=asker), 99, lane="operator"))
    assert granted(held)[1] == "bob", "who has none goes first, though theirs was the last one"
    one_by_one = opened(1, *(SessionQueued(session=named(n), asker=asker) for n, asker in enumerate(asked)))
    turns = []
    while one_by_one.queued:
        one_by_one, asker = granted(one_by_one)
        (slot,) = one_by_one.slots
        turns.append(asker)
        one_by_one = one_by_one.advance(fact(SessionReturned(session=slot, reason="ended"), 98, lane="operator"))
    # `turns` are numbers of events, so who was granted last comes last again.
    assert turns == ["ann", "bob", "eve", "ann", "bob", "ann", "ann", "ann", "ann"]


def test_a_higher_priority_goes_first_and_within_one_what_has_begun() -> None:
    said = [
        SessionQueued(session=A, asker="ann"),
        SessionQueued(session=B, asker="ann", priority=2),
        SessionQueued(session=C, asker="bob", begun=True),
        SessionQueued(session=named(1), asker="bob", priority=-1, begun=True),
    ]
    assert opened(1, *said).waiting == (B, C, A, named(1))


def needing(session: str, memory: int = 0, devices: int = 0) -> SessionQueued:
    return SessionQueued(session=session, memory_bytes=memory, devices=devices)


def test_what_does_not_fit_is_overtaken_so_many_times_and_then_goes_first() -> None:
    room = QueueLimited(limit=2, rooms=(TrainerRoom(memory_bytes=10), TrainerRoom(memory_bytes=4)))
    large, small = named(100), [needing(named(n), 3) for n in range(30)]
    queue = folded(OPENED, room, needing(A, 8), SessionGranted(session=A), needing(large, 9), needing(B, 11), *small)
    assert (queue.fits(large), queue.may_fit(large), queue.may_fit(B)) == (False, True, False)
    overtook = 0
    while (following := queue.next(queue.queued)) != "":
        assert following != B, "what fits no trainer that is there is never granted"
        overtook += 1
        for event in (SessionGranted(session=following), SessionReturned(session=following, reason="ended")):
            queue = queue.advance(fact(event, 99, lane="operator"))
    assert (overtook, queue.queued[large].overtaken) == (MOST_OVERTAKEN, MOST_OVERTAKEN)
    assert queue.holds_others(large)
    assert not queue.holds_others(B), "what can never fit holds nobody up"
    queue = queue.advance(fact(SessionReturned(session=A, reason="ended"), 99, lane="operator"))
    assert queue.next(queue.queued) == large


def test_accelerators_are_counted_and_a_trainer_that_does_not_tell_its_memory_is_believed_to_have_it() -> None:
    room = QueueLimited(limit=9, rooms=(TrainerRoom(devices=1), TrainerRoom(memory_bytes=5, devices=2)))
    queue = folded(OPENED, room, needing(A, 50, 1), needing(B, 0, 2), needing(C, 0, 1))
    for session in (A, B):
        assert queue.fits(session)
        queue = queue.advance(fact(SessionGranted(session=session), 99, lane="operator"))
    assert (queue.fits(C), queue.may_fit(C)) == (False, True)
