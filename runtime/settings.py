"""The only reader of the environment: one frozen value, each field with where it came from."""

from __future__ import annotations

import os
import socket
import tomllib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from contracts.errors import InvalidInput


@dataclass(frozen=True)
class Settings:
    """What can be set, by `<home>/settings.toml`, by SWARM_* in the environment, or by an option."""

    home: Path = Path(".swarm")
    url: str = ""
    creds: str = ""
    data_roots: tuple[str, ...] = ()
    trusted_data: tuple[str, ...] = ()
    blobs: str = ""
    store_bytes: int = 8 << 30
    replicas: int = 1
    min_free_disk_bytes: int = 256 << 20
    without: tuple[str, ...] = ()
    waive_after_seconds: float = 120.0
    guest_patience_seconds: float = 5.0
    guest_events_per_second: float = 100.0
    takeover_after_seconds: float = 15.0
    stall_after_seconds: float = 60.0
    ledger_every_events: int = 1000
    ledger_every_seconds: float = 30.0
    log_level: str = "info"
    log_json: bool = False
    worker: str = ""
    llm_url: str = ""
    llm_model: str = ""
    origins: dict[str, str] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """What this machine is called in claims."""
        return self.worker or socket.gethostname()


def load(**options: Any) -> Settings:
    """Settings from the defaults, the home's file, the environment and the options given, later ones winning."""
    settings = Settings()
    home = Path(options.get("home") or os.environ.get("SWARM_HOME") or settings.home)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {one.name: "default" for one in fields(Settings) if one.name != "origins"}
    for origin, found in (
        ("settings.toml", _from_file(home / "settings.toml")),
        ("environment", _from_environment()),
        ("option", {key: value for key, value in options.items() if value is not None}),
    ):
        for key, value in found.items():
            values[key] = _convert(key, value)
            origins[key] = origin
    values["home"] = Path(values.get("home", home)).absolute()
    return replace(settings, **values, origins=origins)


def _from_file(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, OSError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}.", cure="Mend or remove the file.") from None


def _from_environment() -> dict[str, Any]:
    known = {f"SWARM_{one.name.upper()}": one.name for one in fields(Settings) if one.name != "origins"}
    return {known[key]: value for key, value in os.environ.items() if key in known and value}


def _convert(key: str, value: Any) -> Any:
    default = {one.name: one.default for one in fields(Settings)}.get(key)
    if key not in {one.name for one in fields(Settings)}:
        raise InvalidInput(f"there is no setting {key!r}.", cure="See: swarm config schema", path=key)
    try:
        if isinstance(default, bool):
            return value if isinstance(value, bool) else str(value).lower() in ("1", "true", "yes", "on")
        if isinstance(default, tuple):
            return tuple(value.split(os.pathsep)) if isinstance(value, str) else tuple(map(str, value))
        if isinstance(default, int | float | str | Path):
            return type(default)(value) if not isinstance(default, Path) else Path(value)
    except ValueError:
        wanted = type(default).__name__
        raise InvalidInput(f"setting {key} = {value!r} is not of type {wanted}.", cure=f"Give {wanted}.") from None
    return value
