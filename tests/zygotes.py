"""Zygotes in milliseconds: forked off a process that has imported what they import, one for all tests of a worker.

To import torch and the engine takes seconds, and more than a hundred tests have a zygote of their own. Those that are
about the start of zygotes, and every swarm that is a process, start theirs as a host does.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import anyio

from runtime.jobs import zygote_link
from tests import durations

_ROOT = str(Path(__file__).parents[1])
BEGUN = zygote_link.start_process


class Nursling:
    """A zygote that is a child of the nursery's; known by a descriptor of its own, so never taken for another."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._descriptor = descriptor
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, self._end)

    def kill(self) -> None:
        """See `Process.kill`."""
        if self.returncode is not None:
            raise ProcessLookupError
        signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    async def wait(self) -> int:
        """Return when it has ended; only its parent knows how."""
        await self._ended.wait()
        return self.returncode or 0

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
        self.returncode = 0
        self._ended.set()


class Nurseries:
    """One process for all zygotes that import the same modules in the same environment."""

    def __init__(self) -> None:
        self._known: dict[object, tuple[subprocess.Popen[bytes], socket.socket]] = {}

    async def begun(
        self, modules: tuple[str, ...], environment: Mapping[str, str], control: socket.socket, output: IO[bytes]
    ) -> zygote_link.Process:
        """What `zygote_link.start_process` is, but faster from the second time on."""
        durations.starts.count += 1
        key = (modules, tuple(sorted(environment.items())), Path.cwd())
        if key not in self._known:
            self._known[key] = _started(modules, environment)
        answer, theirs = socket.socketpair()
        with answer:
            try:
                with theirs:
                    handed = (control.fileno(), output.fileno(), theirs.fileno())
                    socket.send_fds(self._known[key][1], [b"z"], handed)
                await anyio.wait_readable(answer)
                said, descriptors, _, _ = socket.recv_fds(answer, 16, 1)
            except OSError:
                said, descriptors = b"", []
        if not descriptors:
            # Whatever kept it from importing is told by a zygote that is started like any other.
            _close(*self._known.pop(key))
            return await BEGUN(modules, environment, control, output)
        return Nursling(int(said), descriptors[0])

    def close(self) -> None:
        """End them, and with them what zygotes are left."""
        for one in self._known.values():
            _close(*one)
        self._known.clear()


@contextmanager
def nurseries() -> Iterator[None]:
    """While this is entered, zygotes of this process come from nurseries."""
    if not hasattr(os, "pidfd_open"):
        yield
        return
    made = Nurseries()
    zygote_link.start_process = made.begun
    try:
        yield
    finally:
        zygote_link.start_process = BEGUN
        made.close()


def _started(modules: tuple[str, ...], environment: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair()
    with theirs:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.nursery", str(theirs.fileno()), *modules],
            env={**environment, "PYTHONPATH": _ROOT},
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    return child, ours


def _close(child: subprocess.Popen[bytes], orders: socket.socket) -> None:
    orders.close()
    child.wait(10)
