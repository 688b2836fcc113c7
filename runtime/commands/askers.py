"""Who asks: known by the subject that the server let them publish to, and for people and roles by their signature."""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from bus import subjects
from bus.signed_commands import verify_command
from contracts.errors import InvalidInput, Refused
from contracts.keyring import Keyring
from contracts.roles import Right
from contracts.signed_command import CLIENT, MOST_KEPT, OWNER, RIGHTS, UNSIGNED, SignedCommand, refuse_without

WINDOW = 60.0
"""Seconds that the clock of who signed may be away from ours, and that a command may be under way."""

MOST_NONCES = 10_000
"""Commands of one signer that are remembered at once, each for twice the window."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Somebody who was verified: a name as the log has it, the rights, and the command if it was signed."""

    name: str
    rights: tuple[Right, ...]
    signed: SignedCommand | None = None

    def still_counts(self, ring: Keyring) -> None:
        """Raise what `verify_command` does when the key that signed has ended since the command arrived."""
        if self.signed is not None:
            verify_command(self.signed, ring)

    def kept(self) -> SignedCommand | None:
        """The signed command as an event holds it; `Refused` when its body is too long for that."""
        if self.signed is not None and len(self.signed.body.encode()) > MOST_KEPT:
            message = f"the body has {len(self.signed.body.encode())} bytes, and the log keeps {MOST_KEPT} beside it."
            raise Refused(message, cure="Leave out what the command does not need.")
        return self.signed


THE_OWNER = Asker(OWNER, RIGHTS)
"""The process that carries out commands asks for itself: its home's owner has started it."""


class _SignedBody(BaseModel):
    """A signed command as it arrives; its subject is that of the request."""

    model_config = ConfigDict(strict=True, extra="forbid")

    body: str
    time: str
    nonce: str
    signature: str


class Askers:
    """Tells who asks; a signed command is taken once, within a minute of its time."""

    def __init__(self, keyring: Callable[[], Keyring], clock: Callable[[], float] = time.time) -> None:
        self._keyring = keyring
        self._clock = clock
        self._began = clock()
        self._nonces: OrderedDict[str, tuple[float, str]] = OrderedDict()
        """By nonce, oldest first: until when it is remembered, and whose it is."""
        self._counts = Counter[str]()

    def identify(self, subject: str, body: bytes) -> tuple[Asker, bytes]:
        """Who asks, and the body of the command. Raises what `verify_command` does, and `Refused` for a replay."""
        if not subjects.is_signed(subject):
            name = OWNER if subjects.is_owners(subject) else CLIENT
            return Asker(name, UNSIGNED[name]), body
        asked = subjects.parse_signed(subject)
        try:
            signed = SignedCommand(subject=subject, **dict(_SignedBody.model_validate_json(body)))
        except ValidationError:
            cure = (
                'Send {"body": TEXT, "time": "2026-01-01T00:00:00Z", "nonce": 32 hex digits, "signature": KEY:BASE64}.'
            )
            raise InvalidInput("this is no signed command.", cure=cure) from None
        key = verify_command(signed, self._keyring())
        self._refuse_stale(signed)
        self._refuse_replay(signed, key.role)
        asker = Asker(key.role, key.rights, signed)
        if asked.right not in asker.rights:
            refuse_without(asked.right, asked.verb, asker.name, asker.rights)  # type: ignore[arg-type]
        return asker, signed.body.encode()

    def remember(self, signed: SignedCommand) -> None:
        """Take this command for asked already: the log says that a host of this swarm has carried it out."""
        self._forget()
        self._keep(signed.nonce, signed.subject)

    def _refuse_stale(self, signed: SignedCommand) -> None:
        try:
            moment = datetime.fromisoformat(signed.time).timestamp()
        except ValueError:
            raise InvalidInput(f"{signed.time!r} is no time.", cure="Write it as 2026-01-01T00:00:00Z.") from None
        now = self._clock()
        if abs(moment - now) > WINDOW:
            here = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
            message = (
                f"it was signed at {signed.time}, and the clock here says {here}: {abs(moment - now):.0f} s apart."
            )
            raise Refused(message, cure=f"Set both clocks ({WINDOW:.0f} s are allowed), then ask again.")
        if moment < self._began:
            # What was asked of the host before this one is remembered by nobody.
            raise Refused(f"it was signed at {signed.time}, before this host began.", cure="Ask again.")

    def _refuse_replay(self, signed: SignedCommand, signer: str) -> None:
        self._forget()
        if signed.nonce in self._nonces:
            raise Refused("this very command was asked before.", cure="Sign it anew, with another nonce.")
        if self._counts[signer] >= MOST_NONCES:
            message = f"{signer} has asked {MOST_NONCES} commands within {2 * WINDOW:.0f} s."
            raise Refused(message, cure="Ask more slowly.")
        self._keep(signed.nonce, signer)

    def _forget(self) -> None:
        while self._nonces:
            nonce, (until, whose) = next(iter(self._nonces.items()))
            if until > self._clock():
                return
            del self._nonces[nonce]
            self._counts[whose] -= 1

    def _keep(self, nonce: str, signer: str) -> None:
        if nonce not in self._nonces:
            self._nonces[nonce] = self._clock() + 2 * WINDOW, signer
            self._counts[signer] += 1
