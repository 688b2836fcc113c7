"""One forger with keys for every rule: what each of them says is refused by all programs, and for that reason.

Every chain and signature that a rule is not about holds, so that no other rule refuses the record in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bus.admission import Admission
from bus.keys import Signer, new_signer
from bus.port import StoredRecord
from bus.tree import SubtreeRows
from contracts.ids import new_uuid, session_id
from contracts.keyring import KeyAdmitted, KeyRevoked, KeyringOpened, KeyRotated
from contracts.operator import RULES, PauseRequested
from runtime import audit
from runtime.audit.ledger_check import LedgerCheck
from runtime.audit.log_digest import fast_digest
from runtime.bundle import verify_bundle
from runtime.home.home import Home
from runtime.log.archive import Archive
from tests.forgery import Story, Word
from tests.verifiers import SCHEMAS, Programs, Verdicts

so = Word(text="so")
PAUSED = PauseRequested(asked_by="me")


def judge(story: Story) -> Verdicts:
    """The three programs on the session's records."""
    return Programs(story.ring_session, story.ring, story.fingerprint).judge(story.session, story.log)


# ---------------------------------------------------------------- keys


def rotated(story: Story) -> None:
    old = story.signers["trainer"]
    rotate(story)
    story.say("trainer", so, signer=old)


def rotate(story: Story) -> None:
    new = new_signer("trainer")
    story.keys(KeyRotated(role="trainer", old=story.signers["trainer"].key_id, public=new.public))
    story.signers["trainer"] = new


def not_yet_admitted(story: Story) -> None:
    new = new_signer("trainer")
    story.say("trainer", so, signer=new)
    story.keys(KeyRotated(role="trainer", old=story.signers["trainer"].key_id, public=new.public))
    story.signers["trainer"] = new


def revoked(story: Story) -> None:
    story.keys(KeyRevoked(key=story.signers["validator"].key_id, reason="lost"))
    story.say("validator", so)
    story.signers["validator"] = new_signer("validator")
    story.keys(KeyAdmitted(role="validator", public=story.signers["validator"].public))


class Impostor(Signer):
    """Signs with a key of its own under the name of another's."""

    def __init__(self, robbed: Signer) -> None:
        super().__init__(robbed.role, new_signer(robbed.role)._secret)
        self.key_id = robbed.key_id


def other_bits(header: str) -> str:
    """The same signature with the unused last bits of its text set."""
    return header[:-1] + chr(ord(header[-1]) + 1)


# ---------------------------------------------------------------- order, appends, places


def at_border(story: Story) -> None:
    """Fill the log up to the last record of the first run."""
    while len(story.log) < SubtreeRows.RUN - 1:
        story.say("trainer", *[so] * min(900, SubtreeRows.RUN - 1 - len(story.log)))


def stands_still(story: Story) -> None:
    story.seq -= 1
    story.say("validator", so)


def stands_still_at_the_border(story: Story) -> None:
    at_border(story)
    story.say("trainer", so)
    stands_still(story)


def broken_off(story: Story) -> None:
    story.say("trainer", so, header=lambda _: "")
    story.say("validator", so)
    story.say("trainer", so)


def broken_off_at_the_border(story: Story) -> None:
    at_border(story)
    broken_off(story)


def gap_at_the_border(story: Story) -> None:
    at_border(story)
    story.say("trainer", so, so, skip=1)


def chained_otherwise_at_the_border(story: Story) -> None:
    at_border(story)
    story.say("validator", so)
    story.say("trainer", so, edit=lambda said: said.update(prev="ab" * 32))


def too_long(story: Story) -> None:
    story.say("trainer", *[so] * 1000, header=lambda _: "")
    story.say("trainer", so)


def too_long_across_the_border(story: Story) -> None:
    while len(story.log) < 400:
        story.say("validator", *[so] * 100)
    too_long(story)


def said_before(lane: str, of: int) -> Callable[[Story], None]:
    def forge(story: Story) -> None:
        name = orjson_id(story.log[of])
        story.say(lane, so, ids=[name])

    return forge


def orjson_id(stored: StoredRecord) -> str:
    found: str = verify_bundle.json.loads(stored.body)["id"]
    return found


def of_another_session(story: Story) -> None:
    other = session_id(new_uuid())
    story.say("trainer", so, session=other)


