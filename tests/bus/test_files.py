"""The file copy keeps every record exactly, survives a torn write and a full disk, and shows damage."""

from __future__ import annotations

import errno
import resource
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from bus.files import LogFile, read
from bus.port import StoredRecord
from bus.records import frame, title
from contracts.errors import Full, InvalidInput, NotFound, NotVerified, Refused

SESSION = "00-abc"
SIGNED = {"Swarm-Sig": "0123456789abcdef:xyz"}


def message(seq: int, body: bytes = b'{"a":1}') -> StoredRecord:
    return StoredRecord(seq, f"swarm.ev.00.{SESSION}.trainer.thing_said", body, SIGNED if seq % 2 else {})


MESSAGES = [message(3), message(4, b""), message(9, b"two\nlines\n\x00\xff"), message(10)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "sessions" / SESSION / "log"
    with LogFile(path, SESSION) as log:
        log.append(*MESSAGES)
    return path


def test_what_was_appended_is_read_back(path: Path) -> None:
    reading = read(path)
    assert list(reading) == MESSAGES
    assert (reading.session, reading.last_seq, reading.torn) == (SESSION, 10, None)


def test_the_same_records_give_the_same_bytes(path: Path, tmp_path: Path) -> None:
    with LogFile(tmp_path / "other", SESSION) as log:
        for each in MESSAGES:
            log.append(each)
    assert (tmp_path / "other").read_bytes() == path.read_bytes()
    assert path.read_bytes() == title(SESSION) + b"".join(frame(each) for each in MESSAGES)


def test_of_the_headers_only_the_signature_is_kept(tmp_path: Path) -> None:
    with LogFile(tmp_path / "log", SESSION) as log:
        log.append(StoredRecord(1, "s", b"{}", {**SIGNED, "traceparent": "00-1", "Nats-Expected-Stream": "EV"}))
    assert next(read(tmp_path / "log")).headers == SIGNED


def test_people_can_read_it(tmp_path: Path) -> None:
    with LogFile(tmp_path / "log", SESSION) as log:
        log.append(StoredRecord(1, "swarm.ev.x", b'{"said":"so"}', SIGNED))
    first, head, body, rest = (tmp_path / "log").read_text().split("\n")
    assert first == "stigmergy/log/1 00-abc"
    assert head.split(" ")[:4] == ["1", "swarm.ev.x", "13", SIGNED["Swarm-Sig"]]
    assert (body, rest) == ('{"said":"so"}', "")


def test_it_goes_on_where_it_ended(path: Path) -> None:
    with LogFile(path, SESSION) as log:
        assert (log.last_seq, log.synced_seq, len(log)) == (10, 10, 4)
        log.append(message(11))
        assert (log.last_seq, log.synced_seq) == (11, 10)
        assert log.sync() == log.synced_seq == 11
    assert list(read(path)) == [*MESSAGES, message(11)]


def test_a_record_that_is_there_is_skipped(path: Path) -> None:
    before = path.read_bytes()
    with LogFile(path, SESSION) as log:
        log.append(*MESSAGES)
    assert path.read_bytes() == before


def test_a_record_that_differs_from_the_one_that_is_there_is_an_incident(path: Path) -> None:
    with LogFile(path, SESSION) as log:
        with pytest.raises(NotVerified, match="message 4 differs"):
            log.append(message(4, b"other"))
        with pytest.raises(NotVerified, match="message 5 is not among"):
            log.append(message(5))
        with pytest.raises(InvalidInput, match="does not follow"):
            log.append(message(12), message(11))
    assert list(read(path)) == MESSAGES


@pytest.mark.parametrize("lost", [1, 5, 60])
def test_a_torn_last_record_is_reported_and_cut_off_and_kept_aside(path: Path, lost: int) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-lost])
    reading = read(path)
    assert list(reading) == MESSAGES[:-1]
    assert reading.torn is not None
    assert reading.torn.offset + reading.torn.size == len(whole) - lost
    with LogFile(path, SESSION) as log:
        assert (log.last_seq, log.torn) == (9, reading.torn)
        log.append(MESSAGES[-1])
    assert path.read_bytes() == whole
    assert path.with_name("log.torn").read_bytes() == whole[reading.torn.offset : -lost]


