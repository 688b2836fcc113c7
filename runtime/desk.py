"""The front desk: answers commands. A command may be refused; only what follows from it is a fact.

Every reply is one JSON object, `{"error": {...}}` when the answer is no. The desk signs the operator's lane.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from bus import subjects
from contracts import operator
from contracts.errors import Full, InvalidInput, NotFound, Refused, SwarmError
from contracts.event import Event
from contracts.ids import new_uuid, session_for, session_id
from contracts.request import read_request
from runtime.archive import Archive, Begun, newest_training
from runtime.failpoints import failpoint
from runtime.history import History
from runtime.locksmith import Locksmith
from runtime.scribe import Occasion
from runtime.view import ended, event_line, summary
from runtime.workloads import Workloads

if TYPE_CHECKING:
    from runtime.crew import Crew

log = structlog.get_logger()

OPERATOR, DESK = "operator", "desk"
Body = dict[str, Any]
Verb = Callable[[Body], Awaitable[Body]]

_LONGEST_WAIT = 25.0
_MOST_EVENTS = 500
_MOST_BYTES = 700_000
_FULL_AT = 0.9
"""Of the log's budget; what is left is for the sessions that have begun."""


class Desk:
    """Verbs by name; each takes the body of a command and gives the body of the reply."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self.locksmith = Locksmith(crew)
        self.admit_guest: Callable[[Body], Awaitable[Body]] | None = None
        self.stored_bytes: Callable[[], Awaitable[int]] | None = None
        self.verbs: dict[str, Verb] = {
            "train": self._train,
            "search": self._search,
            "trial": self._trial,
            "export": self._export,
            "cancel": self._cancel,
            "pause": self._pause,
            "resume": self._resume,
            "admit": self._admit,
            "session": self._session,
            "sessions": self._sessions,
            "events": self._events,
            "status": self._status,
            "dlq": self._dlq,
            "redrive": self._redrive,
            "keys": self.locksmith.listed,
            "rotate": self.locksmith.rotate,
            "revoke": self.locksmith.revoke,
        }

    async def run(self) -> None:
        """Answer for ever; several hosts of one swarm share the commands."""
        async with self._crew.bus.answer(subjects.COMMANDS, self.answer, queue=DESK):
            await asyncio.Event().wait()

    async def answer(self, subject: str, body: bytes) -> bytes:
        """The reply to one command."""
        verb = subject.rpartition(".")[2]
        try:
            reply = await self._perform(verb, body)
        except SwarmError as error:
            reply = {"error": error.as_json()}
        except Exception as error:
            log.error("command crashed", verb=verb, exc_info=error)
            cure = "This is a defect; the host's log has the details."
            reply = {"error": {"code": "crashed", "message": f"{verb} crashed: {error}", "path": "", "cure": cure}}
        return orjson.dumps(reply)

    async def _perform(self, verb: str, body: bytes) -> Body:
        found = self.verbs.get(verb)
        if found is None:
            raise NotFound(f"there is no command {verb!r}.", cure=f"Known: {', '.join(sorted(self.verbs))}.")
        try:
            parsed = orjson.loads(body or b"{}")
        except orjson.JSONDecodeError as error:
            raise InvalidInput(f"the body is not JSON: {error}.", cure="Send one JSON object.") from None
        if not isinstance(parsed, dict):
            raise InvalidInput(f"the body is {type(parsed).__name__}, not an object.", cure="Send one JSON object.")
        return await found(parsed)

    async def submit(
        self,
        request: Mapping[str, Any],
        kind: operator.Kind = "training",
        *,
        asked_by: str = "desk",
        parent: str | None = None,
        request_id: str | None = None,
    ) -> str:
        """Make a checked request the genesis of a session; the same `request_id` gives the same session."""
        partition = self._crew.tail.partition
        session = session_for(request_id, partition) if request_id else session_id(new_uuid(), partition)
        history = self._crew.tail.history(session)
        before = history.state.genesis or self._kept_genesis(session)
        if before is not None:
            if before.request != dict(request):
                raise Refused(
                    f"request_id {request_id!r} belongs to another request (session {session}).",
                    cure="Use a new request_id.",
                )
            return session
        await self._refuse_when_full()
        genesis = operator.SessionRequested(
            kind=kind,
            request=dict(request),
            keyring=self._crew.tail.admission.keyring().head,
            asked_by=asked_by,
            request_id=request_id,
            parent=parent,
        )
        await self._say(session, genesis)
        failpoint("between-genesis-and-reply")
        return session

    async def _say(self, session: str, event: Event) -> str:
        facts = await self._crew.scribe(OPERATOR, DESK).say(session, [event], Occasion())
        return facts[0].id

    async def _train(self, body: Body) -> Body:
        request_id, asked_by = body.pop("request_id", None), str(body.pop("asked_by", "client"))
        if request_id is not None and (not isinstance(request_id, str) or not 0 < len(request_id) <= 200):
            raise InvalidInput(
                f"request_id is {request_id!r}.", cure="Give text of 1 to 200 characters.", path="request_id"
            )
        request = read_request(body)
        resolved = request.resolved()
        Workloads(self._crew.home.root).needed(resolved)
        return {"session": await self.submit(resolved, asked_by=asked_by, request_id=request_id)}

    async def _search(self, body: Body) -> Body:
        request_id, asked_by = body.pop("request_id", None), str(body.pop("asked_by", "client"))
        from contracts.request.search import read_search

        search = read_search(body)
        session = await self.submit(search.resolved(), "search", asked_by=asked_by, request_id=request_id)
        return {"session": session}

    async def _trial(self, body: Body) -> Body:
        parent, request = self._history({"session": body.get("parent")}), body.get("request")
        if parent.state.kind != "search" or parent.state.outcome is not None:
            raise Refused(f"{parent.id} is no search that goes on.", cure="Only a search has trials: swarm tune")
        if not isinstance(request, dict):
            raise InvalidInput("the request of the trial is missing.", cure='Send {"request": {...}}.', path="request")
        session = await self.submit(
            read_request(request).resolved(),
            "trial",
            asked_by=str(body.get("asked_by") or "client"),
            parent=parent.id,
            request_id=str(body.get("request_id") or "") or None,
        )
        return {"session": session, "seq": self._crew.tail.seq}

    async def _export(self, body: Body) -> Body:
        history = self._history(body)
        state, form = history.state, str(body.get("format", "onnx"))
        quantize, checkpoint = str(body.get("quantize") or ""), str(body.get("checkpoint") or "best")
        if state.sealed is None and state.outcome is None:
            wish = operator.ExportRequested(asked_by="client", format=form, quantize=quantize, checkpoint=checkpoint)
            return {"session": history.id, "event": await self._say(history.id, wish)}
        kept = state.checkpoint(checkpoint) or (state.checkpoint("last") if checkpoint == "best" else None)
        if kept is None or state.dataset is None:
            raise NotFound(f"{history.id} keeps no checkpoint {checkpoint!r}.", cure="See: swarm show")
        request = {
            "session": history.id,
            "sealed_root": state.sealed.root if state.sealed else "",
            "format": form,
            "quantize": quantize,
            "checkpoint": checkpoint,
            "checkpoint_blob": kept.written.blob,
            "step": kept.written.step,
            "request": state.request,
            "facts": state.dataset.facts,
            "dataset": state.dataset.root,
        }
        return {"session": await self.submit(request, "export", asked_by="client", parent=history.id)}

    async def _cancel(self, body: Body) -> Body:
        reason = str(body.get("reason") or "")
        return await self._wish(body, operator.CancelRequested(asked_by="client", reason=reason))

    async def _pause(self, body: Body) -> Body:
        return await self._wish(body, operator.PauseRequested(asked_by="client"))

    async def _resume(self, body: Body) -> Body:
        if self._history(body).state.pause is None:
            raise Refused("the session is not paused.", cure="See its state: swarm show")
        return await self._wish(body, operator.ResumeRequested(asked_by="client"))

    async def _wish(self, body: Body, wish: Event) -> Body:
        history = self._history(body)
        if history.state.outcome is not None:
            raise Refused(f"{history.id} has ended ({history.state.state}).", cure="Nothing is left to do.")
        if history.id not in self._crew.tail.histories:
            message = f"{history.id} is in the files of this home only: it was trained with --here."
            raise Refused(message, cure=f"Let it go on there: swarm resume {history.id} --here")
        return {"session": history.id, "event": await self._say(history.id, wish)}

    async def _admit(self, body: Body) -> Body:
        if self.admit_guest is None:
            raise Refused("this host does not own the server's configuration.", cure="Ask the host that started it.")
        return await self.admit_guest(body)

    async def _session(self, body: Body) -> Body:
        history, wait = self._history(body), min(float(body.get("wait") or 0), _LONGEST_WAIT)
        if wait and not ended(history.state):
            await self._until_ended(history, wait)
        return summary(history.state, self._crew.home.blobs)

    async def _until_ended(self, history: History, wait: float) -> None:
        try:
            async with asyncio.timeout(wait):
                while not ended(history.state):
                    await history.grown(history.size)
        except TimeoutError:
            return

    async def _sessions(self, body: Body) -> Body:
        found = {
            one.id: summary(one.state, self._crew.home.blobs)
            for one in self._crew.tail.histories.values()
            if one.state.genesis
        }
        archive = self._archive()
        found |= {one: archive.summary(one) for one in archive.ids() if one not in found}
        oldest_first = sorted(found.values(), key=lambda one: (one["requested_at"], one["session"]))
        return {"sessions": oldest_first}

    async def _events(self, body: Body) -> Body:
        history, after = self._history(body), int(body.get("after") or 0)
        wait, limit = min(float(body.get("wait") or 0), _LONGEST_WAIT), min(int(body.get("limit") or 200), _MOST_EVENTS)
        if wait and history.size <= after and not ended(history.state):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await history.grown(after)
        lines: list[Body] = []
        size = 0
        for fact in history.facts[after : after + limit]:
            line = event_line(fact)
            size += len(orjson.dumps(line))
            if lines and size > _MOST_BYTES:
                break
            lines.append(line)
        following = after + len(lines)
        done = ended(history.state) and following >= history.size
        return {"session": history.id, "events": lines, "next": following, "ended": done}

    async def _status(self, body: Body) -> Body:
        roster = [
            {"name": one.role, "instance": one.instance, "seen": one.seconds, "store": one.store}
            for one in self._crew.presence.roster()
        ]
        voids = [{"seq": v.seq, "subject": v.subject, "reason": str(v.reason)} for v in self._crew.tail.voids[-100:]]
        return {"agents": self._crew.agents(), "roster": roster, "voids": voids, "seq": self._crew.tail.seq}

    async def _dlq(self, body: Body) -> Body:
        letters = [
            {"session": history.id, "failure": id, "role": seen.role, "handler": seen.handler, "error": seen.error}
            for history in self._crew.tail.histories.values()
            for id, seen in history.state.failures
        ]
        voids = [
            {"seq": v.seq, "subject": v.subject, "reason": str(v.reason), "detail": v.detail}
            for v in self._crew.tail.voids
        ]
        return {"letters": letters, "voids": voids}

    async def _redrive(self, body: Body) -> Body:
        failure = str(body.get("failure") or "")
        for history in self._crew.tail.open_sessions():
            if any(id == failure for id, _ in history.state.failures):
                wish = operator.RedriveRequested(asked_by="client", failure=failure)
                return {"session": history.id, "event": await self._say(history.id, wish)}
        raise NotFound(f"there is no failure {failure!r} in an open session.", cure="List them: swarm dlq")

    def _history(self, body: Body) -> History:
        wanted = str(body.get("session") or "")
        if not wanted:
            raise InvalidInput("no session is named.", cure='Send {"session": "..."}.', path="session")
        live = [one.id for one in self._crew.tail.histories.values() if one.state.genesis]
        known = sorted({*live, *self._archive().ids()})
        if wanted == "last":
            wanted = self._newest_training()
        session = self._crew.home.find(wanted, known)
        return self._crew.tail.histories.get(session) or self._archive().read(session).history

    def _newest_training(self) -> str:
        """By the time of its genesis: ids do not sort by time, least of all those that derive from a request_id."""
        live = self._crew.tail.histories
        begun = [Begun(one.state.requested_at, one.id, one.state.kind) for one in live.values() if one.state.genesis]
        return newest_training([*begun, *self._archive().begun(besides=live)])

    def _archive(self) -> Archive:
        """What the files hold now; made anew, because keyrings grow."""
        return Archive(self._crew.home)

    def _kept_genesis(self, session: str) -> operator.SessionRequested | None:
        if not self._crew.home.log(session).exists():
            return None
        return self._archive().read(session).history.state.genesis

    async def _refuse_when_full(self) -> None:
        free = self._crew.home.free_bytes()
        if free < self._crew.settings.min_free_disk_bytes:
            raise Full(
                f"{free >> 20} MiB are free on the disk of {self._crew.home.root}, below the limit of "
                f"{self._crew.settings.min_free_disk_bytes >> 20} MiB.",
                cure="Free space, or move the home with --home; running sessions go on.",
            )
        used = await self.stored_bytes() if self.stored_bytes else 0
        budget = self._crew.settings.store_bytes
        if used >= _FULL_AT * budget:
            raise Full(
                f"the log holds {used / budget:.0%} of its {budget >> 10} KiB; no session begins above {_FULL_AT:.0%}.",
                cure=f"Raise store_bytes in {self._crew.home.root / 'settings.toml'} and start the swarm again (swarm "
                "down, swarm up -d), or use another home; running sessions go on.",
            )
