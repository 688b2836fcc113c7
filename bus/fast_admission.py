"""A whole session's records admitted at once, as long as nothing about them is out of the ordinary.

Framing, order, subjects, envelopes, schemas, chains, appends, keys and leaves are judged as `bus.records`,
`bus.admission` and `bus.tree` judge them. Signatures are not verified one by one: a root that the ledger signed stands
for those of the records under it, because the ledger has verified them and its tree holds them; the last signature
of every lane and all those that no root covers are verified. At the first thing that is not plainly in order
everything is given up with `NeedsFullAdmission`: the long way says what it is, and whether it matters.

Records are read in runs, and runs are joined: between them other threads have their turn.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from operator import lt
from typing import Any

from pydantic import ValidationError

from bus import notes, records
from bus.admission import AdmissionState, ends, remembered
from bus.chain import MAX_BATCH, Head
from bus.decode import Refusal, decode, newer_rules, only_lane, place, refuse_constants, refuse_large, rules_of
from bus.identities import Identities
from bus.keys import HEADER, verify
from bus.port import StoredRecord
from bus.records import RecordPlaces
from bus.tree import SubtreeRows, headers_digest, leaf_hashes
from contracts.common import HandlerFailed
from contracts.envelope import HEAD, Envelope, Fact, head_fields
from contracts.errors import NotVerified
from contracts.event import SPOKEN, Event, Unknown
from contracts.ids import ZERO
from contracts.keyring import Key, Keyring
from contracts.ledger import LedgerCheckpointed, SessionSealed
from contracts.operator import SessionRequested
from contracts.queue import QueueClosed, QueueOpened
from contracts.roles import DESK, GUEST, LEDGER, OPERATOR, ROOT

RUN = SubtreeRows.RUN
"""Records in a run."""

_SIGNATURE = re.compile(r"[0-9a-f]{16}:[A-Za-z0-9_-]{85}[AQgw]")
_KEY_ID = 16
_NONE = "-"
_UNSIGNED = headers_digest({})
_CHECK = 65
"""Characters of a check and of the blank before it."""
_MOST = 10**18
_PIECE = 1 << 18
"""Bytes of a file that are looked at in one step: while a step takes, no other thread of the process gets on."""

_LOOKED_AT = frozenset({HandlerFailed, LedgerCheckpointed, QueueClosed, QueueOpened, SessionSealed, SessionRequested})
"""Events that are kept in any case, because more than their form is judged."""

Link = tuple[int, str]
"""A place in a lane, and the digest of the body that is there."""


class NeedsFullAdmission(Exception):
    """Something that must be looked at in another way; it may be in order all the same."""


@dataclass(frozen=True, slots=True)
class AdmissionInputs:
    """Whose records are read: the session, the keys that count, and what is judged but need not be kept."""

    session: str
    ring: Keyring
    passing: frozenset[type[Event]] = frozenset()


@dataclass(slots=True)
class RecordRun:
    """The result of judging consecutive records; chains and appends may begin in the run before and end in the next."""

    rows: SubtreeRows
    seqs: array[int] = field(default_factory=lambda: array("Q"))
    lanes: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    """As an admission remembers them: a guest's stand behind its lane."""
    bare: list[str] = field(default_factory=list)
    """Those of guests as they were said."""
    kept: list[Fact] = field(default_factory=list)
    """The events that are kept, each with its position in the run."""
    follows: dict[str, Link] = field(default_factory=dict)
    """By lane: what its first record here follows."""
    ends: dict[str, Link] = field(default_factory=dict)
    """By lane: its last record here."""
    signatures: int = 0
    leading: int = 0
    waiting: int = 0
    """Unsigned records before the first signed one and behind the last."""

    def lasts(self) -> dict[str, int]:
        """By lane: the position of its last record."""
        return {lane: position for position, lane in enumerate(self.lanes, 1)}

    def state(self, ids: Identities | None = None) -> AdmissionState:
        """What an admission that was fed these records remembers; with `ids` when they were collected elsewhere."""
        lasts = {lane: self.seqs[position - 1] for lane, position in self.lasts().items()}
        heads = {lane: Head(*self.ends[lane], seq) for lane, seq in lasts.items()}
        others = max((seq for lane, seq in lasts.items() if lane != LEDGER), default=0)
        sealed = self.seqs[-1] if self.kept and ends(self.kept[-1], self.only()) else 0
        first = self.kept[0] if self.kept else None
        rules = rules_of(first.event) if first and first.position == 1 else 1
        return AdmissionState(
            self.seqs[-1], len(self.seqs), others, sealed, rules, heads, lasts, ids or Identities(self.ids),
            only=self.only(),
        )  # fmt: skip

    def only(self) -> str:
        """The only lane of the session that begins with these records; empty where every lane may speak."""
        return only_lane(self.kept[0].event) if self.kept and self.kept[0].position == 1 else ""