def test_every_length_of_a_torn_file_is_read_up_to_its_last_whole_record(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes()
    ends = {len(title(SESSION)) + sum(len(frame(each)) for each in MESSAGES[:n]): n for n in range(5)}
    count = 0
    for length in range(len(title(SESSION)), len(whole) + 1):
        (tmp_path / "cut").write_bytes(whole[:length])
        count = ends.get(length, count)
        reading = read(tmp_path / "cut")
        assert list(reading) == MESSAGES[:count]
        assert (reading.torn is None) == (length in ends)


def test_a_tail_of_zeros_after_a_power_cut_is_torn(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(4096))
    reading = read(path)
    assert list(reading) == MESSAGES
    assert reading.torn is not None
    assert reading.torn.size == 4096


def test_every_flipped_bit_before_the_last_record_is_damage(path: Path) -> None:
    whole = path.read_bytes()
    for at in range(len(title(SESSION)) * 8, (len(whole) - len(frame(MESSAGES[-1]))) * 8):
        damaged = bytearray(whole)
        damaged[at // 8] ^= 1 << at % 8
        path.write_bytes(damaged)
        with pytest.raises(NotVerified, match="byte"):
            list(read(path))
        if at % 97 == 0:
            with pytest.raises(NotVerified), LogFile(path, SESSION):
                pass


def test_records_out_of_order_are_damage(path: Path) -> None:
    path.write_bytes(title(SESSION) + frame(message(4)) + frame(message(3)))
    with pytest.raises(NotVerified, match="message 3 stands after message 4"):
        list(read(path))
    path.write_bytes(title(SESSION) + frame(message(4)) * 2)
    with pytest.raises(NotVerified, match="message 4 stands after message 4"):
        list(read(path))


def test_a_file_that_is_no_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"hello\n")
    with pytest.raises(NotVerified, match="not the beginning"):
        read(tmp_path / "log")
    with pytest.raises(NotFound):
        read(tmp_path / "none")


def test_the_log_of_another_session_is_not_continued(path: Path) -> None:
    with pytest.raises(NotVerified, match=f"log of {SESSION}"):
        LogFile(path, "00-other")


def test_one_log_is_open_once(path: Path) -> None:
    with LogFile(path, SESSION), pytest.raises(Refused, match="open already"):
        LogFile(path, SESSION)
    LogFile(path, SESSION).close()


def test_what_cannot_be_framed_is_refused(path: Path) -> None:
    with LogFile(path, SESSION) as log:
        for bad in (
            StoredRecord(11, "two words", b""),
            StoredRecord(11, "s", b"", {"Swarm-Sig": "-"}),
            StoredRecord(11, "s", b"", {"Swarm-Sig": ""}),
            StoredRecord(11, "s\n", b""),
            StoredRecord(0, "s", b""),
        ):
            with pytest.raises((InvalidInput, NotVerified)):
                log.append(bad)
    assert list(read(path)) == MESSAGES


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


def test_a_write_that_fails_half_way_leaves_the_file_as_it_was(path: Path) -> None:
    before = path.read_bytes()
    with LogFile(path, SESSION) as log:
        with no_file_longer_than(len(before) + 100), pytest.raises(Full) as full:
            log.append(message(11), message(12, bytes(1000)))
        assert "Free some space" in full.value.cure
        assert path.read_bytes() == before
        log.append(message(11))
    assert list(read(path)) == [*MESSAGES, message(11)]


def test_after_a_failed_sync_nothing_is_taken_until_it_is_opened_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After such a failure the kernel may have dropped what it held, so a second sync would lie."""

    def no_room(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with LogFile(path, SESSION) as log:
        log.append(message(11))
        with monkeypatch.context() as disk:
            disk.setattr("os.fdatasync", no_room)
            with pytest.raises(Full, match="No space left"):
                log.sync()
        assert log.sync() == 10
        with pytest.raises(Refused, match="failed to reach the disk"):
            log.append(message(12))
    with LogFile(path, SESSION) as log:
        assert log.last_seq == 11


def test_a_closed_log_takes_nothing(path: Path) -> None:
    log = LogFile(path, SESSION)
    log.close()
    log.close()
    assert log.sync() == 10
    with pytest.raises(Refused, match="is closed"):
        log.append(message(11))


def test_appends_go_on_while_another_thread_syncs(path: Path) -> None:
    with LogFile(path, SESSION) as log, ThreadPoolExecutor(2) as pool:
        for seq in range(11, 211):
            log.append(message(seq))
            synced = pool.submit(log.sync)
        assert synced.result() == 210
    assert [stored.seq for stored in read(path)][-200:] == list(range(11, 211))
