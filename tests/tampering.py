"""Every way to change a bundle that we could think of: random, and consistent as a forger would do it.

For the tests and for `benchmarks/tamper.py`. A mutation knows what was changed, so that a verdict can be asked not
only whether it noticed but whether it said where.
"""

from __future__ import annotations

import base64
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson

from agents.ledger.ledger_state import LedgerState
from bus import notes
from bus.admission import Admission
from bus.blobs import DirectoryBlobs, digest_of
from bus.chain import Draft, compose
from bus.keys import HEADER, Signer, new_signer
from bus.port import StoredRecord
from bus.records import RecordReader, frame, title
from contracts.ids import sha256
from runtime import audit
from runtime.audit import Verdict
from runtime.audit.log_check import make_bundle
from runtime.bundle import bundle_members, verify_bundle
from runtime.bundle.bundle_members import sealed_tree_head
from runtime.bundle.container import BundleMember, Container, write_container
from runtime.log.archive import Archive
from runtime.log.session_log import SessionLog
from tests.runtime.recorded_home import RecordedHome
from tests.runtime.recorded_session import full_session

ALL = ("exports", "checkpoints", "dataset")
Located = Callable[[Verdict], bool]
Parts = list[tuple[str, bytes]]

_ORDER = 2**252 + 27742317777372353535851937790883648493
"""Of the group in which Ed25519 computes: adding it to a signature gives another that careless verifiers accept."""


@dataclass(frozen=True)
class Mutation:
    """A changed bundle, what was done, and how one sees that a verdict says where."""

    kind: str
    data: bytes
    located: Located
    root: str = ""
    anchor: str | None = None


@dataclass
class Target:
    """One honest bundle and everything that a forger may know about it."""

    path: Path
    data: bytes
    members: dict[str, BundleMember]
    parts: Parts
    session: str
    log: list[StoredRecord]
    ring: list[StoredRecord]
    ring_session: str
    signers: dict[str, Signer]
    fingerprint: str
    anchor: str
    others: list[bytes]
    honest: set[bytes] = field(default_factory=set)

    def without(self, name: str) -> bytes:
        """The content of one member."""
        return dict(self.parts)[name]


def target(folder: Path, *wanted: str) -> Target:
    """A bundle of a recorded session, beside another session of the same home and one of a foreign home."""
    recorded, foreign = RecordedHome(folder / "home"), RecordedHome(folder / "foreign")
    session, second = full_session(recorded), full_session(recorded)
    paths = [
        _bundled(recorded, session, folder / "own.zip", *wanted),
        _bundled(recorded, second, folder / "second.zip", *wanted),
        _bundled(foreign, full_session(foreign), folder / "foreign.zip", *wanted),
    ]
    with Container(paths[0]) as file:
        members, parts = dict(file.members), [(name, file.read(name)) for name in file.members]
    log, ring = (
        list(RecordReader(Path(name), dict(parts)[name])) for name in (bundle_members.LOG, bundle_members.KEYRING)
    )
    smaller = (ALL[:n] for n in range(len(ALL)))
    honest = {_bundled(recorded, session, folder / "less.zip", *less).read_bytes() for less in smaller}
    own, *others = (path.read_bytes() for path in paths)
    seal = Archive(recorded.home).read(session).history.state.sealed
    assert seal is not None
    return Target(
        paths[0], own, members, parts, session, log, ring, recorded.ring, recorded.signers, recorded.fingerprint,
        seal.note, others, {own, *honest},
    )  # fmt: skip


def _bundled(recorded: RecordedHome, session: str, path: Path, *wanted: str) -> Path:
    return make_bundle(Archive(recorded.home), session, DirectoryBlobs(recorded.home.blobs), path, wanted=wanted).path


