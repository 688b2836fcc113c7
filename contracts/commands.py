"""What may be asked of a swarm: one model per command gives its name, the right it needs, its body and its reply.

A body is JSON: an object with the members of the model, in which null means not given and unknown members mean nothing.
The bodies of `train` and `search` are requests and have a reader of their own; what belongs to the command stands in
them beside the sections of the request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
)

from contracts import replies
from contracts.errors import InvalidInput, InvalidRequest, Problem
from contracts.findings import Mode
from contracts.operator import KindName
from contracts.request import Request, read_request
from contracts.request.reading import problems_of, shown
from contracts.request.search import Method, read_search
from contracts.request.section import refused
from contracts.request.training import Format, Quantization
from contracts.roles import Right
from contracts.signed_command import RIGHTS

BODIES: dict[str, type[Command]] = {}
"""Every command by its name."""


class Command(BaseModel):
    """What is asked. Subclasses state name, right and reply: `class X(Command, verb="x", right="ask", reply=XReply)`.

    The first paragraph of a subclass's docstring is the published summary of the command.
    """

    model_config = ConfigDict(
        frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True, defer_build=True
    )

    verb: ClassVar[str] = ""
    right: ClassVar[Right] = "administer"
    reply: ClassVar[type] = dict

    def __init_subclass__(cls, *, verb: str = "", right: Right = "administer", reply: type = dict) -> None:
        super().__init_subclass__()
        if verb:
            cls.verb, cls.right, cls.reply = verb, right, reply
            BODIES[verb] = cls

    @classmethod
    def summary(cls) -> str:
        """What the command is for, in one sentence."""
        return " ".join((cls.__doc__ or "").split("\n\n")[0].split())

    @classmethod
    def read(cls, body: Mapping[str, object]) -> Self:
        """The command that a body is; `InvalidRequest` lists every member that does not fit, each with its cure."""
        refuse_crowded({name: value for name, value in body.items() if name != "without"})
        try:
            return cls.model_validate({name: value for name, value in body.items() if value is not None})
        except ValidationError as error:
            raise InvalidRequest([_missing(one) for one in problems_of(error, cls)]) from None


_MISSING = {
    "session": ("no session is named", 'Send {"session": "..."}.'),
    "reason": ("a revocation needs a reason", "Say why: --reason TEXT"),
    "proposal": ("no proposal is named", "See which wait: swarm show SESSION"),
    "step": ("no step is named", "Give the grid step at which it begins."),
}


def _missing(problem: Problem) -> Problem:
    if problem.message == "is required" and problem.path in _MISSING:
        return Problem(problem.path, *_MISSING[problem.path])
    return problem


MOST_KEYS = 1000
"""Keys of one mapping in a request: far more than any has, and few enough to be judged at once."""

MOST_VALUES = 5000
"""Values in a whole request, for the same reason: each may be wrong, and what is wrong with it is found in one step."""

_WEIGHTS: Mapping[str, tuple[tuple[type, ...], float]] = {
    "class_weights": ((int, float), 1e9),
    "repeats": ((int,), 1e6),
}
"""Options that may have a number for each of very many classes, and what is surely such a number; it is not counted."""


def refuse_crowded(body: Mapping[str, object]) -> None:
    """Raise `InvalidInput` for a body with so many keys or values that judging them would block the host."""
    values, rest = 0, list[tuple[str, object]]([("", body)])
    while rest:
        name, value = rest.pop()
        if isinstance(value, dict) and len(value) > MOST_KEYS:
            message = f"the request has {len(value)} keys in one place, and {MOST_KEYS} are the most."
            raise InvalidInput(message, cure="See what a request may hold: swarm init")
        inside = list(value.items()) if isinstance(value, dict) else []
        if isinstance(value, list):
            kinds, largest = _WEIGHTS.get(name, ((), 0.0))
            inside = [(name, one) for one in value if type(one) not in kinds or not 0 <= one <= largest]
        rest += inside
        values += len(inside)
        if values > MOST_VALUES:
            message = f"the request has more than {MOST_VALUES} values; {shown(name)} has many of them."
            raise InvalidInput(message, cure="See what a request may hold: swarm init", path=name)


# ---------------------------------------------------------------- members of bodies

LARGEST = 2**53
"""Numbers up to here are the same in every language's JSON."""