class FileLines:
    """The lines of a session's file: head and body of every record in turn."""

    def __init__(self, data: bytes, session: str) -> None:
        """Raises `NeedsFullAdmission` when it is not made of such lines."""
        lines = list(_lines(data))
        if lines[:1] != [records.title(session)[:-1]] or not data.endswith(b"\n") or not len(lines) % 2:
            raise NeedsFullAdmission
        self.heads, self.bodies = lines[1::2], lines[2::2]

    def __len__(self) -> int:
        return len(self.heads)

    def run(self, begin: int, end: int) -> tuple[Sequence[bytes], Sequence[bytes]]:
        """Heads and bodies of the records from one number, from 0, up to another."""
        return self.heads[begin:end], self.bodies[begin:end]

    def stored(self, position: int) -> StoredRecord:
        """The record at a position, from 1, if it was read before."""
        seq, subject, _, signature, _ = self.heads[position - 1].decode().split(" ")
        return StoredRecord(int(seq), subject, self.bodies[position - 1], _headers(signature))

    def fact(self, position: int) -> Fact:
        """The event at a position, if it was heard before."""
        return fact_of(position, self.stored(position))


class PlacedLines:
    """The same of a file that is read a run at a time; what is read of it again must be what was read first."""

    def __init__(self, places: RecordPlaces) -> None:
        """Raises `NeedsFullAdmission` when there is more than whole lines."""
        if places.torn:
            raise NeedsFullAdmission
        self._places = places
        self._block: tuple[int, list[StoredRecord]] = (0, [])

    def __len__(self) -> int:
        return len(self._places)

    def run(self, begin: int, end: int) -> tuple[Sequence[bytes], Sequence[bytes]]:
        """As of `FileLines`."""
        return self._places.lines(begin, end)

    def believe(self, run: RecordRun) -> None:
        """This is what was read of the next run."""
        self._places.believe(run.rows.row(0))
        self._block = (0, [])

    def leaves(self, begin: int, end: int) -> bytes:
        """The leaves of the records from one number, from 0, up to another, as they were read."""
        return self._places.leaves(begin, end)

    def stored(self, position: int) -> StoredRecord:
        """As of `FileLines`; raises `NotVerified` where the file has changed."""
        begin, block = self._block
        if not begin < position <= begin + len(block):
            begin = (position - 1) // RUN * RUN
            block = self._places.stored(begin, min(begin + RUN, len(self)))
            self._block = begin, block
        return block[position - 1 - begin]

    def fact(self, position: int) -> Fact:
        """As of `FileLines`."""
        return fact_of(position, self.stored(position))


def fact_of(position: int, stored: StoredRecord) -> Fact:
    """The event of a record that was admitted at this position before."""
    where = place(stored.subject)
    if where is None:
        raise NeedsFullAdmission
    envelope, event, _ = decode(stored, where)
    return _fact(position, stored, envelope, event, sha256(stored.body).hexdigest())


def _rules(lines: FileLines | PlacedLines) -> int:
    """Those by which all records are judged: the first names them. Raises `NeedsFullAdmission`."""
    try:
        rules = rules_of(fact_of(1, lines.stored(1)).event)
    except (IndexError, ValueError, Refusal):
        raise NeedsFullAdmission from None
    if newer_rules(rules):
        raise NeedsFullAdmission
    return rules


def admit_runs(lines: PlacedLines, inputs: AdmissionInputs, take: Callable[[Sequence[Fact]], None]) -> AdmissionState:
    """Hand over all events, a run at a time, of a session that is in order; what an admission remembers of it then.

    Raises `NeedsFullAdmission` where it is not in order, at the latest after the last run: what was handed over is then
    worth nothing. Never more than a run is held, and of the rest a few bytes an event.
    """
    whole, tops = RecordRun(SubtreeRows(b"", 0)), list[SubtreeRows]()
    said, bare = Identities(), set[str]()
    for run in _read(lines, inputs):
        said.update(run.ids)
        if not bare.isdisjoint(run.bare) or len(set(run.bare)) < len(run.bare):
            raise NeedsFullAdmission
        bare.update(run.bare)
        facts = _join(whole, run)
        whole.kept += [fact for fact in facts if type(fact.event) in _LOOKED_AT]
        tops.append(run.rows.top())
        take(facts)
    if said.distinct() < len(whole.seqs) or not said.isdisjoint(bare):
        raise NeedsFullAdmission
    rows = SubtreeRows.joined(tops)

    def root(size: int) -> bytes:
        begin = size - size % RUN
        last = SubtreeRows(lines.leaves(begin, size), SubtreeRows.RUN_HEIGHT) if begin < size else None
        return rows.root(size, last)

    _verify(whole, lines, inputs, root)
    return whole.state(said)


