"""What a start may remove: drafts of the dead, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bus import disk
from bus.blobs import DirectoryBlobs
from runtime.home.home import Home
from runtime.log import recovery


def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def test_drafts_of_dead_processes_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    session = home.session("00-any")
    gone = [home.root / f".host.json.{dead_pid()}", session / f".log.{dead_pid()}"]
    with disk.fresh_name(home.root / "client.creds") as ours:
        beginning, _, chance = ours.name.rpartition(".")
    digits = ours.with_name(f"{beginning}.{'7' * len(chance)}")
    gone.append(ours.with_name(f"{beginning.removesuffix(str(os.getpid()))}{dead_pid()}.{chance}"))
    kept = [home.root / f".tail.{os.getpid()}", session / "log", home.root / ".hidden", home.root / "host.json"]
    kept += [ours, digits]
    for path in (*gone, *kept):
        path.write_text("half")
    assert recovery.remove_leftovers(home) == len(gone)
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in kept)


def test_drafts_of_blobs_go_when_they_are_old_and_blobs_never(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    blobs = DirectoryBlobs(home.blobs)
    place = blobs.path(blobs.put(b"whole"))
    earlier = place.with_name(f".{place.name}.{'a' * 16}")  # as earlier software called them
    with disk.fresh_name(place) as old, disk.fresh_name(place) as fresh:
        for path in (earlier, old, fresh):
            path.write_bytes(b"ha")
        ages = fresh.stat().st_mtime - recovery.OLD - 1
        for path in (earlier, old, place):
            os.utime(path, (ages, ages))
        assert recovery.remove_leftovers(home) == 2
        assert [path.exists() for path in (earlier, old, fresh, place)] == [False, False, True, True]
