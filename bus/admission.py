"""Decides which stored messages are facts: every reader feeds messages to an `Admission` and folds what it returns.

Pure: no I/O, no clock. A message is a fact when its envelope parses and matches its subject, its id is new in the
session, it extends its lane, and it carries (or a later event of its append carries) a signature of the key that the
keyring names for the lane at that place in the stream. Everything else is void: never a head, never folded, listed
with its reason. The payload's schema does not decide: what was signed but cannot be read as what it claims, or was said
by a lane that has no say in it, is a fact of type `Unknown`, so that every version of this software admits the same.

    append = one atomic batch, stored without gaps: unsigned events wait for the signed one that ends it
    id     = new in the session; a guest's only beside what others said, so that it cannot take an id from a built-in
             role, whose ids can be foretold, nor from another guest
    guest  = a lane that may speak only in sessions that a built-in role has begun
    rules  = named by the session's first fact; since rules 2 a guest's event has at most 64 KiB, and no event has a
             value that JSON does not have (`docs/log-format.md`)
    seal   = `session.sealed` of the ledger, last in its append, when no other lane has a fact after its `last_seq`;
             in a queue `queue.closed`, last in its append
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bus import keys, subjects
from bus.chain import MAX_BATCH, START, Head
from bus.decode import (
    DecodedMessage,
    Reason,
    Refusal,
    Void,
    Voids,
    decode,
    newer_rules,
    only_lane,
    place,
    refuse_constants,
    refuse_large,
    rules_of,
)
from bus.identities import Identities
from bus.port import StoredRecord
from contracts import keyring as rules
from contracts.envelope import Envelope, Fact
from contracts.errors import NewerThanCode, NotVerified
from contracts.event import Event, Unknown
from contracts.ids import PARTITION, sha256
from contracts.keyring import Keyring, KeyringOpened
from contracts.queue import QueueClosed
from contracts.roles import DESK, GUEST, LEDGER, OPERATOR, ROOT

SEALED = "session.sealed"

Keyrings = Callable[[str], Keyring]
"""Given a partition, the keyring that holds there."""


@dataclass(slots=True)
class AdmissionState:
    """What admission remembers of a session; `others` is the sequence of the last fact that the ledger did not say.

    A branch is the part of an append that waits for its signed end; `awaited` is what would extend it.
    """

    last: int = 0
    position: int = 0
    others: int = 0
    sealed: int = 0
    rules: int = 0
    """The rules that the session's first fact names; 0 while it has no fact."""
    heads: dict[str, Head] = field(default_factory=dict)
    stored: dict[str, int] = field(default_factory=dict)
    ids: Identities = field(default_factory=Identities)
    branch: list[Fact] = field(default_factory=list)
    speaking: str = ""
    awaited: tuple[int, str] = (0, "")
    newer: NewerThanCode | None = None
    """Why this software cannot go on once the branch is signed."""
    only: str = ""
    """The only lane that may speak after the session's first fact; empty where every lane may."""