def in_this_chain(story: Story) -> None:
    other = session_id(new_uuid())
    story.say(
        "trainer",
        so,
        edit=lambda said: said.update(subject=other),
        subject=lambda one: one.replace(story.session, other),
    )


def large(story: Story) -> None:
    story.say("guest_ant", Word(text="x" * 65_536))


def newer_rules_begin(story: Story) -> None:
    story.log.clear()
    story.heads = {key: head for key, head in story.heads.items() if key[0] == story.ring_session}
    story.begin(RULES + 1)


def guest_begins(story: Story) -> None:
    story.log.clear()
    story.heads = {key: head for key, head in story.heads.items() if key[0] == story.ring_session}
    story.say("guest_ant", so)
    story.begin()


def seal_goes_on(story: Story) -> None:
    story.say("ledger", story.noted(story.sealed()), so)


def after_the_seal(lane: str) -> Callable[[Story], None]:
    def forge(story: Story) -> None:
        story.seal()
        story.say(lane, so)

    return forge


@dataclass(frozen=True)
class Forger:
    """What is forged, a word of why it is refused, record by record and in the stand-alone program, and where.

    `covered` when it is refused also under a note of the ledger, by a program that verifies what no note covers;
    `followed` when more can be said after it.
    """

    forge: Callable[[Story], None]
    why: str
    alone: str
    covered: bool = True
    followed: bool = True


RECORDS = {
    "the key of another role": Forger(lambda s: s.say("trainer", so, signer=s.signers["validator"]), "key", "speak"),
    "the desk's key in another lane": Forger(lambda s: s.say("trainer", so, signer=s.signers["desk"]), "key", "speak"),
    "another's key in the operator's lane": Forger(
        lambda s: s.say("operator", PAUSED, signer=s.signers["trainer"]), "key", "speak"
    ),
    "the root's key in another lane": Forger(lambda s: s.say("trainer", so, signer=s.signers["root"]), "key", "speak"),
    "one guest for another": Forger(lambda s: s.say("guest_bee", so, signer=s.signers["guest_ant"]), "key", "speak"),
    "a key that was rotated": Forger(rotated, "holds from", "speak"),
    "a key before it was admitted": Forger(not_yet_admitted, "holds from", "speak"),
    "a key that was revoked": Forger(revoked, "holds from", "speak"),
    "a key that nobody admitted": Forger(lambda s: s.say("trainer", so, signer=new_signer("trainer")), "key", "speak"),
    "a signature that does not hold": Forger(
        lambda s: s.say("trainer", so, signer=Impostor(s.signers["trainer"])), "does not hold", "does not hold", False
    ),
    "unused bits of a signature": Forger(lambda s: s.say("trainer", so, header=other_bits), "signature", "its form"),
    "a lane of the keyring": Forger(lambda s: s.say("desk", so), "no place", "no place"),
    "the root's lane": Forger(lambda s: s.say("root", so), "no place", "no place"),
    "a place left out": Forger(
        lambda s: s.say("trainer", so, edit=lambda said: said.update(laneseq=4)), "laneseq 4 where 3", "laneseq 4"
    ),
    "a place taken twice": Forger(
        lambda s: s.say("trainer", so, edit=lambda said: said.update(laneseq=2)), "laneseq 2 where 3", "laneseq 2"
    ),
    "another record before it": Forger(
        lambda s: s.say("trainer", so, edit=lambda said: said.update(prev="ab" * 32)), "prev abab", "prev abab"
    ),
    "another before it, in the next run": Forger(chained_otherwise_at_the_border, "prev abab", "prev abab"),
    "a sequence that stands still": Forger(stands_still, "after message", "stands after"),
    "a sequence that stands still between runs": Forger(stands_still_at_the_border, "after message", "stands after"),
    "a gap in an append": Forger(lambda s: s.say("trainer", so, so, skip=1), "unsigned", "broken off"),
    "a gap in an append between runs": Forger(gap_at_the_border, "unsigned", "broken off"),
    "another lane in an append": Forger(broken_off, "unsigned", "broken off"),
    "another lane in an append between runs": Forger(broken_off_at_the_border, "unsigned", "broken off"),
    "an append of 1001": Forger(too_long, "1000 events without", "too long"),
    "an append of 1001 in two runs": Forger(too_long_across_the_border, "1000 events without", "too long"),
    "an append without an end": Forger(
        lambda s: s.say("trainer", so, header=lambda _: ""), "never came", "is missing", followed=False
    ),
    "an id of the lane": Forger(said_before("trainer", 1), "was said before", "was said before"),
    "an id of another lane": Forger(said_before("validator", 1), "was said before", "was said before"),
    "a guest with another's id": Forger(said_before("guest_ant", 1), "was said before", "was said before"),
    "a guest with its own id again": Forger(said_before("guest_ant", 3), "was said before", "was said before"),
    "an id of before inside an append": Forger(
        lambda s: s.say("trainer", so, so, ids=["new", orjson_id(s.log[2])]), "was said before", "was said before"
    ),
    "a guest with its own id inside an append": Forger(
        lambda s: s.say("guest_ant", so, so, ids=["new", orjson_id(s.log[3])]), "was said before", "was said before"
    ),
    "an id twice in an append": Forger(
        lambda s: s.say("trainer", so, so, ids=["twice", "twice"]), "was said before", "was said before"
    ),
    "a body of another session": Forger(of_another_session, "another session", "another session"),
    "a body of another session in this one's chain": Forger(in_this_chain, "another session", "another session"),
    "the subject of another lane": Forger(
        lambda s: s.say("trainer", so, subject=lambda one: one.replace("trainer", "validator")), "subject", "subject"
    ),
    "the subject of another event": Forger(
        lambda s: s.say("trainer", so, subject=lambda one: one.replace("word_said", "word_kept")), "subject", "subject"
    ),
    "a type that is not the lane's": Forger(
        lambda s: s.say("trainer", so, edit=lambda said: said.update(type="io.stigmergy.validator.word.said")),
        "does not say lane",
        "its type is not",
    ),
    "a guest that begins": Forger(guest_begins, "nobody has begun", "cannot begin"),
    "a guest's large body": Forger(large, "65536 are allowed", "a guest's event has"),
    "a constant": Forger(
        lambda s: s.say("guest_ant", so, raw=lambda body: body.replace(b'"so"', b"NaN")), "no JSON", "no JSON"
    ),
    "a constant under a name that comes again": Forger(
        lambda s: s.say("trainer", so, raw=lambda body: body.replace(b'"text":', b'"text":NaN,"text":')),
        "no JSON",
        "no JSON",
    ),
    "rules that are newer": Forger(newer_rules_begin, f"rules {RULES + 1}", f"rules {RULES + 1}"),
    "the seal in the middle of an append": Forger(seal_goes_on, "not the last", "follows the seal", followed=False),
    "the ledger after its seal": Forger(after_the_seal("ledger"), "was sealed", "follows the seal", followed=False),
    "a role after the seal": Forger(after_the_seal("trainer"), "was sealed", "follows the seal", followed=False),
    "a guest after the seal": Forger(after_the_seal("guest_ant"), "was sealed", "follows the seal", followed=False),
}


