"""Named places at which a test can have the process die as if by SIGKILL; they do nothing in any other run.

`SWARM_FAILPOINT=NAME` dies at the first passage of that place in a process, `NAME:K` at the K-th. With `NAME:K@FILE`
one process dies in all: the one that creates FILE, which is then the proof that the place was passed. Several, with
commas between them, may be armed at once.
"""

import os
import signal

from contracts.errors import InvalidInput

NAMES: dict[str, str] = {
    "before-append": "host: a batch of events is built and signed, nothing is sent",
    "between-append-and-ack": "host: a batch is stored, nobody here has taken notice of it",
    "between-event-and-host-log": "host: an event is admitted, the host's own copy of the log lacks it",
    "between-genesis-and-reply": "host: a request has become a fact, whoever asked has not been told",
    "between-work-and-answer": "host: a handler has done its work, its answer is not appended",
    "between-claim-and-child": "host: a session is claimed, no child has begun",
    "between-ack-and-apply": "host: a decision is in the log, the job has not been told",
    "between-ack-and-effect": "host: a checkpoint is said to be let go, its bytes are still there",
    "between-drain-and-event": "host: the child has left its place in good order, no event says so",
    "before-completion": "host: the plan has been carried out, no event says so",
    "before-seal": "host: every duty has ended, the seal is not appended",
    "after-seal": "host: the seal is in the log, nothing that follows from it has been done",
    "between-apply-and-next-window": "job: a decision is applied, no window recorded since",
    "before-window": "job: a window is computed, the host has not been told",
    "during-rename": "job: a checkpoint's bytes lie on disk, not yet under their name",
    "between-blob-and-event": "job: a checkpoint is a blob, the host has not been told",
}


class _ArmedFailpoint:
    """One place, how many passages of it are still survived, and the file by which one process is chosen."""

    def __init__(self, setting: str) -> None:
        place, _, self.file = setting.partition("@")
        self.name, _, count = place.partition(":")
        if self.name not in NAMES or not (count or "1").isdigit() or int(count or 1) < 1:
            raise InvalidInput(
                f"SWARM_FAILPOINT is {setting!r}, which is no failpoint.",
                cure=f"Use NAME or NAME:K[@FILE] with K from 1 on and NAME one of {', '.join(NAMES)}, or unset it.",
            )
        self.left = int(count or 1)

    def pass_by(self, name: str) -> None:
        if name not in NAMES:
            raise InvalidInput(f"There is no failpoint {name!r}.", cure="Declare it in runtime/jobs/failpoints.py.")
        if name != self.name:
            return
        self.left -= 1
        if self.left == 0 and self._chosen():
            os.kill(os.getpid(), signal.SIGKILL)

    def _chosen(self) -> bool:
        if not self.file:
            return True
        try:
            os.close(os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            return False
        return True


_armed = [_ArmedFailpoint(one) for one in os.environ.get("SWARM_FAILPOINT", "").split(",") if one]


def failpoint(name: str) -> None:
    """Die here if the environment says so; `name` is one of `NAMES`."""
    for one in _armed:
        one.pass_by(name)
