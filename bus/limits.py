"""What no log takes, refused before anything is sent: the same for the server and for the twin in memory."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from bus import frames
from bus.port import Record
from bus.subjects import matches
from contracts.errors import InvalidInput, TooLarge

LARGEST_BATCH = 1000
"""Records in one append; a server takes no more in one atomic batch."""

MAX_PAYLOAD = 1_048_576
"""Bytes of one message, headers included, unless a server says otherwise."""

MARGIN = 4096
"""Bytes of a message that the headers of the bus itself may take."""

_SUBJECT = re.compile(r"[^$\s*>.][^\s*>]*")


def check(records: Sequence[Record], lane: str, limit: int = MAX_PAYLOAD) -> int:
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
    size = len(frames.head(frames.fields(record.headers))) + len(record.body)
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
