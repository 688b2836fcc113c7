"""What is answered to commands: the bodies of replies when the answer is yes. Light to import, unlike the commands."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from contracts.roles import Right


class BegunReply(TypedDict):
    """The session that begins."""

    session: str


class ReadReply(BegunReply):
    """The session that begins, and the sequence at which whoever asks has read its genesis."""

    seq: int


class ForkReply(ReadReply):
    """The fork, and how many training rows it leaves out."""

    rows_without: int


class AuditReply(BegunReply):
    """The session of the audit, the session that it is about, and the seed of its samples."""

    of: str
    seed: int


class WishReply(BegunReply):
    """The session that a wish is about and the wish's event; of an export, perhaps a session of its own."""

    event: NotRequired[str]


class ApproveReply(WishReply):
    """The session, the event, and the session that an approved request for another training has `begun`."""

    begun: NotRequired[str]


class ProposalReply(TypedDict):
    """A proposal that waits for a person: its number among all from 1, its event, and what it is for."""

    number: int
    id: str
    rule: str
    remedy: str
    reason: str


class AdmitReply(TypedDict):
    """A guest's lane, the file of its credentials, and its key."""

    name: str
    lane: str
    creds: str
    key: str


class PersonReply(TypedDict):
    """A person's role in the keyring, the file of the credentials at the host, and the key."""

    name: str
    role: str
    rights: list[Right]
    creds: str
    key: str


class RotateReply(TypedDict):
    """Whose key it is, the key that has ended, and the key that took its place."""

    role: str
    old: str
    key: str


class RevokeReply(TypedDict):
    """Whose key it was, the key that has ended, and the key with which a built-in role goes on."""

    role: str
    old: str
    key: str | None


Figures = dict[str, float]


class LastReply(TypedDict):
    """The newest evaluation."""

    step: int
    metrics: Figures


class BestTrialReply(TypedDict):
    """Of a search that has ended: the trial with the best value; with several seeds it is their mean, and `spread` the
    standard deviation."""

    number: int
    session: str
    value: float
    parameters: dict[str, object]
    spread: NotRequired[float]
    seeds: NotRequired[int]
    data_path: NotRequired[
        Annotated[str, Field(description="Where its rows lie, if in files; of a trial that can be trained alone.")]
    ]


class FrontTrialReply(TypedDict):
    """Of a search with several objectives: a trial than which no other is better in all; `score` is the one number
    that is made of them by weight, less is better, and `spread` the standard deviation of each over several seeds."""

    number: int
    session: str
    values: Figures
    score: float | None
    parameters: dict[str, object]
    spread: Figures


class LineageStageReply(TypedDict):
    """Of a population that has ended: from which step on its best member was which trial, and the command that trains
    it from there to its end again."""

    number: int
    session: str
    step: int
    parameters: dict[str, object]
    command: str


class RangeTestReply(TypedDict):
    """Of a range test: the learning rate that it suggests, and its curve."""

    suggestion: float
    steepest: float
    diverged_at: float | None
    rates: list[float]
    losses: list[float | None]


class ProblemReply(TypedDict):
    """Why a session did not complete."""

    code: str
    message: str
    cure: str
    frame: NotRequired[str]


class ParentReply(TypedDict):
    """In whose bits a fork began, and with which change."""

    session: str
    step: int
    segment: int
    set: dict[str, object]
    rows_without: int


State = Literal[
    "requested", "preparing", "training", "paused", "finishing", "completed", "failed", "cancelled"
]  # fmt: skip


class ResourcesReply(TypedDict):
    """What a session used of its machine; memory is the most that was seen, and None is what nobody told."""

    cpu_percent: float
    memory_bytes: int
    session_memory_bytes: int | None
    gpu_percent: float | None
    joules: float
    alerts: int
    advice: list[str]
    advice_taken: list[str]


class SessionReply(TypedDict):
    """A session as it stands."""

    session: str
    kind: str
    name: str
    state: State
    step: int
    epoch: int
    weights_digest: str | None
    metrics: Figures
    artifacts: list[dict[str, object]]
    wall_s: float
    steps_total: NotRequired[int | None]
    best_step: NotRequired[int | None]
    last: NotRequired[LastReply | None]
    best_trial: NotRequired[BestTrialReply | None]
    front: NotRequired[list[FrontTrialReply]]
    lineage: NotRequired[list[LineageStageReply]]
    range_test: NotRequired[RangeTestReply | None]
    refused: NotRequired[
        Annotated[list[dict[str, object]], Field(description="Files that could not be made, and why.")]
    ]
    interventions: NotRequired[Annotated[list[dict[str, object]], Field(description="Changes of the plan, from 1.")]]
    proposals: NotRequired[Annotated[list[ProposalReply], Field(description="Those that wait for a person.")]]
    events: NotRequired[int]
    segments: NotRequired[int]
    sealed: NotRequired[str | None]
    owed: NotRequired[list[str]]
    problem: NotRequired[ProblemReply | None]
    requested_at: NotRequired[str]
    parent: NotRequired[str | None]
    fork: NotRequired[ParentReply | None]
    waits: NotRequired[Annotated[str, Field(description="What it waits for; empty when it does not.")]]
    verdict: NotRequired[Annotated[str | None, Field(description="Of an audit: pass, fail or not-comparable.")]]
    resources: NotRequired[ResourcesReply | None]


class SessionsReply(TypedDict):
    """A page of sessions, and where the next begins."""

    sessions: list[SessionReply]
    next: str
    ended: bool


class EventReply(TypedDict):
    """One event: its place in its session from 1, who said what, and whether the lane has a say in it."""

    seq: int
    stream_seq: int
    time: str
    lane: str
    laneseq: int
    name: str
    understood: bool
    id: str
    cause: str | None
    digest: str
    data: Any


class EventsReply(TypedDict):
    """Events of a session, where the next begin, and whether there will be none."""

    session: str
    events: list[EventReply]
    next: int
    ended: bool


class QueuedLine(TypedDict):
    """A session that has a slot to train (place 0), or that waits for one: since when, who asked, what it needs."""

    session: str
    place: int
    since: str
    asker: NotRequired[str]
    memory_bytes: NotRequired[int]
    devices: NotRequired[int]
    priority: NotRequired[int]
    why: NotRequired[Annotated[str, Field(description="Of one that waits: why, in words.")]]


class QueueReply(TypedDict):
    """How many sessions may train at once, which do, how many wait, and the first of those that wait."""

    limit: int
    slots: list[QueuedLine]
    length: int
    waiting: list[QueuedLine]


class StatusReply(TypedDict):
    """The agents of this host, every role whose heartbeat is heard, who may train, and how far the log was read."""

    agents: list[dict[str, object]]
    roster: NotRequired[list[dict[str, object]]]
    voids: NotRequired[list[dict[str, object]]]
    queue: NotRequired[QueueReply | None]
    seq: NotRequired[int]


class DlqReply(TypedDict):
    """Failures of handlers, and the newest stored messages that were not admitted."""

    letters: list[dict[str, object]]
    voids: list[dict[str, object]]


class KeyReply(TypedDict):
    """A key, whose it is, and the sequences in the stream from which and until which it counts."""

    key: str
    role: str
    public: str
    guest: bool
    rights: list[Right]
    in_force: bool
    since: int
    since_time: str
    until: int | None
    until_time: str | None
    ended: Annotated[str | None, Field(description="`rotated`, or `revoked: ` and the reason.")]


class KeysReply(TypedDict):
    """Every key that there was."""

    keys: list[KeyReply]
