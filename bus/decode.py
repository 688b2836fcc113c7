"""One stored message read as an event, or refused with a reason; its place in a lane is judged by `bus.admission`."""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from itertools import chain, islice
from typing import NamedTuple, overload

from bus import subjects
from bus.port import StoredRecord
from contracts.common import HandlerFailed
from contracts.envelope import Envelope, has_constant, read, read_untyped
from contracts.errors import InvalidInput, NewerThanCode
from contracts.event import SPOKEN, Event, Unknown
from contracts.operator import RULES, SessionRequested
from contracts.queue import QueueOpened
from contracts.roles import GUEST, OPERATOR


class Reason(StrEnum):
    """Why a stored message is no fact."""

    SUBJECT = "subject"
    UNBEGUN = "unbegun"
    ENVELOPE = "envelope"
    REPLAYED = "replayed"
    LANESEQ = "laneseq"
    CHAIN = "chain"
    UNSIGNED = "unsigned"
    KEY = "key"
    SIGNATURE = "signature"
    KEYRING = "keyring"
    STALE_SEAL = "stale-seal"
    LATE = "late"
    SIZE = "size"


GUEST_BODY = 65_536
"""Bytes that a guest's event may have, since rules 2."""


@dataclass(frozen=True, slots=True)
class Void:
    """A stored message that is no fact: its place, a reason as one word for programs and as a sentence for people."""

    seq: int
    subject: str
    reason: Reason
    detail: str = ""
    session: str = ""


class Voids:
    """What was not admitted, counted by reason; the first and the newest are kept, however many there are.

    Strangers decide how many there are and what is in them, so a void holds no body and no long text.
    """

    FIRST, NEWEST, TEXT = 1000, 2000, 300

    def __init__(self) -> None:
        self.counts: Counter[Reason] = Counter()
        self._first: list[Void] = []
        self._newest: deque[Void] = deque(maxlen=self.NEWEST)

    @property
    def total(self) -> int:
        """How many there were, kept or not."""
        return self.counts.total()

    def add(self, void: Void) -> None:
        """Count one more void message and keep it, shortened; the first and the newest ones stay."""
        if len(void.subject) > self.TEXT or len(void.detail) > self.TEXT:
            void = replace(void, subject=_shortened(void.subject), detail=_shortened(void.detail))
        self.counts[void.reason] += 1
        (self._first if len(self._first) < self.FIRST else self._newest).append(void)

    def since(self, total: int) -> list[Void]:
        """Those that came after there were `total`, as far as they are kept; an append makes up to a thousand."""
        backwards = chain(reversed(self._newest), reversed(self._first))
        return list(islice(backwards, self.total - total))[::-1]

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._first) + len(self._newest)

    def __iter__(self) -> Iterator[Void]:
        """Those that are kept, as they came."""
        return chain(self._first, self._newest)

    @overload
    def __getitem__(self, index: int) -> Void: ...
    @overload
    def __getitem__(self, index: slice) -> list[Void]: ...
    def __getitem__(self, index: int | slice) -> Void | list[Void]:
        """One of those that are kept, or several."""
        return [*self][index]


def _shortened(text: str) -> str:
    return text if len(text) <= Voids.TEXT else text[: Voids.TEXT - 1] + "…"


class Refusal(Exception):
    """Raised when the message at hand is void; it carries the reason and a sentence."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class DecodedMessage(NamedTuple):
    """A message whose envelope holds; `newer` is set when its event is newer than this code."""

    envelope: Envelope
    event: Event
    newer: NewerThanCode | None = None


_LONGEST_SUBJECT = 400
"""Characters of the subject of a fact at most: nine tokens, the longest of 64 each."""


def place(subject: str) -> subjects.FactSubject | None:
    """Session, lane and name in the subject of a fact; None for any other subject."""
    return _place(subject) if len(subject) <= _LONGEST_SUBJECT else None


@lru_cache(maxsize=2048)
def _place(subject: str) -> subjects.FactSubject | None:
    try:
        return subjects.parse(subject)
    except InvalidInput:
        return None


def decode(stored: StoredRecord, where: subjects.FactSubject) -> DecodedMessage:
    """The message as an event whose envelope says what its subject says; raises `Refusal`."""
    newer = None
    try:
        envelope, event = read(stored.body)
    except NewerThanCode as error:
        envelope, event = read_untyped(stored.body)
        # A guest's event never stops a reader.
        binds = not envelope.lane.startswith(GUEST) and SPOKEN[event.name].may_be_said_in(envelope.lane)
        newer = error if binds else None
    except InvalidInput as error:
        if error.path != "data":
            raise Refusal(Reason.ENVELOPE, error.message) from None
        # Schemas differ between versions of this software, so a payload must not decide what is a fact.
        envelope, event = read_untyped(stored.body)
    name = event.name if isinstance(event, Unknown) else event.wire
    if (envelope.subject, envelope.lane, name) != where:
        raise Refusal(Reason.SUBJECT, f"the envelope says {name!r} in lane {envelope.lane!r} of {envelope.subject}")
    if not lane_may_say(event, envelope.lane):
        envelope, event = read_untyped(stored.body)
    return DecodedMessage(envelope, event, newer)


def rules_of(first: Event) -> int:
    """The rules of admission of the session that begins with this event."""
    return first.rules if isinstance(first, SessionRequested) else 1


def only_lane(first: Event) -> str:
    """The only lane of the session that begins with this event; empty where every lane may speak."""
    return OPERATOR if isinstance(first, QueueOpened) else ""


def newer_rules(rules: int) -> NewerThanCode | None:
    """Why this software cannot continue reading under these rules; None when it knows them."""
    if rules <= RULES:
        return None
    return NewerThanCode(
        f"the session is admitted by rules {rules!r}, and this software knows rules up to {RULES}.",
        cure="Update stigmergy to read this log.",
    )


def refuse_large(body: bytes, guest: bool, rules: int) -> None:  # noqa: FBT001 - a fact about the lane
    """Raise `Refusal` for a body that is too large for who says it; this is judged before anything reads it."""
    if guest and rules >= 2 and len(body) > GUEST_BODY:
        raise Refusal(Reason.SIZE, f"a guest's event has {len(body)} bytes, and {GUEST_BODY} are allowed")


def refuse_constants(body: bytes, rules: int) -> None:
    """Raise `Refusal` for a body that was read as an envelope and has values that JSON does not have."""
    if rules >= 2 and has_constant(body):
        raise Refusal(Reason.ENVELOPE, "not an event: NaN and Infinity are no JSON")


def lane_may_say(event: Event, lane: str) -> bool:
    """Whether an event in this lane means what its type says, and so may be folded as that type.

    An event names the lanes in which it may be said, and a failure is told by who failed. Without this, a guest could
    write `training.completed` into its own lane, or that the trainer had failed, and be believed.
    """
    return type(event).may_be_said_in(lane) and (not isinstance(event, HandlerFailed) or lane == event.role)
