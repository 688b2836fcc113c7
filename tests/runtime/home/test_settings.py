"""Settings: where they come from, and that none is taken that means nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from contracts.errors import InvalidInput
from runtime.cli.main import swarm
from runtime.home.settings import FIELDS, load


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("store_bytes", "-5"),
        ("store_bytes", "many"),
        ("replicas", "0"),
        ("waive_after_seconds", "nan"),
        ("guest_events_per_second", "0"),
        ("ledger_every_events", "0"),
        ("log_level", "loud"),
        ("log_json", "maybe"),
    ],
)
def test_a_setting_out_of_its_bounds_is_refused_with_its_name_and_origin(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(f"SWARM_{name.upper()}", value)
    with pytest.raises(InvalidInput) as refused:
        load(home=str(tmp_path))
    assert name in refused.value.message
    assert "environment" in refused.value.message
    assert refused.value.cure
    assert refused.value.path == name


@pytest.mark.parametrize("text", ["nonsense = 1", "replicas = ", "a = \udcff"])
def test_a_settings_file_that_means_nothing_is_refused(text: str, tmp_path: Path):
    (tmp_path / "settings.toml").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InvalidInput) as refused:
        load(home=str(tmp_path))
    assert refused.value.cure


def test_a_misspelt_setting_is_answered_with_the_nearest(tmp_path: Path):
    (tmp_path / "settings.toml").write_text("store_byte = 1")
    with pytest.raises(InvalidInput, match="Did you mean 'store_bytes'"):
        load(home=str(tmp_path))


def test_every_default_is_within_its_own_bounds(tmp_path: Path):
    settings = load(home=str(tmp_path))
    given = {name: getattr(settings, name) for name in FIELDS if name != "home"}
    assert load(home=str(tmp_path), **given) == settings


RECEIVER = '[[notify]]\nlabel = "oncall"\n'


@pytest.mark.parametrize(
    "text",
    [
        "notify = 1",
        "notify = ['oncall']",
        RECEIVER,
        RECEIVER + 'url = "ftp://h/SECRET"',
        RECEIVER + 'url = "https://me:SECRET@h/"',
        RECEIVER + 'url = "https://h:SECRET/"',
        RECEIVER + 'url = "https://h/\\r\\nSECRET"',
        RECEIVER + "url = 5",
        RECEIVER + 'command = "page SECRET"',
        RECEIVER + 'command = ["page"]',
        RECEIVER + 'command = ["/bin/page"]\nurl = "https://h/SECRET"',
        RECEIVER + 'command = ["/bin/page"]\nlevel = "loud"',
        RECEIVER + 'command = ["/bin/page"]\nper_hour = 1000',
        RECEIVER + 'command = ["/bin/page"]\ntimeout_seconds = 900',
        RECEIVER + 'command = ["/bin/page"]\nshell = true',
        2 * (RECEIVER + 'command = ["/bin/page"]\n'),
        '[[notify]]\nlabel = "On call"\ncommand = ["/bin/page"]',
        '[[alerts]]\nresource = "luck"\nwarning = 5',
        '[[alerts]]\nresource = "memory"\nwarning = inf',
        '[[alerts]]\nresource = "memory"\nsamples = 0',
    ],
)
def test_receivers_and_thresholds_that_mean_nothing_are_refused_without_their_secrets(text: str, tmp_path: Path):
    (tmp_path / "settings.toml").write_text(text)
    (tmp_path / "settings.toml").chmod(0o600)
    with pytest.raises(InvalidInput) as refused:
        load(home=str(tmp_path))
    assert refused.value.path in ("notify", "alerts")
    assert refused.value.cure
    assert "SECRET" not in refused.value.message


def test_receivers_stand_in_a_file_that_is_the_owner_s_alone_and_are_shown_without_their_secrets(tmp_path: Path):
    file = tmp_path / "settings.toml"
    file.write_text(
        RECEIVER + 'url = "https://hooks.example/SECRET"\nlevel = "critical"\n[[notify]]\nlabel = "page"\n'
        'command = ["/bin/page", "SECRET"]\n[[alerts]]\nresource = "memory"\nwarning = 70\n'
    )
    file.chmod(0o640)
    with pytest.raises(InvalidInput) as refused:
        load(home=str(tmp_path))
    assert refused.value.cure == f"chmod 600 {file}"
    file.chmod(0o600)
    settings = load(home=str(tmp_path))
    assert [str(one) for one in settings.notify] == ["oncall (https://hooks.example)", "page (/bin/page)"]
    assert [str(one) for one in settings.alerts] == ["memory: warning 70"]
    shown = CliRunner().invoke(swarm, ["config", "show", "--home", str(tmp_path)])
    assert "oncall (https://hooks.example)" in shown.output
    assert "SECRET" not in shown.output


def test_receivers_are_not_taken_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SWARM_NOTIFY", "https://h/SECRET")
    with pytest.raises(InvalidInput, match="environment") as refused:
        load(home=str(tmp_path))
    assert "SECRET" not in refused.value.message