class Admission:
    """Takes every message of a session in stream order and returns the facts, each once, in stream order.

    It judges any number of sessions. The keyring session is one of them and comes first, because a message is judged by
    the keyring as fed so far. To read one session alone, feed the keyring up to the present before it, or pass
    `keyrings` (such as the method `keyring` of another admission), which then answers for the keys. `root` pins the
    root key's fingerprint; without it the first keyring that opens is believed.
    """

    def __init__(self, keyrings: Keyrings | None = None, *, root: str = "") -> None:
        self.voids = Voids()
        self.root = root
        self.own = PARTITION
        """The partition that is meant where none is named."""
        self._source = keyrings
        self._rings: dict[str, Keyring] = {}
        self._sessions: dict[str, AdmissionState] = {}
        self._unbegun: OrderedDict[str, AdmissionState] = OrderedDict()
        """Sessions without a fact; strangers can make up any number of them, so only the newest are remembered."""
        self._branching: dict[str, str] = {}
        """By partition: the session of the newest branch."""
        self._newer: dict[str, NewerThanCode] = {}

    def admit(self, stored: StoredRecord) -> list[Fact]:
        """The facts that this message completes: none while its append is incomplete, or when it is void.

        Raises `NewerThanCode` for this and every later message of a session in which a properly signed event is
        newer than this software, and `NotVerified` when messages come out of order.
        """
        where = place(stored.subject)
        if where is None:
            self.voids.add(Void(stored.seq, stored.subject, Reason.SUBJECT, "not the subject of a fact"))
            return []
        if self._source is not None and where.session == self._ring(where.session).session:
            return []
        if self._newer and (
            newer := self._newer.get(where.session) or self._newer.get(self._ring(where.session).session)
        ):
            raise newer
        # Another session's append is given up when this message takes the place of its next one.
        branching = self._branching.get(subjects.partition(where.session), where.session)
        other = self._known(branching)
        if branching != where.session and other and other.branch and stored.seq == other.last + 1:
            self._abandon(other)
        session = self._state(where)
        try:
            return self._judge(session, where, stored)
        except Refusal as refusal:
            self._abandon(session)
            self.voids.add(Void(stored.seq, stored.subject, refusal.reason, refusal.detail, where.session))
            return []

    def _judge(self, session: AdmissionState | None, where: subjects.FactSubject, stored: StoredRecord) -> list[Fact]:
        if session is None:
            raise Refusal(Reason.UNBEGUN, _UNBEGUN)
        if stored.seq <= session.last:
            raise NotVerified(
                f"message {stored.seq} of session {where.session} came after message {session.last}.",
                cure="Read the session from its start and in stream order, each message once.",
            )
        # An append is stored without gaps: any other message here shows that the branch's end never comes.
        if session.branch and (stored.seq != session.last + 1 or where.lane != session.speaking):
            self._abandon(session)
        session.last = session.stored[where.lane] = stored.seq
        if session.sealed:
            raise Refusal(Reason.LATE, f"the session was sealed at {session.sealed}")
        if session.only not in ("", where.lane):
            raise Refusal(Reason.KEY, f"lane {where.lane!r} has no place in this session")
        refuse_large(stored.body, where.lane.startswith(GUEST), session.rules)
        message = decode(stored, where)
        self._extend(session, message.envelope)
        return self._complete(session, stored, message)

    def _state(self, where: subjects.FactSubject) -> AdmissionState | None:
        """What is remembered of the session; None where no built-in role has begun it and the message is a guest's."""
        known = self._sessions.get(where.session) or self._unbegun.get(where.session)
        if known is None and not where.lane.startswith(GUEST):
            known = self._unbegun[where.session] = AdmissionState()
            if len(self._unbegun) > _MOST_UNBEGUN:
                self._abandon(self._unbegun.popitem(last=False)[1])
        return known if known is None or known.position or not where.lane.startswith(GUEST) else None

    def _known(self, session: str) -> AdmissionState | None:
        return self._sessions.get(session) or self._unbegun.get(session)

    def resume(self, session: str, state: AdmissionState) -> None:
        """Start behind facts that another admission has judged, instead of feeding them again."""
        self._sessions[session] = state

    def keyring(self, partition: str = "") -> Keyring:
        """The keys of a partition as of the last message fed; an empty keyring before its first."""
        partition = partition or self.own
        return self._source(partition) if self._source else self._rings.get(partition, _NO_KEYS)

    def head(self, session: str, lane: str) -> Head:
        """The head of a lane: the digest that its next event must extend, the sequence that its writer must expect."""
        known = self._known(session)
        if known is None:
            return START
        head = known.heads.get(lane, START)
        return Head(head.laneseq, head.digest, head.admitted, known.stored.get(lane, 0))

    def lanes(self, session: str) -> dict[str, Head]:
        """The heads of all lanes in which the session has facts."""
        known = self._sessions.get(session)
        return {lane: self.head(session, lane) for lane in sorted(known.heads)} if known else {}

    def position(self, session: str) -> int:
        """How many facts the session has."""
        return self._sessions[session].position if session in self._sessions else 0

    def rules(self, session: str) -> int:
        """The rules by which the session's events are admitted; 0 while it has none."""
        return self._sessions[session].rules if session in self._sessions else 0

    def sealed(self, session: str) -> int:
        """The sequence of the session's seal; 0 while it is open."""
        return self._sessions[session].sealed if session in self._sessions else 0

    def waiting(self, session: str) -> int:
        """How many of the session's newest messages wait for the signed end of their append."""
        known = self._known(session)
        return len(known.branch) if known else 0

    def finish(self, session: str) -> None:
        """Declare that no more messages of this session will come: an append without its signed end becomes void."""
        self._abandon(self._known(session))

    def forget(self, session: str) -> None:
        """Remember of a sealed session only its place and its seal, since nothing more can be admitted to it."""
        known = self._sessions.get(session)
        if known and known.sealed:
            self._sessions[session] = AdmissionState(known.last, known.position, sealed=known.sealed, rules=known.rules)

    def _ring(self, session: str) -> Keyring:
        return self.keyring(subjects.partition(session))

    def _extend(self, session: AdmissionState, envelope: Envelope) -> None:
        """Return if it extends the waiting branch or, once that is given up, the lane's last fact; else `Refusal`."""
        if session.branch:
            if (envelope.laneseq, envelope.prev) == session.awaited:
                return
            self._abandon(session)
        lane, identity = envelope.lane, envelope.id
        if identity in session.ids or remembered(lane, identity) in session.ids:
            raise Refusal(Reason.REPLAYED, f"id {identity!r} was said before")
        head = session.heads.get(lane, START)
        if envelope.laneseq != head.laneseq + 1:
            raise Refusal(Reason.LANESEQ, f"laneseq {envelope.laneseq} where {head.laneseq + 1} is next")
        if envelope.prev != head.digest:
            raise Refusal(Reason.CHAIN, f"prev {envelope.prev} where the lane ends in {head.digest}")

    def _complete(self, session: AdmissionState, stored: StoredRecord, said: DecodedMessage) -> list[Fact]:
        """The facts of an append whose last event is at hand; none yet when that is still to come."""
        envelope, event, newer = said
        rules = self._rules(session, event)
        refuse_constants(stored.body, rules)
        newer = newer or newer_rules(rules)
        header = stored.headers.get(keys.HEADER)
        position = session.position + len(session.branch) + 1
        fact = Fact(stored.seq, position, envelope, event, sha256(stored.body), header or "")
        session.newer = session.newer or newer
        if header is not None:
            self._verify(fact, stored.body, header)
            return self._close(session, [*session.branch, fact])
        if len(session.branch) + 1 >= MAX_BATCH:
            raise Refusal(Reason.UNSIGNED, f"{MAX_BATCH} events without a signature")
        session.branch.append(fact)
        self._branching[subjects.partition(envelope.subject)] = envelope.subject
        session.speaking, session.awaited = envelope.lane, (envelope.laneseq + 1, fact.digest)
        return []

    def _rules(self, session: AdmissionState, event: Event) -> int:
        """The rules by which an event is judged: its own when it would be the first of the session."""
        return session.rules or rules_of(session.branch[0].event if session.branch else event)

    def _close(self, session: AdmissionState, facts: list[Fact]) -> list[Fact]:
        """The facts of a whole and signed append, if nothing else speaks against them; else `Refusal`."""
        lane = facts[0].lane
        if not session.position and lane.startswith(GUEST):
            raise Refusal(Reason.UNBEGUN, _UNBEGUN)
        ids = _fresh(session, facts)
        if lane == LEDGER:
            _refuse_stale_seal(session, facts)
        keyring = self._folded(facts) if lane in (ROOT, DESK) else None
        if session.newer:
            self._newer[facts[0].envelope.subject] = session.newer
            raise session.newer
        _commit(session, facts, ids)
        subject = facts[0].envelope.subject
        if self._unbegun.pop(subject, None):
            self._sessions[subject] = session
        if keyring is not None:
            self._rings[subjects.partition(keyring.session)] = keyring
            self.root = rules.fingerprint(keyring.root)
        return facts

    def _verify(self, fact: Fact, body: bytes, header: str) -> None:
        try:
            named, _ = keys.split(header)
            keys.verify(self._public(fact, named), body, header)
        except NotVerified as error:
            raise Refusal(Reason.SIGNATURE, error.message) from None

    def _public(self, fact: Fact, named: str) -> str:
        """The public key that may sign here, when it is the one named."""
        session, lane = fact.envelope.subject, fact.envelope.lane
        ring = self._ring(session)
        if not ring.root and lane == ROOT and isinstance(fact.event, KeyringOpened):
            return self._opening(session, fact.event.root)
        if (session == ring.session) != (lane in (ROOT, DESK)):
            raise Refusal(Reason.KEY, f"lane {lane!r} has no place in this session")
        role = DESK if lane == OPERATOR else lane
        key = ring.keys.get(named)
        if key is None or key.role != role:
            raise Refusal(Reason.KEY, f"key {named} is not one of {role!r}")
        if not key.valid(fact.seq):
            raise Refusal(Reason.KEY, f"key {named} of {role!r} holds from {key.since} until {key.until}")
        return key.public

    def _opening(self, session: str, root: str) -> str:
        if self.root not in ("", rules.fingerprint(root)):
            raise Refusal(Reason.KEYRING, f"opened by root {rules.fingerprint(root)}, not by {self.root}")
        if session != rules.keyring_session(root, subjects.partition(session)):
            raise Refusal(Reason.KEYRING, "the session's id does not derive from this root key")
        return root

    def _folded(self, facts: Sequence[Fact]) -> Keyring:
        """The keyring after these facts of its own; its rules may refuse them."""
        ring = self._ring(facts[0].envelope.subject)
        for fact in facts:
            against = rules.objection(ring, fact.lane, fact.event)
            if against:
                raise Refusal(Reason.KEYRING, f"message {fact.seq}: {against}")
            ring = rules.advance(ring, fact)
        return ring

    def _abandon(self, session: AdmissionState | None) -> None:
        if session is None:
            return
        detail = "the signed event that ends its append never came or was refused"
        for fact in session.branch:
            subject = subjects.fact(fact.envelope.subject, fact.lane, fact.name)
            self.voids.add(Void(fact.seq, subject, Reason.UNSIGNED, detail, fact.envelope.subject))
        session.branch, session.newer = [], None


