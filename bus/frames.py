"""NATS messages as bytes: headers written and read, publications framed, and what no log takes; no connection here.

What is too large or misnamed is refused before anything is sent: the same for the server and for the log in memory.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from bus.port import Record
from bus.subjects import matches
from contracts.errors import InvalidInput, TooLarge

_WORDS = {"MSG": 4, "HMSG": 5}
"""Words in the line before a message: the verb, subject, subscription, sizes; a reply subject makes one more."""

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_OWN = b"Nats-"
_FRAMING = 2
"""Lines of a header block that are no header: the version and the empty one."""


class WireMessage(NamedTuple):
    """One message as it came off the wire."""

    subject: str
    reply: str
    body: bytes
    head: bytes = b""

    @property
    def status(self) -> int:
        """The number in the first header line, which marks a message of the server itself; 0 without one."""
        return int(self.head[9:12]) if self.head[:9] == b"NATS/1.0 " else 0

    @property
    def headers(self) -> dict[str, str]:
        """All headers."""
        return _parse(self.head, everything=True)

    @property
    def stored_headers(self) -> dict[str, str]:
        """The headers that the writer gave; those of the transport (`Nats-...`) left out."""
        own = self.head.count(b"\r\n" + _OWN)
        return {} if own == self.head.count(b"\r\n") - _FRAMING else _parse(self.head, everything=False)


def delivered(data: bytes, at: int, handlers: Mapping[int, Callable[[WireMessage], None]]) -> tuple[int, bool]:
    """Hand every whole message in what came off the wire, from a place on, to the handler of its subscription.

    Returns the place behind them, and whether something other than a message or an unfinished line begins there.
    """
    while (end := data.find(b"\r\n", at)) >= 0:
        words = data[at:end].decode("utf-8", "replace").split(" ")
        least = _WORDS.get(words[0])
        if least is None or len(words) - least not in (0, 1):
            return at, True
        try:
            sid, size, head = int(words[2]), int(words[-1]), int(words[-2]) if least == _WORDS["HMSG"] else 0
        except ValueError:
            return at, True
        if not 0 <= head <= size:
            return at, True
        begin, body, behind = end + 2, end + 2 + head, end + 2 + size
        if len(data) < behind + 2:
            break
        handler = handlers.get(sid)
        if handler is not None:
            reply = words[3] if len(words) > least else ""
            handler(WireMessage(words[1], reply, data[body:behind], data[begin:body]))
        at = behind + 2
    return at, False


def fields(headers: Mapping[str, str]) -> bytes:
    """Headers as lines; raises `InvalidInput` for what would break a line."""
    lines = []
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            raise InvalidInput(f"{name!r} is no header name.", cure="Use letters, digits and hyphens.")
        if "\r" in value or "\n" in value or value != value.strip():
            message = f"The value of the header {name!r} has blanks around it or a line break."
            raise InvalidInput(message, cure="Encode it.")
        lines.append(f"{name}: {value}\r\n".encode())
    return b"".join(lines)


def head(fields: bytes) -> bytes:
    """The header block around such lines; empty without any."""
    return b"NATS/1.0\r\n%s\r\n" % fields if fields else b""


def publication(subject: str, reply: str, head: bytes, body: bytes) -> bytes:
    """One message as the protocol's PUB or HPUB."""
    where = f"{subject} {reply}" if reply else subject
    if not head:
        return b"PUB %s %d\r\n%s\r\n" % (where.encode(), len(body), body)
    return b"HPUB %s %d %d\r\n%s%s\r\n" % (where.encode(), len(head), len(head) + len(body), head, body)


def delivery(reply: str) -> tuple[int, int]:
    """Stream and consumer sequence in the ack subject of a delivery, of either form."""
    if reply.count(".") == 8:
        _, seq, count, _, _ = reply.rsplit(".", 4)
    else:
        seq, count = reply.split(".")[7:9]
    return int(seq), int(count)


def _parse(head: bytes, *, everything: bool) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in head.split(b"\r\n")[1:]:
        if not line or (not everything and line.startswith(_OWN)):
            continue
        name, _, value = line.partition(b":")
        headers[name.decode("ascii", "replace")] = value.strip().decode("utf-8", "replace")
    return headers


LARGEST_BATCH = 1000
"""Records in one append; a server takes no more in one atomic batch."""

MAX_PAYLOAD = 1_048_576
"""Bytes of one message, headers included, unless a server says otherwise."""

MARGIN = 4096
"""Bytes of a message that the headers of the bus itself may take."""

_SUBJECT = re.compile(r"[^$\s*>.][^\s*>]*")


def append_size(records: Sequence[Record], lane: str, limit: int = MAX_PAYLOAD) -> int:
    """The bytes of an append, if a log with this payload limit can take it."""
    if not records:
        raise InvalidInput("An append needs at least one record.")
    if len(records) > LARGEST_BATCH:
        raise TooLarge(f"An append of {len(records)} records is above {LARGEST_BATCH}.", cure="Append in parts.")
    return sum(_size(record, lane, limit - MARGIN) for record in records)


def _size(record: Record, lane: str, limit: int) -> int:
    _subject(record.subject, lane)
    for name in record.headers:
        if name.lower().startswith("nats-"):
            raise InvalidInput(f"The header {name!r} belongs to the bus.", cure="Choose another name.")
    size = len(head(fields(record.headers))) + len(record.body)
    if size > limit:
        raise TooLarge(
            f"A record of {size} bytes for {record.subject!r} is above the limit of {limit}.",
            cure="Put the bulk into a blob and its digest into the event.",
        )
    return size


@functools.lru_cache(maxsize=4096)
def _subject(subject: str, lane: str) -> None:
    if not _SUBJECT.fullmatch(subject):
        raise InvalidInput(f"{subject!r} cannot be published to.", cure="A subject has tokens and dots only.")
    if not matches(lane, subject):
        raise InvalidInput(f"{subject!r} is not in the lane {lane!r}.", cure="One append, one lane.")
