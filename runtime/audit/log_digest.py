"""What an audit of a log needs to know of a session, however its records were read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

from bus import fast_admission, subjects
from bus.tree import SubtreeRows, leaf_hash, leaf_of
from contracts.envelope import Fact
from contracts.errors import NotVerified
from contracts.event import Event, Unknown
from contracts.ids import sha256
from contracts.keyring import KeyAdmitted, KeyRevoked, Keyring, KeyRotated
from contracts.ledger import LedgerCheckpointed, SessionSealed
from contracts.operator import WISHES
from contracts.roles import LEDGER, TRAINER
from contracts.session import SessionState, advance
from contracts.signed_command import PERSON, signed_in
from contracts.trainer import ControlEvaluated, InterventionApplied, TrainingClaimed, TrainingCompleted, WindowRecorded
from runtime.audit.authority_check import CITING
from runtime.jobs.garbage import collection_paused
from runtime.log.archive import Archive, StoredSession
from runtime.replay import audit_plan
from runtime.replay.verdict import Divergence

Lines = fast_admission.FileLines | fast_admission.PlacedLines
Noted = LedgerCheckpointed | SessionSealed

ASKED = (*WISHES, KeyAdmitted, KeyRotated, KeyRevoked)
"""Events that hold what was signed when somebody asked for them."""

CURVES: frozenset[type[Event]] = frozenset({WindowRecorded, ControlEvaluated})
"""Most of a long session: the verdict on a log depends on their place and form, and on nothing else in them."""


@dataclass(frozen=True)
class LogDigest:
    """The admitted events of one session: of each its place, of some what they say; positions count from 1."""

    keys: Keyring
    state: SessionState
    """The session as it is now; its curves may have been left out."""
    before: SessionState
    """The same before its seal, if it is sealed."""
    first: Fact | None
    noted: Sequence[tuple[Fact, Noted]]
    """Everything that the ledger signed a note for, in order."""
    seqs: Sequence[int]
    lanes: Sequence[str]
    digest: Callable[[int], str]
    """Of the body at a position."""
    tree: SubtreeRows
    signatures: int
    strangers: int
    """Events of a type unknown here."""
    citing: Sequence[Fact]
    """The events that may cite a grant of the queue."""
    decisions: Sequence[Fact]
    """The events that say that a person asked, or hold what somebody signed."""
    broken: Sequence[Divergence] = ()
    """What does not follow from what else the session says."""

    @property
    def size(self) -> int:
        """How many events there are."""
        return len(self.seqs)

    def heads(self, size: int) -> Mapping[str, str]:
        """By lane: the digest of its last body among the first so many."""
        lasts = {lane: position for position, lane in enumerate(self.lanes[:size], 1)}
        return {lane: self.digest(lasts[lane]) for lane in sorted(lasts)}

    @classmethod
    def of(cls, kept: StoredSession) -> LogDigest:
        """The account of a session whose log was read whole, from its facts and its fold."""
        history = kept.history
        noted = _noted(history.facts)
        sealed = bool(noted) and isinstance(noted[-1][1], SessionSealed)
        return cls(
            kept.admission.keyring(subjects.partition(history.id)),
            history.state,
            history.states[noted[-1][0].position - 1] if sealed else history.state,
            history.facts[0] if history.facts else None,
            noted,
            [fact.seq for fact in history.facts],
            [fact.lane for fact in history.facts],
            lambda position: history.facts[position - 1].digest,
            tree(kept),
            sum(fact.closes for fact in history.facts),
            sum(isinstance(fact.event, Unknown) for fact in history.facts),
            [*history.telling(CITING)],
            decisions_in(history.telling(ASKED)),
            [
                *audit_plan.off_the_paths(history.facts, history.state),
                *audit_plan.broken_rules(history.facts, history.state),
            ],
        )

    @classmethod
    def of_lines(
        cls, whole: fast_admission.RecordRun, lines: Lines, asked: fast_admission.AdmissionInputs
    ) -> LogDigest:
        """That of a session that was admitted at once, all but its curves kept.

        Raises `NeedsFullAdmission` where decisions make it matter which path a curve lies on.
        """
        noted = _noted(whole.kept)
        if any(isinstance(fact.event, InterventionApplied) for fact in whole.kept):
            raise fast_admission.NeedsFullAdmission
        facts = sorted([*whole.kept, *_curves(whole, lines)], key=lambda fact: fact.position)
        sealed = bool(noted) and isinstance(noted[-1][1], SessionSealed)
        before = reduce(advance, facts[: -1 if sealed else None], SessionState(asked.session))
        state = advance(before, facts[-1]) if sealed else before
        return cls(
            asked.ring,
            replace(state, events=len(whole.seqs)),
            before,
            facts[0] if facts and facts[0].position == 1 else None,
            noted,
            whole.seqs,
            whole.lanes,
            lambda position: sha256(lines.stored(position).body),
            whole.rows,
            whole.signatures,
            sum(isinstance(fact.event, Unknown) for fact in whole.kept),
            [fact for fact in whole.kept if isinstance(fact.event, CITING)],
            decisions_in(fact for fact in whole.kept if isinstance(fact.event, ASKED)),
            list(audit_plan.broken_rules(facts, state)),
        )


def decisions_in(facts: Iterable[Fact]) -> list[Fact]:
    """Those of these facts that say that a person asked, or hold what somebody signed."""
    return [
        fact
        for fact in facts
        if signed_in(fact.event) or (isinstance(fact.event, WISHES) and fact.event.asked_by.startswith(PERSON))
    ]


def fast_digest(archive: Archive, session: str) -> LogDigest | None:
    """The account of a session all of whose records are in order, in a small part of the time that reading it takes.

    None where anything takes a closer look; `bus.fast_admission` tells what is looked at, and what a signed root
    stands for.
    """
    partition = subjects.partition(session)
    try:
        with collection_paused():
            ring = archive.ring(partition)
            if ring is None or ring.history.id == session:
                return None
            asked = fast_admission.AdmissionInputs(session, ring.admission.keyring(partition), CURVES)
            lines = archive.lines(session)
            return LogDigest.of_lines(fast_admission.admit_session(lines, asked), lines, asked)
    except (fast_admission.NeedsFullAdmission, NotVerified):
        return None


def _curves(whole: fast_admission.RecordRun, lines: Lines) -> Iterator[Fact]:
    """The curve points that rules judge: the first one when the session was unclaimed then, and the last evaluation."""
    kept = {fact.position for fact in whole.kept}
    left = [at for at, lane in enumerate(whole.lanes, 1) if lane == TRAINER and at not in kept]
    claimed = next((fact.position for fact in whole.kept if isinstance(fact.event, TrainingClaimed)), 0)
    ended = next((fact.position for fact in whole.kept if isinstance(fact.event, TrainingCompleted)), 0)
    if left and not 0 < claimed < left[0]:
        yield lines.fact(left[0])
    before = (lines.fact(at) for at in reversed(left) if at < ended)
    last = next((fact for fact in before if isinstance(fact.event, ControlEvaluated)), None)
    if last is not None and last.position != left[0]:
        yield last


def tree(kept: StoredSession) -> SubtreeRows:
    """The tree over the admitted records of a session, with the root over the first n for every n."""
    admitted = {fact.seq for fact in kept.history.facts}
    return SubtreeRows(b"".join(leaf_hash(leaf_of(stored)) for stored in kept.stored if stored.seq in admitted))


def _noted(facts: Sequence[Fact]) -> list[tuple[Fact, Noted]]:
    return [
        (fact, fact.event)
        for fact in facts
        if fact.lane == LEDGER and isinstance(fact.event, LedgerCheckpointed | SessionSealed)
    ]
