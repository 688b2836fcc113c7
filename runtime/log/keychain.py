"""The keys that a process signs with: each is exchanged for its successor as soon as the keyring names that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import structlog

from bus.admission import Admission
from bus.keys import Signer
from contracts.envelope import Fact
from contracts.errors import SwarmError
from contracts.keyring import KeyAdmitted, Keyring, KeyRotated

log = structlog.get_logger()

Find = Callable[[str, str], Signer | None]
"""Given a role and a public key, the secret one, when it is here."""


class Keychain(Mapping[str, Signer]):
    """Signers by role. A successor that is not here is said once; what its role says until then counts for nothing."""

    def __init__(self, held: Mapping[str, Signer], find: Find, admission: Admission) -> None:
        self._held = dict(held)
        self._find = find
        self._admission = admission

    def __getitem__(self, role: str) -> Signer:
        return self._held[role]

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def hear(self, facts: Sequence[Fact]) -> None:
        """Exchange the keys that these facts end."""
        for fact in facts:
            if isinstance(fact.event, KeyRotated | KeyAdmitted) and fact.event.role in self._held:
                self._exchange(self._admission.keyring(), fact.event.role)

    def catch_up(self) -> None:
        """Exchange every key that has ended before this process began to listen."""
        for role in self._held:
            self._exchange(self._admission.keyring(), role)

    def _exchange(self, ring: Keyring, role: str) -> None:
        current = ring.current(role)
        if current is None or current.public == self._held[role].public:
            return
        try:
            found = self._find(role, current.public)
        except SwarmError as error:
            log.error("the new key of a role cannot be read", role=role, key=current.id, reason=error.message)
            return
        if found is None:
            cure = "start the agent again where the new key is"
            log.error("the new key of a role is not here", role=role, key=current.id, cure=cure)
            return
        self._held[role] = found
        log.info("a role goes on with a new key", role=role, key=found.key_id)
