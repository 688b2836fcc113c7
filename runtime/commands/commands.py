"""The front desk: answers commands. A command may be refused; only what follows from it is a fact.

Every reply is one JSON object, `{"error": {...}}` when the answer is no. The desk signs the operator's lane.

Who asks is known before anything else (`runtime.commands.askers`), and the model of a command says which right it
needs. The owner of the home has every right, a client may have sessions made and ended, a person has the rights that
the keyring names; the owner alone says which folders requests may name files in.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import orjson
import structlog

from bus import subjects
from contracts import commands as asked
from contracts import operator, replies
from contracts.diagnostician import InterventionProposed
from contracts.envelope import Fact
from contracts.errors import (
    Conflict,
    Full,
    InvalidInput,
    InvalidRequest,
    NotFound,
    Problem,
    Refused,
    SwarmError,
    count_of,
)
from contracts.event import Event
from contracts.fork import Fork
from contracts.ids import new_uuid, session_for, session_id
from contracts.keyring import Keyring
from contracts.kinds import kinds
from contracts.queue import Demand
from contracts.request import read_request
from contracts.request.reading import put, shown
from contracts.request.training import Training
from contracts.roles import BUILT_IN, DESK, OPERATOR, TRAINER
from contracts.signed_command import OWNER, refuse_without, signed_in
from runtime.commands.askers import THE_OWNER, Asker, Askers
from runtime.commands.deployment_keys import KeyCommands
from runtime.commands.session_index import SessionIndex
from runtime.diagnosis.health import with_effects
from runtime.home.workload_file import refuse_unknown_options
from runtime.home.workloads import Workloads
from runtime.jobs.failpoints import failpoint
from runtime.jobs.resources import gib
from runtime.log import lane_writer, retention, session_log
from runtime.model.checkpoints import find_checkpoint
from runtime.node.presence import PRESENT
from runtime.views.view import ended, event_line, queue_lines, summary

if TYPE_CHECKING:
    from runtime.node.node import Node


log = structlog.get_logger()

Answer = Mapping[str, object]
"""The body of a reply: what the TypedDict of a command says."""

Handler = Callable[..., Awaitable[Answer]]

_LONGEST_WAIT = 25.0
_MOST_EVENTS = 500
_MOST_BYTES = 700_000
_AT_ONCE = 25
"""Events that are written as JSON before others get their turn."""
_LONG = 16_384
"""Bytes of a body from which on it is read in a thread."""

FOLDER = "folder"
"""In an owner's request: the folder that it was run in, which becomes readable for its session."""
_FULL_AT = 0.9
"""Of the log's budget; what is left is for the sessions that have begun."""


RECORDED = {"root": None, "size": 0, "sealed": False, "state_root": None, "blob": None}
"""What a parent may have recorded between two wishes for the same fork."""


