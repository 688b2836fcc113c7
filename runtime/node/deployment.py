"""The keys of a deployment: made at the first start, admitted by the root in the keyring session, once."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from bus.keys import KeyStore, Signer
from bus.port import Log
from contracts.errors import Refused
from contracts.event import BUILT_IN, DESK, ROOT
from contracts.keyring import KeyAdmitted, KeyringOpened, KeyRotated, keyring_session
from runtime.log.follower import LogFollower
from runtime.log.lane_writer import LaneWriter

SIGNING = (*BUILT_IN, DESK)
"""The roles that sign; the desk signs the operator's lane."""


def signers(store: KeyStore) -> dict[str, Signer]:
    """Every key of an embedded deployment, made when missing; the root is pinned."""
    found = {role: store.ensure(role) for role in (ROOT, *SIGNING)}
    store.pin(found[ROOT].public)
    return found


async def open_keyring(bus: Log, tail: LogFollower, keys: Mapping[str, Signer], store: KeyStore, source: str) -> str:
    """Open the keyring, admit every role that has no key in it, and carry out rotations that were only prepared.

    Returns the keyring's session; `Refused` when a key of the store is not the one that the keyring names.
    """
    writer, session = await _opened(bus, tail, keys[ROOT], source)
    ring = tail.admission.keyring()
    said: list[KeyAdmitted | KeyRotated] = []
    for role in SIGNING:
        if ring.current(role) is None:
            # A key that has ended is admitted never again.
            key = store.prepare(role) if keys[role].key_id in ring.keys else keys[role]
            said.append(admission(role, key))
    for role in store.awaiting():
        before, after = ring.current(role), store.prepare(role)
        if before is not None and before.public != after.public:
            said.append(KeyRotated(role=role, old=before.id, public=after.public))
    await writer.say(session, said)
    for role in store.awaiting():
        store.promote(role)
    _refuse_strangers(tail, keys)
    return session


async def open_passing_keyring(bus: Log, tail: LogFollower, keys: Mapping[str, Signer], source: str) -> str:
    """The same for a generation that ends with this process: it names the keys that the home has now."""
    writer, session = await _opened(bus, tail, keys[ROOT], source)
    said: list[KeyAdmitted | KeyRotated] = []
    for role in SIGNING:
        before = tail.admission.keyring().current(role)
        if before is None:
            said.append(admission(role, keys[role]))
        elif before.public != keys[role].public:
            said.append(KeyRotated(role=role, old=before.id, public=keys[role].public))
    await writer.say(session, said)
    return session


async def _opened(bus: Log, tail: LogFollower, root: Signer, source: str) -> tuple[LaneWriter, str]:
    """The root's writer and the session of the keyring, opened now if it was not."""
    session = keyring_session(root.public, tail.partition)
    writer = LaneWriter(bus, tail, ROOT, lambda: root, source)
    if not tail.admission.keyring().root:
        await writer.say(session, [KeyringOpened(root=root.public, deployment=socket.gethostname())])
    return writer, session


def admission(role: str, key: Signer) -> KeyAdmitted:
    """How the root admits a key of a built-in role."""
    return KeyAdmitted(role=role, public=key.public, may_admit=role == DESK)


def _refuse_strangers(tail: LogFollower, keys: Mapping[str, Signer]) -> None:
    ring = tail.admission.keyring()
    for role in SIGNING:
        current = ring.current(role)
        if current is not None and current.public != keys[role].public:
            raise Refused(
                f"the key of {role!r} here is {keys[role].key_id}, and the keyring names {current.id}.",
                cure=f"Restore keys/{role}.key; if it is lost: swarm keys rotate {role}, then start again.",
            )
