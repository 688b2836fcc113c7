"""Blobs are what their name says, are there for good once named, and leave nothing behind when they fail."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from bus.blobs import DirectoryBlobs, digest_of
from contracts.errors import Full, InvalidInput, NotFound, NotVerified


@pytest.fixture
def blobs(tmp_path: Path) -> DirectoryBlobs:
    return DirectoryBlobs(tmp_path / "home" / "blobs")


def files(blobs: DirectoryBlobs) -> list[Path]:
    return [path for path in blobs.root.rglob("*") if path.is_file()]


def test_what_was_put_is_got_under_its_digest(blobs: DirectoryBlobs) -> None:
    digest = blobs.put(b"abc")
    assert digest == "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"
    assert blobs.get(digest) == b"abc"
    assert blobs.has(digest)
    assert not blobs.has("00" * 32)


def test_blobs_lie_in_two_levels_and_are_read_only(blobs: DirectoryBlobs) -> None:
    digest = blobs.put(b"abc")
    path = blobs.root / "64" / "37" / digest
    assert blobs.path(digest) == path
    assert path.stat().st_mode & 0o777 == blobs.root.stat().st_mode & 0o444
    assert files(blobs) == [path]


@pytest.mark.parametrize("content", [b"", b"x", bytes(3_000_000)])
def test_a_file_is_stored_like_its_bytes(blobs: DirectoryBlobs, tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "source"
    source.write_bytes(content)
    digest = blobs.put(source)
    assert digest == digest_of(content) == digest_of(source)
    assert blobs.get(digest) == content
    assert source.read_bytes() == content
    assert blobs.path(digest).stat().st_ino != source.stat().st_ino


def test_a_file_given_away_is_taken_without_a_copy(blobs: DirectoryBlobs, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"abc")
    inode = source.stat().st_ino
    digest = blobs.put(source, move=True)
    assert not source.exists()
    assert blobs.path(digest).stat().st_ino == inode
    source.write_bytes(b"abc")
    assert blobs.put(source, move=True) == digest
    assert not source.exists()


def test_a_blob_that_is_there_is_left_alone(blobs: DirectoryBlobs) -> None:
    digest = blobs.put(b"abc")
    before = blobs.path(digest).stat()
    assert blobs.put(b"abc") == digest
    assert blobs.path(digest).stat() == before


def damage(blobs: DirectoryBlobs, digest: str) -> None:
    path = blobs.path(digest)
    path.chmod(0o644)
    path.write_bytes(b"abd")


def test_a_damaged_blob_is_named_and_not_served(blobs: DirectoryBlobs) -> None:
    digest = blobs.put(b"abc")
    assert blobs.check(digest) == blobs.path(digest)
    damage(blobs, digest)
    for ask in (blobs.get, blobs.check):
        with pytest.raises(NotVerified, match=f"blob {digest} is damaged"):
            ask(digest)


def test_a_damaged_blob_is_replaced_by_a_sound_one(blobs: DirectoryBlobs) -> None:
    digest = blobs.put(b"abc")
    damage(blobs, digest)
    blobs.put(b"abc")
    assert blobs.get(digest) == b"abc"


def test_a_missing_blob_is_not_found(blobs: DirectoryBlobs) -> None:
    for ask in (blobs.get, blobs.check):
        with pytest.raises(NotFound, match="no blob 0000"):
            ask("00" * 32)


@pytest.mark.parametrize("digest", ["", "abc", "../" * 20, "AB" * 32, "ab" * 32 + "\n"])
def test_a_name_that_is_no_digest_reaches_no_file(blobs: DirectoryBlobs, digest: str) -> None:
    for ask in (blobs.get, blobs.has, blobs.path, blobs.check, blobs.remove):
        with pytest.raises(InvalidInput, match="no BLAKE3 digest"):
            ask(digest)


def test_a_removed_blob_is_gone(blobs: DirectoryBlobs) -> None:
    digest = blobs.put(b"abc")
    assert [blobs.remove(digest), blobs.remove(digest), blobs.has(digest)] == [True, False, False]


def test_many_writers_of_one_blob_leave_one_file(blobs: DirectoryBlobs) -> None:
    content = bytes(100_000)
    with ThreadPoolExecutor(8) as pool:
        digests = set(pool.map(blobs.put, [content] * 16))
    assert len(digests) == len(files(blobs)) == 1


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


def test_without_room_it_says_the_cure_and_leaves_nothing(blobs: DirectoryBlobs, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(100_000))
    for content in (bytes(100_000), source):
        with no_file_longer_than(1000), pytest.raises(Full) as full:
            blobs.put(content)
        assert "Free some space" in full.value.cure
        assert files(blobs) == []
    assert source.exists()


def test_nothing_asynchronous_comes_with_it() -> None:
    """Jobs in children import this room's file; it must stay light and synchronous."""
    code = "import sys, bus.blobs; print(sorted({'asyncio', 'anyio', 'nats', 'torch'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