class Tamperer:
    """Draws mutations of one target; the same seed draws the same."""

    def __init__(self, honest: Target, seed: int, scratch: Path) -> None:
        self.target = honest
        self._rng = random.Random(seed)
        self._scratch = scratch
        self._kinds = [
            getattr(self, name) for name in dir(self) if name.startswith(("raw_", "member_", "record_", "whole_"))
        ]

    def __iter__(self) -> Iterator[Mutation]:
        """For ever, every kind equally often; what came out as an honest bundle after all is drawn again."""
        while True:
            for kind in self._kinds:
                made = kind()
                while made is None or (made.data in self.target.honest and not made.root and made.anchor is None):
                    made = kind()
                yield replace(made, kind=kind.__name__)

    # -- bytes of the file, whatever they mean

    def raw_bit_flip(self) -> Mutation:
        place = self._rng.randrange(len(self.target.data))
        return self._raw(place, 1, bytes([self.target.data[place] ^ 1 << self._rng.randrange(8)]))

    def raw_framing_flip(self) -> Mutation:
        """In a header or the directory, which a random place seldom meets."""
        one = self._rng.choice(list(self.target.members.values()))
        last = max(self.target.members.values(), key=lambda member: member.offset)
        spans = [(one.header, one.offset), (last.offset + last.size, len(self.target.data))]
        place = self._rng.randrange(*self._rng.choice(spans))
        return self._raw(place, 1, bytes([self.target.data[place] ^ 1 << self._rng.randrange(8)]))

    def raw_truncation(self) -> Mutation:
        place = self._rng.choice([len(self.target.data) - 1, self._rng.randrange(len(self.target.data))])
        return self._raw(place, len(self.target.data) - place, b"")

    def raw_deletion(self) -> Mutation:
        place, size = self._span()
        return self._raw(place, size, b"")

    def raw_duplication(self) -> Mutation:
        place, size = self._span()
        return self._raw(place + size, 0, self.target.data[place : place + size])

    def raw_insertion(self) -> Mutation:
        place = self._rng.choice([0, len(self.target.data), self._rng.randrange(len(self.target.data))])
        return self._raw(place, 0, self._rng.randbytes(self._rng.randrange(1, 40)))

    def raw_reordering(self) -> Mutation | None:
        place, size = self._span()
        half, piece = size // 2, self.target.data[place : place + size]
        turned = piece[half:] + piece[:half]
        return None if turned == piece else self._raw(place, size, turned)

    def raw_substitution(self) -> Mutation:
        place, size = self._span()
        return self._raw(place, size, self._rng.randbytes(size))

    def _span(self) -> tuple[int, int]:
        size = self._rng.choice([1, 2, 7, 64, 513, 4096])
        return self._rng.randrange(len(self.target.data) - size), size

    def _raw(self, place: int, size: int, content: bytes) -> Mutation | None:
        data = self.target.data[:place] + content + self.target.data[place + size :]
        if data == self.target.data:
            return None
        # What stands there instead may repeat what stood there; the first byte that differs is the place.
        at = next((n for n, pair in enumerate(zip(data, self.target.data, strict=False)) if pair[0] != pair[1]), -1)
        at = min(len(data), len(self.target.data)) if at < 0 else at
        return Mutation("raw", data, lambda verdict: self._near(verdict, at))

    def _near(self, verdict: Verdict, place: int) -> bool:
        """The verdict names a byte inside the member that was touched, header included, or just behind it."""
        told = re.match(r"byte (\d+):", verdict.divergences[0].message)
        ends = [one.offset + one.size for one in self.target.members.values()]
        begin = max((end for end in ends if end <= place), default=0)
        touched = next(
            (one for one in self.target.members.values() if one.header <= place < one.offset + one.size), None
        )
        after = touched.offset + touched.size if touched else len(self.target.data)
        begin = min(begin, touched.header) if touched else begin
        # A name that was changed reads well where it stands; it is the directory that knows better.
        renamed = "the directory's entry" in verdict.divergences[0].message and touched and place < touched.offset
        return bool(renamed) or (told is not None and begin <= int(told[1]) <= after)

    # -- members, in a container that is written anew and so consistent in itself

    def member_bit_flip(self) -> Mutation | None:
        name = self._any_member()
        content = bytearray(self.target.without(name))
        content[self._rng.randrange(len(content))] ^= 1 << self._rng.randrange(8)
        return self._with_member(name, bytes(content))

    def member_truncation(self) -> Mutation:
        name = self._any_member()
        content = self.target.without(name)
        return self._with_member(name, content[: self._rng.randrange(len(content))])

    def member_insertion(self) -> Mutation:
        name = self._any_member()
        content, more = self.target.without(name), self._rng.choice([b"\n", b" ", self._rng.randbytes(9)])
        place = self._rng.choice([0, len(content), self._rng.randrange(len(content))])
        return self._with_member(name, content[:place] + more + content[place:])

    def member_deletion(self) -> Mutation:
        name = self._any_member()
        return self._container([one for one in self.target.parts if one[0] != name], self._names(name))

    def member_duplication(self) -> Mutation:
        name = self._any_member()
        other = self._rng.choice([name, f"{name}.copy", f"blobs/{'0' * 64}"])
        place = self._rng.randrange(len(self.target.parts) + 1)
        parts = [*self.target.parts[:place], (other, self.target.without(name)), *self.target.parts[place:]]
        return self._container(parts, self._names(other, "two members"))

    def member_reordering(self) -> Mutation | None:
        parts = list(self.target.parts)
        a, b = self._rng.sample(range(len(parts)), 2)
        parts[a], parts[b] = parts[b], parts[a]
        return self._container(parts, self._names("order"))

    def member_substitution(self) -> Mutation | None:
        """By another member's content, or by that of the same name in somebody else's honest bundle."""
        name = self._any_member()
        other = self.target.without(self._any_member())
        if self._rng.random() < 0.6:
            self._scratch.write_bytes(self._rng.choice(self.target.others))
            with Container(self._scratch) as file:
                other = file.read(name) if name in file.members else other
        return None if other == self.target.without(name) else self._with_member(name, other)

    def member_renaming(self) -> Mutation:
        name = self._any_member()
        other = name[:-1] + chr(ord(name[-1]) ^ 1)
        parts = [(other if one == name else one, content) for one, content in self.target.parts]
        return self._container(parts, self._names(name, other))

    def member_marker(self) -> Mutation | None:
        """Sections said to be there that are not, or the other way round."""
        sections = [one for one in bundle_members.SECTIONS if self._rng.random() < 0.5]
        return self._with_member(
            bundle_members.MARKER, bundle_members.marker(self.target.session, sections), "section", "lacks", "names"
        )

    def _any_member(self) -> str:
        return self._rng.choice([name for name, content in self.target.parts if content])

    def _with_member(self, name: str, content: bytes, *more: str) -> Mutation:
        parts = [(one, content if one == name else old) for one, old in self.target.parts]
        about = ("key ",) if name == bundle_members.KEYRING else ()
        return self._container(parts, self._names(name, *about, *more))

    def _names(self, *words: str) -> Located:
        """The verdict speaks of one of these, or of a place in the log."""

        def located(verdict: Verdict) -> bool:
            told = [f"{one.what} {one.message}" for one in verdict.divergences]
            return any(word.removeprefix("dataset/") in text for text in told for word in words) or (
                bundle_members.LOG in words and verdict.divergences[0].position > 0
            )

        return located

    # -- records, in files whose framing is right and containers that are consistent

    def record_bit_flip(self) -> Mutation:
        return self._in_log(self._flipped)

    def record_key_bit_flip(self) -> Mutation:
        return self._in_ring(self._flipped)

    def record_deletion(self) -> Mutation:
        return self._in_log(lambda records, k: records[:k] + records[k + 1 :])

    def record_key_deletion(self) -> Mutation:
        return self._in_ring(lambda records, k: records[:k] + records[k + 1 :])

    def record_duplication(self) -> Mutation:
        return self._in_log(self._duplicated)

    def record_key_duplication(self) -> Mutation:
        return self._in_ring(self._duplicated)

    def record_reordering(self) -> Mutation | None:
        return self._in_log(self._swapped)

    def record_key_reordering(self) -> Mutation | None:
        return self._in_ring(self._swapped)

    def record_truncation(self) -> Mutation:
        """The end is cut off between two records."""
        return self._in_log(lambda records, k: records[: max(1, k)])

    def record_shifted(self) -> Mutation:
        return self._in_log(self._renumbered)

    def record_key_shifted(self) -> Mutation:
        """When a key counts is when its event stands: its place is as good as its content."""
        return self._in_ring(self._renumbered)

    def record_signature(self) -> Mutation | None:
        return self._in_log(self._signed_otherwise)

    def record_key_signature(self) -> Mutation | None:
        return self._in_ring(self._signed_otherwise)

    def record_subject(self) -> Mutation:
        def change(records: list[StoredRecord], k: int) -> list[StoredRecord]:
            other = self._rng.choice([self.target.log[0].subject, records[k].subject + "x", "swarm.ev.00.x.y.z_z"])
            return self._put(records, k, records[k]._replace(subject=other))

        return self._in_log(change)

    def record_forged(self) -> Mutation:
        """An event that was never said, chained in its place, without a signature or with a stranger's."""

        def change(records: list[StoredRecord], k: int) -> list[StoredRecord]:
            body = orjson.loads(records[k].body)
            body |= {
                "id": f"forged-{self._rng.random()}",
                "laneseq": body["laneseq"] + 1,
                "prev": sha256(records[k].body),
            }
            said = orjson.dumps(body)
            headers = self._rng.choice([{}, {HEADER: new_signer("x").sign(said)}])
            later = [one._replace(seq=one.seq + 1) for one in records[k + 1 :]]
            return [*records[: k + 1], StoredRecord(records[k].seq + 1, records[k].subject, said, headers), *later]

        return self._in_log(change)

    def record_rewritten(self) -> Mutation:
        """One event says something else and the rest of its lane is chained to it anew, its signatures as they were."""
        return self._in_log(lambda records, k: self._rechained(records, k, None))

    def record_rewritten_by_a_stranger(self) -> Mutation:
        """The same, and signed with a key that nobody admitted."""
        stranger = new_signer("stranger")
        return self._in_log(lambda records, k: self._rechained(records, k, lambda _lane: stranger))

    def record_rewritten_with_a_stolen_key(self) -> Mutation | None:
        """The same, signed with the right key of a role other than the ledger: every chain and signature holds."""
        stolen = [
            k
            for k, one in enumerate(self.target.log)
            if ".ledger." not in one.subject and ".operator." not in one.subject
        ]
        k = self._rng.choice(stolen)
        return self._records(bundle_members.LOG, self._rechained(self.target.log, k, self._key_of), k)

    def record_keys_rewritten_by_a_stranger(self) -> Mutation:
        stranger = new_signer("stranger")
        return self._in_ring(lambda records, k: self._rechained(records, k, lambda _lane: stranger))

    # -- the whole, with more keys than anybody should have

    def whole_under_fresh_keys(self) -> Mutation:
        """An honest bundle of another deployment: only a pinned root tells."""
        return Mutation("", self.target.others[1], self._names("keyring", "key "), root=self.target.fingerprint)

    def whole_swapped(self) -> Mutation:
        """Another session of the same deployment: only an anchor tells."""
        return Mutation("", self.target.others[0], self._names("anchor"), anchor=self.target.anchor)

    def whole_sealed_again(self) -> Mutation:
        """Somebody with every key cut the session short and sealed it there: only an anchor tells."""
        return Mutation("", self.resealed(), self._names("anchor"), anchor=self.target.anchor)

    def resealed(self) -> bytes:
        """A bundle that is consistent in every way and says something else than what happened."""
        # Cut behind the last event before the seal, nothing would be missing and the same note would be signed.
        ends = [n for n, one in enumerate(self.target.log[:-2]) if n > 4 and one.headers]
        records = self.target.log[: self._rng.choice(ends) + 1]
        rings = Admission()
        ring_book, book, history = LedgerState(), LedgerState(), SessionLog(self.target.session)
        for stored in self.target.ring:
            for fact in rings.admit(stored):
                ring_book = ring_book.advance(fact)
        admission = Admission(rings.keyring)
        for stored in records:
            history.add(admission.admit(stored))
        for fact in history.facts:
            book = book.advance(fact)
        furniture = {name: digest_of(self.target.without(name)) for name in bundle_members.FIXED_MEMBERS}
        said = book.sealed(history.state, ring_book, furniture)
        ledger = self.target.signers["ledger"]
        said = said.model_copy(update={"note": notes.sign(sealed_tree_head(self.target.session, said), ledger)})
        (record,) = compose(
            [Draft(said, "sealed-again")],
            session=self.target.session,
            lane="ledger",
            head=admission.head(self.target.session, "ledger"),
            signer=ledger,
            source="/forger",
            time="2027-01-01T00:00:00.000000Z",
        )
        seq = max(records[-1].seq, self.target.ring[-1].seq) + 1
        log = [*records, StoredRecord(seq, record.subject, record.body, record.headers)]
        sections = [one for one in bundle_members.possible_sections(history.state) if one in ("manifest", "sources")]
        made = dict(self.target.parts) | {
            bundle_members.MARKER: bundle_members.marker(self.target.session, sections),
            bundle_members.LOG: title(self.target.session) + b"".join(map(frame, log)),
        }
        names = bundle_members.member_names(history.state, sections, made.get(bundle_members.MANIFEST_FILE))
        return self._container([(name, made[name]) for name in names], self._names()).data

    # -- how records are changed

    def _in_log(self, change: Callable[[list[StoredRecord], int], list[StoredRecord]]) -> Mutation | None:
        k = self._rng.randrange(len(self.target.log))
        return self._records(bundle_members.LOG, change(list(self.target.log), k), k)

    def _in_ring(self, change: Callable[[list[StoredRecord], int], list[StoredRecord]]) -> Mutation | None:
        k = self._rng.randrange(len(self.target.ring))
        return self._records(bundle_members.KEYRING, change(list(self.target.ring), k), k)

    def _records(self, member: str, records: Sequence[StoredRecord], k: int) -> Mutation | None:
        before = self.target.log if member == bundle_members.LOG else self.target.ring
        if list(records) == before:
            return None
        session = self.target.session if member == bundle_members.LOG else self.target.ring_session
        content = title(session) + b"".join(map(frame, records))
        # A swap or a signature may touch another record than the one drawn.
        touched = next((n for n, pair in enumerate(zip(before, records, strict=False)) if pair[0] != pair[1]), k)
        located = self._at(touched) if member == bundle_members.LOG else self._names("keyring", "key ")
        parts = [(one, content if one == member else old) for one, old in self.target.parts]
        return self._container(parts, located)

    def _at(self, k: int) -> Located:
        """No earlier than the append of record k, no later than the next root that the ledger signed."""
        begin = next(n for n in range(k, -1, -1) if n == 0 or self.target.log[n - 1].headers)
        notes = [n for n, one in enumerate(self.target.log) if ".ledger." in one.subject and n > k]
        end = notes[0] if notes else len(self.target.log)
        return lambda verdict: begin + 1 <= verdict.divergences[0].position <= end + 2

    def _put(self, records: list[StoredRecord], k: int, one: StoredRecord) -> list[StoredRecord]:
        return [*records[:k], one, *records[k + 1 :]]

    def _flipped(self, records: list[StoredRecord], k: int) -> list[StoredRecord]:
        body = bytearray(records[k].body)
        body[self._rng.randrange(len(body))] ^= 1 << self._rng.randrange(8)
        return self._put(records, k, records[k]._replace(body=bytes(body)))

    def _duplicated(self, records: list[StoredRecord], k: int) -> list[StoredRecord]:
        later = [one._replace(seq=one.seq + 1) for one in records[k + 1 :]]
        return [*records[: k + 1], records[k]._replace(seq=records[k].seq + 1), *later]

    def _swapped(self, records: list[StoredRecord], k: int) -> list[StoredRecord]:
        other = self._rng.randrange(len(records))
        a, b = records[k], records[other]
        return self._put(self._put(records, k, b._replace(seq=a.seq)), other, a._replace(seq=b.seq))

    def _renumbered(self, records: list[StoredRecord], k: int) -> list[StoredRecord]:
        by = self._rng.choice([1, 2, 1000])
        if self._rng.random() < 0.5 or k == len(records) - 1:
            return [*records[:k], *(one._replace(seq=one.seq + by) for one in records[k:])]
        room = records[k + 1].seq - records[k].seq
        return self._put(records, k, records[k]._replace(seq=records[k].seq + min(by, room - 1)))

    def _signed_otherwise(self, records: list[StoredRecord], k: int) -> list[StoredRecord]:
        signed = [n for n in range(len(records)) if records[n].headers]
        k = min(signed, key=lambda n: abs(n - k))
        own, other = (records[n].headers[HEADER] for n in (k, self._rng.choice(signed)))
        named, raw = own.split(":")[0], base64.urlsafe_b64decode(own.split(":")[1] + "==")
        larger = int.from_bytes(raw[32:], "little") + _ORDER
        headers = self._rng.choice([
            {},
            {HEADER: other},
            {HEADER: f"{other.split(':')[0]}:{own.split(':')[1]}"},
            {HEADER: f"{named}:{_text(bytes(32) + raw[32:])}"},
            {HEADER: f"{named}:{_text(raw[:32] + larger.to_bytes(32, 'little'))}"},
            {HEADER: f"{named}:{own.split(':')[1][:-1]}{'BCD'[self._rng.randrange(3)]}"},
            {HEADER: new_signer("stranger").sign(records[k].body)},
        ])  # fmt: skip
        return self._put(records, k, records[k]._replace(headers=headers))

    def _rechained(
        self, records: Sequence[StoredRecord], k: int, signer: Callable[[str], Signer] | None
    ) -> list[StoredRecord]:
        made, prev, lane = list(records[:k]), "", orjson.loads(records[k].body)["lane"]
        for n, one in enumerate(records[k:], k):
            body = orjson.loads(one.body)
            if body["lane"] != lane:
                made.append(one)
                continue
            body = body | ({"time": "2027-01-01T00:00:00.000000Z"} if n == k else {"prev": prev})
            said = orjson.dumps(body)
            headers = {HEADER: signer(lane).sign(said)} if signer and one.headers else one.headers
            made.append(one._replace(body=said, headers=headers))
            prev = sha256(said)
        return made

    def _key_of(self, lane: str) -> Signer:
        return self.target.signers["desk" if lane == "operator" else lane]

    def _container(self, parts: Parts, located: Located) -> Mutation:
        write_container(self._scratch, parts)
        return Mutation("", self._scratch.read_bytes(), located)


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@dataclass
class Tally:
    """What came of it."""

    mutations: int = 0
    missed: list[str] = field(default_factory=list)
    unlocated: list[str] = field(default_factory=list)
    broke: list[str] = field(default_factory=list)


def judge(mutation: Mutation, scratch: Path, tally: Tally) -> None:
    """Both verifiers on one mutation."""
    scratch.write_bytes(mutation.data)
    tally.mutations += 1
    try:
        anchors = None if mutation.anchor is None else [mutation.anchor]
        found = audit.check_bundle(scratch, root=mutation.root, anchors=anchors)
        other = verify_bundle.findings(scratch, mutation.root, mutation.anchor)
    except Exception as error:
        tally.broke.append(f"{mutation.kind}: {error!r}")
        return
    if found.verdict == "pass" or other["verdict"] == "pass":
        tally.missed.append(f"{mutation.kind}: {found.verdict}, {other['verdict']}: {other['divergence']}")
    elif not mutation.located(found):
        tally.unlocated.append(f"{mutation.kind}: {found.divergences[:2]}")


__all__ = ["ALL", "Mutation", "Tally", "Tamperer", "Target", "judge", "target"]