LONGEST_NAME = 200
"""Characters of a request_id, and of the name of a session."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,30}[a-z0-9])?")


def _agent_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise refused(f"{shown(name)} is no name for an agent or a person", "Use a-z, 0-9, '_' and '-'.")
    return name


def _which_intervention(given: object) -> object:
    is_number = isinstance(given, int) and not isinstance(given, bool)
    if not isinstance(given, str) and not (is_number and given >= 1):  # type: ignore[operator]
        raise refused(f"{shown(given)} names no intervention", "Give its number from 1, or the id of its event.")
    return given


def _checkpoint(name: str) -> str:
    if name not in ("best", "last", "final") and not (name.isascii() and name.isdecimal()):
        raise refused(f"{shown(name)} names no checkpoint", "Write best, last, or a step.")
    return name


def _texts(given: object) -> object:
    """The first item that is no text stands for all of them: a body may have several hundred thousand."""
    strange = next((one for one in given if not isinstance(one, str)), None) if isinstance(given, list) else None
    if strange is not None:
        raise refused(f"{shown(strange)} is not text", "Write text.")
    return given


Names = Annotated[list[str], BeforeValidator(_texts)]


class RowsFile(BaseModel):
    """Rows that a blob of the home lists, one in a line: for whoever can put blobs there."""

    model_config = ConfigDict(frozen=True, strict=True)

    blob: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


SessionName = Annotated[
    str,
    StringConstraints(max_length=LONGEST_NAME),
    Field(description="An id, a unique prefix of one, a request_id, `last` (the newest training) or `last-KIND`."),
]
RequestId = Annotated[
    str,
    StringConstraints(min_length=1, max_length=LONGEST_NAME),
    Field(description="The same request_id names the same session for ever."),
]
Asker = Annotated[
    str,
    StringConstraints(min_length=1, max_length=LONGEST_NAME),
    Field(description="Read and not believed: the log names who was verified."),
]
Line = Annotated[str, StringConstraints(max_length=2000)]
Named = Annotated[str, StringConstraints(max_length=LONGEST_NAME)]
Rows = Annotated[
    Annotated[Names, Tag("names")] | Annotated[RowsFile, Tag("file")],
    Discriminator(lambda given: "file" if isinstance(given, dict) else "names"),
    Field(description="Training rows to leave out, as `swarm trace` names them."),
]
Place = Annotated[int, Field(ge=0, le=LARGEST)]
Count = Annotated[int, Field(ge=1, le=LARGEST)]
Seconds = Annotated[float, Field(ge=0)]
AgentName = Annotated[str, AfterValidator(_agent_name)]
CheckpointName = Annotated[str, AfterValidator(_checkpoint), Field(description="best, last, or a step.")]
Intervention = Annotated[
    str | int,
    BeforeValidator(_which_intervention),
    Field(description="Its event's id, or its number from 1; the last one unless given."),
]

Proposal = Annotated[Named, Field(description="Its event's id, as `swarm show` and the events of the session have it.")]


# ---------------------------------------------------------------- commands: ask


class SubmitCommand(Command):
    """A command whose body is a request, with members of the command among its sections.

    Subclasses also state which kind of session begins with the request: `class X(SubmitCommand, begins="survey", ...)`.
    """

    request_id: RequestId | None = None
    asked_by: Asker | None = None

    if TYPE_CHECKING:
        request: Request | Method

    begins: ClassVar[KindName]
    reader: ClassVar[Callable[[Mapping[str, object]], Request | Method]]
    """Reads the sections of the request."""

    def __init_subclass__(cls, *, begins: KindName, **stated: Any) -> None:
        super().__init_subclass__(**stated)
        cls.begins = begins

    @classmethod
    def read(cls, body: Mapping[str, object]) -> Self:
        """See `Command.read`; what is wrong with the request and with the command is in one answer."""
        refuse_crowded(body)
        rest = {name: value for name, value in body.items() if name not in SubmitCommand.model_fields}
        own, problems = None, list[Problem]()
        try:
            own = SubmitCommand.model_validate({name: body.get(name) for name in SubmitCommand.model_fields})
        except ValidationError as error:
            problems = problems_of(error, SubmitCommand)
        try:
            request = cls.reader(rest)
        except InvalidRequest as error:
            raise InvalidRequest([*error.problems, *problems]) from None
        if own is None:
            raise InvalidRequest(problems)
        return super(Command, cls).model_construct(**dict(own), request=request)


class TrainCommand(SubmitCommand, verb="train", right="ask", reply=replies.BegunReply, begins="training"):
    """Request a training session; the same request_id names the same session for ever."""

    request: Request
    reader = read_request


class SearchCommand(SubmitCommand, verb="search", right="ask", reply=replies.BegunReply, begins="search"):
    """Request a search whose trials are sessions of their own."""

    request: Method
    reader = read_search


class TrialCommand(Command, verb="trial", right="ask", reply=replies.ReadReply):
    """Request a session as a trial of a search that goes on; whoever asks has read it once `seq` is reached."""

    parent: SessionName
    request: dict[str, object]
    request_id: RequestId | None = None
    asked_by: Asker | None = None


class ForkCommand(Command, verb="fork", right="ask", reply=replies.ForkReply):
    """Request a session that begins in the bits of another at a grid step of its path, or of a segment's line."""

    session: SessionName
    step: Place
    segment: Count | None = None
    set: Annotated[dict[str, object], Field(description="New values of the parent's request, by dotted path.")] = Field(
        default_factory=dict
    )
    without: Rows = Field(default_factory=list)
    request_id: RequestId | None = None
    asked_by: Asker | None = None
    under: Annotated[
        SessionName | None, Field(description="A proof or search that goes on, whose trial the fork is.")
    ] = None


