"""One definition of JSON, in docs/log-format.md, and both programs hold it: what one admits the other admits."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus.chain import Draft, compose
from bus.keys import HEADER
from bus.port import Stored
from contracts.ids import new_uuid
from contracts.trainer import CheckpointWritten
from tests.runtime.recorded_home import DIGEST, RecordedHome
from tests.runtime.recorded_session import FootprintEstimated
from tests.verifiers import Programs, Verdicts

MARK = b"12.5"
CONSTANTS = (b"NaN", b"Infinity", b"-Infinity")
PLAIN = [
    *(b"0", b"-0", b"-0.0", b"7", b"-7", b"1E5", b"1e+5", b"1e-5", b"1e400", b"-1e400", b"1e99999999999", b"0.1"),
    *(b"true", b"false", b"null", b"[]", b"{}", b'""', b'"\\/"', b'"\\u00e9"', b'"\\u0000"', b'"\x7f"', b" \n\t\r1 "),
    *(b'"\\ud83d\\ude00"', b'"\\uD83D\\uDE00"', b'"\xf0\x9f\x98\x80"', b'"\xe2\x80\xa8"', b'"\\\\ud800"', b'"NaN"'),
    *(b'{"a":1,"a":2}', b'{"":1}', b'{"NaN":"Infinity"}', b'"\\"NaN\\""', b"1" * 4300, b"-" + b"1" * 4300),
    *(b"0." + b"1" * 5000, b"1e" + b"0" * 5000, b"[" * 198 + b"1" + b"]" * 198, b"[" * 199 + b"]" * 199),
    *(b'{"a":' * 198 + b"1" + b"}" * 198, b'"' + b"[" * 5000 + b'"', b"[[]," * 198 + b"{}" + b"]" * 198),
    *(b'["' + b"\\\\" * 300 + b'"]', b'"\\\\\\u0041"', b"1.5e3", b'{"a":[{"b":[1,{"c":null}]}]}', b"9" * 400 + b".5"),
]
HOSTILE = [
    *(b"nan", b"-NaN", b"+NaN", b"inf", b"-inf", b"Inf", b"+Infinity", b"+1", b"01", b"-01", b"1.", b".5", b"-", b"1e"),
    *(b"1e+", b"1_0", b"0x1", b"1e1.5", b"--1", b"1-", b"True", b"None", b"undefined", b"1 2", b"", b" ", b"tru"),
    *(b"/*a*/1", b"1//", b"'a'", b"{a:1}", b"{1:2}", b'{"a":1,}', b"[1,]", b"[,]", b"[1 2]", b'{"a" 1}', b'{"a":}'),
    *(
        b'"a',
        b'"\t"',
        b'"\x00"',
        b'"\x1f"',
        b'"\n"',
        b'"\\x41"',
        b'"\\u12"',
        b'"\\u12g4"',
        b'"\\',
        b"[",
        b"]",
        b"{",
        b"}",
    ),
    *(b'"\\ud800"', b'"\\udc00"', b'"\\ud800\\u0041"', b'"\\ud800x"', b'"\\uD800\\uD800\\uDC00"', b'{"\\ud800":1}'),
    *(b'"\\ud800\\\\udc00"', b'"\\\\\\ud800"', b'{"a":"\\udfff","a":1}', b'"\xed\xa0\x80"', b'"\xff"', b'"\xc0\x80"'),
    *(b'"\xf4\x90\x80\x80"', b"\xef\xbb\xbf1", b"\xc2\xa01", b"\xe2\x80\xa81", b"\x0b1", b"\x0c1", b"1\x00", b'"\xe9"'),
    *(b"1" * 4301, b"-" + b"1" * 4301, b"1" * 4301 + b".5", b"1" * 4301 + b"e5", b'{"a":' + b"1" * 4301 + b',"a":1}'),
    *(b"[" * 199 + b"1" + b"]" * 199, b"[" * 200 + b"]" * 200, b'{"a":' * 199 + b"1" + b"}" * 199, b"[" * 5000),
    *(b"[" * 300000, b'{"a":' + b"[" * 198 + b"1" + b"]" * 198 + b',"a":1}', b"[[]," * 199 + b"1" + b"]" * 199),
]


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
        drafts = [Draft(event, str(new_uuid()))]  # type: ignore[arg-type]
        (record,) = compose(drafts, session=session, lane=lane, head=head, signer=signer, source="/s", time="t")
        body = record.body.replace(old, new, 1)
        genesis = next(one for one in self.home.stream if session in one.subject)
        last = Stored(genesis.seq + 5, record.subject, body, {HEADER: signer.sign(body)})
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
    short = [one for one in (*PLAIN, *PLAIN, *HOSTILE, *CONSTANTS) if len(one) < 400]
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


@pytest.mark.parametrize(
    "change",
    [
        (b'"laneseq":1', b'"laneseq":1.0'),
        (b'"laneseq":1', b'"laneseq":1e0'),
        (b'"laneseq":1', b'"laneseq":NaN'),
        (b'"laneseq":1', b'"laneseq":true'),
        (b'"laneseq":1', b'"laneseq":2,"laneseq":1'),
        (b'"laneseq":1', b'"laneseq":1,"laneseq":2'),
        (b'"laneseq":1', b'"laneseq":"\\ud800","laneseq":1'),
        (b'"laneseq":1', b'"lane\\u0073eq":1'),
        (b'"laneseq":1', b'"laneseq":1,"epoch":' + b"9" * 4301),
        (b'"laneseq":1', b'"laneseq":1,"epoch":' + b"9" * 4300),
        (b'"laneseq":1', b'"laneseq":1,"epoch":Infinity'),
        (b'"laneseq":1', b'"laneseq":1,"epoch":1.0'),
        (b'"laneseq":1', b'"laneseq":1,"extra":1'),
        (b'"time":"t"', b'"time":null'),
        (b'"time":"t"', b'"time":"\xf0\x9f\x98\x80"'),
        (b'"time":"t"', b'"time":"' + b"\xc3\xa9" * 40 + b'"'),
        (b'"time":"t"', b'"time":"' + b"\xc3\xa9" * 41 + b'"'),
        (b"{", b"\xef\xbb\xbf{"),
        (b"{", b" \n{"),
        (b"{", b"[{"),
        (b"}}", b"}}\n"),
        (b"}}", b"}}\x00"),
        (b"}}", b"}}}"),
        (b"}}", b"}},"),
    ],
)
def test_an_envelope_is_spelled_alike_for_all_programs(court: Court, change: tuple[bytes, bytes]) -> None:
    for rules in (1, 2):
        found = court.whole(rules, change)
        assert found.agree, found
