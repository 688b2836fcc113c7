"""The keys of a deployment: made at the first start, admitted by the root in the keyring session, once."""

from __future__ import annotations

import socket

from bus.keys import KeyStore, Signer
from bus.port import Log
from contracts.ids import session_id, uuid8
from contracts.keyring import DESK, ROOT, KeyAdmitted, KeyringOpened, fingerprint, keyring_session
from runtime.roster import BUILT_IN
from runtime.scribe import Scribe
from runtime.tail import Tail

SIGNING = (*BUILT_IN, DESK)
"""The roles that sign; the desk signs the operator's lane."""


def signers(store: KeyStore) -> dict[str, Signer]:
    """Every key of an embedded deployment, made when missing; the root is pinned."""
    found = {role: store.ensure(role) for role in (ROOT, *SIGNING)}
    store.pin(found[ROOT].public)
    return found


async def open_keyring(bus: Log, tail: Tail, keys: dict[str, Signer], source: str) -> str:
    """Open the keyring and admit every role that is not in it yet; returns the keyring's session."""
    root = keys[ROOT]
    session = keyring_session(root.public)
    scribe = Scribe(bus, tail, ROOT, root, source)
    if not tail.admission.keyring().root:
        await scribe.say(session, [KeyringOpened(root=root.public, deployment=socket.gethostname())])
    ring = tail.admission.keyring()
    missing = [role for role in SIGNING if ring.current(role) is None]
    if missing:
        await scribe.say(
            session, [KeyAdmitted(role=role, public=keys[role].public, may_admit=role == DESK) for role in missing]
        )
    return session


def instance_of(keys: dict[str, Signer]) -> str:
    """A name for this home that survives restarts: a function of its own keys."""
    return session_id(uuid8("home", fingerprint(keys[ROOT].public)), "hm")[:16]