def admit_session(lines: FileLines | PlacedLines, inputs: AdmissionInputs) -> RecordRun:
    """The whole session, if all of it is in order; else `NeedsFullAdmission`."""
    whole, rows = RecordRun(SubtreeRows(b"", 0)), list[SubtreeRows]()
    for run in _read(lines, inputs):
        whole.kept += _join(whole, run)
        whole.ids += run.ids
        whole.bare += run.bare
        rows.append(run.rows)
    whole.rows = SubtreeRows.joined(rows)
    # A guest may say an id that others say later; this quick check is satisfied only when no event does.
    said: set[str] = set()
    for at in range(0, max(len(whole.ids), len(whole.bare)), RUN):
        said.update(whole.ids[at : at + RUN], whole.bare[at : at + RUN])
    if len(said) < len(whole.ids) + len(whole.bare):
        raise NeedsFullAdmission
    _verify(whole, lines, inputs, whole.rows.root)
    return whole


def _read(lines: FileLines | PlacedLines, inputs: AdmissionInputs) -> Iterator[RecordRun]:
    rules = _rules(lines)
    kinds: dict[str, _LaneEvents] = {}
    for begin in range(0, len(lines), RUN):
        run = _run(*lines.run(begin, begin + RUN), inputs, kinds, rules)
        if isinstance(lines, PlacedLines):
            lines.believe(run)
        yield run
    # Of a file by place the first record may have been another one when it was looked at before the runs.
    if _rules(lines) != rules:
        raise NeedsFullAdmission


def _lines(data: bytes) -> Iterator[bytes]:
    """The lines of a text that ends with a line's end; between pieces other threads have their turn."""
    begin = 0
    while begin < len(data):
        end = data.find(b"\n", begin + _PIECE) + 1 or len(data)
        yield from data[begin:end].removesuffix(b"\n").split(b"\n")
        begin = end


class _LaneEvents:
    """All events of one name in one lane."""

    def __init__(self, subject: str, inputs: AdmissionInputs, rules: int) -> None:
        where = place(subject)
        if where is None or where.session != inputs.session or where.lane in (ROOT, DESK):
            raise NeedsFullAdmission
        self.where, self.rules = where, rules
        self.guest = where.lane.startswith(GUEST)
        self.passing = inputs.passing - _LOOKED_AT
        known = SPOKEN.get(where.name)
        passes = known in self.passing and not self.guest and known.may_be_said_in(where.lane)
        self._known = known if passes else None
        self._head = ("", "", "")
        self._read: Callable[[str], Event | None] = _read_nothing

    def passed(self, body: bytes) -> tuple[str, Link] | None:
        """Id and what it follows of an event that need not be kept, as we write it; None when a closer look is due."""
        if self._known is None:
            return None
        try:
            text = body.decode()
            head = HEAD.match(text)
            if head is None or text[-1] != "}":
                return None
            id, who, _, what, laneseq, prev, why = head.groups()
            if (who, what, why) != self._head:
                self._head, self._read = (who, what, why), self._reader(who, what, why)
            data = text[head.end() : -1]
            # Wherever the words stand, be it within a string: a closer look tells. No call is as quick as this.
            if self.rules >= 2 and ("NaN" in data or "Infinity" in data):
                return None
            if self._read(data) is None:
                return None
        except (UnicodeDecodeError, ValidationError):
            return None
        return id, (int(laneseq), prev)

    def _reader(self, who: str, what: str, why: str) -> Callable[[str], Event | None]:
        """What reads the data of events with these head fields; the same ones come again and again."""
        said = head_fields(who, what, why)
        if said is None or (said.session, said.lane, said.known) != (*self.where[:2], self._known):
            return _read_nothing
        return said.read


def _read_nothing(_: str) -> None:
    """What reads the data of an event that is not spelled as we would."""