class ProveCommand(Command, verb="prove", right="ask", reply=replies.ReadReply):
    """Request a proof of an intervention: two forks from the bits in which it took effect, with it and without."""

    session: SessionName
    intervention: Intervention | None = None
    seeds: Annotated[int, Field(ge=1, le=16, description="Pairs of forks, each with a seed of its own.")] = 1
    asked_by: Asker | None = None


class ExportCommand(Command, verb="export", right="ask", reply=replies.WishReply):
    """Want the model of a session as one more file."""

    session: SessionName
    format: Format = "onnx"
    quantize: Literal["", Quantization] = ""
    checkpoint: CheckpointName = "best"


class AuditCommand(Command, verb="audit", right="ask", reply=replies.AuditReply):
    """Audit a session by a session of its own, which cites what the ledger has signed; trainers share the work."""

    session: SessionName
    mode: Mode = "full"
    segments: Count = 5
    seed: Place | None = None
    asked_by: Asker | None = None


class SessionCommand(Command, verb="session", right="ask", reply=replies.SessionReply):
    """A session as it stands; with `wait`, when it has ended or after so many seconds."""

    session: SessionName
    wait: Seconds = 0.0


class SessionsCommand(Command, verb="sessions", right="ask", reply=replies.SessionsReply):
    """Sessions, oldest first, as many as fit. Ask again with `after` = `next` until `ended`."""

    after: Named = ""


class EventsCommand(Command, verb="events", right="ask", reply=replies.EventsReply):
    """Events of a session after a position; with `wait`, a long poll. Ask again with `after` = `next`."""

    session: SessionName
    after: Place = 0
    limit: Count = 200
    wait: Seconds = 0.0


class StatusCommand(Command, verb="status", right="ask", reply=replies.StatusReply):
    """Who is there: the agents of this host, and every role whose heartbeat is heard; and which sessions may train."""


class DlqCommand(Command, verb="dlq", right="ask", reply=replies.DlqReply):
    """What could not be handled, and the newest stored messages that were not admitted, with the reasons."""


class KeysCommand(Command, verb="keys", right="ask", reply=replies.KeysReply):
    """Every key that there was, and from when until when it counts."""


# ---------------------------------------------------------------- commands: decide


class CancelCommand(Command, verb="cancel", right="decide", reply=replies.WishReply):
    """End a session now."""

    session: SessionName
    reason: Line = ""


class PauseCommand(Command, verb="pause", right="decide", reply=replies.WishReply):
    """Let a session wait at the next grid step, until a person resumes it."""

    session: SessionName


class ResumeCommand(Command, verb="resume", right="decide", reply=replies.WishReply):
    """Let a paused session go on."""

    session: SessionName


class ApproveCommand(Command, verb="approve", right="decide", reply=replies.ApproveReply):
    """Let a proposal that waits take effect; one for another training begins that."""

    session: SessionName
    proposal: Proposal


class RejectCommand(Command, verb="reject", right="decide", reply=replies.WishReply):
    """Let a proposal that waits come to nothing."""

    session: SessionName
    proposal: Proposal
    reason: Line = ""


class RedriveCommand(Command, verb="redrive", right="decide", reply=replies.WishReply):
    """Try a recorded failure of a handler once more."""

    failure: Named


# ---------------------------------------------------------------- commands: administer


class AdmitCommand(Command, verb="admit", right="administer", reply=replies.AdmitReply):
    """Let a guest agent in: keys, a user on the server, a place in the keyring."""

    name: AgentName
    hears: Names = Field(default_factory=list)


class PersonCommand(Command, verb="person", right="administer", reply=replies.PersonReply):
    """Let a person in, with rights: a key that signs commands, a user on the server, a place in the keyring."""

    name: AgentName
    rights: Annotated[list[Right], Field(min_length=1, max_length=len(RIGHTS))]


class RotateCommand(Command, verb="rotate", right="administer", reply=replies.RotateReply):
    """A new key for a role, a guest or a person; who runs goes on with it, what was said before stays."""

    role: Named


class RevokeCommand(Command, verb="revoke", right="administer", reply=replies.RevokeReply):
    """A key (by its id, its role, its guest or its person) counts no more; a built-in role goes on with a new one."""

    key: Named
    reason: Annotated[Line, StringConstraints(min_length=1)]
