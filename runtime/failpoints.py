"""Named places at which a test can have the process die as if by SIGKILL; they do nothing in any other run.

`SWARM_FAILPOINT=NAME` dies at the first passage of that place in a process, `NAME:K` at the K-th.
"""

from __future__ import annotations

import os
import signal

from contracts.errors import InvalidInput

NAMES: dict[str, str] = {
    "before-append": "host: a batch of events is built and signed, nothing is sent",
    "between-append-and-ack": "host: the bytes are sent, the acknowledgement is not read",
    "between-ack-and-apply": "host: a decision is in the log, the job has not been told",
    "between-apply-and-next-window": "job: a decision is applied, no window recorded since",
    "before-window": "job: a window is computed, the host has not been told",
    "while-checkpoint-is-written": "job: some bytes of a checkpoint lie on disk, not all",
    "between-blob-and-event": "host: the checkpoint's blobs are stored, no event names them",
    "between-event-and-host-log": "host: an event is admitted, the host's own copy of the log lacks it",
    "before-seal": "host: every duty has ended, the seal is not appended",
    "between-seal-and-bundle": "host: the seal is in the log, the log part of the bundle is not written",
}


class _Armed:
    """One place, and how many passages of it are still survived."""

    def __init__(self, setting: str) -> None:
        self.name, _, count = setting.partition(":")
        if self.name not in NAMES or not (count or "1").isdigit() or int(count or 1) < 1:
            raise InvalidInput(
                f"SWARM_FAILPOINT is {setting!r}, which is no failpoint.",
                cure=f"Use NAME or NAME:K with K from 1 on and NAME one of {', '.join(NAMES)}, or unset it.",
            )
        self.left = int(count or 1)

    def pass_by(self, name: str) -> None:
        if name not in NAMES:
            raise InvalidInput(f"There is no failpoint {name!r}.", cure="Declare it in runtime/failpoints.py.")
        if name != self.name:
            return
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


_armed = _Armed(os.environ["SWARM_FAILPOINT"]) if os.environ.get("SWARM_FAILPOINT") else None


def failpoint(name: str) -> None:
    """Die here if the environment says so; `name` is one of `NAMES`."""
    if _armed is not None:
        _armed.pass_by(name)