def told(forger: Forger, story: Story) -> Iterator[Story]:
    """The forgery as the last word; followed by more of every lane, and by a note over all; behind a note."""
    story.begin()
    forger.forge(story)
    yield story
    if not forger.followed:
        return
    behind = Story()
    behind.begin()
    behind.note()
    behind.say("validator", so)
    forger.forge(behind)
    for lane in ("trainer", "validator", "operator", "guest_ant", "guest_bee"):
        behind.say(lane, PAUSED if lane == "operator" else so)
    yield behind
    if forger.covered:
        behind.note()
        behind.say("validator", so)
        yield behind


@pytest.mark.parametrize("what", RECORDS)
def test_what_breaks_a_rule_is_refused_by_all_programs_for_that_reason(what: str) -> None:
    forger = RECORDS[what]
    for number, story in enumerate(told(forger, Story())):
        found = judge(story)
        assert forger.why in found.one_by_one, (number, found)
        assert forger.alone in found.alone, (number, found)
        assert found.at_once, (number, "the fast way admits it")


def test_what_keeps_to_the_rules_is_admitted_by_all_programs() -> None:
    """Else every forger would be refused for something else."""
    story = Story()
    story.begin()
    at_border(story)
    story.say("trainer", so, so, so)
    story.say("validator", *[so] * 1000)
    rotate(story)
    story.say("trainer", so)
    story.say("guest_bee", Word(text="x" * 64_000))
    story.note()
    story.say("guest_ant", so, ids=["mine"])
    story.say("operator", PAUSED)
    for _ in range(2):
        found = judge(story)
        assert (found.one_by_one, found.at_once, found.alone) == ("", "", "")
        story.seal()


