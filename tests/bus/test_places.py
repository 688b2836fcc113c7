"""A file's records by place are its records."""

from __future__ import annotations

from pathlib import Path

import pytest

from bus import records as module
from bus.keys import HEADER
from bus.port import StoredRecord
from bus.records import RecordPlaces, RecordReader, StoredRecords, frame, title
from bus.tree import leaf_hash, leaf_of
from contracts.errors import NotVerified

SESSION = "00-" + "a" * 26


def record(n: int) -> StoredRecord:
    return StoredRecord(n, "subject", b"x" * (7 * n % 50), {HEADER: f"s{n}"} if n % 3 else {})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.write_bytes(title(SESSION) + b"".join(frame(record(n)) for n in range(1, 300)))
    return path


@pytest.mark.parametrize("piece", [1, 100, 1000, 1 << 18])
def test_records_by_place_are_those_of_a_reading(path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(module, "_PIECE", piece)
    places, read = RecordPlaces(path, SESSION), [*RecordReader(path)]
    assert (len(places), places.torn) == (299, 0)
    assert places.stored(0, 400) == read
    records = StoredRecords(places, 290)
    assert ([*records], records[17], records[-1], records[3:9]) == (read[:290], read[17], read[289], tuple(read[3:9]))


@pytest.mark.parametrize("piece", [1, 100, 1 << 18])
def test_what_is_written_later_is_found_whole(path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(module, "_PIECE", piece)
    places, more = RecordPlaces(path, SESSION), frame(record(300))
    for end in range(1, len(more)):
        with path.open("ab") as file:
            file.write(more[end - 1 : end])
        places.grow()
        assert (len(places), places.torn) == (299, end)
    with path.open("ab") as file:
        file.write(more[-1:] + frame(record(301)))
    places.grow()
    assert (len(places), places.torn) == (301, 0)
    assert places.stored(299, 301) == [record(300), record(301)]


def test_a_file_that_is_no_log_or_not_what_it_was_is_refused(path: Path) -> None:
    with pytest.raises(NotVerified):
        RecordPlaces(path, "00-" + "b" * 26)
    places = RecordPlaces(path, SESSION)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"\n", b"\n\n"))
    with pytest.raises(NotVerified, match="not what was read there"):
        places.stored(0, 10)
    path.write_bytes(b"")
    with pytest.raises(NotVerified):
        places.stored(250, 251)


def test_what_was_judged_is_read_again_or_refused(path: Path) -> None:
    places = RecordPlaces(path, SESSION)
    places.believe(b"".join(leaf_hash(leaf_of(stored)) for stored in places.stored(0, 250)))
    assert places.stored(0, 299) == [*RecordReader(path)]
    data = path.read_bytes()
    for old, new in (
        (b"\n7 subject", b"\n8 subject"),
        (b" s7 ", b" s8 "),
        (b"\n" + b"x" * 49, b"\n" + b"y" + b"x" * 48),
    ):
        assert old in data
        path.write_bytes(data.replace(old, new, 1))
        with pytest.raises(NotVerified, match="not what was read there before"):
            places.stored(0, 100)
    path.write_bytes(data.replace(b"\n260 subject", b"\n261 subject"))
    assert places.stored(255, 262)[4].seq == 261, "nobody has judged that one"
