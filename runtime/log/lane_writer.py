"""Appends the events of one role: composes, chains and signs bodies, and settles every doubt about an append.

Without an answer the same bytes are sent again until the log shows whether they are stored. Only a proven conflict on
a shared lane permits a new body; on the trainer's lane a conflict under an older claim raises `Fenced`.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

import structlog

from bus import subjects
from bus.admission import Admission
from bus.chain import Draft, Head, compose
from bus.keys import Signer
from bus.port import Log, Record
from contracts import ids
from contracts.envelope import Fact, timestamp
from contracts.errors import Ambiguous, Conflict, Fenced, Full, NotVerified, Refused, SwarmError, Unreachable
from contracts.event import Event
from contracts.keyring import KeyAdmitted, Keyring, KeyRotated
from contracts.roles import EXCLUSIVE, OPERATOR
from contracts.trainer import TrainingClaimed
from runtime.jobs.failpoints import failpoint
from runtime.log.follower import LogFollower
from runtime.log.session_log import SessionLog

log = structlog.get_logger()

HASTY = (OPERATOR,)
"""Lanes whose writers answer clients: a full log raises `Full` at once instead of waiting for room."""

_FIRST_WAIT, _LONGEST_WAIT = 0.05, 2.0


Saying = Event | Callable[[], Event]
"""An event, or a function that makes it for each try, because a signature inside it depends on the present key."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Why an event is said (`cause`, `correlation`) and under which claim (`epoch`)."""

    cause: str | None = None
    correlation: str | None = None
    epoch: int | None = None
    answer: str = ""
    """The handler whose answer this is. Ids are made of it, so the same answer of any instance is appended once."""
    after: int | None = None
    """Append only behind so many events of the lane; `Conflict` when it has others, for what is said rests on those."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Records ready to be appended behind `head`, the identities of their events, and the key that signed them."""

    drafts: tuple[Draft, ...]
    records: tuple[Record, ...]
    head: Head
    key: str


