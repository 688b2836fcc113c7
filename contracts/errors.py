"""Every way in which the swarm says no.

    SwarmError                      exit  when
    ├── Failed                       1    something was tried and did not work
    │   ├── ChildDied                1    a job's process ended without its answer
    │   ├── OutOfMemory              1    a job asked for memory that there is not
    │   └── UserCodeFailed           1    an exception in a workload or a stranger's agent
    │       └── NotRepeatable        1    a workload computes otherwise when it is asked again
    ├── InvalidInput                 2    what was given cannot be meant
    │   └── InvalidRequest           2    a training request with one or more problems, all of them listed
    ├── NotVerified                  3    a signature, a digest or a chain does not hold
    ├── NotFound                     4    there is no such thing
    ├── Unreachable                  5    the bus does not answer
    │   └── Ambiguous                5    an append whose outcome is not known yet
    ├── Refused                      6    understood, and not allowed now
    │   ├── TooLarge                 6    one event above the limit of the log
    │   ├── Full                     6    the store or the disk has no room
    │   ├── NewerThanCode            6    written by a later version than this one
    │   ├── Conflict                 6    somebody else appended to the lane first
    │   └── Fenced                   6    a newer claim owns the lane
    └── TimedOut                   124    the time given was not enough

Every error names the value and says the cure; `code` is stable and machine-readable.
"""

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal


def count_of(count: int, one: str, many: str = "") -> str:
    """So many of something in words: `1 event`, `2 events`; `many` where the plural is no `s` at the end."""
    return f"{count} {one if count == 1 else many or f'{one}s'}"


class SwarmError(Exception):
    """Base of all: a message for people, a code for machines, a cure for both."""

    code: ClassVar[str] = "failed"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, cure: str = "", path: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure
        self.path = path

    def __str__(self) -> str:
        return f"{self.message} {self.cure}".strip()

    def as_json(self) -> dict[str, Any]:
        """The JSON object that represents the error, as it appears under `error` in answers and with `--json`."""
        return {"code": self.code, "message": self.message, "path": self.path, "cure": self.cure}


class Failed(SwarmError):
    """Something was tried and did not work."""


class ChildDied(Failed):
    """A job's process ended without giving its answer."""

    code = "child-died"


class OutOfMemory(Failed):
    """A job asked for more memory than there is, on the processor or on a GPU."""

    code = "out-of-memory"


class UserCodeFailed(Failed):
    """Code of the user's raised; the message holds the user's last frame."""

    code = "user-code-failed"


class NotRepeatable(UserCodeFailed):
    """The same steps of a workload, repeated from the same state, gave other bits: a restart would change them."""

    code = "not-repeatable"
    RULES: ClassVar[str] = (
        "Keep what changes from step to step in buffers (`register_buffer`), and draw from torch, numpy or `random`, "
        "or from the `draw` that `augment` is handed: other attributes and generators do not survive a restart. "
        "Or a package that the workload imports was changed: only the workload's file is pinned."
    )


class InvalidInput(SwarmError):
    """The input is malformed or out of bounds; `path` names the place in it."""

    code = "invalid"
    exit_code = 2


ProblemType = Literal["", "hyperparameter", "resource", "convergence"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a request: where it is, what it is, how to cure it; of a search also what it is about."""

    path: str
    message: str
    cure: str = ""
    type: ProblemType = ""

    def as_json(self) -> dict[str, str]:
        """The JSON object that represents it; without a type where it has none."""
        told = {"path": self.path, "message": self.message, "cure": self.cure}
        return told | {"type": self.type} if self.type else told


class InvalidRequest(InvalidInput):
    """A request with problems; all of them are listed, not only the first."""

    code = "invalid-request"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        lines = "; ".join(f"{p.path or 'request'}: {p.message}" for p in self.problems)
        super().__init__(lines, cure=first.cure, path=first.path)

    def as_json(self) -> dict[str, Any]:
        return super().as_json() | {"problems": [problem.as_json() for problem in self.problems]}


class NotVerified(SwarmError):
    """A signature, a digest or a chain does not hold."""

    code = "not-verified"
    exit_code = 3


class NotFound(SwarmError):
    """The thing that was named does not exist here."""

    code = "not-found"
    exit_code = 4


class Unreachable(SwarmError):
    """The bus does not answer; what was asked may or may not have happened."""

    code = "unreachable"
    exit_code = 5


class Ambiguous(Unreachable):
    """An append was sent and no answer came: it may or may not be stored."""

    code = "ambiguous"


class Refused(SwarmError):
    """The request was understood, and is not allowed in this state or for this caller."""

    code = "refused"
    exit_code = 6


class TooLarge(Refused):
    """One event is above the limit of the log; the connection stays usable."""

    code = "too-large"


class Full(Refused):
    """The store or the disk has no room."""

    code = "full"


class NewerThanCode(Refused):
    """Written by a later version of this software."""

    code = "newer-than-code"


class Conflict(Refused):
    """The lane has moved on since it was read."""

    code = "conflict"


class Fenced(Refused):
    """A newer claim owns the lane; the caller stops speaking in it."""

    code = "fenced"


class TimedOut(SwarmError):
    """The caller's time limit passed; what it waited for may still go on."""

    code = "timed-out"
    exit_code = 124


NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the system says when a disk, a quota or a file size limit is used up."""

_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_MISFITS = frozenset({errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY})


def of_system(error: OSError) -> SwarmError | None:
    """What the system refused about a file; None when it names no file, for that tells a person nothing."""
    if error.filename is None:
        return None
    path, said = str(error.filename), error.strerror or str(error)
    if error.errno in NO_ROOM:
        return Full(f"there is no room to write {path!r}: {said}.", cure="Free space, or raise the limit.", path=path)
    if error.errno in _FORBIDDEN:
        cure = "See whose it is (ls -ld), or name another place."
        return Refused(f"{path!r} is not to be read or written here: {said}.", cure=cure, path=path)
    if error.errno in _MISFITS:
        return InvalidInput(f"{path!r} cannot be used: {said}.", cure="Name another place.", path=path)
    if error.errno == errno.ENOENT:
        return NotFound(f"there is no {path!r}.", cure="Make it, or name another place.", path=path)
    return Failed(f"{path!r}: {said}.", cure="See the disk, and the limits of this process: ulimit -a", path=path)


def kind_of(code: str) -> type[SwarmError]:
    """The class of errors with that code; `Failed` for a code that this software does not know."""
    return next((kind for kind in _below(SwarmError) if kind.code == code), Failed)


def error_of(raw: Mapping[str, object]) -> SwarmError:
    """The error that such an object represents, as an instance of its class in the error tree."""
    problems = raw.get("problems")
    if problems and isinstance(problems, list):
        return InvalidRequest([Problem(each["path"], each["message"], each["cure"]) for each in problems])
    kind = kind_of(str(raw.get("code")))
    # A list of problems that has none in it is told as what it says.
    kind = Failed if kind is InvalidRequest else kind
    return kind(str(raw.get("message")), cure=str(raw.get("cure") or ""), path=str(raw.get("path") or ""))


def _below(root: type[SwarmError]) -> list[type[SwarmError]]:
    return [kind for child in root.__subclasses__() for kind in (child, *_below(child))]
