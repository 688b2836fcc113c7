"""NATS messages as bytes: headers written and read, publications framed; no connection and no limits here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from contracts.errors import InvalidInput

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_OWN = b"Nats-"


class Frame(NamedTuple):
    """One message as it came off the wire."""

    subject: str
    reply: str
    body: bytes
    head: bytes = b""

    @property
    def status(self) -> int:
        """The number in the first header line, which marks a message of the server itself; 0 without one."""
        if not self.head.startswith(b"NATS/1.0 "):
            return 0
        return int(self.head[9:12])

    @property
    def headers(self) -> dict[str, str]:
        """All headers."""
        return _parse(self.head, everything=True)

    @property
    def stored_headers(self) -> dict[str, str]:
        """The headers that the writer gave; those of the transport (`Nats-...`) left out."""
        return _parse(self.head, everything=False)


def fields(headers: Mapping[str, str]) -> bytes:
    """Headers as lines; raises `InvalidInput` for what would break a line."""
    return b"".join([_field(name, value) for name, value in headers.items()])


def head(fields: bytes) -> bytes:
    """The header block around such lines; empty without any."""
    return b"NATS/1.0\r\n%s\r\n" % fields if fields else b""


def publication(subject: str, reply: str, head: bytes, body: bytes) -> bytes:
    """One message as the protocol's PUB or HPUB."""
    where = f"{subject} {reply}" if reply else subject
    if not head:
        return b"PUB %s %d\r\n%s\r\n" % (where.encode(), len(body), body)
    return b"HPUB %s %d %d\r\n%s%s\r\n" % (where.encode(), len(head), len(head) + len(body), head, body)


def _field(name: str, value: str) -> bytes:
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{name!r} is no header name.", cure="Use letters, digits and hyphens.")
    if "\r" in value or "\n" in value or value != value.strip():
        raise InvalidInput(f"The value of the header {name!r} has blanks around it or a line break.", cure="Encode it.")
    return f"{name}: {value}\r\n".encode()


def _parse(head: bytes, *, everything: bool) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in head.split(b"\r\n")[1:]:
        if not line or (not everything and line.startswith(_OWN)):
            continue
        name, _, value = line.partition(b":")
        found[name.decode("ascii", "replace")] = value.strip().decode("utf-8", "replace")
    return found
