"""Who waits, who has a slot, and what may be said of either."""

from __future__ import annotations

from functools import reduce

import pytest

from contracts.event import Event
from contracts.ids import session_id, sha256, uuid8
from contracts.keyring import keyring_of
from contracts.queue import (
    Queue,
    QueueClosed,
    QueueLimited,
    QueueOpened,
    SessionGranted,
    SessionQueued,
    SessionReturned,
    SessionWithdrawn,
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
