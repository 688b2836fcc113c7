"""The home's own copy of the log against the store: what is damaged stops nobody, and what was set back is noticed."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from bus import files, records, subjects
from bus.memory import MemoryBus
from bus.nkeys import UserKey
from bus.port import Record, StoredRecord
from contracts.commands import AdmitCommand
from contracts.errors import Full, NotVerified, Refused
from contracts.operator import PauseRequested
from runtime.commands.askers import THE_OWNER
from runtime.commands.guests import Guests
from runtime.home.home import Home
from runtime.home.settings import load
from runtime.host.checkup import checkup
from runtime.log.archive import Archive
from runtime.log.copies import Copies
from runtime.log.recovery import newest, refuse_if_set_back, repair
from tests.harness import crew


async def told(home: Path, bus: MemoryBus) -> list[str]:
    """Two sessions that were begun in this home, with two events each, which its files have too."""
    async with crew(home, (), bus=bus) as made:
        begun = [await made.commands.submit({"name": name}, request_id=name) for name in ("one", "two")]
        for session in begun:
            await made.writer("operator", "desk").say(session, [PauseRequested(asked_by="me")])
    return begun


async def stored(bus: MemoryBus) -> list[StoredRecord]:
    async with bus.read(subjects.EVERYTHING) as found:
        return [one async for one in found]


async def holding(kept: list[StoredRecord]) -> MemoryBus:
    """A store that holds these messages and no others."""
    bus = MemoryBus()
    for one in kept:
        lane = one.subject.rpartition(".")[0] + ".*"
        head = await bus.head(lane)
        await bus.append([Record(one.subject, one.body, one.headers)], lane=lane, after=head.seq if head else 0)
    return bus


def damage(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[len(body) // 3] ^= 1
    path.write_bytes(body)


async def test_the_newest_record_of_a_file_is_found_from_its_end_also_behind_a_torn_one(tmp_path: Path) -> None:
    (first, _) = await told(tmp_path, MemoryBus())
    path = Home(tmp_path).log(first)
    *_, last = files.read(path)
    assert records.newest(path) == last
    path.write_bytes(path.read_bytes() + b"17 swarm.ev torn")
    assert records.newest(path) == last
    path.write_bytes(records.title(first))
    assert records.newest(path) is None


async def test_a_store_that_holds_what_the_files_have_is_fine(tmp_path: Path) -> None:
    bus = MemoryBus()
    await refuse_if_set_back(bus, Home(tmp_path), "here")
    await told(tmp_path, bus)
    found = newest(Home(tmp_path))
    assert found
    assert found[1].seq == len(await stored(bus))
    await refuse_if_set_back(bus, Home(tmp_path), "here")


@pytest.mark.parametrize("lost", [1, 3, 10_000])
async def test_a_store_that_was_set_back_or_lost_is_refused_with_the_cure(tmp_path: Path, lost: int) -> None:
    bus = MemoryBus()
    await told(tmp_path, bus)
    before = await stored(bus)
    with pytest.raises(NotVerified, match="no such record") as refused:
        await refuse_if_set_back(await holding(before[: max(0, len(before) - lost)]), Home(tmp_path), "here")
    assert "stay readable" in refused.value.cure
    assert refused.value.path


async def test_a_store_that_went_on_after_it_was_set_back_is_refused_too(tmp_path: Path) -> None:
    bus = MemoryBus()
    await told(tmp_path, bus)
    *before, last = await stored(bus)
    for other in (StoredRecord(last.seq, last.subject, last.body + b" ", {}), before[0]):
        with pytest.raises(NotVerified):
            await refuse_if_set_back(await holding([*before, other]), Home(tmp_path), "here")


async def test_a_damaged_copy_stops_neither_its_session_nor_another_and_is_kept_as_it_is(tmp_path: Path) -> None:
    bus = MemoryBus()
    first, second = await told(tmp_path, bus)
    damage(Home(tmp_path).log(first))
    damaged = Home(tmp_path).log(first).read_bytes()
    async with crew(tmp_path, (), bus=bus) as made:
        for session in (first, second):
            await made.writer("operator", "desk").say(session, [PauseRequested(asked_by="me")])
            assert made.tail.history(session).size == 3
    assert Home(tmp_path).log(first).read_bytes() == damaged
    assert Archive(Home(tmp_path)).read(second).history.size == 3


async def test_a_repair_sets_a_damaged_copy_aside_and_the_next_start_writes_it_anew(tmp_path: Path) -> None:
    home, bus = Home(tmp_path), MemoryBus()
    first, second = await told(tmp_path, bus)
    whole, other = home.log(first).read_bytes(), home.log(second).read_bytes()
    damage(home.log(first))
    home.remember_tail(10**6)
    (finding,) = [one for one in checkup(home, load(home=str(tmp_path))) if one.what == "logs" and one.level == "fail"]
    assert "doctor --repair" in finding.cure
    (aside,) = repair(home)
    assert (aside.parent, aside.name) == (home.log(first).parent, "log.damaged-1")
    assert (home.log(first).exists(), home.tail_after(), repair(home)) == (False, 0, [])
    async with crew(tmp_path, (), bus=bus):
        pass
    assert (home.log(first).read_bytes(), home.log(second).read_bytes()) == (whole, other)


async def test_nothing_is_repaired_under_the_hands_of_a_host(tmp_path: Path) -> None:
    Home(tmp_path).prepare()
    holder = Home(tmp_path)
    holder.lock()
    with pytest.raises(Refused, match="held by another host"):
        repair(Home(tmp_path))
    holder.unlock()


async def test_what_waited_for_room_is_written_first_and_the_problem_stays_until_nothing_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = MemoryBus()
    sessions = await told(tmp_path / "source", bus)
    said = {session: [one for one in await stored(bus) if session in one.subject] for session in sessions}
    home = Home(tmp_path / "copy")
    home.prepare()
    kept, append, full = Copies(home), files.LogFile.append, set(sessions)

    def crowded(file: files.LogFile, *messages: StoredRecord) -> None:
        if file.path.parent.name in full:
            raise Full("no room", cure="Free some.")
        append(file, *messages)

    monkeypatch.setattr(files.LogFile, "append", crowded)
    for session in sessions:
        kept.keep(session, said[session][:1])
    assert kept.missing() == min(one[0].seq for one in said.values())
    for n, session in enumerate(sessions):
        full.discard(session)
        kept.keep(session, said[session][1:])
        assert (kept.problem is None) is (n == len(sessions) - 1)
    assert kept.missing() is None
    kept.close()
    for session in sessions:
        assert [one.seq for one in files.read(home.log(session))] == [one.seq for one in said[session]]


class Moved:
    """A server that has another address after a restart."""

    url, pid = "nats://127.0.0.1:1", 1

    async def let_in(self, name: str, user: UserKey) -> None: ...

    async def let_out(self, name: str) -> None: ...

    async def keep(self) -> None: ...


async def test_guests_are_told_where_the_server_is_after_it_had_to_move(tmp_path: Path) -> None:
    async with crew(tmp_path, ()) as made:
        server = Moved()
        guests = Guests(made, made.bus, server)  # type: ignore[arg-type] # of an administrator only the consumers
        admitted = await guests.admit(AdmitCommand(name="ant", hears=["window.recorded"]), THE_OWNER)
        before = orjson.loads(Path(admitted["creds"]).read_bytes())
        server.url = "nats://127.0.0.1:2"
        guests.follow_the_server()
        after = orjson.loads(Path(admitted["creds"]).read_bytes())
    assert after == before | {"url": server.url}
    assert Path(admitted["creds"]).stat().st_mode & 0o077 == 0
