"""One definition of JSON, in docs/log-format.md, and both programs hold it: what one admits the other admits."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus.chain import Draft, compose
from bus.keys import HEADER
from bus.port import StoredRecord
from contracts.trainer import CheckpointWritten
from tests.runtime.recorded_home import DIGEST, RecordedHome
from tests.runtime.recorded_session import FootprintEstimated
from tests.spellings import CONSTANTS, ENVELOPES, HOSTILE, PLAIN, SHORT
from tests.verifiers import Programs, Verdicts

MARK = b"12.5"


class Court:
    """A session by either rules, and what a guest or the trainer says into it last."""

    def __init__(self, root: Path) -> None:
        self.home = RecordedHome(root)
        self.sessions = {rules: self.home.requested(rules=rules) for rules in (1, 2)}
        ring = [one for one in self.home.stream if self.home.ring in one.subject]
        self.programs = Programs(self.home.ring, ring, self.home.fingerprint)

    def judge(self, rules: int, spelling: bytes) -> Verdicts:
        """The three verdicts when a guest's data have this spelling somewhere inside."""
        return self._judge(rules, "guest_ant", FootprintEstimated(grams=12.5), MARK, spelling)

    def of_the_trainer(self, rules: int, spelling: bytes) -> Verdicts:
        """The same of an event that both programs have a schema for, with the spelling for a whole number."""
        said = CheckpointWritten(
            segment=1, step=100, reason="final", state_root=DIGEST, weights_digest=DIGEST, blob=DIGEST, bytes=123454321
        )
        return self._judge(rules, "trainer", said, b"123454321", spelling)

    def whole(self, rules: int, change: tuple[bytes, bytes]) -> Verdicts:
        """The verdicts when something else than data is changed in the body."""
        return self._judge(rules, "guest_ant", FootprintEstimated(grams=12.5), *change)

    def _judge(self, rules: int, lane: str, event: object, old: bytes, new: bytes) -> Verdicts:
        session, signer = self.sessions[rules], self.home.signers[lane]
        head = self.home.admission.head(session, lane)
        drafts = [Draft(event, "one", epoch=1)]  # type: ignore[arg-type]
        (record,) = compose(drafts, session=session, lane=lane, head=head, signer=signer, source="/s", time="t")
        body = record.body.replace(old, new, 1)
        genesis = next(one for one in self.home.stream if session in one.subject)
        last = StoredRecord(genesis.seq + 5, record.subject, body, {HEADER: signer.sign(body)})
        return self.programs.judge(session, [genesis, last])


@pytest.fixture(scope="module")
def court(tmp_path_factory: pytest.TempPathFactory) -> Court:
    return Court(tmp_path_factory.mktemp("court"))


@pytest.mark.parametrize("rules", [1, 2])
def test_what_is_json_is_admitted_by_all_programs_and_nothing_else_by_any(court: Court, rules: int) -> None:
    for spelling in PLAIN:
        found = court.judge(rules, spelling)
        assert found.admitted, (spelling[:40], found)
        assert b"\n" in spelling or not found.at_once, "the fast way reads lines, and gives up at nothing else"
    for spelling in HOSTILE:
        found = court.judge(rules, spelling)
        assert found.agree, (spelling[:40], found)
        assert not found.admitted, spelling[:40]


@pytest.mark.parametrize("place", [b"%s", b"[1,%s]", b'{"a":{"b":%s}}', b'{"a":%s,"a":1}', b'["Infinity",%s]'])
def test_a_constant_is_a_value_by_rules_1_and_none_by_rules_2(court: Court, place: bytes) -> None:
    """A session of before keeps what it admitted; one of today refuses what half of all readers cannot read."""
    for constant in CONSTANTS:
        assert court.judge(1, place.replace(b"%s", constant)).admitted
        found = court.judge(2, place.replace(b"%s", constant))
        assert found.agree, found
        assert not found.admitted


def test_a_constant_in_the_data_of_a_built_in_role_is_none_either_way_of_reading(court: Court) -> None:
    for spelling in (*CONSTANTS, b"1e400", b'"NaN"'):
        for rules in (1, 2):
            found = court.of_the_trainer(rules, spelling)
            assert found.at_once, (rules, spelling, found)
            assert found.alone, (rules, spelling, found)


def test_a_genesis_is_judged_by_the_rules_that_it_names_itself(court: Court) -> None:
    for rules, constant, admitted in ((1, b"NaN", True), (2, b"NaN", False), (1, b"7", True), (2, b"7", True)):
        session = court.sessions[rules]
        genesis = next(one for one in court.home.stream if session in one.subject)
        body = genesis.body.replace(b'"epochs":2', b'"epochs":' + constant, 1)
        signed = genesis._replace(body=body, headers={HEADER: court.home.signers["desk"].sign(body)})
        found = court.programs.judge(session, [signed])
        assert found.agree, found
        assert found.admitted == admitted, (rules, constant, found)


@pytest.mark.parametrize("rules", [1, 2])
def test_hundreds_of_mixed_spellings_are_judged_alike(court: Court, rules: int) -> None:
    """Drawn from everything above, nested into each other, cut and repeated."""
    admitted = 0
    for spelling in _mixed(random.Random(rules), 400):
        found = court.judge(rules, spelling)
        assert found.agree, (spelling, found)
        admitted += found.admitted
    assert 40 < admitted < 360


def _mixed(rng: random.Random, count: int) -> Iterator[bytes]:
    short = [one for one in (*PLAIN, *PLAIN, *HOSTILE, *CONSTANTS) if len(one) < SHORT]
    frames = [
        b"[%s]",
        b'{"a":%s}',
        b"[%s,%s]",
        b'{"a":%s,"a":%s}',
        b'{"\\u0061":%s,"a":%s}',
        b" %s\n",
        b'["%s"]',
        b"%s",
    ]
    for _ in range(count):
        made = rng.choice(frames)
        while b"%s" in made:
            made = made.replace(b"%s", rng.choice([*short, *frames[:2]]), 1)
        cut = rng.randrange(len(made) + 1) if rng.random() < 0.1 else len(made)
        yield made[:cut]


@pytest.mark.parametrize("change", ENVELOPES)
def test_an_envelope_is_spelled_alike_for_all_programs(court: Court, change: tuple[bytes, bytes]) -> None:
    for rules in (1, 2):
        found = court.whole(rules, change)
        assert found.agree, found
