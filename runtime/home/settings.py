"""The only reader of the environment: one frozen value, each field with where it came from."""

from __future__ import annotations

import math
import os
import socket
import tomllib
from dataclasses import Field, dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from contracts.errors import InvalidInput

LOG_LEVELS = ("debug", "info", "warning", "error")
_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def _from(least: float, default: Any) -> Any:
    """A number that is never below `least`."""
    return field(default=default, metadata={"least": least})


@dataclass(frozen=True)
class Settings:
    """What can be set, by `<home>/settings.toml`, by SWARM_* in the environment, or by an option."""

    home: Path = Path(".swarm")
    url: str = ""
    creds: str = ""
    data_roots: tuple[str, ...] = ()
    trusted_data: tuple[str, ...] = ()
    blobs: str = ""
    store_bytes: int = _from(1 << 16, 8 << 30)
    replicas: int = _from(1, 1)
    min_free_disk_bytes: int = _from(0, 256 << 20)
    without: tuple[str, ...] = ()
    waive_after_seconds: float = _from(0, 120.0)
    guest_patience_seconds: float = _from(0, 5.0)
    guest_events_per_second: float = _from(1, 100.0)
    takeover_after_seconds: float = _from(0, 15.0)
    trainings: int = _from(0, 0)
    """How many sessions the trainer here trains at once, and so adds to the slots of the queue; 0 for one per core."""
    stall_after_seconds: float = _from(1, 60.0)
    ledger_every_events: int = _from(1, 1000)
    ledger_every_seconds: float = _from(0, 30.0)
    log_level: str = field(default="info", metadata={"known": LOG_LEVELS})
    log_json: bool = False
    worker: str = ""
    llm_url: str = ""
    llm_model: str = ""
    origins: dict[str, str] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """What this machine is called in claims."""
        return self.worker or socket.gethostname()


FIELDS: dict[str, Field[Any]] = {one.name: one for one in fields(Settings) if one.name != "origins"}
"""Every setting by name; its metadata hold the bounds."""


def load(**options: Any) -> Settings:
    """Settings from the defaults, the home's file, the environment and the options given, later ones winning."""
    settings = Settings()
    home = Path(options.get("home") or os.environ.get("SWARM_HOME") or settings.home)
    values: dict[str, Any] = {}
    origins = dict.fromkeys(FIELDS, "default")
    variables = {f"SWARM_{name.upper()}": name for name in FIELDS}
    for origin, given in (
        ("settings.toml", _from_file(home / "settings.toml")),
        ("environment", {variables[key]: one for key, one in os.environ.items() if key in variables and one}),
        ("option", {key: value for key, value in options.items() if value is not None}),
    ):
        for key, value in given.items():
            values[key] = _convert(key, value, origin)
            origins[key] = origin
    values["home"] = Path(values.get("home", home)).absolute()
    return replace(settings, **values, origins=origins)


def _from_file(path: Path) -> dict[str, object]:
    if not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no TOML, or no text
        raise InvalidInput(f"{path} cannot be read: {error}.", cure="Mend or remove the file.") from None


def _convert(key: str, value: Any, origin: str) -> Any:
    if key not in FIELDS:
        near = get_close_matches(key, FIELDS, 1)
        cure = f"Did you mean {near[0]!r}?" if near else "See: swarm config schema"
        raise InvalidInput(f"there is no setting {key!r}.", cure=cure, path=key)
    try:
        converted = _typed(FIELDS[key].default, value)
    except (TypeError, ValueError):
        wanted = type(FIELDS[key].default).__name__
        message = f"setting {key} = {value!r} (from {origin}) is not of type {wanted}."
        raise InvalidInput(message, cure=f"Give {wanted}.", path=key) from None
    least, known = FIELDS[key].metadata.get("least"), FIELDS[key].metadata.get("known")
    cure = ""
    if least is not None and not (math.isfinite(converted) and converted >= least):
        cure = f"Give {least} or more."
    elif known is not None and converted not in known:
        cure = f"Known: {', '.join(known)}."
    if cure:
        raise InvalidInput(f"setting {key} = {converted!r} (from {origin}) is out of bounds.", cure=cure, path=key)
    return converted


def _typed(default: Any, value: Any) -> Any:
    if isinstance(default, bool):
        word = str(value).lower()
        if word not in _YES + _NO:
            raise ValueError
        return word in _YES
    if isinstance(default, tuple):
        return tuple(value.split(os.pathsep)) if isinstance(value, str) else tuple(map(str, value))
    return type(default)(value) if not isinstance(default, Path) else Path(value)
