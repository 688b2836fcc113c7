"""The only reader of the environment: one frozen value, each field with where it came from."""

import math
import os
import re
import socket
import tomllib
from dataclasses import Field, dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from contracts.errors import InvalidInput, InvalidRequest, Problem

LOG_LEVELS = ("debug", "info", "warning", "error")
_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def _from(least: float, default: Any, most: float | None = None) -> Any:
    """A number that is never below `least`, nor above `most` where there is one."""
    return field(default=default, metadata={"least": least} | ({} if most is None else {"most": most}))


ALERTS = (
    *("cpu", "memory", "disk", "store", "disk_io", "network"),
    *("gpu_memory", "gpu_temperature", "gpu_throttled", "gpu_errors"),
)
"""What alerts are about. Thresholds of `disk` and `store` are bytes, that of a temperature °C, others per cent."""
ALERT_LEVELS = ("warning", "critical")


def _refuse_unless(holds: object, message: str) -> None:
    if not holds:
        raise ValueError(message)


@dataclass(frozen=True)
class Receiver:
    """Who is told of alerts: an address that is sent them as JSON, or a command that reads them, under a label.

    A request names the label. Alerts below `level` are not sent, nor more than `per_hour`; an address or a command has
    `timeout_seconds`. A command is the path of a program and its arguments: no shell reads them.
    """

    label: str
    url: str = field(default="", repr=False)
    command: tuple[str, ...] = field(default=(), repr=False)
    level: str = "warning"
    per_hour: int = 12
    timeout_seconds: float = 5.0

    def __post_init__(self) -> None:
        """Raise `ValueError` about what cannot be; an address is not repeated, since it may hold a secret."""
        _refuse_unless(re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", str(self.label)), "a label is made of a-z, 0-9, _ and -")
        _refuse_unless(bool(self.url) != bool(self.command), f"{self.label} needs a url or a command, and not both")
        object.__setattr__(self, "command", _words(self.command, self.label))
        if self.url:
            _refuse_unless(_is_address(self.url), f"{self.label} needs a url such as https://HOST/PATH, without a user")
        _refuse_unless(self.level in ALERT_LEVELS, f"level of {self.label}: {' or '.join(ALERT_LEVELS)}")
        _refuse_unless(type(self.per_hour) is int and 1 <= self.per_hour <= 60, f"per_hour of {self.label}: 1 to 60")
        _refuse_unless(0 < self.timeout_seconds <= 60, f"timeout_seconds of {self.label}: up to 60")

    def __str__(self) -> str:
        """The label and where it leads, without what may be secret."""
        parts = urlsplit(self.url)
        return f"{self.label} ({f'{parts.scheme}://{parts.netloc}' if self.url else self.command[0]})"


def _is_address(url: object) -> bool:
    if not isinstance(url, str) or not re.fullmatch(r"[!-~]{1,2048}", url):
        return False
    try:
        parts = urlsplit(url)
        return bool(
            parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc and parts.port != 0
        )
    except ValueError:  # no port, or no host
        return False


def _words(command: Any, label: str) -> tuple[str, ...]:
    _refuse_unless(isinstance(command, list | tuple), f"command of {label}: a list of words")
    words = tuple(command)
    _refuse_unless(all(isinstance(word, str) and "\0" not in word for word in words), f"command of {label}: words")
    _refuse_unless(len(words) <= 64 and sum(map(len, words)) <= 8192, f"command of {label}: it is too long")
    _refuse_unless(not words or words[0].startswith("/"), f"command of {label}: begin with the whole path of a program")
    return words


@dataclass(frozen=True)
class Threshold:
    """Other limits than the usual ones for one of `ALERTS`: what is left out stays as it is.

    A level is reached after `samples` seconds beyond it, and left `margin` on its good side.
    """

    resource: str
    warning: float | None = None
    critical: float | None = None
    margin: float | None = None
    samples: int | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` about what cannot be."""
        _refuse_unless(self.resource in ALERTS, f"there is no alert {self.resource!r}; known: {', '.join(ALERTS)}")
        for name, figure in (("warning", self.warning), ("critical", self.critical), ("margin", self.margin)):
            number = figure is None or (type(figure) in (int, float) and math.isfinite(figure) and figure >= 0)
            _refuse_unless(number, f"{name} of {self.resource}: a number from 0")
        known = self.samples is None or (type(self.samples) is int and 1 <= self.samples <= 3600)
        _refuse_unless(known, f"samples of {self.resource}: 1 to 3600")

    def figures(self) -> dict[str, Any]:
        """What is set, by name."""
        names = ("warning", "critical", "margin", "samples")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def __str__(self) -> str:
        """The resource and what is set of it."""
        return f"{self.resource}: {', '.join(f'{name} {figure:g}' for name, figure in self.figures().items())}"


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
    """How many sessions the trainer here trains at once, and so adds to the slots of the queue; 0 for as many as its
    cores, memory and devices hold."""
    most_priority: int = _from(0, 0)
    """The highest `training.priority` that anybody but the owner may ask for."""
    training_memory_bytes: int = _from(0, 0)
    """What a training on the processor may take beside what its process begins with; 0 for no limit of its own."""
    stall_after_seconds: float = _from(1, 60.0)
    ledger_every_events: int = _from(1, 1000)
    ledger_every_seconds: float = _from(0, 30.0)
    log_level: str = field(default="info", metadata={"known": LOG_LEVELS})
    log_json: bool = False
    worker: str = ""
    llm_url: str = ""
    """The endpoint that the advisor is asked at, as `https://HOST/v1`; empty for OpenAI's own."""
    llm_model: str = ""
    """The model that is asked; empty for no advisor."""
    llm_key_file: str = ""
    """The file with the endpoint's key, which its owner alone may read; it comes before the variable."""
    llm_key_variable: str = "OPENAI_API_KEY"
    """The variable of the environment with that key."""
    llm_calls_per_session: int = _from(0, 4, 64)
    llm_tokens_per_session: int = _from(0, 20_000, 10_000_000)
    llm_calls_per_day: int = _from(0, 100, 100_000)
    llm_tokens_per_day: int = _from(0, 200_000, 1_000_000_000)
    network_bytes_per_second: float = _from(0, 0.0)
    """What the network carries in each direction; 0 for what its devices tell."""
    notify: tuple[Receiver, ...] = field(default=(), metadata={"tables": Receiver})
    """Who may be told of alerts. Stands in the file alone, which then is the owner's alone to read."""
    alerts: tuple[Threshold, ...] = field(default=(), metadata={"tables": Threshold})
    """Other thresholds of alerts than the usual ones."""
    origins: dict[str, str] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """What this machine is called in claims."""
        return self.worker or socket.gethostname()

    @property
    def llm_key(self) -> str:
        """The key of the advisor's endpoint, read when it is needed and kept nowhere; empty where there is none.

        Raises `InvalidInput` about a file that cannot be read, or that others than its owner may read.
        """
        if not self.llm_key_file:
            return os.environ.get(self.llm_key_variable, "") if self.llm_key_variable else ""
        path = self.home / self.llm_key_file
        try:
            with path.open(encoding="ascii") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    message = f"others than its owner may read or write {path}."
                    raise InvalidInput(message, cure=f"chmod 600 {path}", path="llm_key_file")
                return file.read(4096).strip()
        except (OSError, ValueError) as error:
            raise InvalidInput(
                f"{path} cannot be read ({type(error).__name__}).", cure="Write the key into it.", path="llm_key_file"
            ) from None

    def refuse_unknown_labels(self, labels: object) -> None:
        """Raise `InvalidRequest` about the first label of a request that is none of a receiver here."""
        known = [receiver.label for receiver in self.notify]
        for at, label in enumerate(labels if isinstance(labels, list | tuple) else ()):
            if label not in known:
                cure = f"Known: {', '.join(known) or 'none'}. Add it to settings.toml of the home, as [[notify]]."
                raise InvalidRequest([Problem(f"notify.{at}", f"there is no receiver {label!r:.60}", cure)])


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
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no TOML, or no text
        raise InvalidInput(f"{path} cannot be read: {error}.", cure="Mend or remove the file.") from None
    if "notify" in values and path.stat().st_mode & 0o077:
        message = f"{path} names addresses or commands, and others than its owner may read or write it."
        raise InvalidInput(message, cure=f"chmod 600 {path}", path="notify")
    return values


def _convert(key: str, value: Any, origin: str) -> Any:
    if key not in FIELDS:
        near = get_close_matches(key, FIELDS, 1)
        cure = f"Did you mean {near[0]!r}?" if near else "See: swarm config schema"
        raise InvalidInput(f"there is no setting {key!r}.", cure=cure, path=key)
    if tables := FIELDS[key].metadata.get("tables"):
        return _tables(key, tables, value, origin)
    try:
        converted = _typed(FIELDS[key].default, value)
    except (TypeError, ValueError):
        wanted = type(FIELDS[key].default).__name__
        message = f"setting {key} = {value!r} (from {origin}) is not of type {wanted}."
        raise InvalidInput(message, cure=f"Give {wanted}.", path=key) from None
    least, most, known = (FIELDS[key].metadata.get(bound) for bound in ("least", "most", "known"))
    cure = ""
    if least is not None and not (math.isfinite(converted) and least <= converted <= (most or math.inf)):
        cure = f"Give {least} or more." if most is None else f"Give {least} to {most}."
    elif key == "llm_url" and converted and not _is_address(converted):
        raise InvalidInput(
            f"setting {key} (from {origin}) is no address.", cure="Write https://HOST/v1, without a user.", path=key
        )
    elif known is not None and converted not in known:
        cure = f"Known: {', '.join(known)}."
    if cure:
        raise InvalidInput(f"setting {key} = {converted!r} (from {origin}) is out of bounds.", cure=cure, path=key)
    return converted


def _tables(key: str, kind: Any, value: Any, origin: str) -> Any:
    """A setting that is a list of tables of a kind; what is wrong is told without repeating what may be secret."""
    cure = f"Write it in settings.toml as [[{key}]] with {', '.join(one.name for one in fields(kind))}."
    if not isinstance(value, list | tuple):
        raise InvalidInput(f"setting {key} (from {origin}) is no list of tables.", cure=cure, path=key)
    found = []
    for table in value:
        try:
            found.append(table if isinstance(table, kind) else kind(**table))
        except (TypeError, ValueError) as error:
            told = error if isinstance(error, ValueError) else "a table has another key, or lacks one"
            raise InvalidInput(f"setting {key} (from {origin}): {told}.", cure=cure, path=key) from None
    names = [getattr(one, fields(kind)[0].name) for one in found]
    if len(set(names)) < len(names) or len(names) > 64:
        raise InvalidInput(f"setting {key} (from {origin}) has one name twice, or over 64.", cure=cure, path=key)
    return tuple(found)


def _typed(default: Any, value: Any) -> Any:
    if isinstance(default, bool):
        word = str(value).lower()
        if word not in _YES + _NO:
            raise ValueError
        return word in _YES
    if isinstance(default, tuple):
        return tuple(value.split(os.pathsep)) if isinstance(value, str) else tuple(map(str, value))
    return type(default)(value) if not isinstance(default, Path) else Path(value)
