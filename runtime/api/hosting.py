"""Starting a background host and telling whether one is ready; the host itself is `runtime.host.host`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import orjson

from contracts.errors import Failed, SwarmError, TimedOut, error_of
from runtime.api.home_context import HomeContext

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


def ensure(context: HomeContext, patience: float = PATIENCE) -> HostRecord:
    """A ready host of this home: the one that runs or is just starting, or a new one in the background."""
    deadline = time.monotonic() + patience
    while True:
        host = context.home.host()
        start = None if host is not None and host.alive else _start(context)
        try:
            return _until_ready(context, start, deadline, patience)
        except _GoneError:
            continue  # the recorded host died while it was waited for; the next one clears away what it left
        except HostStartError as error:
            # Held, and no record says by which process: a host is just starting, or one that died is not quite gone.
            if error.path != str(context.home.lock_file) or time.monotonic() > deadline:
                raise
            time.sleep(_HELD_PAUSE)


def bring_up(context: HomeContext) -> None:
    """Start the swarm unless it is up or another was named; a program's host is no child of the program.

    It is started by a process that ends at once, so that nothing has to wait for it.
    """
    if context.settings.url or context.settings.creds or ready(context.home.host()):
        return
    command = [sys.executable, "-P", "-m", "runtime.cli.start", "up", "-d", "--json"]
    command += ["--home", str(context.home.root)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        try:
            error = error_of(orjson.loads(done.stdout.strip().splitlines()[-1])["error"])
        except (orjson.JSONDecodeError, IndexError, KeyError, TypeError):
            error = Failed(f"the swarm could not be started: {done.stderr.strip()[-500:]}", cure="Look: swarm up")
        raise error


def ready(host: HostRecord | None) -> bool:
    """Whether the recorded host lives, says that it is ready, and its server greets a connection."""
    return host is not None and host.alive and host.ready and greets(host.url)


def greets(url: str, timeout: float = 1.0) -> bool:
    """Whether a NATS server answers at the first address of the URL."""
    address = urlsplit(url.split(",", maxsplit=1)[0].strip())
    try:
        with socket.create_connection((address.hostname or "127.0.0.1", address.port or 4222), timeout) as connection:
            return connection.recv(4) == b"INFO"
    except OSError:
        return False


def _start(context: HomeContext) -> _HostStart:
    """Start the host as a background process that shares neither terminal nor descriptors with this one."""
    context.home.prepare(context.settings.blobs)
    # -P keeps the folder it is started in out of the import path: a user's `agents/` must not shadow ours.
    arguments = [sys.executable, "-P", "-m", "runtime.cli.start", "up", "--json", "--home", str(context.home.root)]
    arguments += ["--url", context.settings.url] if context.settings.url else []
    arguments += ["--creds", context.settings.creds] if context.settings.creds else []
    for root in context.settings.data_roots:
        arguments += ["--data-root", root]
    for role in context.settings.without:
        arguments += ["--without", role]
    if context.settings.origins.get("trainings") == "option":
        arguments += ["--slots", str(context.settings.trainings)]
    with open(context.home.host_log, "ab", opener=partial(os.open, mode=0o600)) as log:
        begins = log.tell()
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=environment
        )
    return _HostStart(process, begins)


def _until_ready(context: HomeContext, start: _HostStart | None, deadline: float, patience: float) -> HostRecord:
    while time.monotonic() < deadline:
        host = context.home.host()
        if host is not None and ready(host):
            return host
        lives = host is not None and host.alive
        if start is None and not lives:
            raise _GoneError
        if start is not None and start.process.poll() is not None and not lives:
            raise _start_error(context, start.process.returncode, start.begins)
        time.sleep(_PAUSE)
    raise TimedOut(f"the host was not ready within {patience:.0f} s.", cure=f"See {context.home.host_log}.")


def _start_error(context: HomeContext, code: int, begins: int) -> SwarmError:
    """The error that the host wrote last, or the end of its log."""
    with context.home.host_log.open("rb") as log:
        log.seek(begins)
        lines = log.read().decode(errors="replace").strip().splitlines()
    for line in reversed(lines):
        with suppress(orjson.JSONDecodeError):
            answer = orjson.loads(line)
            error = answer.get("error") if isinstance(answer, dict) else None
            if isinstance(error, dict) and {"code", "message", "path", "cure"} <= error.keys():
                return HostStartError(error, max(code, 1))
    end = "\n".join(lines[-5:]) or "it said nothing"
    ended = f"signal {-code}" if code < 0 else f"code {code}"
    return Failed(f"the host ended with {ended} before it was ready:\n{end}", cure=f"See {context.home.host_log}.")
