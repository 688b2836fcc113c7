"""A body is read the same, whichever way it is read."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from contracts import envelope
from contracts.errors import SwarmError
from contracts.event import events, pack
from contracts.ids import ZERO
from contracts.trainer import WindowRecorded
from tests.contracts.make_goldens import GOLDENS, lines
from tests.spellings import ENVELOPES, HOSTILE, ODD, PLAIN

SHIPPED = [line for path in sorted(GOLDENS.glob("*.jsonl")) for _, line in lines(path.name.removesuffix(".jsonl"))]


def verdict(read: Callable[[bytes], Any], body: bytes) -> str:
    """What comes of reading, as text: NaN is not equal to itself."""
    try:
        return repr(read(body))
    except SwarmError as error:
        return f"{type(error).__name__} {error.path}: {error.message}"


def the_long_way(body: bytes) -> Any:
    """Without the short way for what is spelled as we spell it."""
    return envelope._read_present(body) or envelope._read_slowly(body)


def window(**more: Any) -> bytes:
    said = WindowRecorded(
        segment=1,
        first=0,
        last=2,
        losses=pack(b"\x00\x00\x80\x3f" * 2),
        gradient_norm=float("nan"),
        learning_rate=0.5,
        index_digest="i",
        weights_digest=ZERO,
        finite=True,
        layer_names=["a"],
        layer_figures="",
    )
    place = {"session": "00-" + "a" * 26, "lane": "trainer", "laneseq": 1, "prev": ZERO, "source": "/s", "time": "t"}
    return envelope.write(said, **{"id": "one", "cause": "c", "epoch": 1, **place, **more})


class Changes:
    """Draws changed bodies."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._kinds = (self.flipped, self.cut, self.inserted, self.replaced, self.repeated, self.spelled, self.edited)

    def of(self, body: bytes) -> bytes:
        for _ in range(self._rng.choice([1, 1, 1, 2])):
            body = self._rng.choice(self._kinds)(body)
        return body

    def flipped(self, body: bytes) -> bytes:
        changed = bytearray(body or b"x")
        changed[self._rng.randrange(len(changed))] ^= 1 << self._rng.randrange(8)
        return bytes(changed)

    def cut(self, body: bytes) -> bytes:
        place = self._rng.randrange(len(body) + 1)
        return body[:place] + body[place + self._rng.choice([1, 2, 9, 40]) :]

    def inserted(self, body: bytes) -> bytes:
        place = self._rng.choice([0, len(body), self._rng.randrange(len(body) + 1)])
        return body[:place] + self._rng.choice(ODD) + body[place:]

    def replaced(self, body: bytes) -> bytes:
        """One value, where a value stands."""
        places = [n for n in range(len(body)) if body[n : n + 1] == b":"]
        if not places:
            return body
        begin = self._rng.choice(places) + 1
        end = min(n for n in (*(body.find(mark, begin) for mark in (b",", b"}")), len(body)) if n >= 0)
        return body[:begin] + self._rng.choice(ODD) + body[end:]

    def repeated(self, body: bytes) -> bytes:
        """A member twice, as it is or with another value, in the envelope or in the data."""
        members = body.split(b",")
        one = self._rng.choice(members)
        again = one if self._rng.random() < 0.5 else one.partition(b":")[0] + b":" + self._rng.choice(ODD)
        members.insert(self._rng.randrange(len(members) + 1), again.lstrip(b"{"))
        return b",".join(members)

    def spelled(self, body: bytes) -> bytes:
        """The same said otherwise: blanks, another order, escapes."""
        try:
            said = json.loads(body)
            names = self._rng.sample(sorted(said), len(said))
            again = json.dumps({name: said[name] for name in names}, ensure_ascii=self._rng.random() < 0.5)
            return again.encode()
        except (ValueError, TypeError, RecursionError):
            return body

    def edited(self, body: bytes) -> bytes:
        """An attribute of the envelope left out, added, or of another kind."""
        try:
            said = json.loads(body)
            name = self._rng.choice([*said, "extra", "causationid", "step"])
            value = self._rng.choice([None, 0, -7, 2**70, 1.5, "", "a" * 70, "b" * 201, "é", ["x"], {}, ...])
            changed = {one: content for one, content in said.items() if one != name}
            changed |= {} if value is ... else {name: value}
            return json.dumps(changed, separators=(",", ":"), ensure_ascii=False).encode()
        except (ValueError, TypeError, RecursionError, AttributeError):
            return body


