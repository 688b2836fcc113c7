"""The only place where subject strings are made and read; nothing is published or subscribed here.

    swarm.ev.<pp>.<session>.<lane>.<name>          a fact; a guest's lane `guest_<agent>` is the tokens `guest.<agent>`
    swarm.tm.<pp>.<session>.<kind>                 telemetry
    swarm.cmd.<verb>                               an intent
    swarm.owner.<verb>                             an intent of the owner of the home
    swarm.signed.<signer>.<right>.<verb>           an intent that its signer signed: a person or a role that asks
    swarm.dlq.<role>   swarm.redrive.<role>        dead letters, and the wish to try one again
    swarm.sys.<role>.<instance>.hb                 presence

`pp`, the partition and generation of a session, is the part of its id before the first hyphen.
"""

import functools
import re
from typing import NamedTuple

from contracts.errors import InvalidInput

EVERYTHING = "swarm.ev.>"
TELEMETRY = "swarm.tm.>"
COMMANDS = "swarm.cmd.>"
OWNER_COMMANDS = "swarm.owner.>"
SIGNED_COMMANDS = "swarm.signed.>"
DEAD_LETTERS = "swarm.dlq.>"
GUESTS = "swarm.ev.*.*.guest.>"
"""The filter that matches every message that guests store, fact or not."""

GUEST = "guest_"

_TOKEN = re.compile(r"[a-z0-9_-]+")
_SESSION = re.compile(r"[a-z0-9]+-[a-z0-9_-]+")
_NAME = re.compile(r"[a-z0-9]+(?:_[a-z0-9]+)*\.[a-z0-9]+")
_CURE = "Subject tokens are made of a-z, 0-9, '_' and '-'."


class FactSubject(NamedTuple):
    """What a fact's subject says."""

    session: str
    lane: str
    name: str


@functools.lru_cache(maxsize=4096)
def fact(session: str, lane: str, name: str) -> str:
    """The subject of the event `name` (such as "window.recorded") in one lane of one session."""
    event = _event(name)
    return f"{_lane(session, lane)}.{event}"


def lane(session: str, lane: str) -> str:
    """The filter of one lane: the same string for every writer of it, as its optimistic concurrency demands."""
    return f"{_lane(session, lane)}.>"


def session(session: str) -> str:
    """The filter that matches all events of one session, of any lane."""
    return f"{_session(session)}.>"


def lane_everywhere(lane: str) -> str:
    """The filter of one role's lane in every session."""
    return f"swarm.ev.*.*.{_lane_tokens(lane)}.>"


def waking(name: str, lane: str | None = None) -> tuple[str, ...]:
    """The filters under which the event `name` is heard in any session: from the given lane, or from every lane."""
    event = _event(name)
    if lane is not None:
        return (f"swarm.ev.*.*.{_lane_tokens(lane)}.{event}",)
    return f"swarm.ev.*.*.*.{event}", f"swarm.ev.*.*.guest.*.{event}"


def command(verb: str) -> str:
    """The subject on which a command is asked."""
    return f"swarm.cmd.{_token(verb)}"


def owner_command(verb: str) -> str:
    """Where the owner of the home asks a command."""
    return f"swarm.owner.{_token(verb)}"


def is_owners(subject: str) -> bool:
    """Whether a command was asked where only the owner may ask."""
    return subject.startswith(OWNER_COMMANDS.removesuffix(">"))


class SignedSubject(NamedTuple):
    """What the subject of a signed command says; whether it is true is for its signature to show."""

    signer: str
    right: str
    verb: str


def signed_command(signer: str, right: str, verb: str) -> str:
    """Where a signed command is asked; `*` in place of the verb is all that need this right."""
    return f"swarm.signed.{_token(signer)}.{_token(right)}.{verb if verb == '*' else _token(verb)}"


def is_signed(subject: str) -> bool:
    """Whether a command was asked where all are signed."""
    return subject.startswith(SIGNED_COMMANDS.removesuffix(">"))


def parse_signed(subject: str) -> SignedSubject:
    """The inverse of `signed_command`."""
    tokens = subject.split(".")
    if len(tokens) != 5 or tokens[:2] != ["swarm", "signed"] or not all(map(_TOKEN.fullmatch, tokens)):
        raise InvalidInput(f"{subject!r} is not the subject of a signed command.", cure="See bus/subjects.py.")
    return SignedSubject(*tokens[2:])