_NO_KEYS = Keyring()
_MOST_UNBEGUN = 256
_UNBEGUN = "a guest speaks in a session that nobody has begun"


def remembered(lane: str, identity: str) -> str:
    """As what an id is remembered: as it is, or behind the lane of the guest that said it."""
    return f"{lane}/{identity}" if lane.startswith(GUEST) else identity


def ends(fact: Fact, only: str) -> bool:
    """Whether nothing is admitted behind this last fact of an append, in a session where `only` this lane speaks."""
    return (fact.lane == LEDGER and fact.name == SEALED) or (only == fact.lane and isinstance(fact.event, QueueClosed))


def _fresh(session: AdmissionState, facts: Sequence[Fact]) -> set[str]:
    """The ids of an append as they will be remembered, if none was said before; else `Refusal`."""
    ids, lane = {fact.envelope.id for fact in facts}, facts[0].lane
    kept = {remembered(lane, identity) for identity in ids} if lane.startswith(GUEST) else ids
    if len(ids) < len(facts) or not session.ids.isdisjoint(ids) or not session.ids.isdisjoint(kept):
        raise Refusal(Reason.REPLAYED, "an id of this append was said before")
    return kept


def _refuse_stale_seal(session: AdmissionState, facts: Sequence[Fact]) -> None:
    """A seal that others have overtaken would turn facts into voids after they were folded; the ledger seals again."""
    for fact in facts:
        if fact.name == SEALED:
            said = fact.event.data if isinstance(fact.event, Unknown) else fact.event
            last = said.get("last_seq") if isinstance(said, dict) else getattr(said, "last_seq", None)
            if fact is not facts[-1]:
                raise Refusal(Reason.STALE_SEAL, "the seal is not the last event of its append")
            if not isinstance(last, int) or not session.others <= last < fact.seq:
                raise Refusal(Reason.STALE_SEAL, f"last_seq is {last!r}, and event {session.others} came after it")


def _commit(session: AdmissionState, facts: Sequence[Fact], ids: set[str]) -> None:
    last = facts[-1]
    if not session.rules:
        session.rules, session.only = rules_of(facts[0].event), only_lane(facts[0].event)
    session.branch, session.newer = [], None
    session.position = last.position
    session.heads[last.lane] = Head(last.envelope.laneseq, last.digest, last.seq)
    session.ids.update(ids)
    if last.lane != LEDGER:
        session.others = last.seq
    if ends(last, session.only):
        session.sealed = last.seq
        session.ids = Identities()
