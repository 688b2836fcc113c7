"""An append is chained, signed once, and the same bytes for the same drafts."""

from __future__ import annotations

import orjson
import pytest

from bus.chain import MAX_BATCH, START, Draft, Head, compose, extended
from bus.keys import HEADER, new_signer, verify
from bus.port import Record
from contracts.errors import InvalidInput
from contracts.ids import ZERO, sha256
from contracts.operator import PauseRequested

SESSION = f"00-{'a' * 26}"
SIGNER = new_signer("desk")


def drafts(count: int) -> list[Draft]:
    return [Draft(PauseRequested(asked_by="me"), f"id-{n}", cause="c", correlation="d", step=n) for n in range(count)]


def composed(count: int, head: Head = START) -> list[Record]:
    return compose(
        drafts(count), session=SESSION, lane="operator", head=head, signer=SIGNER, source="/swarm/desk", time="t"
    )


def test_events_of_an_append_are_chained_behind_the_head() -> None:
    head = Head(7, "ab" * 32, admitted=20, stored=22)
    records = composed(3, head)
    bodies = [orjson.loads(record.body) for record in records]
    assert [body["laneseq"] for body in bodies] == [8, 9, 10]
    assert [body["prev"] for body in bodies] == ["ab" * 32, *(sha256(record.body) for record in records[:2])]
    assert [(body["id"], body["causationid"], body["step"]) for body in bodies][1] == ("id-1", "c", 1)
    assert {record.subject for record in records} == {f"swarm.ev.00.{SESSION}.operator.pause_requested"}


def test_the_first_event_of_a_lane_follows_nothing() -> None:
    assert orjson.loads(composed(1)[0].body)["prev"] == ZERO


def test_an_append_carries_one_signature_on_its_last_event() -> None:
    *before, last = composed(3)
    assert [dict(record.headers) for record in before] == [{}, {}]
    verify(SIGNER.public, last.body, last.headers[HEADER])


def test_the_same_drafts_give_the_same_bytes_so_that_a_retry_is_the_same_message() -> None:
    assert composed(3) == composed(3)


def test_the_head_after_an_append_is_what_the_next_one_extends() -> None:
    records = composed(2)
    assert extended(START, records, 41) == Head(2, sha256(records[-1].body), admitted=41, stored=41)


@pytest.mark.parametrize("count", [0, MAX_BATCH + 1])
def test_an_append_of_an_impossible_size_is_refused(count: int) -> None:
    with pytest.raises(InvalidInput, match=f"1 to {MAX_BATCH} events, not {count}"):
        composed(count)