# ---------------------------------------------------------------- notes and the seal


class Audited:
    """The three programs on a whole bundle: its audit, the fast look at the same files, the stand-alone program."""

    def __init__(self, story: Story, folder: Path) -> None:
        home = Home(folder / "home")
        for session, data in ((story.ring_session, story.keyring_file()), (story.session, story.file())):
            home.log(session).parent.mkdir(parents=True)
            home.log(session).write_bytes(data)
        path = story.bundle(folder / "b.zip")
        verdict = audit.check_bundle(path, root=story.fingerprint)
        archive = Archive(home, story.fingerprint)
        fast = fast_digest(archive, story.session)
        self.one_by_one = "; ".join(one.message for one in verdict.divergences)
        self.at_once = (
            "unusual"
            if fast is None
            else "; ".join(one.message for one in LedgerCheck(fast, archive.ring("00")).divergences())
        )
        self.alone = verify_bundle.findings(path, story.fingerprint)["divergence"] or ""


def note_of_the_old_key(story: Story) -> None:
    old, new = story.signers["ledger"], new_signer("ledger")
    story.keys(KeyRotated(role="ledger", old=old.key_id, public=new.public))
    story.signers["ledger"] = new
    story.note(signer=old)


def seal_of_the_old_key(story: Story) -> None:
    old, new = story.signers["ledger"], new_signer("ledger")
    story.keys(KeyRotated(role="ledger", old=old.key_id, public=new.public))
    story.signers["ledger"] = new
    story.seal(signer=old)


def note_of_itself(story: Story) -> None:
    story.note(lambda said: said.update(size=len(story.log) + 1))


def overtaken(story: Story) -> None:
    said = story.sealed()
    story.say("trainer", so)
    story.say("ledger", story.noted(said.model_copy(update={"last_seq": story.log[-1].seq})))


def stale(story: Story) -> None:
    said = story.sealed()
    story.say("trainer", so)
    story.say("ledger", story.noted(said))


def keyring_grown(story: Story) -> None:
    said = story.sealed()
    rotate(story)
    story.say("trainer", so)
    now = story.sealed()
    story.seal(keyring_size=said.keyring_size, keyring_root=said.keyring_root)
    assert now.keyring_size == said.keyring_size + 1


def more_members(change: Callable[[dict[str, str]], Any]) -> Callable[[Story], None]:
    def forge(story: Story) -> None:
        members = dict(story.sealed().members)
        change(members)
        story.seal(members=members)

    return forge


def other_lanes(change: Callable[[dict[str, str]], Any]) -> Callable[[Story], None]:
    def forge(story: Story) -> None:
        lanes = dict(story.sealed().lanes)
        change(lanes)
        story.seal(lanes=lanes)

    return forge


NOTES = {
    "the origin of another session": (
        lambda s: s.note(lambda said: said.update(origin=f"stigmergy/{session_id(new_uuid())}")),
        "its note says",
    ),
    "a note over itself": (note_of_itself, "covers"),
    "a note over nothing": (lambda s: s.note(lambda said: said.update(size=0)), "covers"),
    "another root": (lambda s: s.note(lambda said: said.update(root="ab" * 32)), "the root over"),
    "another root in the event alone": (
        lambda s: s.note(lambda said: said.update(event={"root": "ab" * 32})),
        "the root over",
    ),
    "another size in the event alone": (
        lambda s: s.note(lambda said: said.update(event={"size": 3, "root": s.root_over(3), "last_seq": s.log[2].seq})),
        "its note says",
    ),
    "another last_seq": (lambda s: s.note(lambda said: said.update(last_seq=said["last_seq"] - 1)), "sequence"),
    "another last_seq in the note": (
        lambda s: s.note(lambda said: said.update(extensions=("last-seq 1",))),
        "its note says",
    ),
    "one more line": (
        lambda s: s.note(lambda said: said.update(extensions=(f"last-seq {said['last_seq']}", "more 1"))),
        "its note says",
    ),
    "a note of another role": (lambda s: s.note(signer=s.signers["trainer"]), "ledger"),
    "a note of nobody": (lambda s: s.note(signer=new_signer("ledger")), "ledger"),
    "a note of a key that was rotated": (note_of_the_old_key, "ledger"),
}
NEWEST = {
    "the origin of another session",
    "a note over nothing",
    "another root",
    "a note of another role",
    "a note of nobody",
    "a note of a key that was rotated",
}
"""Those that the fast way must see as well, because the signatures under the newest note are not verified."""

