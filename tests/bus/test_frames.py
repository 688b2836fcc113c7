"""What comes off the wire is cut into messages, however it arrives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import frames
from bus.frames import WireMessage, delivered

words = st.text("abc.$_-09", min_size=1, max_size=12)
heads = st.sampled_from(
    [b"", b"NATS/1.0\r\nNats-Batch-Id: x\r\n\r\n", b"NATS/1.0\r\nSwarm-Sig: k\r\nNats-A: b\r\n\r\n"]
)
messages = st.builds(WireMessage, words, st.one_of(st.just(""), words), st.binary(max_size=40), heads)


def line_of(frame: WireMessage, sid: int) -> bytes:
    where = f"{frame.subject} {sid} {frame.reply}".rstrip().encode()
    if not frame.head:
        return b"MSG %s %d\r\n%s\r\n" % (where, len(frame.body), frame.body)
    size = len(frame.head)
    return b"HMSG %s %d %d\r\n%s%s\r\n" % (where, size, size + len(frame.body), frame.head, frame.body)


@given(st.lists(messages, max_size=8), st.lists(st.integers(1, 60)))
def test_messages_come_whole_and_in_order_however_their_bytes_arrive(said: list[WireMessage], cuts: list[int]) -> None:
    stream, heard = b"".join(line_of(frame, 7) for frame in said), list[WireMessage]()
    rest, begin = b"", 0
    for size in [*cuts, len(stream)]:
        rest += stream[begin : begin + size]
        begin += size
        at, other = delivered(rest, 0, {7: heard.append})
        assert not other
        rest = rest[at:]
    assert heard == said
    assert rest == b""


@given(messages)
def test_what_nobody_listens_to_is_passed_over(frame: WireMessage) -> None:
    heard = list[WireMessage]()
    stream = line_of(frame, 1) + line_of(frame, 2)
    assert delivered(stream, 0, {2: heard.append}) == (len(stream), False)
    assert heard == [frame]


@pytest.mark.parametrize(
    "line",
    [
        *(
            b"PING",
            b"PONG",
            b"+OK",
            b"-ERR 'what'",
            b"INFO {}",
            b"",
            b"MSG",
            b"HMSG a 1 2",
            b"MSG a 1",
            b"MSG a 1 b c 2",
        ),
        *(
            b"MSG a 1 b c 2",
            b"MSG a 1 -1",
            b"MSG a x 1",
            b"HMSG a 1 9 2",
            b"HMSG a 1 -1 2",
            b"HMSG a 1 b 1 x",
            b"msg a 1 2",
            b"\xff",
        ),
    ],
)
def test_a_line_that_begins_no_message_is_left_where_it_stands(line: bytes) -> None:
    heard = list[WireMessage]()
    frame = WireMessage("a", "", b"body")
    stream = line_of(frame, 1) + line + b"\r\n" + line_of(frame, 1)
    at, other = delivered(stream, 0, {1: heard.append})
    assert other
    assert stream[at:].startswith(line + b"\r\n")
    assert heard == [frame]


@pytest.mark.parametrize(
    "headers", [{}, {"Nats-Batch-Id": "x"}, {"Swarm-Sig": "k"}, {"A": "b", "Nats-C": "d", "E": ""}]
)
def test_the_headers_that_the_writer_gave_come_back_without_those_of_the_transport(headers: dict[str, str]) -> None:
    frame = WireMessage("a", "", b"", frames.head(frames.fields(headers)))
    assert frame.stored_headers == {name: text for name, text in headers.items() if not name.startswith("Nats-")}
    assert frame.headers == headers


@pytest.mark.parametrize(
    "reply",
    [
        "$JS.ACK.LOG.role.3.41.7.1700000000000000000.0",
        "$JS.ACK.domain.account.LOG.role.3.41.7.1700000000000000000.0",
        "$JS.ACK.domain.account.LOG.role.3.41.7.1700000000000000000.0.token",
    ],
)
def test_every_form_of_an_acknowledgement_names_the_record_and_the_delivery(reply: str) -> None:
    assert frames.delivery(reply) == (41, 7)
