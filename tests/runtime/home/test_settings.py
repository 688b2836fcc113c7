"""Settings: where they come from, and that none is taken that means nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import InvalidInput
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