class Commands:
    """Carries out commands: each handler takes a command and who asks, and gives the body of the reply."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._index = SessionIndex(node.home, node.tail)
        self.keys = KeyCommands(node)
        self.admit_guest: Callable[[asked.AdmitCommand, Asker], Awaitable[replies.AdmitReply]] | None = None
        self.stored_bytes: Callable[[], Awaitable[int]] | None = None
        self.askers = Askers(self._keyring)
        self._handlers: dict[type[asked.Command], Handler] = {
            asked.TrialCommand: self._trial,
            asked.ExportCommand: self._export,
            asked.CancelCommand: self._cancel,
            asked.PauseCommand: self._pause,
            asked.ResumeCommand: self._resume,
            asked.ApproveCommand: self._approve,
            asked.RejectCommand: self._reject,
            asked.AdmitCommand: self._admit,
            asked.SessionCommand: self._session,
            asked.SessionsCommand: self._sessions,
            asked.EventsCommand: self._events,
            asked.StatusCommand: self._status,
            asked.DlqCommand: self._dlq,
            asked.RedriveCommand: self._redrive,
            asked.KeysCommand: self._keys,
            asked.RotateCommand: self._rotate,
            asked.RevokeCommand: self._revoke,
            asked.PersonCommand: self.keys.admit_person,
        }
        for verb, kind in asked.BODIES.items():
            answer = self._begin if issubclass(kind, asked.SubmitCommand) else partial(self._later, verb)
            self._handlers.setdefault(kind, answer)
        self.verbs = {verb: partial(self.carry_out, verb) for verb in asked.BODIES}
        """By name: a command of this process itself, which is its owner's, from the body that a client would send."""

    async def run(self) -> None:
        """Answer for ever; several hosts of one swarm share the commands."""
        bus = self.node.bus
        clients = bus.answer(subjects.COMMANDS, self.answer, queue=DESK)
        owner = bus.answer(subjects.OWNER_COMMANDS, self.answer, queue=DESK)
        signed = bus.answer(subjects.SIGNED_COMMANDS, self.answer, queue=DESK)
        self.node.tail.listen(self._hear)
        async with clients, owner, signed:
            await self._index.summarise()

    def _keyring(self) -> Keyring:
        return self.node.tail.admission.keyring()

    def _hear(self, facts: list[Fact]) -> None:
        for fact in facts:
            if signed := signed_in(fact.event):
                self.askers.remember(signed)

    async def answer(self, subject: str, body: bytes) -> bytes:
        """The reply to one command."""
        verb = subject.rpartition(".")[2]
        reply: Answer
        try:
            asker, asked_body = self.askers.identify(subject, body)
            reply = await self._perform(verb, asked_body, asker)
        except SwarmError as error:
            reply = {"error": error.as_json()}
        except Exception as error:
            log.error("command crashed", verb=verb, exc_info=error)
            cure = "This is a defect; the host's log has the details."
            reply = {"error": {"code": "crashed", "message": f"{verb} crashed: {error}", "path": "", "cure": cure}}
        return orjson.dumps(reply)

    async def _perform(self, verb: str, body: bytes, by: Asker) -> Answer:
        kind = asked.BODIES.get(verb)
        if kind is None:
            raise NotFound(f"there is no command {verb!r}.", cure=f"Known: {', '.join(sorted(self.verbs))}.")
        refuse_without(kind.right, verb, by.name, by.rights)
        # What is long is read in a thread, for the host has other things to do meanwhile.
        parsed = await asyncio.to_thread(_parsed, body) if len(body) > _LONG else _parsed(body)
        is_request = issubclass(kind, asked.SubmitCommand)
        folders = [_folder(parsed.pop(FOLDER))] if by.name == OWNER and is_request and FOLDER in parsed else []
        in_thread = is_request or len(body) > _LONG
        command = await asyncio.to_thread(kind.read, parsed) if in_thread else kind.read(parsed)
        return await self._handlers[kind](command, by, *folders)

    async def carry_out(self, verb: str, body: Mapping[str, object], by: Asker = THE_OWNER) -> Any:
        """The reply to a command of this very process, for itself or for one of its agents."""
        kind = asked.BODIES[verb]
        return await self._handlers[kind](kind.read(body), by)

    async def _later(self, verb: str, command: asked.Command, by: Asker) -> Answer:
        """Have `runtime.commands.requests` answer; its import takes as long as many answers, so a thread does it."""
        requests = await asyncio.to_thread(importlib.import_module, "runtime.commands.requests")
        answer: Answer = await requests.ANSWERS[verb](self, command, by)
        return answer

    async def submit(
        self,
        request: Mapping[str, Any],
        kind: operator.KindName = "training",
        *,
        asked_by: str = "desk",
        parent: str | None = None,
        request_id: str | None = None,
        fork: Fork | None = None,
        folder: Path | None = None,
    ) -> str:
        """Make a checked request the genesis of a session; the same `request_id` gives the same session.

        `folder` becomes readable for it, and so do those of its parent when it names the same files.
        """
        partition = self.node.tail.partition
        session = session_for(request_id, partition) if request_id else session_id(new_uuid(), partition)
        if await self._is_begun(session, request, request_id, fork):
            return session
        await self._refuse_when_full()
        if parent is None:
            refuse_unknown_options(request, Workloads(self.node.home.root))
            self.node.settings.refuse_unknown_labels(request.get("notify"))
        await self._refuse_in_queue(request, asked_by, parent)
        folders = [folder] if folder else await self._inherited(parent, request)
        if folders:
            self.node.home.open_to(session, folders)
        genesis = operator.SessionRequested(
            kind=kind,
            request=dict(request),
            keyring=self._keyring().head,
            asked_by=asked_by,
            request_id=request_id,
            parent=parent,
            fork=fork,
            rules=operator.RULES,
        )
        try:
            await self._say(session, genesis, lane_writer.Provenance(after=0))
        except Conflict:
            # The same request came twice at once, here or at another host.
            await self._is_begun(session, request, request_id, fork)
        failpoint("between-genesis-and-reply")
        return session

    async def _refuse_in_queue(self, request: Mapping[str, Any], asked_by: str, parent: str | None) -> None:
        """Raise `InvalidRequest` about a priority that is not this asker's, or needs that no trainer here can meet.

        A search is judged by the request of its trials; a trial is judged as its search's requester.
        """
        place = "base.training" if "base" in request else "training"
        # The base of a search is as it was written.
        training = Training.model_validate((request.get("base") or request).get("training") or {})
        priority, most = training.priority, self.node.settings.most_priority
        trainers = [one for one in self.node.presence.roster() if one.role == TRAINER and one.seconds < PRESENT]
        # What a child of a session needs was judged with its parent, and waits like any other.
        rooms = [one.room.machine for one in trainers if one.room.slots and asked_by not in BUILT_IN]
        while asked_by in BUILT_IN and parent is not None:
            genesis = (await self.history(parent)).state.genesis
            asked_by, parent = (genesis.asked_by, genesis.parent) if genesis is not None else ("", None)
        problems = list[Problem]()
        if priority > most and asked_by not in (OWNER, DESK):
            message = f"{asked_by} may ask for a priority of {most} at most, and this is {priority}"
            cure = f"Ask for {most} or less; the owner of the home sets `most_priority`."
            problems.append(Problem(f"{place}.priority", message, cure))
        needs = Demand(**dict(training.needs))
        # With nobody there yet it waits for who comes.
        if rooms and any(needs) and not any(map(needs.fits, rooms)):
            memory = max((room.memory_bytes for room in rooms if room.memory_bytes is not None), default=0)
            devices = max(room.devices for room in rooms)
            figures = [(f"{gib(needs.memory_bytes)} of memory", gib(memory))] if needs.memory_bytes else []
            figures += [(count_of(needs.devices, "device"), str(devices))] if needs.devices else []
            wanted, there = (" and ".join(words) for words in zip(*figures, strict=True))
            message = f"a session needs {wanted}, and no trainer that is there has more than {there}"
            cure = "Ask for less, or start a trainer on a larger machine first: swarm agent run trainer."
            problems.append(Problem(f"{place}.needs", message, cure))
        if problems:
            raise InvalidRequest(problems)

    async def _is_begun(
        self, session: str, request: Mapping[str, Any], request_id: str | None, fork: Fork | None
    ) -> bool:
        """Whether this very request has been made a session; `Refused` when another one has."""
        before = await self._index.genesis(session)
        if before is not None and (before.request != dict(request) or not same_fork(before.fork, fork)):
            message = f"request_id {request_id!r} belongs to another request (session {session})."
            raise Refused(message, cure="Use a new request_id.")
        return before is not None

    async def _inherited(self, parent: str | None, request: Mapping[str, Any]) -> list[Path]:
        """The folders that are open to the parent, for a child that names no file which the parent does not name."""
        folders = self.node.home.opened_to(parent or "")
        if not folders:
            return []
        inherited = (await self.history(parent or "")).state.request
        return folders if _files(request) == _files(inherited.get("base", inherited)) else []

    async def _say(self, session: str, event: Event, occasion: lane_writer.Provenance | None = None) -> str:
        facts = await self.node.writer(OPERATOR, DESK).say(session, [event], occasion or lane_writer.Provenance())
        return facts[0].id

    async def _say_for(self, by: Asker, session: str, event: Event) -> str:
        """Say a wish; one that was signed while its key is in force, for no key of a person ends meanwhile."""
        if by.signed is None:
            return await self._say(session, event)
        async with self.keys.one_at_a_time:
            by.still_counts(self._keyring())
            return await self._say(session, event)

    async def _begin(self, wish: asked.SubmitCommand, by: Asker, folder: Path | None = None) -> replies.BegunReply:
        """Make the request that a command is the genesis of a session of the kind that the command begins."""
        resolved = await asyncio.to_thread(wish.request.resolved)
        Workloads(self.node.home.root).needed(resolved)
        session = await self.submit(resolved, wish.begins, asked_by=by.name, request_id=wish.request_id, folder=folder)
        return {"session": session}

    async def open_parent(self, name: str, verb: str) -> session_log.SessionLog:
        """A session that goes on, whose children this command begins; `Refused` for any other."""
        parent = await self.history(name)
        if verb not in parent.state.kind.begets or parent.state.outcome is not None:
            able = " or ".join(kind.name for kind in kinds().values() if verb in kind.begets)
            cure = f"Only a {able} has children that are begun by {verb!r}, and only until it has ended."
            raise Refused(f"{parent.id} is no {able} that goes on.", cure=cure)
        return parent

    async def _trial(self, wish: asked.TrialCommand, by: Asker) -> replies.ReadReply:
        parent = await self.open_parent(wish.parent, wish.verb)
        session = await self.submit(
            (await asyncio.to_thread(read_request, wish.request)).resolved(),
            "trial",
            asked_by=by.name,
            parent=parent.id,
            request_id=wish.request_id,
        )
        return {"session": session, "seq": self.node.tail.seq}

    async def _export(self, wish: asked.ExportCommand, by: Asker) -> replies.WishReply:
        history = await self.history(wish.session)
        state, about = history.state, wish.model_dump(include={"format", "quantize", "checkpoint"})
        if not state.kind.trains:
            raise Refused(f"{history.id} is of the kind {state.kind.name!r} and has no model.", cure="Name a training.")
        if state.sealed is None and state.outcome is None:
            _refuse_short_name(wish.session, history.id, by)
            requested = operator.ExportRequested(asked_by=by.name, signed=by.kept(), **about)
            return {"session": history.id, "event": await self._say_for(by, history.id, requested)}
        if state.training.dataset is None:
            raise NotFound(f"{history.id} has no dataset.", cure=f"See what became of it: swarm show {history.id}")
        kept = retention.exported(state, wish.checkpoint) or find_checkpoint(state, wish.checkpoint)
        request = {
            "session": history.id,
            "sealed_root": state.sealed.root if state.sealed else "",
            **about,
            "checkpoint_blob": kept.written.blob,
            "step": kept.written.step,
            "request": state.request,
            "facts": state.training.dataset.facts.model_dump(mode="json"),
            "dataset": state.training.dataset.root,
        }
        return {"session": await self.submit(request, "export", asked_by=by.name, parent=history.id)}

    async def _cancel(self, wish: asked.CancelCommand, by: Asker) -> replies.WishReply:
        requested = operator.CancelRequested(asked_by=by.name, reason=wish.reason, signed=by.kept())
        return await self._wish(wish.session, requested, by)

    async def _pause(self, wish: asked.PauseCommand, by: Asker) -> replies.WishReply:
        return await self._wish(wish.session, operator.PauseRequested(asked_by=by.name, signed=by.kept()), by)

    async def _resume(self, wish: asked.ResumeCommand, by: Asker) -> replies.WishReply:
        history = await self.history(wish.session)
        state = history.state
        waits = state.training.claim is None and any(
            isinstance(one, operator.PauseRequested) for _, one in state.wishes
        )
        if state.training.pause is None and not waits and state.outcome is None:
            raise Refused(f"{history.id} is not paused.", cure=f"See its state: swarm show {history.id}")
        return await self._wish(wish.session, operator.ResumeRequested(asked_by=by.name, signed=by.kept()), by)

    async def _approve(self, wish: asked.ApproveCommand, by: Asker) -> replies.ApproveReply:
        history, proposal = await self._waiting(wish, by)
        if not proposal.set:
            requested = operator.ProposalApproved(asked_by=by.name, proposal=wish.proposal, signed=by.kept())
            return cast("replies.ApproveReply", await self._wish(wish.session, requested, by))
        refuse_without("ask", wish.verb, by.name, by.rights)
        _refuse_short_name(wish.session, history.id, by)
        # What took effect by now has helped as far as it went, and is not lost with another training.
        raw, _, _ = with_effects(history.state, {**history.state.request, "request_id": None})
        for path, value in proposal.set.items():
            raw = put(raw, path.split("."), value)
        begun = await self.submit(
            (await asyncio.to_thread(read_request, raw)).resolved(),
            asked_by=by.name,
            request_id=f"{history.id}-{wish.proposal}",
            folder=next(iter(self.node.home.opened_to(history.id)), None),
        )
        approved = operator.ProposalApproved(asked_by=by.name, proposal=wish.proposal, session=begun, signed=by.kept())
        said = await self._wish(wish.session, approved, by)
        return {"session": said["session"], "event": said["event"], "begun": begun}

    async def _reject(self, wish: asked.RejectCommand, by: Asker) -> replies.WishReply:
        await self._waiting(wish, by)
        requested = operator.ProposalRejected(
            asked_by=by.name, proposal=wish.proposal, reason=wish.reason, signed=by.kept()
        )
        return await self._wish(wish.session, requested, by)

    async def _waiting(
        self, wish: asked.ApproveCommand | asked.RejectCommand, by: Asker
    ) -> tuple[session_log.SessionLog, InterventionProposed]:
        """The proposal that a person decides about; `NotFound` and `Refused` when there is nothing to decide."""
        if by.name in BUILT_IN:
            raise Refused(f"{by.name} is an agent, and a proposal waits for a person.", cure="Ask as a person.")
        history = await self.history(wish.session)
        training, cure = history.state.training, f"See which wait: swarm show {history.id}"
        proposal = dict(training.waiting_proposals()).get(wish.proposal)
        if proposal is not None:
            return history, proposal
        if wish.proposal not in dict(training.proposals):
            raise NotFound(f"{history.id} has no proposal {wish.proposal!r}.", cure=cure)
        if (said := training.decided.get(wish.proposal)) is not None:
            what = "approved" if isinstance(said, operator.ProposalApproved) else "rejected"
            raise Refused(f"the proposal {wish.proposal} was {what} by {said.asked_by}.", cure=cure)
        raise Refused(f"the proposal {wish.proposal} does not wait for a person (any more).", cure=cure)

    async def _wish(self, session: str, wish: Event, by: Asker) -> replies.WishReply:
        """A wish that the kind of its session heeds; no other session is told that it will."""
        history = await self.history(session)
        if history.state.outcome is not None:
            raise Refused(f"{history.id} has ended ({history.state.state}).", cure="Nothing is left to do.")
        if type(wish) not in history.state.kind.heeds:
            message = f"{history.id} is of the kind {history.state.kind.name!r}, which heeds no {wish.wire}."
            raise Refused(message, cure=f"Wait until it has ended: swarm wait {history.id}")
        if history.id not in self.node.tail.histories:
            message = f"{history.id} is in the files of this home only: it was trained with --here."
            raise Refused(message, cure=f"Let it go on there: swarm resume {history.id} --here")
        _refuse_short_name(session, history.id, by)
        return {"session": history.id, "event": await self._say_for(by, history.id, wish)}

    async def _admit(self, wish: asked.AdmitCommand, by: Asker) -> replies.AdmitReply:
        if self.admit_guest is None:
            raise Refused("this host does not own the server's configuration.", cure="Ask the host that started it.")
        return await self.admit_guest(wish, by)

    async def _session(self, wish: asked.SessionCommand, by: Asker) -> Answer:
        history, wait = await self.history(wish.session), min(wish.wait, _LONGEST_WAIT)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                while wait and not ended(history.state):
                    await history.grown(history.size)
        return summary(history.state, self.node.home.blobs, self.node.tail.queue)

    async def _sessions(self, wish: asked.SessionsCommand, by: Asker) -> Answer:
        page, ended = await self._index.page(wish.after, _MOST_BYTES)
        return {"sessions": page, "next": page[-1]["session"] if page else wish.after, "ended": ended}

    async def _events(self, wish: asked.EventsCommand, by: Asker) -> Answer:
        history, after = await self.history(wish.session), wish.after
        wait, limit = min(wish.wait, _LONGEST_WAIT), min(wish.limit, _MOST_EVENTS)
        if wait and history.size <= after and not ended(history.state):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await history.grown(after)
        lines: list[Answer] = []
        size = 0
        for n, fact in enumerate(history.facts[after : after + limit], 1):
            if n % _AT_ONCE == 0:
                await asyncio.sleep(0)  # a page of long events takes a while, and the host has other things to do
            line = event_line(fact)
            size += len(orjson.dumps(line))
            if lines and size > _MOST_BYTES:
                break
            lines.append(line)
        following = after + len(lines)
        done = ended(history.state) and following >= history.size
        return {"session": history.id, "events": lines, "next": following, "ended": done}

    async def _status(self, _: asked.StatusCommand, by: Asker) -> replies.StatusReply:
        roster: list[dict[str, object]] = [
            {"name": one.role, "instance": one.instance, "seen": one.seconds, "store": one.store}
            for one in self.node.presence.roster()
        ]
        voids: list[dict[str, object]] = [
            {"seq": v.seq, "subject": v.subject, "reason": str(v.reason)} for v in self.node.tail.voids[-100:]
        ]
        queue = queue_lines(self.node.tail.queue)
        return {
            "agents": self.node.agents(), "roster": roster, "voids": voids, "queue": queue, "seq": self.node.tail.seq,
        }  # fmt: skip

    async def _dlq(self, _: asked.DlqCommand, by: Asker) -> replies.DlqReply:
        letters: list[dict[str, object]] = [
            {"session": history.id, "failure": id, "role": seen.role, "handler": seen.handler, "error": seen.error}
            for history in self.node.tail.histories.values()
            for id, seen in history.state.failures.items()
        ]
        voids: list[dict[str, object]] = [
            {"seq": v.seq, "subject": v.subject, "reason": str(v.reason), "detail": v.detail}
            for v in self.node.tail.voids[-_MOST_EVENTS:]
        ]
        return {"letters": letters, "voids": voids}

    async def _redrive(self, wish: asked.RedriveCommand, by: Asker) -> replies.WishReply:
        for history in self.node.tail.open_sessions():
            if history.state.failures.get(wish.failure):
                requested = operator.RedriveRequested(asked_by=by.name, failure=wish.failure, signed=by.kept())
                return {"session": history.id, "event": await self._say_for(by, history.id, requested)}
        raise NotFound(f"there is no failure {wish.failure!r} in an open session.", cure="List them: swarm dlq")

    async def _keys(self, _: asked.KeysCommand, by: Asker) -> Answer:
        return {"keys": self.keys.listed()}

    async def _rotate(self, wish: asked.RotateCommand, by: Asker) -> replies.RotateReply:
        return await self.keys.rotate(wish.role, by)

    async def _revoke(self, wish: asked.RevokeCommand, by: Asker) -> replies.RevokeReply:
        return await self.keys.revoke(wish.key, wish.reason, by)

    async def history(self, session: str) -> session_log.SessionLog:
        """The session that a command names."""
        return await self._index.find(session)

    async def _refuse_when_full(self) -> None:
        home, settings = self.node.home, self.node.settings
        free, least = home.free_bytes(), settings.min_free_disk_bytes
        if free < least:
            message = f"{free >> 20} MiB are free on the disk of {home.root}, below the limit of {least >> 20} MiB."
            raise Full(message, cure="Free space, or move the home with --home; running sessions go on.")
        used = await self.stored_bytes() if self.stored_bytes else 0
        budget = settings.store_bytes
        if used >= _FULL_AT * budget:
            room = f"{used / budget:.0%} of its {budget >> 10} KiB"
            raised = f"Raise store_bytes in {home.root / 'settings.toml'} and start the swarm again"
            cure = f"{raised} (swarm down, swarm up -d), or use another home; running sessions go on."
            raise Full(f"the log holds {room}; no session begins above {_FULL_AT:.0%}.", cure=cure)


