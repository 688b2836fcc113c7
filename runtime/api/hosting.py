"""Starting a background host and telling whether one is ready; the host itself is `runtime.host.host`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson

from contracts.errors import Failed, SwarmError, TimedOut
from runtime.api.place import HomeContext

if TYPE_CHECKING:
    from runtime.home.home import HostRecord

PATIENCE = 60.0
_PAUSE, _HELD_PAUSE = 0.02, 0.5


class HostStartError(Failed):
    """A background host ended before it was ready; it carries the host's own error and exit code."""

    def __init__(self, error: Mapping[str, str], exit_code: int) -> None:
        super().__init__(error["message"], cure=error["cure"], path=error["path"])
        self.code = error["code"]  # type: ignore[misc] # what the host said of itself
        self.exit_code = exit_code  # type: ignore[misc]


class _GoneError(Exception):
    """The recorded host died while it was waited for."""


@dataclass(frozen=True)
class _HostStart:
    """A host that was started: its process, and where its words begin in the log."""

    process: subprocess.Popen[bytes]
    begins: int


def ensure(place: HomeContext, patience: float = PATIENCE) -> HostRecord:
    """A ready host of this home: the one that runs or is just starting, or a new one in the background."""
    deadline = time.monotonic() + patience
    while True:
        host = place.home.host()
        start = None if host is not None and host.alive else _start(place)
        try:
            return _until_ready(place, start, deadline, patience)
        except _GoneError:
            continue  # the recorded host died while it was waited for; the next one clears away what it left
        except HostStartError as error:
            # Held, and no record says by which process: a host is just starting, or one that died is not quite gone.
            if error.path != str(place.home.lock_file) or time.monotonic() > deadline:
                raise
            time.sleep(_HELD_PAUSE)


def ready(host: HostRecord | None) -> bool:
    """Whether the recorded host lives, says that it is ready, and its server greets a connection."""
    return host is not None and host.alive and host.ready and greets(host.url)


def greets(url: str, timeout: float = 1.0) -> bool:
    """Whether a NATS server answers at the first address of the URL."""
    place = urlsplit(url.split(",", maxsplit=1)[0].strip())
    try:
        with socket.create_connection((place.hostname or "127.0.0.1", place.port or 4222), timeout) as connection:
            return connection.recv(4) == b"INFO"
    except OSError:
        return False


def _start(place: HomeContext) -> _HostStart:
    """Start the host as a background process that shares neither terminal nor descriptors with this one."""
    place.home.prepare(place.settings.blobs)
    # -P keeps the folder it is started in out of the import path: a user's `agents/` must not shadow ours.
    arguments = [sys.executable, "-P", "-m", "runtime.cli.start", "up", "--json", "--home", str(place.home.root)]
    arguments += ["--url", place.settings.url] if place.settings.url else []
    arguments += ["--creds", place.settings.creds] if place.settings.creds else []
    for root in place.settings.data_roots:
        arguments += ["--data-root", root]
    for role in place.settings.without:
        arguments += ["--without", role]
    with open(place.home.host_log, "ab", opener=partial(os.open, mode=0o600)) as log:
        begins = log.tell()
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=environment
        )
    return _HostStart(process, begins)


def _until_ready(place: HomeContext, start: _HostStart | None, deadline: float, patience: float) -> HostRecord:
    while time.monotonic() < deadline:
        host = place.home.host()
        if host is not None and ready(host):
            return host
        lives = host is not None and host.alive
        if start is None and not lives:
            raise _GoneError
        if start is not None and start.process.poll() is not None and not lives:
            raise _what_went_wrong(place, start.process.returncode, start.begins)
        time.sleep(_PAUSE)
    raise TimedOut(f"the host was not ready within {patience:.0f} s.", cure=f"See {place.home.host_log}.")


def _what_went_wrong(place: HomeContext, code: int, begins: int) -> SwarmError:
    """The error that the host wrote last, or the end of its log."""
    with place.home.host_log.open("rb") as log:
        log.seek(begins)
        lines = log.read().decode(errors="replace").strip().splitlines()
    for line in reversed(lines):
        error = _error_in(line)
        if error:
            return HostStartError(error, max(code, 1))
    said = "\n".join(lines[-5:]) or "it said nothing"
    ended = f"signal {-code}" if code < 0 else f"code {code}"
    return Failed(f"the host ended with {ended} before it was ready:\n{said}", cure=f"See {place.home.host_log}.")


def _error_in(line: str) -> dict[str, str] | None:
    try:
        found: Any = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    error = found.get("error") if isinstance(found, dict) else None
    return error if isinstance(error, dict) and {"code", "message", "path", "cure"} <= error.keys() else None