def telemetry(session: str, kind: str) -> str:
    """Where samples of one kind go; they may expire."""
    return f"swarm.tm.{partition(session)}.{session}.{_token(kind)}"


def heartbeat(role: str, instance: str) -> str:
    """Where one instance of a role says that it is there."""
    return f"swarm.sys.{_token(role)}.{_token(instance)}.hb"


def heartbeats(role: str | None = None) -> str:
    """The filter of all heartbeats, or of one role's."""
    return f"swarm.sys.{'*' if role is None else _token(role)}.*.hb"


def dead_letter(role: str) -> str:
    """Where what a role could not handle is pointed at."""
    return f"swarm.dlq.{_token(role)}"


def redrive(role: str) -> str:
    """Where a role is asked to try a dead letter again."""
    return f"swarm.redrive.{_token(role)}"


def parse(subject: str) -> FactSubject:
    """Session, lane and event name of a fact's subject: the inverse of `fact`."""
    tokens = subject.split(".")
    guest = len(tokens) == 7 and tokens[4] == "guest"
    if tokens[:2] != ["swarm", "ev"] or not (guest or (len(tokens) == 6 and tokens[4] != "guest")):
        raise InvalidInput(f"{subject!r} is not the subject of a fact.", cure="See bus/subjects.py.")
    lane = GUEST + tokens[5] if guest else tokens[4]
    parsed = FactSubject(tokens[3], lane, ".".join(tokens[-1].rsplit("_", 1)))
    if fact(*parsed) != subject:
        raise InvalidInput(f"{subject!r} is not the subject of a fact.", cure="See bus/subjects.py.")
    return parsed


def guest_of(subject: str) -> str:
    """The lane of the guest who stored something under this subject, fact or not; empty when it was no guest."""
    tokens = subject.split(".", 6)
    return GUEST + tokens[5] if len(tokens) > 5 and tokens[4] == "guest" else ""


@functools.lru_cache(maxsize=4096)
def partition(session: str) -> str:
    """The partition and generation that a session id names."""
    if not _SESSION.fullmatch(session):
        raise InvalidInput(f"{session!r} is no session id.", cure="A session id is <partition>-<id>, all lower case.")
    return session.split("-", 1)[0]


def stream(subjects: str, partition: str = "00") -> str:
    """The stream that stores a subject; `partition` answers where a filter leaves it open."""
    tokens = [*subjects.split("."), "*", "*"]
    kept = tokens[2] if tokens[2] not in ("*", ">") else partition
    match tokens[1]:
        case "ev":
            return f"EV_{kept}"
        case "tm":
            return f"TM_{kept}"
        case "dlq":
            return "DLQ"
    raise InvalidInput(f"Nothing under {subjects!r} is stored.", cure="Facts, telemetry and dead letters are.")


@functools.lru_cache(maxsize=16_384)
def matches(pattern: str, subject: str) -> bool:
    """Whether a filter (with `*` for a token and `>` for the rest) covers a subject."""
    wanted, given = pattern.split("."), subject.split(".")
    for i, part in enumerate(wanted):
        if part == ">":
            return len(given) > i
        if i >= len(given) or part not in ("*", given[i]):
            return False
    return len(wanted) == len(given)


def _session(session: str) -> str:
    return f"swarm.ev.{partition(session)}.{session}"


def _lane(session: str, lane: str) -> str:
    return f"{_session(session)}.{_lane_tokens(lane)}"


def _lane_tokens(lane: str) -> str:
    if lane.startswith(GUEST):
        return f"guest.{_token(lane[len(GUEST) :])}"
    if lane == "guest":
        raise InvalidInput("'guest' is no lane.", cure="A guest's lane is 'guest_' and the name of the agent.")
    return _token(lane)


def _event(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{name!r} is no event name.", cure="Write noun.participle, such as 'window.recorded'.")
    return name.replace(".", "_")


def _token(text: str) -> str:
    if not _TOKEN.fullmatch(text):
        raise InvalidInput(f"{text!r} is no subject token.", cure=_CURE)
    return text