def _run(
    heads: Sequence[bytes], bodies: Sequence[bytes], inputs: AdmissionInputs, kinds: dict[str, _LaneEvents], rules: int
) -> RecordRun:
    """One run, a column after the other."""
    seqs, subjects, signatures = _framed(heads, bodies)
    for subject in set(subjects) - kinds.keys():
        kinds[subject] = _LaneEvents(subject, inputs, rules)
    digests = [sha256(body).hexdigest() for body in bodies]
    headers = [_UNSIGNED if text == _NONE else headers_digest(_headers(text)) for text in signatures]
    leaves = leaf_hashes(seqs, subjects, digests, headers)
    spoken = [kinds[subject] for subject in subjects]
    run = RecordRun(SubtreeRows(leaves, SubtreeRows.RUN_HEIGHT), array("Q", seqs), [kind.where.lane for kind in spoken])
    links: list[Link] = []
    for at, (kind, body) in enumerate(zip(spoken, bodies, strict=True)):
        passed = kind.passed(body)
        if passed is None:
            stored = StoredRecord(seqs[at], subjects[at], body, _headers(signatures[at]))
            links.append(_closely(run, at, stored, kind, digests[at]))
        else:
            run.ids.append(passed[0])
            links.append(passed[1])
    _chain(run, links, digests)
    _append(run, signatures, inputs.ring)
    return run


def _headers(signature: str) -> dict[str, str]:
    return {} if signature == _NONE else {HEADER: signature}


def _framed(heads: Sequence[bytes], bodies: Sequence[bytes]) -> tuple[list[int], list[str], list[str]]:
    """Sequences, subjects and signatures, of records that are framed as they must be."""
    try:
        words = [head.decode("ascii").split(" ") for head in heads]
        numbers, subjects, lengths, signatures, checks = map(list, zip(*words, strict=True))
        seqs = list(map(int, numbers))
    except ValueError:
        raise NeedsFullAdmission from None
    if list(map(str, seqs)) != numbers or list(map(str, map(len, bodies))) != lengths:
        raise NeedsFullAdmission
    if not 0 < seqs[0] <= seqs[-1] < _MOST or not all(map(lt, seqs, seqs[1:])):
        raise NeedsFullAdmission
    framed = zip(heads, bodies, strict=True)
    if [sha256(head[:-_CHECK] + b"\n" + body).hexdigest() for head, body in framed] != checks:
        raise NeedsFullAdmission
    return seqs, subjects, signatures


def _closely(run: RecordRun, at: int, stored: StoredRecord, kind: _LaneEvents, digest: str) -> Link:
    """What a record follows that is to be kept, or not spelled as we would; raises `NeedsFullAdmission`."""
    try:
        refuse_large(stored.body, kind.guest, kind.rules)
        envelope, event, newer = decode(stored, kind.where)
        refuse_constants(stored.body, kind.rules)
    except Refusal:
        raise NeedsFullAdmission from None
    if newer or (isinstance(event, Unknown) and event.name in SPOKEN and not kind.guest):
        raise NeedsFullAdmission
    run.ids.append(remembered(envelope.lane, envelope.id))
    run.bare += [envelope.id] if kind.guest else []
    if type(event) not in kind.passing:
        run.kept.append(_fact(at + 1, stored, envelope, event, digest))
    return envelope.laneseq, envelope.prev


def _fact(position: int, stored: StoredRecord, envelope: Envelope, event: Event, digest: str) -> Fact:
    return Fact(stored.seq, position, envelope, event, digest, stored.headers.get(HEADER, ""))


def _chain(run: RecordRun, links: Sequence[Link], digests: Sequence[str]) -> None:
    """Every record is the next in its lane and names the one before."""
    places: dict[str, list[int]] = {}
    for at, lane in enumerate(run.lanes):
        places.setdefault(lane, []).append(at)
    for lane, mine in places.items():
        first, prev = links[mine[0]]
        expected = [(first, prev), *((first + n, digests[at]) for n, at in enumerate(mine, 1))]
        if [links[at] for at in mine] != expected[:-1]:
            raise NeedsFullAdmission
        run.follows[lane], run.ends[lane] = (first - 1, prev), (expected[-1][0] - 1, expected[-1][1])


def _append(run: RecordRun, signatures: Sequence[str], ring: Keyring) -> None:
    """Every record belongs to an append that is short enough, and whose key may speak there."""
    seqs, lanes = run.seqs, run.lanes
    signed = [at for at, signature in enumerate(signatures) if signature != _NONE]
    for at in set(range(len(signatures) - 1)).difference(signed):
        if lanes[at + 1] != lanes[at] or seqs[at + 1] != seqs[at] + 1:
            raise NeedsFullAdmission
    borders = [-1, *signed, len(signatures)]
    between = [behind - before - 1 for before, behind in pairwise(borders)]
    run.signatures, run.leading, run.waiting = len(signed), between[0], between[-1]
    if max(between) >= MAX_BATCH or not all(_SIGNATURE.fullmatch(signatures[at]) for at in signed):
        raise NeedsFullAdmission
    spoke: dict[tuple[str, str], list[int]] = {}
    for at in signed:
        spoke.setdefault((lanes[at], signatures[at][:_KEY_ID]), []).append(seqs[at])
    for (lane, named), when in spoke.items():
        _key(ring, lane, named, when[0], when[-1])


