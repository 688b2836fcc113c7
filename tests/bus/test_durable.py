"""What is said to be on disk was brought there in the right order: the bytes, then the name, then the folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bus import disk, nkeys
from bus.blobs import DirectoryBlobs
from bus.files import LogFile
from bus.keys import KeyStore
from runtime.home.home import Home
from runtime.log import retention
from tests.agents.preparing import Bench

Calls = list[tuple[str, str]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The system calls that bring something to disk or give it a name, as they are made; they do their work."""
    made: Calls = []
    paths: dict[int, str] = {}

    def told(name: str, path: Callable[..., str]) -> None:
        real = getattr(os, name)

        def call(*args: Any, **more: Any) -> Any:
            done = real(*args, **more)
            if name == "open":
                paths[done] = str(args[0])
            else:
                made.append((name, path(*args)))
            return done

        monkeypatch.setattr(os, name, call)

    told("open", lambda *_: "")

    def opened(descriptor: int) -> str:
        # Files that were not opened by `os.open` have no other name here; Linux alone says what they are.
        known = Path(f"/proc/self/fd/{descriptor}")
        return str(known.readlink()) if known.exists() else paths.get(descriptor, "")

    told("fsync", opened)
    told("fdatasync", opened)
    told("rename", lambda _, place: str(place))
    told("replace", lambda _, place: str(place))
    told("link", lambda _, place: str(place))
    told("mkdir", lambda place, *_: str(place))
    return made


def fresh_of(place: str) -> str:
    """How the names of files begin that are not yet under their own."""
    folder, _, name = place.rpartition("/")
    return f"{folder}/.{name}."


def last(calls: Calls, call: tuple[str, str]) -> int:
    """Where a call was made for the last time."""
    return len(calls) - 1 - calls[::-1].index(call)


def assert_order(calls: Calls, naming: str, place: str) -> None:
    """The bytes are on disk before they have their name, and the folder is after it."""
    named = calls.index((naming, place))
    before = [path for name, path in calls[:named] if name in ("fsync", "fdatasync")]
    assert any(path.startswith(fresh_of(place)) for path in before), calls
    assert ("fsync", place.rpartition("/")[0]) in calls[named:], calls


def test_a_blob_is_on_disk_before_it_has_its_name_and_its_folder_after(tmp_path: Path, calls: Calls) -> None:
    blobs = DirectoryBlobs(tmp_path / "blobs")
    digest = blobs.put(b"weights")
    assert_order(calls, "replace", str(blobs.path(digest)))


def test_a_new_log_is_on_disk_with_its_first_line_before_it_has_its_name(tmp_path: Path, calls: Calls) -> None:
    path = tmp_path / "sessions" / "00-abc" / "log"
    with LogFile(path, "00-abc"):
        assert_order(calls, "link", str(path))


def test_every_folder_that_is_made_is_on_disk_in_the_one_above(tmp_path: Path, calls: Calls) -> None:
    disk.make_directory(tmp_path / "a" / "b" / "c")
    folders = [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    for above, made in zip(folders, ("a", "b", "c"), strict=True):
        assert last(calls, ("fsync", str(above))) > calls.index(("mkdir", str(above / made)))


def test_a_file_is_on_disk_before_it_has_its_name_and_its_folder_after(tmp_path: Path, calls: Calls) -> None:
    disk.write_file(tmp_path / "opened.json", b"[]")
    assert_order(calls, "replace", str(tmp_path / "opened.json"))


def test_the_folders_of_a_home_and_of_a_new_session_are_on_disk_in_the_one_above(tmp_path: Path, calls: Calls) -> None:
    home = Home(tmp_path / "below" / "home")
    home.prepare()
    home.session("00-abc")
    made = [tmp_path / "below", home.root, home.keys, home.seeds, home.blobs, home.sessions, home.sessions / "00-abc"]
    for folder in made:
        assert calls.index(("mkdir", str(folder))) < last(calls, ("fsync", str(folder.parent)))


def test_a_file_that_is_written_once_is_on_disk_before_it_has_its_name_and_the_first_of_two_wins(
    tmp_path: Path, calls: Calls
) -> None:
    disk.write_once(tmp_path / "instance", b"one")
    assert_order(calls, "link", str(tmp_path / "instance"))
    with pytest.raises(FileExistsError):
        disk.write_once(tmp_path / "instance", b"other")
    assert (tmp_path / "instance").read_bytes() == b"one"
    assert [one.name for one in tmp_path.iterdir()] == ["instance"]


@pytest.mark.parametrize(
    "keep",
    [
        lambda place: KeyStore(place).create("trainer") and "trainer.key",
        lambda place: nkeys.keep(place / "owner.seed") and "owner.seed",
    ],
    ids=["key", "seed"],
)
def test_a_secret_is_on_disk_before_it_has_its_name_and_its_folder_after(
    tmp_path: Path, calls: Calls, keep: Callable[[Path], str]
) -> None:
    place = tmp_path / "keys" / "nats"
    kept = place / keep(place)
    assert_order(calls, "link", str(kept))
    assert kept.stat().st_mode & 0o777 == 0o600
    assert calls.index(("mkdir", str(place))) < last(calls, ("fsync", str(place.parent)))


def test_a_mark_that_keeps_a_blob_is_on_disk_with_the_folders_it_lies_in(tmp_path: Path, calls: Calls) -> None:
    retention.hold_blob(tmp_path, "b" * 64, "00-abc")
    marks = tmp_path / retention.FOLDER / ("b" * 64)
    assert retention.holders(tmp_path, "b" * 64) == ["00-abc"]
    made = calls.index(("mkdir", str(marks)))
    assert {("fsync", str(one)) for one in (marks, marks.parent, tmp_path)} <= set(calls[made:])


def test_a_dataset_is_on_disk_before_its_manifest_has_its_name(tmp_path: Path, calls: Calls) -> None:
    prepared = Bench(tmp_path).prepared({"source": "iris"})
    manifest = next(place for name, place in calls if name == "replace" and place.endswith("/manifest.json"))
    assert_order(calls, "replace", manifest)
    columns = {path for name, path in calls[: calls.index(("replace", manifest))] if path.endswith("train.x.bin")}
    assert len(columns) == 1
    stands = tmp_path / "home" / "blobs" / "datasets"
    named = calls.index(("rename", str(stands / prepared.root)))
    assert ("fsync", str(stands)) in calls[named:]
