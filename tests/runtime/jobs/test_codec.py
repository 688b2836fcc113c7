"""The codec between frozen values and frames: what goes in comes out, bit for bit, and nothing else comes out."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.fork import Rows
from runtime.jobs.codec import NotOfType, codec_of


class Place(NamedTuple):
    at: int
    name: str


@dataclass(frozen=True)
class Inner:
    figure: float
    packed: bytes


@dataclass(frozen=True)
class Outer:
    """One field of every kind that travels."""

    inner: Inner
    either: Inner | Place | None
    many: Sequence[tuple[int, float]]
    named: Mapping[str, Inner]
    path: Path
    mode: Literal["a", "b"]
    threads: int | Literal["auto"]
    rows: Rows
    recorded: object
    sure: bool = True


def through(kind: Any, value: object) -> Any:
    """The value as it arrives at the other end."""
    codec = codec_of(kind)
    return codec.decode(orjson.loads(orjson.dumps(codec.encode(value))))


WHOLE, FIGURE, WORD = st.integers(-(2**53), 2**53), st.floats(allow_nan=False), st.text(max_size=3)
INNER = st.builds(Inner, FIGURE, st.binary(max_size=9))


@given(
    st.builds(
        Outer,
        inner=INNER,
        either=INNER | st.builds(Place, WHOLE, WORD) | st.none(),
        many=st.lists(st.tuples(WHOLE, FIGURE), max_size=3).map(tuple),
        named=st.dictionaries(WORD, INNER, max_size=3),
        path=st.just(Path("a/b")),
        mode=st.sampled_from(["a", "b"]),
        threads=WHOLE | st.just("auto"),
        rows=st.builds(Rows, first=st.integers(1, 9), last=st.integers(1, 9)),
        recorded=st.dictionaries(WORD, st.none() | st.booleans() | WORD | st.lists(WHOLE), max_size=3),
        sure=st.booleans(),
    )
)
def test_every_value_comes_out_as_it_went_in(value: Outer) -> None:
    assert through(Outer, value) == value


@pytest.mark.parametrize("figure", [0.0, -0.0, 5e-324, 1e308, math.inf, -math.inf, math.nan, 0.1 + 0.2])
def test_floats_keep_their_bits(figure: float) -> None:
    assert struct.pack("<d", through(float, figure)) == struct.pack("<d", figure)


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (int, True),
        (int, 1.0),
        (bool, 1),
        (float, 1.5),
        (float, "one"),
        (str, None),
        (bytes, "%"),
        (Literal["a"], "b"),
        (tuple[int, str], [1]),
        (Sequence[int], {"0": 1}),
        (Mapping[str, int], [1]),
        (Inner, {"figure": "0x1p0"}),
        (Inner, {"figure": "0x1p0", "packed": "", "more": 1}),
        (Inner | Place, ["Outer", {}]),
        (Inner | None, []),
        (Rows, {"first": 1, "last": 2, "more": 3}),
        (Rows, {"first": "1", "last": 2}),
    ],
)
def test_what_is_no_such_value_is_refused(kind: Any, raw: object) -> None:
    with pytest.raises(NotOfType):
        codec_of(kind).decode(raw)


@dataclass
class Changeable:
    figure: int


@pytest.mark.parametrize("kind", [Changeable, list[int], dict[str, int], set[int], complex, float | str])
def test_a_type_that_is_not_frozen_or_cannot_be_told_apart_does_not_travel(kind: Any) -> None:
    with pytest.raises(TypeError):
        codec_of(kind)
