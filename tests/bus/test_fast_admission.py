"""What is admitted at once is what is admitted record by record; whatever is out of the ordinary is left to that."""

from __future__ import annotations

import random
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from bus import fast_admission, notes
from bus.admission import Admission, AdmissionState
from bus.chain import MAX_BATCH, START, Draft, Head, compose, extended
from bus.keys import HEADER, Signer, new_signer
from bus.port import StoredRecord
from bus.records import RecordPlaces, RecordReader, frame, title
from bus.tree import Tree, leaf_of
from contracts.envelope import Fact
from contracts.errors import NotVerified, SwarmError
from contracts.event import Event
from contracts.ids import sha256
from contracts.keyring import KeyRotated
from contracts.ledger import LedgerCheckpointed
from contracts.queue import QueueClosed, QueueLimited, QueueOpened, queue_session
from contracts.trainer import ControlEvaluated, WindowRecorded
from runtime.log.archive import Archive, StoredSession, admit_file
from tests.runtime.recorded_home import DIGEST, TIME, RecordedHome, claimed, evaluated, exported, window
from tests.runtime.recorded_session import FootprintEstimated, full_session

PASSING = frozenset({WindowRecorded, ControlEvaluated})
Records = list[StoredRecord]


class Told:
    """A session's records, and both ways to admit them."""

    def __init__(self, home: RecordedHome, session: str) -> None:
        self.session = session
        self.signers: Mapping[str, Signer] = home.signers
        self.data = home.home.log(session).read_bytes()
        self.records: Records = list(RecordReader(Path("log"), self.data))
        ring = Archive(home.home).ring("00")
        assert ring is not None
        self.ring = ring.admission

    def written(self, records: Records) -> bytes:
        return title(self.session) + b"".join(map(frame, records))

    def one_by_one(self, data: bytes) -> StoredSession | None:
        """The session as the long way has it, if it finds nothing to say about any record."""
        try:
            kept = admit_file(RecordReader(Path("log"), data), self.session, Admission(self.ring.keyring))
        except (NotVerified, SwarmError):
            return None
        return None if kept.voids or kept.torn_bytes else kept

    def at_once(self, data: bytes, passing: frozenset[type[Event]] = frozenset()) -> fast_admission.RecordRun | None:
        try:
            lines = fast_admission.FileLines(data, self.session)
            return fast_admission.admit_session(
                lines, fast_admission.AdmissionInputs(self.session, self.ring.keyring("00"), passing)
            )
        except fast_admission.NeedsFullAdmission:
            return None

    def followed(self, data: bytes) -> tuple[list[Fact], AdmissionState] | None:
        """The same in a file of which a run at a time is read."""
        facts: list[Fact] = []
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            try:
                lines = fast_admission.PlacedLines(RecordPlaces(Path(file.name), self.session))
                return facts, fast_admission.admit_runs(
                    lines, fast_admission.AdmissionInputs(self.session, self.ring.keyring("00")), facts.extend
                )
            except (fast_admission.NeedsFullAdmission, NotVerified):
                return None

    def compared(self, data: bytes) -> bool:
        """Whether it was admitted at once; then as the long way does it, whatever need not be kept."""
        whole, most, by_run = self.at_once(data), self.at_once(data, PASSING), self.followed(data)
        assert (whole is None) == (most is None) == (by_run is None)
        if by_run is not None and whole is not None:
            assert str(by_run[0]) == str(whole.kept)
            assert by_run[1] == whole.state()
        if whole is None or most is None:
            return False
        kept = self.one_by_one(data)
        assert kept is not None, "what is admitted at once is in order"
        facts, known = kept.history.facts, kept.admission
        # What is no number is not equal to itself.
        assert str(whole.kept) == str(facts)
        assert str(most.kept) == str([fact for fact in facts if type(fact.event) not in PASSING])
        resumed = Admission(self.ring.keyring)
        resumed.resume(self.session, whole.state())
        assert resumed.lanes(self.session) == known.lanes(self.session)
        assert resumed.position(self.session) == known.position(self.session)
        assert resumed.sealed(self.session) == known.sealed(self.session)
        assert whole.state() == most.state()
        assert whole.signatures == sum(fact.closes for fact in facts)
        return True

    def retold(self, records: Records, at: int, change: Callable[[bytes], bytes]) -> Records:
        """As if this had been said at a place, chained and signed by whoever says it: a lane says the rest anew."""
        lane, before, again = orjson.loads(records[at].body)["lane"], sha256(records[at].body), list(records)
        again[at] = self._signed(again[at], change(again[at].body))
        after = sha256(again[at].body)
        for n in range(at + 1, len(records)):
            if orjson.loads(records[n].body)["lane"] == lane:
                body = records[n].body.replace(before.encode(), after.encode(), 1)
                before, again[n] = sha256(records[n].body), self._signed(records[n], body)
                after = sha256(body)
        return again

    def _signed(self, stored: StoredRecord, body: bytes) -> StoredRecord:
        role = stored.subject.split(".")[4]
        signer = self.signers["desk" if role == "operator" else "guest_ant" if role == "guest" else role]
        return stored._replace(body=body, headers={HEADER: signer.sign(body)} if stored.headers else {})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> RecordedHome:
    return RecordedHome(tmp_path_factory.mktemp("bulk") / "home")