def _key(ring: Keyring, lane: str, named: str, first: int, last: int) -> Key:
    """The key of this name, if it may sign in the lane from one sequence to the other; else `NeedsFullAdmission`."""
    key = ring.keys.get(named)
    if key is None or key.role != (DESK if lane == OPERATOR else lane) or not (key.valid(first) and key.valid(last)):
        raise NeedsFullAdmission
    return key


def _join(whole: RecordRun, run: RecordRun) -> list[Fact]:
    """Put one more run behind what is whole so far, but for ids and leaves; its events with their positions there."""
    begin = len(whole.seqs)
    if begin and run.seqs[0] <= whole.seqs[-1]:
        raise NeedsFullAdmission
    if whole.waiting and (run.lanes[0] != whole.lanes[-1] or run.seqs[0] != whole.seqs[-1] + 1):
        raise NeedsFullAdmission
    if whole.waiting + run.leading >= MAX_BATCH:
        raise NeedsFullAdmission
    if any(whole.ends.get(lane, (0, ZERO)) != link for lane, link in run.follows.items()):
        raise NeedsFullAdmission
    facts = [fact._replace(position=begin + fact.position) for fact in run.kept] if begin else run.kept
    whole.seqs += run.seqs
    whole.lanes += run.lanes
    whole.ends |= run.ends
    whole.signatures += run.signatures
    whole.waiting = run.waiting if run.signatures else whole.waiting + run.waiting
    return facts


def _refuse_incomplete(whole: RecordRun) -> None:
    """Raise `NeedsFullAdmission` unless it is a session from its start to the end of an append.

    A seal must be the last record, and only the ledger may have spoken after what it covers.
    """
    if not whole.lanes or whole.lanes[0].startswith(GUEST) or whole.waiting:
        raise NeedsFullAdmission
    if whole.only() and set(whole.lanes) != {whole.only()}:
        raise NeedsFullAdmission
    others = max((whole.seqs[at - 1] for lane, at in whole.lasts().items() if lane != LEDGER), default=0)
    for fact in whole.kept:
        if whole.only() and isinstance(fact.event, QueueClosed) and fact.position != len(whole.seqs):
            raise NeedsFullAdmission
        if isinstance(fact.event, SessionSealed):
            in_time = others <= fact.event.last_seq < fact.seq
            if fact.position != len(whole.seqs) or not in_time:
                raise NeedsFullAdmission


def _verify(
    whole: RecordRun, lines: FileLines | PlacedLines, inputs: AdmissionInputs, root: Callable[[int], bytes]
) -> None:
    """Verify the signatures that end lanes, and all behind the records that the ledger's newest note covers."""
    _refuse_incomplete(whole)
    behind = range(_covered(whole, inputs, root) + 1, len(whole.seqs) + 1)
    for position in {*whole.lasts().values(), *behind}:
        stored, lane = lines.stored(position), whole.lanes[position - 1]
        if header := stored.headers.get(HEADER):
            key = _key(inputs.ring, lane, header[:_KEY_ID], stored.seq, stored.seq)
            if not _holds(verify, key.public, stored.body, header):
                raise NeedsFullAdmission


def _covered(whole: RecordRun, inputs: AdmissionInputs, root: Callable[[int], bytes]) -> int:
    """How many records stand under the newest root that the ledger signed.

    Raises `NeedsFullAdmission` when the root is not theirs.
    """
    noted = (fact for fact in reversed(whole.kept) if isinstance(fact.event, LedgerCheckpointed | SessionSealed))
    fact = next(noted, None)
    if fact is None or not isinstance(fact.event, LedgerCheckpointed | SessionSealed):
        return 0
    keys = [key for key in inputs.ring.keys.values() if key.role == LEDGER and key.valid(fact.seq)]
    if not any(_holds(notes.verify, fact.event.note, key.public) for key in keys):
        raise NeedsFullAdmission
    said = notes.parse(fact.event.note)
    about_these = said.origin == notes.origin(inputs.session) and 0 < said.size < fact.position
    if not about_these or root(said.size) != said.root:
        raise NeedsFullAdmission
    return said.size


def _holds(verify: Callable[..., object], *given: Any) -> bool:
    try:
        verify(*given)
    except NotVerified:
        return False
    return True
