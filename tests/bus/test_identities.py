"""Very many ids in little room are the same set of texts."""

from __future__ import annotations

import random
from uuid import UUID

import pytest

from bus.identities import Identities

LIKE_OURS = str(UUID(int=0xABCDEF))


def some(count: int, seed: int = 1) -> list[str]:
    chance = random.Random(seed)
    return [str(UUID(int=chance.getrandbits(128))) for _ in range(count)]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Identities, "MANY", 64)


@pytest.mark.usefixtures("few")
def test_every_id_has_its_number_however_it_is_kept() -> None:
    words = [*some(1000), "not a uuid", LIKE_OURS.upper(), LIKE_OURS.replace("-", ""), f"guest_ant/{LIKE_OURS}", "é"]
    ids = Identities()
    for number, word in enumerate(words):
        assert word not in ids
        assert ids.get(word) is None
        ids.set(word, number)
    assert [ids.get(word) for word in words] == [*range(len(words))]
    assert len(ids) == len(words) == len({*ids})
    assert {*ids} == {*words}
    assert LIKE_OURS not in ids, "the same bytes in another spelling are another id"
    assert not any(word in ids for word in some(1000, seed=2))
    assert ids.isdisjoint(some(10, seed=2))
    assert not ids.isdisjoint([*some(10, seed=2), words[3]])


@pytest.mark.usefixtures("few")
def test_an_id_is_found_that_begins_within_its_neighbours_bytes() -> None:
    # In one shard, and each holds the end of another before its own beginning.
    words = [str(UUID(bytes=bytes([n] * 14 + [0, 0]))) for n in range(200)]
    ids = Identities()
    for number, word in enumerate(words):
        ids.set(word, number)
    assert [ids.get(word) for word in words] == [*range(200)]
    assert str(UUID(bytes=bytes([0, 0] + [5] * 12 + [0, 0]))) not in ids


@pytest.mark.usefixtures("few")
def test_how_many_differ_is_known_where_some_came_twice() -> None:
    words = some(500)
    ids = Identities()
    for begin in range(0, 500, 50):
        ids.update(words[begin : begin + 50])
    assert ids.distinct() == 500
    ids.update([words[0], "odd", "odd"])
    ids.update(some(100, seed=3))
    ids.update(["odd"])
    assert ids.distinct() == 601


@pytest.mark.usefixtures("few")
def test_two_are_equal_when_they_hold_the_same_ids() -> None:
    words = some(300)
    at_once, grown = Identities(words), Identities()
    for word in reversed(words):
        grown.set(word)
    assert at_once == grown
    grown.set("one more")
    assert at_once != grown