@pytest.fixture(scope="module")
def sealed(home: RecordedHome) -> Told:
    return Told(home, full_session(home))


@pytest.fixture(scope="module")
def running(home: RecordedHome) -> Told:
    """Nothing of it is under a note: what is said in it must stand by itself."""
    session = home.requested()
    home.say(session, "trainer", claimed())
    for n in range(3):
        home.say(session, "trainer", window(50 * n, 50 * n + 50), evaluated(50 * n + 50, 0.5))
    home.say(session, "guest_ant", FootprintEstimated(grams=12.5))
    home.say(session, "trainer", window(150, 200))
    return Told(home, session)


def test_honest_sessions_are_admitted_at_once(home: RecordedHome, sealed: Told, running: Told) -> None:
    for told in (sealed, running, Told(home, home.trained()), Told(home, home.requested("search"))):
        assert told.compared(told.data)


@pytest.mark.parametrize("piece", [1, 7, 500, 4096])
def test_a_file_has_the_same_lines_in_whatever_pieces_it_is_looked_at(
    sealed: Told, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    whole = fast_admission.FileLines(sealed.data, sealed.session)
    monkeypatch.setattr(fast_admission, "_PIECE", piece)
    again = fast_admission.FileLines(sealed.data, sealed.session)
    assert (again.heads, again.bodies) == (whole.heads, whole.bodies)
    assert [(stored.seq, stored.body) for stored in map(again.stored, range(1, len(again) + 1))] == [
        (stored.seq, stored.body) for stored in sealed.records
    ]
    for other in (sealed.data[:-1], sealed.data + b"\n", sealed.data[1:], b"", b"\n", title(sealed.session)[:-1]):
        with pytest.raises(fast_admission.NeedsFullAdmission):
            fast_admission.FileLines(other, sealed.session)


class Watched(bytes):
    """The bytes of a file, and how long the longest part is that was looked at in one step."""

    longest = 0

    def __getitem__(self, key: Any) -> Any:
        part = bytes(self).__getitem__(key)
        self.longest = max(self.longest, len(part) if isinstance(part, bytes) else 0)
        return part

    def split(self, *_: Any) -> Any:
        raise AssertionError("a whole file is split in one step")


def test_no_step_of_reading_looks_at_more_than_a_piece_and_a_line(
    sealed: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fast_admission._PIECE <= 1 << 20
    monkeypatch.setattr(fast_admission, "_PIECE", 1000)
    data = Watched(sealed.data)
    lines = fast_admission.FileLines(data, sealed.session)
    assert 0 < data.longest <= 1001 + max(map(len, (*lines.heads, *lines.bodies)))
    assert len(sealed.data) > 2 * data.longest


@pytest.mark.parametrize("rules", [1, 2])
@pytest.mark.parametrize("said", [b"NaN", b"-Infinity", b'Infinity,"gradient_norm":"0x1p+0"', b'"nan"', b"1e400"])
def test_a_constant_in_data_that_need_not_be_kept_is_seen_too(home: RecordedHome, rules: int, said: bytes) -> None:
    session, signer = home.requested(rules=rules), home.signers["trainer"]
    drafts, head = [Draft(window(0, 50), "one")], home.admission.head(session, "trainer")
    (record,) = compose(drafts, session=session, lane="trainer", head=head, signer=signer, source="/s", time="t")
    body = re.sub(rb'"gradient_norm":"[^"]*"', b'"gradient_norm":' + said, record.body, count=1)
    assert body != record.body
    told = Told(home, session)
    last = StoredRecord(told.records[-1].seq + 1, record.subject, body, {HEADER: signer.sign(body)})
    is_json = said in (b'"nan"', b"1e400")
    assert (told.at_once(told.written([*told.records, last]), PASSING) is not None) == (is_json or rules == 1)


def test_every_beginning_that_ends_with_an_append_is_admitted_at_once(sealed: Told) -> None:
    for size in range(1, len(sealed.records) + 1):
        whole = sealed.records[size - 1].headers != {}
        assert sealed.compared(sealed.written(sealed.records[:size])) == whole


def test_a_keyring_is_none_of_its_business(home: RecordedHome) -> None:
    assert not Told(home, home.ring).compared(home.home.log(home.ring).read_bytes())


def test_in_a_queue_no_lane_but_the_operators_is_admitted_at_once(home: RecordedHome) -> None:
    queue = queue_session(home.fingerprint)
    home.say(queue, "operator", QueueOpened(keyring="0" * 64), QueueLimited(limit=2))
    told, trainer = Told(home, queue), home.signers["trainer"]
    assert told.compared(told.data)
    about: Any = dict(session=queue, lane="trainer", source="/swarm/test", time=TIME)
    (other,) = compose([Draft(claimed(), "of-the-trainer")], head=START, signer=trainer, **about)
    seq = told.records[-1].seq + 1
    stranger = StoredRecord(seq, other.subject, other.body, other.headers)
    assert told.at_once(told.written([*told.records, stranger])) is None
    assert not told.compared(told.written([*told.records, stranger]))
    home.say(queue, "operator", QueueClosed())
    closed = Told(home, queue)
    assert closed.compared(closed.data)
    last = closed.records[-1]
    head = Head(3, sha256(last.body), last.seq, last.seq)
    about |= dict(lane="operator", head=head, signer=home.signers["desk"])
    (late,) = compose([Draft(QueueLimited(limit=3), "late")], **about)
    behind = StoredRecord(last.seq + 1, late.subject, late.body, late.headers)
    assert not closed.compared(closed.written([*closed.records, behind]))


def test_records_of_several_runs_are_joined(home: RecordedHome) -> None:
    session = home.requested()
    home.say(session, "trainer", claimed())
    for n in range(3):
        home.say(session, "trainer", *(window(800 * n + at, 800 * n + at + 1) for at in range(800)))
        home.say(session, "ledger", home.noted(session))
    home.say(session, "trainer", window(9000, 9001))
    told = Told(home, session)
    assert told.compared(told.data)
    for at in (1023, 1024, 2047):
        assert told.at_once(told.written([*told.records[:at], *told.records[at + 1 :]]), PASSING) is None
        again = told.retold(told.records, at, _with(b'"segment"', b'"sediment"'))
        assert told.at_once(told.written(again), PASSING) is None


def test_a_bit_that_flips_anywhere_in_the_file_is_not_overlooked(sealed: Told) -> None:
    rng = random.Random(1)
    for _ in range(250):
        changed = bytearray(sealed.data)
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        assert not sealed.compared(bytes(changed))


def flipped(rng: random.Random, records: Records, at: int) -> Records:
    """One bit of a record, in a file that is framed anew."""
    one = records[at]
    body, header = bytearray(one.body), bytearray(one.headers.get(HEADER, "").encode())
    target = rng.choice([body, header or body])
    target[rng.randrange(len(target))] ^= 1 << rng.randrange(7)
    headers = {HEADER: header.decode("ascii", "replace")} if header else {}
    return [*records[:at], one._replace(body=bytes(body), headers=headers), *records[at + 1 :]]


def swapped(rng: random.Random, records: Records, at: int) -> Records:
    other = rng.randrange(len(records))
    again = list(records)
    again[at], again[other] = records[other]._replace(seq=records[at].seq), records[at]._replace(seq=records[other].seq)
    return again


def doubled(rng: random.Random, records: Records, at: int) -> Records:
    later = [one._replace(seq=one.seq + 1) for one in records[at:]]
    return [*records[: at + 1], *later]


def dropped(rng: random.Random, records: Records, at: int) -> Records:
    return [*records[:at], *records[at + rng.choice([1, 2, len(records)]) :]]


def signature_moved(rng: random.Random, records: Records, at: int) -> Records:
    """A signature stands elsewhere, nowhere, or names another key."""
    mine = records[at].headers.get(HEADER, "")
    others = [one.headers[HEADER] for one in records if one.headers]
    other = rng.choice(["", rng.choice(others), f"{rng.choice(others)[:16]}{mine[16:]}" if mine else ""])
    return [*records[:at], records[at]._replace(headers={HEADER: other} if other else {}), *records[at + 1 :]]


def renumbered(rng: random.Random, records: Records, at: int) -> Records:
    return [*records[:at], *(one._replace(seq=one.seq + rng.choice([-1, 1, 7])) for one in records[at:])]


@pytest.mark.parametrize("change", [flipped, swapped, doubled, dropped, signature_moved, renumbered])
@pytest.mark.parametrize("told", ["sealed", "running"])
def test_records_that_were_changed_are_admitted_at_once_only_as_one_by_one(
    change: Callable[[random.Random, Records, int], Records], told: str, request: pytest.FixtureRequest
) -> None:
    which: Told = request.getfixturevalue(told)
    for n in range(80):
        rng = random.Random(n)
        records = change(rng, which.records, rng.randrange(len(which.records)))
        try:
            data = which.written(records)
        except SwarmError:
            continue
        which.compared(data)


def _with(before: bytes, after: bytes) -> Callable[[bytes], bytes]:
    return lambda body: body.replace(before, after, 1)


def _loaded(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    def changed(body: bytes) -> bytes:
        said = orjson.loads(body)
        change(said)
        return orjson.dumps(said)

    return changed


REFUSED = {
    "a field that there is not": _with(b'"segment":1', b'"segment":1,"more":2'),
    "a field that is missing": _with(b'"segment":1,', b""),
    "a number out of bounds": _with(b'"laneseq":2', b'"laneseq":0'),
    "a text for a number": _with(b'"segment":1', b'"segment":"1"'),
    "a digest that is none": _loaded(lambda said: said["data"].update(weights_digest="0" * 63)),
    "a float that is none": _with(b'"gradient_norm":"0x', b'"gradient_norm":"1x'),
    "bytes that are no text": _with(b'"index_digest":"i"', b'"index_digest":"\xff"'),
    "a packed value that is none": _with(b'"losses":"', b'"losses":"!'),
    "another session": _loaded(lambda said: said.update(subject="00-" + "a" * 26)),
    "another lane": _loaded(lambda said: said.update(lane="validator")),
    "another type": _loaded(lambda said: said.update(type="io.stigmergy.trainer.training.claimed")),
    "an older version that there is not": _with(b"window.recorded/2", b"window.recorded/0"),
    "a newer version": _with(b"window.recorded/2", b"window.recorded/3"),
    "no id": _loaded(lambda said: said.update(id="")),
    "a place that is taken": _loaded(lambda said: said.update(laneseq=said["laneseq"] - 1)),
}
TAKEN = {
    "nothing": bytes,
    "blanks": lambda body: body.replace(b'":', b'": '),
    "an escaped letter": _with(b'"index_digest":"i"', b'"index_digest":"\\u0069"'),
    "a letter that is not ASCII": _with(b'"index_digest":"i"', '"index_digest":"é"'.encode()),
    "another order": _loaded(lambda said: said.update(data=dict(sorted(said["data"].items())))),
    "another value": _with(b'"first":', b'"first":1'),
    "no number": _loaded(lambda said: said["data"].update(gradient_norm="nan")),
}


def windows(told: Told) -> list[int]:
    found = [at for at, one in enumerate(told.records) if one.subject.endswith("window_recorded")]
    assert len(found) > 1
    return found


@pytest.mark.parametrize("what", REFUSED)
def test_what_no_schema_or_place_allows_is_not_admitted_however_well_it_is_signed(running: Told, what: str) -> None:
    told = {at: running.retold(running.records, at, REFUSED[what]) for at in windows(running)}
    changed = [records for at, records in told.items() if records[at].body != running.records[at].body]
    assert changed
    for records in changed:
        assert not running.compared(running.written(records))


@pytest.mark.parametrize("what", TAKEN)
def test_what_is_spelled_otherwise_and_well_signed_is_admitted_all_the_same(running: Told, what: str) -> None:
    for at in windows(running):
        assert running.compared(running.written(running.retold(running.records, at, TAKEN[what])))


def test_a_note_covers_only_what_it_is_about(sealed: Told) -> None:
    """Who changes what is under a note, and signs it well, would have to sign the note as well."""
    for at in windows(sealed):
        assert not sealed.compared(sealed.written(sealed.retold(sealed.records, at, _with(b'"first":', b'"first":1'))))


def test_a_signature_under_no_note_is_verified(running: Told) -> None:
    signed = [(at, one) for at, one in enumerate(running.records) if one.headers]
    assert len(signed) > 1
    for at, one in signed:
        header = one.headers[HEADER]
        forged = header[:20] + ("A" if header[20] != "A" else "B") + header[21:]
        records = [*running.records[:at], one._replace(headers={HEADER: forged}), *running.records[at + 1 :]]
        assert not running.compared(running.written(records))


def under_a_note(told: Told, records: Records) -> bytes:
    """The file with a note over these records, whatever they are: what a ledger could sign that lies."""
    tree = Tree()
    for one in records:
        tree.append(leaf_of(one))
    last, ledger = records[-1].seq, told.signers["ledger"]
    checkpoint = notes.SignedTreeHead(notes.origin(told.session), tree.size, tree.root(), (f"last-seq {last}",))
    note = notes.sign(checkpoint, ledger)
    said = LedgerCheckpointed(size=tree.size, root=tree.root().hex(), last_seq=last, note=note)
    of = dict(session=told.session, lane="ledger", head=Head(), source="/swarm/test", time=TIME)
    (made,) = compose([Draft(said, "noted")], signer=ledger, **of)
    return told.written([*records, StoredRecord(last + 1, made.subject, made.body, made.headers)])


class Forger(Signer):
    """Writes another's key under signatures of its own."""

    def __init__(self, robbed: Signer) -> None:
        made = new_signer(robbed.role)
        super().__init__(robbed.role, made._secret)
        self.key_id = robbed.key_id


def test_a_ledger_that_lies_puts_no_word_into_the_lane_of_another(running: Told) -> None:
    assert running.compared(under_a_note(running, running.records))
    honest, running.signers = running.signers, {**running.signers, "trainer": Forger(running.signers["trainer"])}
    forged = [running.retold(running.records, at, _with(b'"first":', b'"first":1')) for at in windows(running)]
    running.signers = honest
    for records in forged:
        assert not running.compared(under_a_note(running, records))


def test_a_note_stands_for_the_signatures_under_it_except_the_last_of_each_lane(running: Told) -> None:
    signed = [at for at, one in enumerate(running.records) if ".trainer." in one.subject and one.headers]
    assert len(signed) > 1
    for at in signed:
        one = running.records[at]
        header = Forger(running.signers["trainer"]).sign(one.body)
        records = [*running.records[:at], one._replace(headers={HEADER: header}), *running.records[at + 1 :]]
        assert (running.at_once(under_a_note(running, records)) is None) == (at == signed[-1])
        assert running.at_once(running.written(records)) is None


def test_keys_count_until_they_are_replaced(home: RecordedHome, running: Told) -> None:
    told = Told(home, home.requested())
    later = home.requested()
    old, new = home.signers["exporter"], new_signer("exporter")
    home.say(home.ring, "root", KeyRotated(role="exporter", old=old.key_id, public=new.public))
    head, seq = home.admission.head(told.session, "exporter"), len(home.stream) + 1
    drafts = [Draft(exported(DIGEST, DIGEST), "one")]
    of = dict(session=told.session, lane="exporter", head=head, source="/swarm/test", time=TIME)
    for signer in (old, new):
        said = [StoredRecord(seq, one.subject, one.body, one.headers) for one in compose(drafts, signer=signer, **of)]
        again = Told(home, later)
        assert again.ring.keyring("00").keys[new.key_id].until is None
        told.ring = again.ring
        assert told.compared(told.written([*told.records, *said])) == (signer is new)
    home.signers["exporter"] = new


@pytest.mark.parametrize("size", [MAX_BATCH, MAX_BATCH + 1])
def test_an_append_is_as_long_as_it_may_be_and_no_longer(home: RecordedHome, size: int) -> None:
    told = Told(home, home.requested())
    head, seq = Head(), told.records[-1].seq + 1
    records = []
    for part in (range(MAX_BATCH), range(MAX_BATCH, size)):
        if part:
            drafts = [Draft(window(n, n + 1), str(n)) for n in part]
            of = dict(session=told.session, lane="trainer", head=head, source="/swarm/test", time=TIME)
            records += compose(drafts, signer=home.signers["trainer"], **of)
            head = extended(head, records, 0)
    stored = [StoredRecord(seq + n, one.subject, one.body) for n, one in enumerate(records)]
    stored[-1] = stored[-1]._replace(headers=records[-1].headers)
    assert told.compared(told.written([*told.records, *stored])) == (size == MAX_BATCH)


def test_a_file_that_is_exchanged_while_it_is_read_is_not_admitted(running: Told, tmp_path: Path) -> None:
    path, asked = tmp_path / "log", fast_admission.AdmissionInputs(running.session, running.ring.keyring("00"))
    *others, last = running.records
    stolen = next(one.headers for one in others if ".trainer." in one.subject and one.headers)
    forged = running.written([*others, last._replace(headers=stolen)])
    assert len(forged) == len(running.data)
    for first, then in ((forged, running.data), (running.data, forged)):
        path.write_bytes(first)
        lines = fast_admission.PlacedLines(RecordPlaces(path, running.session))
        with pytest.raises((fast_admission.NeedsFullAdmission, NotVerified)):
            fast_admission.admit_runs(lines, asked, lambda _, then=then: path.write_bytes(then))  # type: ignore[misc]
    path.write_bytes(running.data)
    fast_admission.admit_runs(fast_admission.PlacedLines(RecordPlaces(path, running.session)), asked, lambda _: None)


@pytest.mark.parametrize("later", [1, 1500])
def test_an_id_that_was_said_before_is_seen_whatever_is_kept_of_ids(home: RecordedHome, later: int) -> None:
    session, signer = home.requested(), home.signers["trainer"]
    head = home.admission.head(session, "trainer")
    told = Told(home, session)
    names = ["00000000-0000-8000-8000-0000000000ab", *(f"{n:08x}-0000-8000-8000-000000000000" for n in range(later))]
    records = list(told.records)
    for name in [*names, names[0]]:
        drafts = [Draft(evaluated(50, 0.5), name)]
        (record,) = compose(drafts, session=session, lane="trainer", head=head, signer=signer, source="/s", time="t")
        records.append(StoredRecord(records[-1].seq + 1, record.subject, record.body, record.headers))
        head = extended(head, [record], records[-1].seq)
    whole, repeated = told.written(records[:-1]), told.written(records)
    assert told.followed(whole) is not None
    assert (told.at_once(repeated), told.followed(repeated)) == (None, None)
