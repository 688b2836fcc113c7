"""A list of sessions reads a log once, and again whenever anything has changed that its line depends on."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bus.admission import Admission
from bus.memory import MemoryBus
from runtime.commands.session_index import SessionIndex
from runtime.log.archive import Archive
from runtime.log.follower import LogFollower
from runtime.views import summaries
from runtime.views.summaries import FILE, Summaries
from tests.runtime.recorded_home import RecordedHome, evaluated, window


@pytest.fixture
def recorded(tmp_path: Path) -> RecordedHome:
    return RecordedHome(tmp_path / "home")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sessions whose logs are read, in order."""
    found, within = list[str](), Archive.history
    monkeypatch.setattr(Archive, "history", lambda self, session: found.append(session) or within(self, session))
    return found


def test_what_is_as_it_was_is_listed_unread_and_the_same(recorded: RecordedHome, read: list[str]) -> None:
    sessions = {recorded.trained(), recorded.requested(), recorded.trained()}
    first = Summaries(recorded.home).sessions()
    assert {*read} == sessions
    read.clear()
    assert Summaries(recorded.home).sessions() == first
    assert not read
    assert (recorded.home.sessions / first[0]["session"] / FILE).stat().st_mode & 0o777 == 0o600


def grow(recorded: RecordedHome, session: str) -> None:
    recorded.say(session, "trainer", window(0, 50), evaluated(50, 0.5))


def change(recorded: RecordedHome, session: str) -> None:
    """One letter, the size and the time of the last change as before."""
    path = recorded.home.log(session)
    seen, data = path.stat(), path.read_bytes()
    path.write_bytes(data.replace(b'"name":"digits"', b'"name":"digitz"'))
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def spoil(recorded: RecordedHome, session: str) -> None:
    path = recorded.home.sessions / session / FILE
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize("happens", [grow, change, spoil])
def test_what_has_changed_is_read_again_and_nothing_else(
    recorded: RecordedHome, read: list[str], happens: Callable[[RecordedHome, str], None]
) -> None:
    first, other = recorded.requested(), recorded.trained()
    before = {one["session"]: one for one in Summaries(recorded.home).sessions()}
    assert (before[first]["events"], before[other]["events"]) == (1, 12)
    read.clear()
    happens(recorded, first)
    told = {one["session"]: one for one in Summaries(recorded.home).sessions()}
    assert read == [first]
    assert told[first] == Summaries(recorded.home).session(first)
    assert (told[first] == before[first]) == (happens is spoil)
    assert told[other] == before[other]


def test_a_summary_that_stands_beside_another_log_is_not_believed(recorded: RecordedHome, read: list[str]) -> None:
    first, other = recorded.requested(), recorded.trained()
    Summaries(recorded.home).sessions()
    shutil.copy(recorded.home.sessions / other / FILE, recorded.home.sessions / first / FILE)
    assert Summaries(recorded.home).summary(first)["session"] == first
    assert read[2:] == [first]


def test_every_line_is_made_again_when_keys_root_home_or_software_are_others(
    recorded: RecordedHome, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = recorded.trained()
    home = recorded.home

    def are_read() -> bool:
        read.clear()
        Summaries(home).summary(session)
        return read == [session]

    assert are_read()
    assert not are_read()
    ring = home.log(recorded.ring)
    os.utime(ring)
    assert are_read()
    monkeypatch.setattr(summaries, "VERSION", "another")
    assert are_read()
    monkeypatch.setattr(summaries, "_software", lambda: "other code")
    assert are_read()
    assert not are_read()
    assert Summaries(home, "0" * 64).summary(session)["events"] == 0, "no key of that root has signed anything here"
    assert are_read()


async def test_the_front_desk_keeps_the_summary_of_every_session_that_is_sealed(
    recorded: RecordedHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, running, sealed = recorded.trained(), recorded.requested(), recorded.trained()
    within = Summaries.summary
    monkeypatch.setattr(Summaries, "summary", lambda self, one: 1 / 0 if one == broken else within(self, one))
    tail = LogFollower(MemoryBus(), Admission(root=recorded.fingerprint))
    keeping = asyncio.create_task(SessionIndex(recorded.home, tail).summarise())
    await asyncio.sleep(0)
    for stored in recorded.stream:
        tail.take(stored)
    async with asyncio.timeout(10):
        while not (recorded.home.sessions / sealed / FILE).exists():
            await asyncio.sleep(0.01)
    assert not keeping.done()
    keeping.cancel()
    assert not any((recorded.home.sessions / one / FILE).exists() for one in (broken, running))