SEALS = {
    "a seal of another role's key": (lambda s: s.seal(signer=s.signers["trainer"]), "ledger"),
    "a seal of a key that was rotated": (seal_of_the_old_key, "ledger"),
    "another root": (lambda s: s.seal(root="ab" * 32), "root"),
    "a smaller size": (lambda s: s.seal(size=3, root=s.root_over(3)), "s"),
    "last_seq is its own": (lambda s: s.seal(last_seq=s.seq + 1), "last_seq"),
    "last_seq is in the future": (lambda s: s.seal(last_seq=s.seq + 1000), "last_seq"),
    "last_seq is in the past": (lambda s: s.seal(last_seq=s.seq - 1), "last_seq"),
    "a role spoke after what it covers": (overtaken, "s"),
    "a role spoke after its last_seq": (stale, "s"),
    "another head of a lane": (other_lanes(lambda lanes: lanes.update(trainer="ab" * 32)), "heads"),
    "one lane less": (other_lanes(lambda lanes: lanes.pop("validator")), "heads"),
    "one lane more": (other_lanes(lambda lanes: lanes.update(exporter="ab" * 32)), "heads"),
    "another keyring": (lambda s: s.seal(keyring="ab" * 32), "keyring"),
    "a smaller keyring": (keyring_grown, "keyring"),
    "a larger keyring": (lambda s: s.seal(keyring_size=len(s.ring) + 1), "keyring"),
    "another root of the keyring": (lambda s: s.seal(keyring_root="ab" * 32), "keyring"),
    "one member more": (more_members(lambda members: members.update({"export/1/model.onnx": "ab" * 32})), "export/1"),
    "one member less": (more_members(lambda members: members.pop("verify_bundle.py")), "verify_bundle.py"),
}


@pytest.mark.parametrize("what", NOTES)
def test_a_note_that_does_not_say_what_is_there_is_refused_by_all_programs(what: str, tmp_path: Path) -> None:
    forge, why = NOTES[what]
    story = Story()
    story.begin()
    forge(story)
    if what in NEWEST:
        assert judge(story).at_once, "no signature may rest on such a note"
    story.say("trainer", so)
    story.seal()
    found = Audited(story, tmp_path)
    assert why in found.one_by_one
    assert found.at_once
    assert found.alone
    assert why != "covers" or why in found.alone


@pytest.mark.parametrize("what", SEALS)
def test_a_seal_that_does_not_say_what_is_there_is_refused_by_all_programs(what: str, tmp_path: Path) -> None:
    forge, why = SEALS[what]
    story = Story()
    story.begin()
    story.note()
    story.say("trainer", so)
    forge(story)
    if what.startswith("last_seq is"):
        found_at_once = judge(story)
        assert "last_seq" in found_at_once.one_by_one
        assert found_at_once.at_once
    found = Audited(story, tmp_path)
    assert why in found.one_by_one
    assert found.at_once
    assert found.alone


def test_under_a_note_the_fast_way_verifies_the_signature_that_ends_a_lane() -> None:
    story = Story()
    story.begin()
    story.say("trainer", so, signer=Impostor(story.signers["trainer"]))
    story.say("validator", so)
    story.note()
    assert judge(story).at_once


def test_the_first_record_that_the_newest_note_leaves_out_is_verified() -> None:
    story = Story()
    story.begin()
    story.say("trainer", so, signer=Impostor(story.signers["trainer"]))
    size = len(story.log) - 1
    story.note(lambda said: said.update(size=size, root=story.root_over(size), last_seq=story.log[size - 1].seq))
    story.say("trainer", so)
    assert judge(story).at_once


def test_an_honest_note_and_seal_are_refused_by_none(tmp_path: Path) -> None:
    story = Story()
    story.begin()
    story.note()
    story.say("trainer", so)
    story.note()
    story.say("trainer", so)
    story.seal()
    found = Audited(story, tmp_path)
    assert (found.one_by_one, found.at_once, found.alone) == ("", "", "")


# ---------------------------------------------------------------- the keyring


def admit(story: Story, role: str, lane: str = "root", **more: Any) -> None:
    story.keys(KeyAdmitted(role=role, public=new_signer("x").public, **more), lane=lane)


