"""Identities: sessions, events, and digests as strings. Chance and time come in as arguments."""

import base64
import hashlib
import os
import time
from uuid import UUID

PARTITION = "00"
"""The partition and generation in which new sessions are born."""

_VARIANT = 0b10 << 62


def uuid7(milliseconds: int, chance: bytes) -> UUID:
    """A UUID that sorts by time; `chance` is ten random bytes."""
    noise = int.from_bytes(chance[:10], "big")
    value = (milliseconds & (2**48 - 1)) << 80 | 0x7 << 76 | ((noise >> 62) & 0xFFF) << 64
    return UUID(int=value | _VARIANT | (noise & (2**62 - 1)))


def uuid8(*parts: str | int) -> UUID:
    """A UUID that is a function of its parts: the same cause gives the same identity."""
    text = "\x1f".join(str(part) for part in parts)
    value = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
    value &= ~(0xF << 76) & ~(0b11 << 62)
    return UUID(int=value | 0x8 << 76 | _VARIANT)


def new_uuid() -> UUID:
    """A fresh time-ordered identity, for what nothing in the log has caused."""
    return uuid7(time.time_ns() // 1_000_000, os.urandom(10))


def session_id(identity: UUID, partition: str = PARTITION) -> str:
    """PP- and 26 characters of lower-case base32."""
    return f"{partition}-{base64.b32encode(identity.bytes).decode().rstrip('=').lower()}"


def session_for(request_id: str, partition: str = PARTITION) -> str:
    """The session that a repeatable request has: the same `request_id` names the same session for ever."""
    return session_id(uuid8("request", request_id), partition)


def event_id(session: str, role: str, cause: str, n: int | str) -> str:
    """The identity of the n-th answer of a role to one cause in one session."""
    return str(uuid8("event", session, role, cause, n))


def sha256(data: bytes) -> str:
    """Lower-case hex, the form in which every chain and tree writes it."""
    return hashlib.sha256(data).hexdigest()


ZERO = "0" * 64
"""The `prev` of the first event of a lane."""
