"""Who may do what, and a command as it was signed: its bytes, where it was sent, when, and by which key.

A signature covers the deployment (the fingerprint of its root key), the subject (which names the signer, the right and
the command), a time and a nonce, and the exact bytes of the body. So it is worth nothing for another command, session,
swarm or time. `bus.signed_commands` makes and verifies it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import StringConstraints

from contracts.errors import Refused
from contracts.event import Event, Payload, Value
from contracts.roles import ROLES, Right

RIGHTS: tuple[Right, ...] = ("ask", "decide", "administer")

PERSON = "person_"
"""How the names of people begin, in the keyring and in the log."""

OWNER, CLIENT = "owner", "client"

UNSIGNED: Mapping[str, tuple[Right, ...]] = {OWNER: RIGHTS, CLIENT: ("ask", "decide")}
"""Who asks without a signature, known by the server's account of them: the owner of the home, and whoever has the
credentials that are handed out."""

ASKING: Mapping[str, tuple[Right, ...]] = {role.name: role.asks for role in ROLES if role.asks}
"""The built-in roles that ask: each has sessions of its own made, and ends them."""

MOST_KEPT = 8192
"""Bytes of a body that the log keeps beside a decision."""


class SignedCommand(Value):
    """A command that was signed: what it takes to verify that just this was wanted, from the log and the keyring."""

    subject: Annotated[str, StringConstraints(max_length=200, pattern=r"^[a-z0-9_.-]+$")]
    body: str
    time: Annotated[str, StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,15}Z$")]
    nonce: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    signature: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}:[A-Za-z0-9_-]{86}$")]
    """The id of the key, and Ed25519 over `message`."""


def message(deployment: str, subject: str, time: str, nonce: str, body: bytes) -> bytes:
    """The bytes that are signed; no part can hold a line's end, so they have one reading."""
    head = f"stigmergy/command/1\n{deployment}\n{subject}\n{time}\n{nonce}\n"
    return head.encode() + hashlib.sha256(body).hexdigest().encode()


def refuse_without(right: Right, verb: str, who: str, rights: Sequence[Right]) -> None:
    """Raise `Refused` when the right that a command needs is not among those of who asks."""
    if right in rights:
        return
    others = ", ".join(f"`{one}`" for one in RIGHTS if one in rights) or "none"
    message = f"{verb!r} needs the right `{right}`: the owner of the home has it, {who} has {others}."
    cure = "Ask as the owner of the home; the owner, and people with the right `administer`, grant it: swarm person new"
    raise Refused(message, cure=cure)


def unsigned(old: Payload) -> Payload:
    """From a version of an event that knew no signatures to the one that does."""
    return old | {"signed": None}


def signed_in(event: Event) -> SignedCommand | None:
    """The signed command that an event holds, if it is of a kind that may hold one."""
    signed = getattr(event, "signed", None)
    return signed if isinstance(signed, SignedCommand) else None