def test_every_body_ever_shipped_is_read_the_same_both_ways() -> None:
    events()
    for body in (*SHIPPED, window(), window(epoch=None, step=-3)):
        assert verdict(envelope.read, body) == verdict(the_long_way, body)


@pytest.mark.parametrize("seed", range(2))
def test_a_changed_body_is_read_or_refused_the_same_both_ways(seed: int) -> None:
    events()
    changes, bodies = Changes(seed), [*SHIPPED, *[window()] * 20]
    for body in (changes.of(random.Random(n).choice(bodies)) for n in range(3000)):
        assert verdict(envelope.read, body) == verdict(the_long_way, body), body


@pytest.mark.parametrize(
    "change",
    [
        *ENVELOPES,
        (b'"segment":1', b'"segment":1,"segment":2'),
        (b'"segment":1', b'"segment":' + 200 * b"[" + 200 * b"]" + b',"segment":1'),
        (b'"segment":1', b'"segment":1,"more":2'),
        (b'"segment":1', b'"segment":' + b"1" * 5000),
        (b'"segment":1,', b""),
        (b'"gradient_norm":"nan"', b'"gradient_norm":NaN'),
        (b'"gradient_norm":"nan"', b'"gradient_norm":"0x1p+99999"'),
        (b"window.recorded/2", b"window.recorded/1"),
        (b"window.recorded/2", b"window.recorded/3"),
        (b"window.recorded/2", b"window.recorded/02"),
        (b".trainer.window", b".validator.window"),
    ],
)
def test_what_is_almost_as_we_write_it_is_read_or_refused_the_same_both_ways(change: tuple[bytes, bytes]) -> None:
    before, after = change
    body = window().replace(before, after, 1)
    assert body != window()
    assert verdict(envelope.read, body) == verdict(the_long_way, body)


def test_every_spelling_of_a_value_is_read_or_refused_the_same_both_ways() -> None:
    for spelling in (*PLAIN, *HOSTILE):
        for place in (b'"segment":1', b'"layer_figures":""', b'"data":{"segment":1'):
            body = window().replace(place, place.rpartition(b":")[0] + b":" + spelling)
            assert body != window() or place.endswith(spelling)
            assert verdict(envelope.read, body) == verdict(the_long_way, body), spelling[:40]


def test_what_we_write_takes_the_short_way() -> None:
    assert envelope._read_canonical(window()) is not None
    read, event = envelope.read(window())
    assert (read.id, read.laneseq, read.epoch, read.step) == ("one", 1, 1, None)
    assert read.data is event


def test_an_older_version_of_the_same_form_takes_the_short_way_and_one_that_is_lifted_does_not() -> None:
    before = window().replace(b"window.recorded/2", b"window.recorded/1").replace(b',"sensors":null', b"")
    taken = envelope._read_canonical(before)
    assert taken is not None
    assert (taken[0].dataschema, taken[1].sensors) == ("window.recorded/1", None)
    spaced = before.replace(b"{", b"{ ", 1)
    assert envelope._read_canonical(spaced) is None
    assert repr(envelope._read_present(spaced)) == repr(taken)
    assert envelope.present("window.recorded/01") is envelope.present("window.recorded/3") is None
    assert envelope.present("audit.planned/1") is None
    assert events()["training.claimed"].same_form == {"1", "2"}