def _parsed(body: bytes) -> dict[str, object]:
    """The object that a body is; `InvalidInput` for any other."""
    try:
        parsed = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the body is not JSON: {error}.", cure="Send one JSON object.") from None
    if not isinstance(parsed, dict):
        raise InvalidInput(f"the body is {type(parsed).__name__}, not an object.", cure="Send one JSON object.")
    return parsed


def _folder(named: object) -> Path:
    """The folder that an owner's request was run in."""
    if not isinstance(named, str) or not Path(named).is_absolute() or not Path(named).is_dir():
        raise InvalidInput(f"{shown(named)} is no folder.", cure="Name a folder by its whole path.", path=FOLDER)
    return Path(named)


def _refuse_short_name(named: str, session: str, by: Asker) -> None:
    """What is signed names the session by its id: whoever reads the log later knows no other name of it."""
    if by.signed is not None and named != session:
        raise Refused(f"a signed command names {session} by {named!r}.", cure=f"Sign the whole id: {session}")


def _files(request: Mapping[str, Any]) -> tuple[Any, Any]:
    """What a request names of this machine's files: its data, and the weights that it begins with."""
    return (request.get("data") or {}).get("path"), (request.get("model") or {}).get("init")


def same_fork(one: Fork | None, other: Fork | None) -> bool:
    """Whether both begin in the same bits with the same change."""
    return (one and one.model_copy(update=RECORDED)) == (other and other.model_copy(update=RECORDED))