class LaneWriter:
    """Appends to one lane of any session; `signer` returns the lane's present key, which may be rotated at any time."""

    def __init__(self, bus: Log, follower: LogFollower, lane: str, signer: Callable[[], Signer], source: str) -> None:
        self.lane = lane
        self._bus = bus
        self._follower = follower
        self._signer = signer
        self._source = source
        # Locks exist only while a caller uses them, so ended sessions take no memory here.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def say(
        self, session: str, events: Sequence[Saying], occasion: Provenance = Provenance()
    ) -> tuple[Fact, ...]:
        """Append the events as one batch behind the lane's head, and return them as admitted facts.

        Returns only when the outcome is known. Raises `Fenced` under an older claim, `Refused` in a sealed session,
        `NotVerified` when the batch was stored and not admitted, and `Conflict` or `Full` as the occasion says.
        """
        if not events:
            return ()
        async with self._locks.setdefault(session, asyncio.Lock()):
            history = self._follower.history(session)
            if history.state.sealed or self._follower.admission.sealed(session):
                raise Refused(f"{session} is sealed.", cure="Closed is closed: ask for a session of its own.")
            names = [self._identity(history, occasion, n) for n in range(len(events))]
            while True:
                made = [event if isinstance(event, Event) else event() for event in events]
                drafts = tuple(
                    Draft(event, name, occasion.cause, occasion.correlation, occasion.epoch)
                    for event, name in zip(made, names, strict=True)
                )
                batch = self._compose(history, drafts, occasion)
                failpoint("before-append")
                await self._settle(history, batch, occasion)
                if self._said(history, batch) or batch.key == self._signer().key_id:
                    break
        facts = [history.find(self.lane, name) for name in names]
        if None in facts:
            raise self._unheard(session, facts.count(None))
        return tuple(fact for fact in facts if fact)

    def _unheard(self, session: str, count: int) -> NotVerified:
        known = self._follower.admission.keyring().keys.get(self._signer().key_id)
        cure = "Check that the role's key is admitted in the keyring: swarm keys"
        if known is not None and known.until is not None:
            cure = f"Key {known.id} has ended (swarm keys); start the agent again where the new key of its role is."
        return NotVerified(f"{count} events of {self.lane!r} in {session} were stored and not admitted.", cure=cure)

    def _identity(self, history: SessionLog, occasion: Provenance, n: int) -> str:
        cause = occasion.cause
        if cause is None:
            return str(ids.new_uuid())
        if occasion.answer:
            return ids.event_id(history.id, self.lane, cause, f"{occasion.answer} {n}")
        return ids.event_id(history.id, self.lane, cause, history.answers(self.lane, cause) + n)

    def _compose(self, history: SessionLog, drafts: tuple[Draft, ...], occasion: Provenance) -> _Batch:
        self._refuse_if_fenced(history, occasion)
        self._refuse_if_claimed(history, drafts)
        head, signer = self._follower.admission.head(history.id, self.lane), self._signer()
        if occasion.after not in (None, head.laneseq):
            message = f"{self.lane!r} has said {head.laneseq} events in {history.id}, not {occasion.after}."
            raise Conflict(message, cure="Read what it said.")
        about = dict(session=history.id, lane=self.lane, source=self._source, time=timestamp())
        records = compose(drafts, head=head, signer=signer, **about)
        return _Batch(drafts, tuple(records), head, signer.key_id)

    async def _settle(self, history: SessionLog, batch: _Batch, occasion: Provenance) -> None:
        """Append until the batch is known to be stored, or raise. Under a key that has ended it is stored and void."""
        lane = subjects.lane(history.id, self.lane)
        after, wait = batch.head.stored, _FIRST_WAIT
        while not self._said(history, batch):
            try:
                seq = await self._bus.append(batch.records, lane=lane, after=after)
                failpoint("between-append-and-ack")
                await self._follower.reached(seq)
                return
            except Conflict:
                after = await self._caught_up(lane)
                batch = self._again(history, batch, occasion)
            except Full as error:
                if self.lane in HASTY:
                    raise
                # A full log never fails a running session.
                if wait == _FIRST_WAIT:
                    log.error("the log has no room; what is to be said waits", lane=self.lane, reason=error.message)
                await asyncio.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
            except (Ambiguous, Unreachable):
                await asyncio.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
                # The same bytes go out again; what may have been stored meanwhile is in the fold by then.
                await self._caught_up(lane)

    def _said(self, history: SessionLog, batch: _Batch) -> bool:
        return history.find(self.lane, batch.drafts[-1].id) is not None

    def _again(self, history: SessionLog, batch: _Batch, occasion: Provenance) -> _Batch:
        """What to send after a conflict: the same bytes when only voids came between, else a new body or `Fenced`."""
        if self._said(history, batch):
            return batch
        self._refuse_if_fenced(history, occasion)
        if self._follower.admission.head(history.id, self.lane).digest == batch.head.digest:
            return batch
        if self.lane in EXCLUSIVE and occasion.epoch is not None:
            raise Fenced(
                f"the trainer's lane of {history.id} has moved on without epoch {occasion.epoch}.",
                cure="Another trainer owns the session.",
            )
        return self._compose(history, batch.drafts, occasion)

    async def _caught_up(self, lane: str) -> int:
        """Wait until everything stored in the lane was read, the bus being away included; return its last sequence."""
        wait = _FIRST_WAIT
        while True:
            try:
                newest = await self._bus.head(lane)
            except Unreachable:
                await asyncio.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
            else:
                seq = newest.seq if newest else 0
                await self._follower.reached(seq)
                return seq

    def _refuse_if_fenced(self, history: SessionLog, occasion: Provenance) -> None:
        claim = history.state.training.claim
        if self.lane in EXCLUSIVE and claim and occasion.epoch is not None and claim.epoch > occasion.epoch:
            raise Fenced(
                f"epoch {occasion.epoch} of {history.id} is over: {claim.worker} holds epoch {claim.epoch}.",
                cure="Another trainer owns the session.",
            )

    def _refuse_if_claimed(self, history: SessionLog, drafts: Sequence[Draft]) -> None:
        """Raise `Fenced` for a claim whose epoch is taken: two trainers would both believe that it is theirs."""
        claim = history.state.training.claim
        for draft in drafts:
            if isinstance(draft.event, TrainingClaimed) and claim and claim.epoch >= draft.event.epoch:
                raise Fenced(
                    f"epoch {draft.event.epoch} of {history.id} is not to be had: {claim.worker} holds {claim.epoch}.",
                    cure="Another trainer owns the session.",
                )


Find = Callable[[str, str], Signer | None]
"""Given a role and a public key, the secret one, when it is here."""


class SigningKeys(Mapping[str, Signer]):
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
