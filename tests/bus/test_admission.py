"""What every reader must refuse, and that it admits everything else, once, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus import subjects
from bus.admission import Admission
from bus.chain import MAX_BATCH, START, Draft, Head, compose
from bus.decode import Reason
from bus.keys import HEADER, Signer, new_signer
from bus.port import Record, StoredRecord
from contracts.common import HandlerFailed
from contracts.envelope import Fact
from contracts.errors import NewerThanCode, NotVerified
from contracts.event import Event, Exact, Unknown
from contracts.ids import new_uuid, session_id, sha256
from contracts.keyring import KeyAdmitted, KeyRevoked, KeyringOpened, KeyRotated, fingerprint, keyring_session
from contracts.ledger import SessionSealed
from contracts.operator import RULES, PauseRequested, SessionRequested
from contracts.queue import QueueClosed, QueueLimited, QueueOpened, queue_session
from contracts.roles import ANYBODY

TIME = "2026-01-02T03:04:05.000000Z"
SESSION = session_id(new_uuid())
ROLES = ("desk", "trainer", "validator", "ledger")


class ThingSaid(Event, lane=ANYBODY, wire="thing.said"):
    """A fact for these tests."""

    text: str


class MeasuredExactly(Event, lane=ANYBODY, wire="thing.measured"):
    """A float whose bits matter."""

    value: Exact


class Deployment:
    """A stream in a list, the keys of a deployment, and one reader that admits."""

    def __init__(self) -> None:
        self.signers = {role: new_signer(role) for role in ("root", *ROLES, "guest_ant")}
        self.ring = keyring_session(self.root.public)
        self.stream: list[StoredRecord] = []
        self.admission = Admission(root=fingerprint(self.root.public))
        self.facts: list[Fact] = []
        self.say("root", KeyringOpened(root=self.root.public, deployment="test"), session=self.ring)
        for role in ROLES:
            self.keys(KeyAdmitted(role=role, public=self.signers[role].public, may_admit=role == "desk"))

    @property
    def root(self) -> Signer:
        return self.signers["root"]

    def keys(self, event: Event, lane: str = "root") -> list[Fact]:
        return self.say(lane, event, session=self.ring)

    def records(
        self, lane: str, *events: Event, session: str = SESSION, signer: Signer | None = None, head: Head | None = None
    ) -> list[Record]:
        drafts = [Draft(event, str(new_uuid())) for event in events]
        head = head or self.admission.head(session, lane)
        signer = signer or self.signers["desk" if lane == "operator" else lane]
        return compose(drafts, session=session, lane=lane, head=head, signer=signer, source="/swarm/test", time=TIME)

    def say(self, lane: str, *events: Event, session: str = SESSION, signer: Signer | None = None) -> list[Fact]:
        return self.store(*self.records(lane, *events, session=session, signer=signer))

    def store(self, *records: Record) -> list[Fact]:
        new: list[Fact] = []
        for record in records:
            stored = StoredRecord(len(self.stream) + 1, record.subject, record.body, record.headers)
            self.stream.append(stored)
            new += self.admission.admit(stored)
        self.facts += new
        return new

    @property
    def reasons(self) -> list[Reason]:
        return [void.reason for void in self.admission.voids]


@pytest.fixture
def swarm() -> Deployment:
    return Deployment()


def said(text: str = "so") -> ThingSaid:
    return ThingSaid(text=text)


def told(fact: Fact) -> tuple[str, Any]:
    """Name and data of an event that means nothing here."""
    assert isinstance(fact.event, Unknown)
    return fact.event.name, fact.event.data


def unsigned(record: Record) -> Record:
    return replace(record, headers={})


def altered(record: Record, change: Callable[[dict[str, Any]], None], signer: Signer | None = None) -> Record:
    body = orjson.loads(record.body)
    change(body)
    raw = orjson.dumps(body)
    return Record(record.subject, raw, {HEADER: signer.sign(raw)} if signer else record.headers)


def test_events_of_a_signed_append_become_facts_together_and_in_order(swarm: Deployment) -> None:
    first, second, third = swarm.records("trainer", said("a"), said("b"), said("c"))
    assert swarm.store(first) == []
    assert swarm.store(second) == []
    facts = swarm.store(third)
    assert [fact.event for fact in facts] == [said("a"), said("b"), said("c")]
    assert [fact.position for fact in facts] == [1, 2, 3]
    assert [fact.seq for fact in facts] == [6, 7, 8]
    assert [fact.digest for fact in facts] == [sha256(r.body) for r in (first, second, third)]
    assert HEADER not in first.headers
    assert swarm.reasons == []


def test_positions_count_the_facts_of_a_session_over_all_its_lanes(swarm: Deployment) -> None:
    facts = swarm.say("trainer", said()) + swarm.say("validator", said()) + swarm.say("trainer", said(), said())
    assert [fact.position for fact in facts] == [1, 2, 3, 4]
    other = session_id(new_uuid())
    assert [fact.position for fact in swarm.say("trainer", said(), session=other)] == [1]
    assert swarm.admission.position(SESSION) == 4
    assert swarm.admission.position(session_id(new_uuid())) == 0


def genesis(rules: int = RULES) -> SessionRequested:
    return SessionRequested(kind="training", request={}, keyring="k", asked_by="me", rules=rules)


def test_a_session_keeps_the_rules_that_its_first_fact_names(swarm: Deployment) -> None:
    swarm.say("operator", genesis(1))
    swarm.say("operator", genesis(2))
    assert swarm.admission.rules(SESSION) == 1
    other = session_id(new_uuid())
    swarm.say("operator", genesis(2), genesis(1), session=other)
    assert swarm.admission.rules(other) == 2


def test_a_session_that_begins_with_anything_else_is_judged_by_the_first_rules(swarm: Deployment) -> None:
    swarm.say("trainer", genesis(2))
    assert swarm.admission.rules(SESSION) == 1
    assert swarm.admission.rules(session_id(new_uuid())) == 0


def test_nobody_goes_on_in_a_session_whose_rules_are_newer_than_this_software(swarm: Deployment) -> None:
    with pytest.raises(NewerThanCode, match=f"rules {RULES + 1}"):
        swarm.say("operator", genesis(RULES + 1))
    with pytest.raises(NewerThanCode):
        swarm.say("trainer", said())
    assert swarm.say("trainer", said(), session=session_id(new_uuid()))


def test_rules_that_nobody_signed_stop_nobody(swarm: Deployment) -> None:
    (record,) = swarm.records("operator", genesis(RULES + 1))
    assert swarm.store(altered(record, lambda body: body.update(time="never"), new_signer("stranger"))) == []
    assert swarm.say("operator", genesis())
    assert swarm.admission.rules(SESSION) == RULES


def test_the_head_follows_facts_and_the_expected_sequence_follows_messages(swarm: Deployment) -> None:
    assert swarm.admission.head(SESSION, "trainer") == START
    (fact,) = swarm.say("trainer", said())
    swarm.store(Record(subjects.fact(SESSION, "trainer", "thing.said"), b"noise"))
    assert swarm.admission.head(SESSION, "trainer") == Head(1, fact.digest, 6, 7)
    assert swarm.admission.lanes(SESSION) == {"trainer": Head(1, fact.digest, 6, 7)}
    (after,) = swarm.say("trainer", said())
    assert after.envelope.prev == fact.digest


def test_the_desk_speaks_in_the_operators_lane(swarm: Deployment) -> None:
    (fact,) = swarm.say("operator", PauseRequested(asked_by="me"))
    assert fact.event == PauseRequested(asked_by="me")


def test_a_replayed_message_is_void(swarm: Deployment) -> None:
    (record,) = swarm.records("trainer", said())
    swarm.store(record, record)
    assert swarm.reasons == [Reason.REPLAYED]


def test_an_id_that_was_said_before_is_void_even_when_freshly_signed(swarm: Deployment) -> None:
    (fact,) = swarm.say("trainer", said())
    (record,) = swarm.records("validator", said())
    swarm.store(altered(record, lambda body: body.update(id=fact.id), swarm.signers["validator"]))
    assert swarm.reasons == [Reason.REPLAYED]


def test_an_id_twice_in_one_append_voids_the_append(swarm: Deployment) -> None:
    draft = Draft(said(), "same")
    head, signer = swarm.admission.head(SESSION, "trainer"), swarm.signers["trainer"]
    records = compose([draft, draft], session=SESSION, lane="trainer", head=head, signer=signer, source="s", time=TIME)
    assert swarm.store(*records) == []
    assert swarm.reasons == [Reason.UNSIGNED, Reason.REPLAYED]


def test_a_forged_lane_sequence_is_void(swarm: Deployment) -> None:
    (record,) = swarm.records("trainer", said())
    swarm.store(altered(record, lambda body: body.update(laneseq=2), swarm.signers["trainer"]))
    assert swarm.reasons == [Reason.LANESEQ]


def test_a_wrong_link_to_the_lane_is_void(swarm: Deployment) -> None:
    swarm.say("trainer", said())
    (record,) = swarm.records("trainer", said())
    swarm.store(altered(record, lambda body: body.update(prev="ab" * 32), swarm.signers["trainer"]))
    assert swarm.reasons == [Reason.CHAIN]


def test_a_stolen_sequence_number_gives_nothing_and_costs_the_owner_nothing(swarm: Deployment) -> None:
    (record,) = swarm.records("trainer", said("mine"))
    (forged,) = swarm.records("trainer", said("stolen"), signer=swarm.signers["validator"])
    swarm.store(unsigned(forged))
    (fact,) = swarm.store(record)
    assert fact.event == said("mine")
    assert swarm.reasons == [Reason.UNSIGNED]
    assert swarm.admission.voids[0].seq == 6


def test_an_unsigned_event_that_nobody_extends_is_void(swarm: Deployment) -> None:
    swarm.store(unsigned(*swarm.records("trainer", said())))
    assert swarm.reasons == []
    swarm.admission.finish(SESSION)
    assert swarm.reasons == [Reason.UNSIGNED]


def test_an_append_with_another_message_inside_is_void(swarm: Deployment) -> None:
    first, second = swarm.records("trainer", said("a"), said("b"))
    (between,) = swarm.records("validator", said())
    assert [fact.lane for fact in swarm.store(first, between, second)] == ["validator"]
    assert swarm.reasons == [Reason.UNSIGNED, Reason.LANESEQ]


def test_an_append_with_a_gap_inside_is_void_for_every_reader(swarm: Deployment) -> None:
    """Also for one that reads this session alone and never sees what stands in the gap."""
    first, second = swarm.records("trainer", said("a"), said("b"))
    swarm.store(first)
    assert swarm.admission.admit(StoredRecord(9, second.subject, second.body, second.headers)) == []
    assert swarm.reasons == [Reason.UNSIGNED, Reason.LANESEQ]


def test_an_endless_unsigned_branch_is_given_up(swarm: Deployment) -> None:
    records = [unsigned(r) for r in swarm.records("trainer", *[said()] * MAX_BATCH)]
    swarm.store(*records)
    assert swarm.reasons == [Reason.UNSIGNED] * MAX_BATCH


def test_a_foreign_signature_is_void(swarm: Deployment) -> None:
    swarm.say("trainer", said(), signer=swarm.signers["validator"])
    swarm.say("trainer", said(), signer=new_signer("trainer"))
    assert swarm.reasons == [Reason.KEY, Reason.KEY]


def test_a_signature_of_another_body_is_void_and_takes_its_append_with_it(swarm: Deployment) -> None:
    first, second = swarm.records("trainer", said("a"), said("b"))
    assert swarm.store(first, replace(second, headers={HEADER: swarm.signers["trainer"].sign(b"other")})) == []
    assert swarm.reasons == [Reason.UNSIGNED, Reason.SIGNATURE]
    assert [fact.position for fact in swarm.say("trainer", said())] == [1]


@pytest.mark.parametrize("header", ["", "nonsense", "0123456789abcdef:short"])
def test_a_malformed_signature_is_void(swarm: Deployment, header: str) -> None:
    swarm.store(replace(*swarm.records("trainer", said()), headers={HEADER: header}))
    assert swarm.reasons == [Reason.SIGNATURE]


def test_every_flipped_bit_of_a_message_is_noticed(swarm: Deployment) -> None:
    (record,) = swarm.records("trainer", said())
    for at in range(0, len(record.body) * 8, 7):
        body = bytearray(record.body)
        body[at // 8] ^= 1 << at % 8
        assert swarm.store(replace(record, body=bytes(body))) == []
    header = record.headers[HEADER].encode()
    for at in range(len(header) * 8):
        text = bytearray(header)
        text[at // 8] ^= 1 << at % 8
        assert swarm.store(replace(record, headers={HEADER: text.decode("latin-1")})) == []
    assert len(swarm.store(record)) == 1


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b'{"specversion":"1.0"}', b"[" * 5000])
def test_what_is_no_event_is_void(swarm: Deployment, body: bytes) -> None:
    swarm.store(Record(subjects.fact(SESSION, "trainer", "thing.said"), body))
    assert swarm.reasons == [Reason.ENVELOPE]


@pytest.mark.parametrize(
    "subject",
    [
        subjects.fact(SESSION, "validator", "thing.said"),
        subjects.fact(SESSION, "trainer", "thing.done"),
        subjects.fact(session_id(new_uuid()), "trainer", "thing.said"),
        "swarm.ev.00.what",
        "elsewhere",
    ],
    ids=["of another role", "of another name", "of another session", "of no session", "of another stream"],
)
def test_a_message_under_another_subject_is_void(swarm: Deployment, subject: str) -> None:
    (record,) = swarm.records("trainer", said())
    swarm.store(replace(record, subject=subject))
    assert swarm.reasons == [Reason.SUBJECT]


def test_a_type_that_nobody_knows_is_admitted_as_unknown(swarm: Deployment) -> None:
    (record,) = swarm.records("trainer", said("x"))

    def rename(body: dict[str, Any]) -> None:
        body |= {"type": "io.stigmergy.trainer.thing.imagined", "dataschema": "thing.imagined/7"}

    strange = altered(record, rename, swarm.signers["trainer"])
    (fact,) = swarm.store(replace(strange, subject=subjects.fact(SESSION, "trainer", "thing.imagined")))
    assert told(fact) == ("thing.imagined", {"text": "x"})
    assert fact.name == "thing.imagined"


def test_a_signed_payload_that_breaks_its_schema_is_admitted_and_never_folded(swarm: Deployment) -> None:
    """Schemas differ between versions; the chain must not."""
    (record,) = swarm.records("trainer", said())
    (fact,) = swarm.store(altered(record, lambda body: body.update(data={"text": 7}), swarm.signers["trainer"]))
    assert told(fact) == ("thing.said", {"text": 7})
    assert len(swarm.say("trainer", said())) == 1


def test_a_float_that_no_float_can_hold_breaks_its_schema_and_nothing_else(swarm: Deployment) -> None:
    (record,) = swarm.records("trainer", MeasuredExactly(value=1.5))
    large = altered(record, lambda body: body.update(data={"value": "0x1p+99999"}), swarm.signers["trainer"])
    (fact,) = swarm.store(large)
    assert told(fact) == ("thing.measured", {"value": "0x1p+99999"})


def test_a_word_from_another_roles_mouth_is_kept_and_never_believed(swarm: Deployment) -> None:
    (fact,) = swarm.say("trainer", PauseRequested(asked_by="me"))
    assert told(fact) == ("pause.requested", {"asked_by": "me", "signed": None})


def test_a_failure_is_believed_of_the_one_who_tells_it(swarm: Deployment) -> None:
    def failed(role: str) -> HandlerFailed:
        return HandlerFailed(role=role, handler="h", heard="x", error="e", attempts=3)

    swarm.keys(KeyAdmitted(role="guest_ant", public=swarm.signers["guest_ant"].public, guest=True), lane="desk")
    assert swarm.say("trainer", failed("trainer"))[0].event == failed("trainer")
    assert swarm.say("guest_ant", failed("guest_ant"))[0].event == failed("guest_ant")
    for other in ("ant", "trainer"):
        assert isinstance(swarm.say("guest_ant", failed(other))[0].event, Unknown)


def newer(record: Record, signer: Signer | None) -> Record:
    return altered(record, lambda body: body.update(dataschema="thing.said/2"), signer)


def test_a_signed_event_newer_than_this_code_stops_its_session_and_no_other(swarm: Deployment) -> None:
    (record,) = swarm.records("trainer", said())
    with pytest.raises(NewerThanCode):
        swarm.store(newer(record, swarm.signers["trainer"]))
    with pytest.raises(NewerThanCode):
        swarm.say("validator", said())
    assert len(swarm.say("trainer", said(), session=session_id(new_uuid()))) == 1


def test_a_forged_event_newer_than_this_code_stops_nothing(swarm: Deployment) -> None:
    (record,) = swarm.records("trainer", said())
    swarm.store(newer(record, None), newer(record, swarm.signers["validator"]))
    assert swarm.reasons == [Reason.SIGNATURE, Reason.KEY]
    assert len(swarm.store(record)) == 1


def test_a_keyring_newer_than_this_code_stops_whoever_stands_on_it(swarm: Deployment) -> None:
    (record,) = swarm.records("root", KeyRevoked(key=swarm.root.key_id, reason="?"), session=swarm.ring)
    with pytest.raises(NewerThanCode):
        swarm.store(altered(record, lambda body: body.update(dataschema="key.revoked/9"), swarm.root))
    with pytest.raises(NewerThanCode):
        swarm.say("trainer", said())


def attacks(swarm: Deployment, record: Record) -> list[Record]:
    """What somebody can store who reads everything and holds the keys of a guest and of a deployment of their own."""
    spy, guest = new_signer("trainer"), swarm.signers["guest_ant"]
    seen = swarm.stream[-1]
    transplanted = seen.headers or {HEADER: spy.sign(seen.body)}
    return [
        unsigned(record),
        replace(record, headers=transplanted),
        replace(record, headers={HEADER: spy.sign(record.body)}),
        altered(record, lambda body: body["data"].update(text="evil"), guest),
        altered(record, lambda body: body.update(id="evil")),
        altered(record, lambda body: body.update(dataschema="thing.said/9"), spy),
        altered(record, lambda body: body.update(lane="guest_ant", type="io.stigmergy.guest_ant.thing.said"), guest),
        Record(seen.subject, seen.body, seen.headers),
        Record(record.subject, b"noise"),
        Record(record.subject, b"", record.headers),
        Record("swarm.ev.00.what.ever", record.body, record.headers),
    ]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["trainer", "validator"]), st.integers(1, 3), st.integers(0, 10)), max_size=12)
)
def test_who_cannot_sign_cannot_change_what_is_admitted(turns: list[tuple[str, int, int]]) -> None:
    swarm = Deployment()
    swarm.keys(KeyAdmitted(role="guest_ant", public=swarm.signers["guest_ant"].public, guest=True), lane="desk")
    genuine = []
    for n, (lane, size, attack) in enumerate(turns):
        records = swarm.records(lane, *[said(f"{n}") for _ in range(size)])
        assert swarm.store(attacks(swarm, records[0])[attack]) == []
        genuine += swarm.store(*records)
        assert [fact.digest for fact in genuine[-size:]] == [sha256(record.body) for record in records]
    assert [fact.position for fact in genuine] == list(range(1, len(genuine) + 1))
    again = Admission(root=swarm.admission.root)
    assert [fact for stored in swarm.stream for fact in again.admit(stored)] == swarm.facts
    assert len(again.voids) == len(turns)


def seal(last_seq: int) -> SessionSealed:
    digest = "00" * 32
    ring = {"keyring": digest, "keyring_size": 1, "keyring_root": digest}
    return SessionSealed(size=1, root=digest, last_seq=last_seq, lanes={}, members={}, note="-", **ring)


def test_whatever_comes_after_the_seal_is_late(swarm: Deployment) -> None:
    (fact,) = swarm.say("trainer", said())
    (end,) = swarm.say("ledger", seal(fact.seq))
    assert swarm.admission.sealed(SESSION) == end.seq
    swarm.say("trainer", said())
    swarm.say("ledger", said())
    swarm.store(Record(subjects.fact(SESSION, "trainer", "thing.said"), b"noise"))
    assert swarm.reasons == [Reason.LATE] * 3
    assert [void.seq for void in swarm.admission.voids if void.session == SESSION] == [8, 9, 10]


def test_a_seal_that_others_have_overtaken_is_void_and_the_ledger_seals_again(swarm: Deployment) -> None:
    (covered,) = swarm.say("trainer", said())
    (overtaking,) = swarm.say("trainer", said())
    assert swarm.say("ledger", seal(covered.seq)) == []
    assert swarm.reasons == [Reason.STALE_SEAL]
    assert len(swarm.say("ledger", seal(overtaking.seq))) == 1


def test_the_ledgers_own_last_words_may_stand_between_last_seq_and_the_seal(swarm: Deployment) -> None:
    (fact,) = swarm.say("trainer", said())
    swarm.say("ledger", said())
    assert len(swarm.say("ledger", said(), seal(fact.seq))) == 2
    assert swarm.admission.sealed(SESSION)


def test_nobody_but_the_ledger_seals(swarm: Deployment) -> None:
    (fact,) = swarm.say("trainer", seal(0))
    assert isinstance(fact.event, Unknown)
    assert swarm.admission.sealed(SESSION) == 0


def test_nothing_follows_a_seal_in_its_own_append(swarm: Deployment) -> None:
    (fact,) = swarm.say("trainer", said())
    assert swarm.say("ledger", seal(fact.seq), said()) == []
    assert swarm.reasons == [Reason.UNSIGNED, Reason.STALE_SEAL]


def test_messages_out_of_order_are_an_error_of_the_reader(swarm: Deployment) -> None:
    swarm.say("trainer", said())
    with pytest.raises(NotVerified, match="came after"):
        swarm.admission.admit(swarm.stream[-1])


def guest(swarm: Deployment, name: str = "guest_ant") -> Signer:
    signer = swarm.signers.setdefault(name, new_signer(name))
    swarm.keys(KeyAdmitted(role=name, public=signer.public, guest=True), lane="desk")
    return signer


def named(swarm: Deployment, lane: str, identity: str, event: Event | None = None) -> list[Fact]:
    """What a lane says under an id of its own choice."""
    drafts, head = [Draft(event or said(), identity)], swarm.admission.head(SESSION, lane)
    return swarm.store(
        *compose(drafts, session=SESSION, lane=lane, head=head, signer=swarm.signers[lane], source="/x", time=TIME)
    )


def test_a_guest_cannot_take_an_id_that_a_role_is_about_to_use(swarm: Deployment) -> None:
    guest(swarm)
    swarm.say("trainer", said())
    foretold = str(new_uuid())
    assert named(swarm, "guest_ant", foretold)
    (fact,) = named(swarm, "validator", foretold)
    assert (fact.lane, fact.id) == ("validator", foretold)
    assert swarm.reasons == []


def test_a_guest_cannot_take_an_id_from_another_guest(swarm: Deployment) -> None:
    guest(swarm)
    guest(swarm, "guest_bee")
    swarm.say("trainer", said())
    foretold = str(new_uuid())
    assert named(swarm, "guest_ant", foretold)
    assert named(swarm, "guest_bee", foretold)


def test_a_guest_cannot_say_an_id_again(swarm: Deployment) -> None:
    guest(swarm)
    (theirs,) = swarm.say("trainer", said())
    (own,) = swarm.say("guest_ant", said())
    assert named(swarm, "guest_ant", theirs.id) == []
    assert named(swarm, "guest_ant", own.id) == []
    assert swarm.reasons == [Reason.REPLAYED] * 2


def test_a_guest_begins_no_session(swarm: Deployment) -> None:
    guest(swarm)
    assert swarm.say("guest_ant", said()) == []
    assert swarm.say("guest_ant", said(), said()) == []
    assert swarm.reasons == [Reason.UNBEGUN] * 3


@pytest.mark.parametrize("name", ["pause.requested", "handler.failed", "thing.said", "unknown"])
def test_a_guest_stops_nobody_with_a_version_that_is_still_to_come(swarm: Deployment, name: str) -> None:
    ant = guest(swarm)
    swarm.say("trainer", said())
    (record,) = swarm.records("guest_ant", said())
    body = orjson.loads(record.body) | {"dataschema": f"{name}/7", "type": f"io.stigmergy.guest_ant.{name}"}
    raw = orjson.dumps(body)
    subject = subjects.fact(SESSION, "guest_ant", name) if "." in name else record.subject
    facts = swarm.store(Record(subject, raw, {HEADER: ant.sign(raw)}))
    assert [told(fact) for fact in facts] == ([(name, {"text": "so"})] if "." in name else [])
    assert swarm.say("trainer", said())


@pytest.mark.parametrize("schema", ["thing.said/²", "thing.said/٣", "thing.said/1e3", "thing.said/"])
def test_a_version_that_is_no_number_is_no_event(swarm: Deployment, schema: str) -> None:
    (record,) = swarm.records("trainer", said())
    assert swarm.store(altered(record, lambda body: body.update(dataschema=schema), swarm.signers["trainer"])) == []
    assert swarm.reasons == [Reason.ENVELOPE]


def test_a_guest_speaks_in_its_own_lane_once_the_desk_has_admitted_it(swarm: Deployment) -> None:
    swarm.say("trainer", said())
    swarm.say("guest_ant", said())
    swarm.keys(KeyAdmitted(role="guest_ant", public=swarm.signers["guest_ant"].public, guest=True), lane="desk")
    swarm.say("guest_ant", said())
    assert [fact.lane for fact in swarm.facts[-1:]] == ["guest_ant"]
    assert swarm.reasons == [Reason.KEY]


def test_a_guest_cannot_speak_for_another(swarm: Deployment) -> None:
    guest = swarm.signers["guest_ant"]
    swarm.keys(KeyAdmitted(role="guest_ant", public=guest.public, guest=True), lane="desk")
    swarm.say("trainer", said())
    for lane in ("trainer", "operator", "ledger", "guest_bee"):
        swarm.say(lane, said(), signer=guest)
    swarm.say("desk", KeyAdmitted(role="guest_bee", public="ab" * 32, guest=True), session=swarm.ring, signer=guest)
    assert swarm.reasons == [Reason.KEY] * 5


def test_the_desk_admits_guests_and_nobody_else(swarm: Deployment) -> None:
    swarm.keys(KeyAdmitted(role="spy", public="ab" * 32), lane="desk")
    swarm.keys(KeyRevoked(key=swarm.signers["trainer"].key_id, reason="spite"), lane="desk")
    assert swarm.reasons == [Reason.KEYRING] * 2


def test_lanes_of_the_keyring_have_no_place_elsewhere_nor_other_lanes_in_it(swarm: Deployment) -> None:
    swarm.say("root", said())
    swarm.say("desk", said())
    swarm.say("trainer", said(), session=swarm.ring)
    assert swarm.reasons == [Reason.KEY] * 3


def test_no_lane_but_the_operators_speaks_in_a_queue(swarm: Deployment) -> None:
    swarm.keys(KeyAdmitted(role="guest_ant", public=swarm.signers["guest_ant"].public, guest=True), lane="desk")
    queue = queue_session(fingerprint(swarm.root.public))
    swarm.say("operator", QueueOpened(keyring="0" * 64), QueueLimited(limit=2), session=queue)
    for lane in ("guest_ant", "trainer", "ledger"):
        swarm.say(lane, said(), session=queue)
    swarm.say("operator", QueueLimited(limit=3), session=queue)
    assert swarm.reasons == [Reason.KEY] * 3
    assert swarm.admission.position(queue) == 3


def test_a_queue_that_was_closed_takes_nothing_more_and_nothing_else_is_closed_so(swarm: Deployment) -> None:
    queue = queue_session(fingerprint(swarm.root.public))
    for session, closed in ((queue, True), (SESSION, False)):
        opened = QueueOpened(keyring="0" * 64) if closed else said()
        swarm.say("operator", opened, session=session)
        last = swarm.say("operator", QueueClosed(), session=session)[-1]
        assert swarm.admission.sealed(session) == (last.seq if closed else 0)
        swarm.say("operator", QueueLimited(limit=3), session=session)
    swarm.admission.forget(queue)
    swarm.say("operator", QueueLimited(limit=4), session=queue, signer=swarm.signers["desk"])
    assert swarm.reasons == [Reason.LATE] * 2


def test_a_rotated_key_ends_where_the_new_one_begins(swarm: Deployment) -> None:
    old, new = swarm.signers["trainer"], new_signer("trainer")
    swarm.say("trainer", said("before"))
    swarm.keys(KeyRotated(role="trainer", old=old.key_id, public=new.public))
    assert swarm.say("trainer", said(), signer=old) == []
    assert len(swarm.say("trainer", said(), signer=new)) == 1
    assert swarm.reasons == [Reason.KEY]


def test_a_revoked_key_signs_no_more_and_its_past_stays(swarm: Deployment) -> None:
    swarm.say("trainer", said())
    swarm.keys(KeyRevoked(key=swarm.signers["trainer"].key_id, reason="lost"))
    swarm.say("trainer", said())
    again = Admission(root=swarm.admission.root)
    assert [fact for stored in swarm.stream for fact in again.admit(stored)] == swarm.facts
    assert [*again.voids] == [*swarm.admission.voids]
    assert swarm.reasons == [Reason.KEY]


def test_a_reader_that_takes_the_keyring_first_admits_the_same(swarm: Deployment) -> None:
    """As an audit of files does: keys count by sequence, so a later rotation takes nothing back."""
    swarm.say("trainer", said("before"))
    swarm.keys(KeyRotated(role="trainer", old=swarm.signers["trainer"].key_id, public=new_signer("t").public))
    keyring_first = sorted(swarm.stream, key=lambda stored: swarm.ring not in stored.subject)
    again = Admission(root=swarm.admission.root)
    facts = [fact for stored in keyring_first for fact in again.admit(stored)]
    assert sorted(facts, key=lambda fact: fact.seq) == swarm.facts


def test_a_second_reader_may_borrow_the_keyring_of_a_first(swarm: Deployment) -> None:
    swarm.say("trainer", said())
    borrower = Admission(swarm.admission.keyring)
    facts = [fact for stored in swarm.stream for fact in borrower.admit(stored)]
    assert facts == [fact for fact in swarm.facts if fact.envelope.subject == SESSION]


def test_without_a_keyring_nothing_is_a_fact(swarm: Deployment) -> None:
    swarm.say("trainer", said())
    alone = Admission()
    assert alone.admit(swarm.stream[-1]) == []
    assert [void.reason for void in alone.voids] == [Reason.KEY]


def test_a_keyring_under_another_root_than_the_pinned_one_is_void() -> None:
    genuine, fake = Deployment(), Deployment()
    pinned = Admission(root=genuine.admission.root)
    assert [fact for stored in fake.stream for fact in pinned.admit(stored)] == []
    assert pinned.voids[0].reason == Reason.KEYRING


def test_unpinned_the_first_root_is_believed_and_a_second_is_not() -> None:
    genuine, fake = Deployment(), Deployment()
    reader = Admission()
    assert len([fact for stored in genuine.stream for fact in reader.admit(stored)]) == 5
    assert reader.root == genuine.admission.root
    assert [fact for stored in fake.stream for fact in reader.admit(stored)] == []


def test_a_keyring_whose_session_does_not_derive_from_its_root_is_void(swarm: Deployment) -> None:
    root = new_signer("root")
    opened = KeyringOpened(root=root.public, deployment="x")
    reader = Admission()
    (record,) = swarm.records("root", opened, session=SESSION, signer=root)
    assert reader.admit(StoredRecord(1, record.subject, record.body, record.headers)) == []
    assert reader.voids[0].reason == Reason.KEYRING


def test_every_partition_has_a_keyring_under_the_same_root(swarm: Deployment) -> None:
    there = session_id(new_uuid(), "01")
    assert swarm.say("trainer", said(), session=there) == []
    ring = keyring_session(swarm.root.public, "01")
    swarm.say("root", KeyringOpened(root=swarm.root.public, deployment="test"), session=ring)
    swarm.say("root", KeyAdmitted(role="trainer", public=swarm.signers["trainer"].public), session=ring)
    assert len(swarm.say("trainer", said(), session=there)) == 1
    assert swarm.admission.keyring("01").session == ring
    assert swarm.admission.keyring("02").root == ""
