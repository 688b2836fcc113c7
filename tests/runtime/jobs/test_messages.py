from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import Failed, InvalidInput
from runtime.jobs.messages import LIMIT, Decoder, Frame, encode

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
said = st.lists(st.tuples(st.text(), st.dictionaries(st.text(), plain, max_size=3)), max_size=5)


@given(said, st.integers(1, 40))
def test_frames_arrive_as_they_were_sent_in_whatever_pieces(
    frames: list[tuple[str, dict[str, object]]], size: int
) -> None:
    wire = b"".join(encode(kind, data) for kind, data in frames)
    decoder = Decoder()
    heard = [frame for at in range(0, len(wire), size) for frame in decoder.feed(wire[at : at + size])]
    assert heard == [Frame(kind, data) for kind, data in frames]


def test_a_frame_at_the_limit_passes_and_one_byte_more_is_refused() -> None:
    room = LIMIT - len(encode("k", {"t": ""})) + 4
    assert len(Decoder().feed(encode("k", {"t": "x" * room}))[0].data["t"]) == room
    with pytest.raises(InvalidInput, match="the limit is 16777216") as refused:
        encode("k", {"t": "x" * (room + 1)})
    assert "file" in refused.value.cure


@pytest.mark.parametrize("value", [float("nan"), [1.0, float("inf")], {"deep": ({"er": float("-inf")},)}])
def test_a_float_that_json_would_turn_into_null_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="not finite"):
        encode("loss", {"value": value})


@pytest.mark.parametrize("value", [b"bytes", object(), {1: "key"}, 2**64])
def test_what_json_cannot_carry_is_refused_with_the_kind(value: object) -> None:
    with pytest.raises(InvalidInput, match="'loss'"):
        encode("loss", {"value": value})


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n",
        struct.pack(">I", LIMIT + 1),
        struct.pack(">I", 3) + b"{{{",
        struct.pack(">I", 2) + b"[]",
        struct.pack(">I", 12) + b'{"kind": "a"}'[:12],
        struct.pack(">I", 22) + b'{"kind": 1, "data":{}}',
    ],
)
def test_garbage_is_named_with_a_cure(garbage: bytes) -> None:
    with pytest.raises(Failed, match="no frame") as refused:
        Decoder().feed(garbage)
    assert refused.value.cure
