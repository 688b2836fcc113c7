"""What grows is as immutable as a tuple or a frozenset, whoever else goes on from it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from contracts.growing import GrowingSet, GrowingTable, GrowingTuple

words = st.sampled_from("abcdef")


@given(st.lists(st.integers()), st.lists(st.integers()), st.integers())
def test_a_trail_is_a_tuple_to_everybody(begin: list[int], more: list[int], other: int) -> None:
    trail, row = GrowingTuple(list(begin)), tuple(begin)
    versions = [(trail, row)]
    for one in more:
        trail, row = trail.grown(one), (*row, one)
        versions.append((trail, row))
    branch = versions[len(more) // 2][0].grown(other)
    assert branch == (*versions[len(more) // 2][1], other)
    for trail, row in versions:
        assert trail == row
        assert tuple(reversed(trail)) == row[::-1]
        assert trail[1:] == row[1:]
        assert (len(trail), bool(trail), trail[-1:], other in trail) == (len(row), bool(row), row[-1:], other in row)


@given(st.lists(words), st.lists(words), words)
def test_marks_are_a_frozenset_to_everybody(begin: list[str], more: list[str], other: str) -> None:
    marks, seen = GrowingSet.of(begin), frozenset(begin)
    versions = [(marks, seen)]
    for word in more:
        marks, seen = marks.marked(word), seen | {word}
        versions.append((marks, seen))
    branch = versions[len(more) // 2][0].marked(other)
    assert branch == versions[len(more) // 2][1] | {other}
    for marks, seen in versions:
        assert marks == seen
        assert marks - {other} == seen - {other}
        assert (len(marks), set(marks), other in marks) == (len(seen), set(seen), other in seen)


def test_ten_thousand_versions_of_a_trail_share_one_row() -> None:
    versions = [GrowingTuple[int]()]
    for n in range(10_000):
        versions.append(versions[-1].grown(n))
    assert all(version._row is versions[0]._row for version in versions)
    assert [len(version) for version in versions] == list(range(10_001))


changes = st.lists(st.tuples(words, st.none() | st.integers()))


@given(changes, words, st.integers())
def test_a_table_is_a_dict_to_everybody(told: list[tuple[str, int | None]], key: str, other: int) -> None:
    table, places, seen = GrowingTable[str, int](), dict[str, int | None](), dict[str, int]()
    versions = [(table, seen)]
    for word, value in told:
        table = table.without(word) if value is None else table.having(word, value)
        if value is not None or word in places:
            places[word] = value
        seen = {one: kept for one, kept in places.items() if kept is not None}
        versions.append((table, seen))
    middle, before = versions[len(told) // 2]
    assert middle.having(key, other).get(key) == other
    assert dict(middle.having(key, other).items()) == before | {key: other}
    for table, seen in versions:
        assert list(table.items()) == list(seen.items())
        assert list(table) == list(seen.values())
        assert (len(table), bool(table), table.get(key), other in table) == (
            len(seen),
            bool(seen),
            seen.get(key),
            other in seen.values(),
        )
