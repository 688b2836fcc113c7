"""Whether each decision is what somebody with the right to it signed, and each training had its grant of the queue."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import orjson

from bus import records, subjects
from bus.signed_commands import verify_command
from contracts import commands as asked
from contracts.envelope import Fact
from contracts.errors import SwarmError
from contracts.event import Event
from contracts.keyring import KeyAdmitted, KeyRevoked, Keyring, KeyRotated
from contracts.operator import (
    WISHES,
    CancelRequested,
    ExportRequested,
    PauseRequested,
    ProposalApproved,
    ProposalRejected,
    RedriveRequested,
    ResumeRequested,
)
from contracts.queue import Queue, SessionGranted, objection
from contracts.roles import GUEST
from contracts.signed_command import PERSON, SignedCommand, signed_in
from contracts.trainer import TrainingClaimed, TrainingResumed
from runtime.log.archive import Archive
from runtime.replay.verdict import Divergence


def check_decisions(decisions: Iterable[Fact], ring: Keyring, where: str = "") -> Iterator[Divergence]:
    """Each decision that nobody signed as it stands there: with a key in force, the right, and these very words."""
    for fact in decisions:
        if wrong := _wrong(fact, ring):
            position = 0 if where else fact.position
            yield Divergence(position, fact.seq, "decision", f"{where}{fact.name} of event {fact.position}: {wrong}")


def _wrong(fact: Fact, ring: Keyring) -> str:
    """What does not hold of a decision; empty when all does."""
    signed = signed_in(fact.event)
    who = fact.event.asked_by if isinstance(fact.event, WISHES) else ""
    if signed is None:
        return f"{who} is said to have asked, and nothing is there that {who} signed"
    try:
        key, of = verify_command(signed, ring, fact.seq), subjects.parse_signed(signed.subject)
        command = _command(signed)
    except SwarmError as error:
        return error.message
    except orjson.JSONDecodeError:
        return f"what was signed is no command: {signed.body[:200]!r}"
    if who and who != key.role:
        return f"it was signed by {key.role}, and is said to be of {who}"
    if command.right not in key.rights or of.right != command.right:
        return f"it needs the right `{command.right}`, which key {key.id} of {key.role} has not signed with"
    return "" if _says(command, fact, ring) else f"{key.role} signed another command: {signed.body[:200]}"


def _command(signed: SignedCommand) -> asked.Command:
    kind = asked.BODIES.get(subjects.parse_signed(signed.subject).verb, asked.Command)
    body = orjson.loads(signed.body or "{}")
    return kind.read(body if isinstance(body, dict) else {})


_WISHES: Mapping[type[asked.Command], tuple[type[Event], tuple[str, ...]]] = {
    asked.CancelCommand: (CancelRequested, ("reason",)),
    asked.PauseCommand: (PauseRequested, ()),
    asked.ResumeCommand: (ResumeRequested, ()),
    asked.ExportCommand: (ExportRequested, ("format", "quantize", "checkpoint")),
    asked.ApproveCommand: (ProposalApproved, ("proposal",)),
    asked.RejectCommand: (ProposalRejected, ("proposal", "reason")),
}
"""What comes of a command about a session, and the members that both have beside the session."""


def _says(command: asked.Command, fact: Fact, ring: Keyring) -> bool:
    """Whether an event says what a command wanted."""
    if type(command) in _WISHES:
        kind, members = _WISHES[type(command)]
        about = all(getattr(command, name) == getattr(fact.event, name, None) for name in members)
        return type(fact.event) is kind and about and vars(command)["session"] == fact.envelope.subject
    wanted: object
    said: object
    match command, fact.event:
        case asked.RedriveCommand(), RedriveRequested() as event:
            wanted, said = command.failure, event.failure
        case asked.AdmitCommand(), KeyAdmitted() as event:
            wanted, said = (GUEST + command.name, sorted(set(command.hears))), (event.role, event.hears)
        case asked.PersonCommand(), KeyAdmitted() as event:
            wanted, said = (PERSON + command.name, set(command.rights)), (event.role, set(event.rights))
        case asked.RotateCommand(), KeyRotated() as event:
            wanted, said = True, _means(command.role, event.role, event.old)
        case asked.RevokeCommand(), KeyRevoked() as event:
            role = ring.keys[event.key].role if event.key in ring.keys else ""
            wanted, said = (command.reason, True), (event.reason, _means(command.key, role, event.key))
        case _:
            return False
    return wanted == said


def _means(named: str, role: str, key: str) -> bool:
    """Whether somebody who named a key in this way may have meant this one."""
    return named in (role, role.removeprefix(GUEST), role.removeprefix(PERSON)) or key.startswith(named)


CITING = (TrainingClaimed, TrainingResumed)
"""Events that cite a grant."""


def check_grants(archive: Archive, citing: Sequence[Fact]) -> Iterator[Divergence]:
    """A divergence for each of these events that cites a grant which its session never had before it."""
    logs: list[tuple[str, Path]] | None = None
    for fact in citing:
        if isinstance(fact.event, CITING) and fact.event.grant is not None:
            logs = archive.queues(subjects.partition(fact.envelope.subject)) if logs is None else logs
            if why := _objection_to(fact, fact.event.grant, archive, logs):
                yield Divergence(fact.position, fact.seq, "grant", why)


def _objection_to(citing: Fact, grant: str, archive: Archive, logs: Sequence[tuple[str, Path]]) -> str:
    """Why this event does not follow from the grant that it cites; empty when it does, or when nobody can know."""
    session = citing.envelope.subject
    for queue_session, path in reversed(logs):
        # One log of several is read: ids are written as they are, and a file is searched a thousand times as fast.
        if f'"id":"{grant}"'.encode() not in path.read_bytes():
            continue
        try:
            facts = archive.history(queue_session).facts
        except SwarmError:
            return ""  # what is wrong with the queue's log is not wrong with the session's
        queue = Queue()
        for fact in facts:
            if fact.id == grant:
                event, before = fact.event, fact.seq < citing.seq
                granted = isinstance(event, SessionGranted) and event.session == session
                return "" if granted and before and not objection(queue, event) else f"{grant} gave it no slot"
            queue = queue.advance(fact)
    newest = records.newest(logs[-1][1]) if logs else None
    if newest is None or newest.seq < citing.seq:
        return ""
    return f"it cites grant {grant}, and no log of the queue has it"