def rotate_in_vain(role: str, of: str) -> Callable[[Story], None]:
    return lambda s: s.keys(KeyRotated(role=role, old=s.signers[of].key_id, public=new_signer("x").public))


def twice(event: Callable[[Story], Any]) -> Callable[[Story], None]:
    def forge(story: Story) -> None:
        said = event(story)
        story.keys(said)
        story.keys(said)

    return forge


KEYRING: dict[str, Callable[[Story], None]] = {
    "it is opened again": lambda s: s.keys(KeyringOpened(root=s.root, deployment="again")),
    "a role gets a second key": lambda s: admit(s, "trainer"),
    "the desk admits a role": lambda s: admit(s, "exporter", lane="desk"),
    "the desk revokes": lambda s: s.keys(KeyRevoked(key=s.signers["trainer"].key_id, reason="x"), lane="desk"),
    "the desk's key in the root's lane": lambda s: s.keys(
        KeyRevoked(key=s.signers["trainer"].key_id, reason="x"), signer=s.signers["desk"]
    ),
    "the root's key in the desk's lane": lambda s: s.keys(
        KeyAdmitted(role="guest_cat", public=new_signer("x").public, guest=True), lane="desk", signer=s.signers["root"]
    ),
    "somebody else may admit": lambda s: admit(s, "exporter", may_admit=True),
    "a guest without a guest's name": lambda s: admit(s, "exporter", guest=True),
    "a guest's name without a guest": lambda s: admit(s, "guest_cat"),
    "a second root": lambda s: admit(s, "root"),
    "a key for the operator": lambda s: admit(s, "operator"),
    "a guest without a name": lambda s: admit(s, "guest_", guest=True),
    "a key that was admitted": lambda s: s.keys(KeyAdmitted(role="exporter", public=s.signers["trainer"].public)),
    "a guest's key that hears the same": lambda s: s.keys(
        KeyAdmitted(role="guest_ant", public=s.signers["guest_ant"].public, guest=True)
    ),
    "a rotation of another role's key": rotate_in_vain("trainer", "validator"),
    "a rotation of the root": rotate_in_vain("root", "root"),
    "a rotation to a key that was admitted": lambda s: s.keys(
        KeyRotated(role="trainer", old=s.signers["trainer"].key_id, public=s.signers["validator"].public)
    ),
    "a rotation twice": twice(
        lambda s: KeyRotated(role="trainer", old=s.signers["trainer"].key_id, public=new_signer("x").public)
    ),
    "a revocation twice": twice(lambda s: KeyRevoked(key=s.signers["trainer"].key_id, reason="x")),
    "a revocation of the root": lambda s: s.keys(KeyRevoked(key=s.signers["root"].key_id, reason="x")),
    "a revocation of nobody": lambda s: s.keys(KeyRevoked(key="ab" * 8, reason="x")),
    "another lane": lambda s: s.keys(so, lane="trainer"),
}


@pytest.mark.parametrize("what", KEYRING)
def test_a_key_that_the_keyrings_rules_do_not_allow_is_refused_by_both_programs(what: str) -> None:
    story = Story()
    assert keyring_judged(story) == ("", "")
    KEYRING[what](story)
    product, alone = keyring_judged(story)
    assert product
    assert alone


def keyring_judged(story: Story, root: str = "") -> tuple[str, str]:
    """Why the product and the stand-alone program do not admit the keyring."""
    admission = Admission(root=root or story.fingerprint)
    for stored in story.ring:
        admission.admit(stored)
    ring = verify_bundle.Keyring(story.ring_session, root or story.fingerprint)
    records = verify_bundle.records_of("keyring", story.keyring_file())[1]
    try:
        verify_bundle.Reader("keyring", story.ring_session, ring, SCHEMAS).read(records)
    except verify_bundle.Broken as broken:
        return "; ".join(void.detail for void in admission.voids), str(broken)
    return "; ".join(void.detail for void in admission.voids), ""


def test_a_keyring_of_another_root_or_under_another_id_is_refused_by_both_programs() -> None:
    story = Story()
    assert all(keyring_judged(story, "0" * 64))
    other = Story()
    other.root = other.signers["root"].public
    story.ring_session = session_id(new_uuid())
    story.ring, story.heads = [], {}
    story.keys(KeyringOpened(root=story.root, deployment="elsewhere"))
    assert all(keyring_judged(story))
