"""Runs one agent: wakes its handlers, retries them, records what keeps failing, and never lets one stop another.

A message is only a wake-up; a handler acts on the fold. Every trigger in an open session that has no answer yet is
handled at start as well, so a restart does not depend on redelivery. A kill never counts as a failure.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
import structlog

from bus import subjects
from bus.port import Wake, Wakes
from contracts.common import HandlerFailed
from contracts.envelope import Fact
from contracts.errors import Fenced, Full, Refused, SwarmError, Unreachable
from contracts.event import Event
from contracts.ledger import SessionSealed
from contracts.roles import BUILT_IN
from runtime.jobs.failpoints import failpoint
from runtime.log.lane_writer import LaneWriter, Provenance, Saying
from runtime.log.session_log import SessionLog
from runtime.node.agent import Agent, Handler
from runtime.node.agent_context import AgentContext, Wakeup

log = structlog.get_logger()

ATTEMPTS = 3
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 5.0


class Supervisor:
    """Runs one agent of this process: `run` returns only when it is cancelled; handlers run as its tasks."""

    def __init__(self, agent: Agent, context: AgentContext, writer: LaneWriter, wakes: Wakes) -> None:
        self.agent = agent
        self.ready = asyncio.Event()
        self.lag = 0
        self._context = context
        self._writer = writer
        self._wakes = wakes
        self._handled: dict[str, dict[str, _Positions]] = {}
        """By session and handler: what it has been given."""
        self._orders: dict[str, asyncio.Lock] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._fresh: list[Fact] = []
        context.tail.listen(self._forget_sealed)
        context.tail.listen(self._overhear)
        if agent.stands_by:
            context.tail.listen(self._stand_by_for)

    @property
    def role(self) -> str:
        """The agent's role, which is also the name of its lane."""
        return self._writer.lane

    async def run(self) -> None:
        """Work until cancelled. Unanswered triggers of open sessions come first, those of an earlier run included."""
        self._handled.clear()
        await self._context.tail.caught_up.wait()
        await self.agent.begin()
        self._context.presence.here(self.role)
        try:
            async with asyncio.TaskGroup() as self._tasks:
                for rhythm in self.agent.rhythms:
                    self._tasks.create_task(self._repeat(rhythm.name, rhythm.seconds))
                self._scan(self._tasks)
                if self.agent.stands_by:
                    self._tasks.create_task(self._stand_by(self._tasks))
                self.ready.set()
                async with self._wakes.wakes(self.role) as wakes:
                    async for wake in wakes:
                        self._tasks.create_task(self._woken(self._tasks, wake))
        finally:
            self._tasks = None
            self.ready.clear()
            self._context.presence.gone(self.role)
            await self.agent.end()

    def _forget_sealed(self, facts: Sequence[Fact]) -> None:
        # Nothing is handled in a sealed session, so a host that lives for months remembers only what is open.
        if isinstance(facts[-1].event, SessionSealed):
            self._forget(facts[-1].envelope.subject)

    def _forget(self, session: str) -> None:
        self._handled.pop(session, None)
        self._orders.pop(session, None)

    def _overhear(self, facts: Sequence[Fact]) -> None:
        """Start `@together` handlers from what this instance reads, because a wake-up reaches only one instance."""
        if self._tasks is not None and any(one.together for one in self.agent.handlers):
            for fact in facts:
                self._dispatch(self._tasks, fact, self._context.tail.history(fact.envelope.subject), together=True)

    def redrive(self, history: SessionLog, failure: str) -> None:
        """Handle again the event whose handling ended in this recorded `handler.failed` of the agent."""
        fact = history.find(self.role, failure)
        if self._tasks is None or fact is None or not isinstance(fact.event, HandlerFailed):
            return
        for heard in history.telling(self.agent.hears()):
            if heard.id == fact.event.heard:
                self._handled_by(history, fact.event.handler).discard(heard.position)
                self._dispatch(self._tasks, heard, history, again=True)

    def _handled_by(self, history: SessionLog, handler: str) -> _Positions:
        return self._handled.setdefault(history.id, {}).setdefault(handler, _Positions())

    def _scan(self, tasks: asyncio.TaskGroup) -> None:
        for history in self._context.tail.open_sessions():
            for fact in history.telling(self.agent.hears()):
                self._dispatch(tasks, fact, history)

    def _stand_by_for(self, facts: Sequence[Fact]) -> None:
        self._fresh += [fact for fact in facts if isinstance(fact.event, self.agent.hears())]

    async def _stand_by(self, tasks: asyncio.TaskGroup) -> None:
        """Start handlers here too, after a while: the instance that was woken may die before it is done."""
        while True:
            fresh, self._fresh = self._fresh, []
            await asyncio.sleep(self._context.settings.takeover_after_seconds)
            for fact in fresh:
                history = self._context.tail.histories.get(fact.envelope.subject)
                if history is not None:
                    self._dispatch(tasks, fact, history)

    async def _woken(self, tasks: asyncio.TaskGroup, wake: Wake) -> None:
        tail = self._context.tail
        # Not merely reached: an event in the middle of an append is no fact before the append's end is there.
        await tail.decided(wake.stored.seq)
        heard = self._find(wake.stored.seq, wake.stored.subject)
        started = [task for history, fact in heard for task in self._dispatch(tasks, fact, history)]
        async with _kept_awake(wake):
            await asyncio.gather(*started, return_exceptions=True)
        for history, fact in heard if started and self.role.startswith(subjects.GUEST) else ():
            # A seal waits for present guests, so one without an answer says beside the log that it has none.
            if not history.answers(self.role, fact.id):
                await self._context.presence.let_pass(self.role, fact.id)
        try:
            await wake.done()
        except Unreachable:
            # It will be delivered again, and found answered.
            log.debug("a wake-up could not be retired", role=self.role, seq=wake.stored.seq)

    def _find(self, seq: int, subject: str) -> list[tuple[SessionLog, Fact]]:
        try:
            session = subjects.parse(subject).session
        except SwarmError:
            return []
        history = self._context.tail.histories.get(session)
        if history is None:
            return []
        # Wake-ups concern the newest facts, so the search begins at the end.
        for fact in reversed(history.facts):
            if fact.seq == seq:
                return [(history, fact)]
            if fact.seq < seq:
                break
        return []

    def _dispatch(
        self, tasks: asyncio.TaskGroup, fact: Fact, history: SessionLog, *, again: bool = False, together: bool = False
    ) -> list[asyncio.Task[None]]:
        started = []
        for handler in self.agent.handlers:
            if not isinstance(fact.event, handler.hears) or together > handler.together:
                continue
            # Nothing is handled in a sealed session but the seal itself.
            is_seal = isinstance(fact.event, SessionSealed)
            if history.state.sealed and not is_seal:
                continue
            handled = self._handled_by(history, handler.name)
            # The fold, which remembers nothing of guests, forgets an answer that was a failure and is to be redriven.
            known = history if self.role.startswith(subjects.GUEST) else history.state
            answered = handler.says and not handler.course and known.answers(self.role, fact.id)
            if fact.position in handled or (answered and not again):
                continue
            handled.add(fact.position)
            task = tasks.create_task(self._handle(handler, fact, history), name=f"{self.role}.{handler.name}")
            started.append(task)
            if is_seal:
                task.add_done_callback(lambda _: self._forget(history.id))
        return started

    async def _handle(self, handler: Handler, fact: Fact, history: SessionLog) -> None:
        position = fact.position
        # Answers must not depend on how much of a batch was read first, so a wake-up reaches to the batch's end.
        while not history.facts[position - 1].closes and position < history.size:
            position += 1
        wakeup = Wakeup(fact, history.states[position], history, self._context, position)
        if handler.course:
            await self._attempt(handler, wakeup)
            return
        # Reactions of one role to one session come one after the other, in the order of the log.
        async with self._orders.setdefault(history.id, asyncio.Lock()):
            await self._attempt(handler, wakeup)

    async def _attempt(self, handler: Handler, wakeup: Wakeup) -> None:
        wait, attempt = _FIRST_WAIT, 1
        while True:
            try:
                await self._call(handler, wakeup)
            except Fenced as error:
                log.info("fenced out", role=self.role, session=wakeup.history.id, reason=error.message)
                return
            except Exception as error:
                if is_cancelled():
                    raise asyncio.CancelledError from error
                # What ends work on a session that was sealed meanwhile is no trouble; what a handler of the seal raises
                # is, unless the log took no answer from it.
                of_the_seal = isinstance(wakeup.fact.event, SessionSealed)
                if wakeup.now.sealed and (isinstance(error, Refused) or not of_the_seal):
                    # What judges a trial that was stopped meanwhile comes too late by design; a guest should know.
                    told = log.info if self.role in BUILT_IN else log.warning
                    told(
                        "too late: a sealed session stores no answer; answer an earlier event",
                        role=self.role,
                        session=wakeup.history.id,
                        handler=handler.name,
                        error=str(error),
                    )
                    return
                log.warning("handler raised", role=self.role, handler=handler.name, attempt=attempt, error=str(error))
                # A session that is being trained finishes when there is room again; one that has not begun may fail.
                if not (isinstance(error, Full) and wakeup.now.training.claim):
                    attempt += 1
                if attempt > ATTEMPTS:
                    await self._give_up(handler, wakeup, error)
                    return
                await asyncio.sleep(wait)
                wait = min(4 * wait, _LONGEST_WAIT)
            else:
                return

    async def _call(self, handler: Handler, wakeup: Wakeup) -> None:
        method = getattr(self.agent, handler.name)
        arguments: dict[str, Any] = {handler.wakeup: wakeup} if handler.wakeup else {}
        if handler.course:

            async def say(*events: Saying, epoch: int | None = None, cause: str | None = None) -> tuple[Fact, ...]:
                return await self._say(wakeup, events, epoch, cause=cause)

            arguments[handler.say] = say
            await method(wakeup.fact.event, **arguments)
            return
        answer: Event | Sequence[Event] | None = await method(wakeup.fact.event, **arguments)
        failpoint("between-work-and-answer")
        if answer:
            await self._say(wakeup, (answer,) if isinstance(answer, Event) else tuple(answer), answer=handler.name)

    def _say(
        self,
        wakeup: Wakeup,
        events: Sequence[Saying],
        epoch: int | None = None,
        *,
        answer: str = "",
        cause: str | None = None,
    ) -> Awaitable[tuple[Fact, ...]]:
        correlation = wakeup.fact.envelope.correlationid or wakeup.session.genesis_id
        occasion = Provenance(cause or wakeup.fact.id, correlation, epoch, answer)
        return self._writer.say(wakeup.history.id, events, occasion)

    async def _give_up(self, handler: Handler, wakeup: Wakeup, error: Exception) -> None:
        cure = error.cure if isinstance(error, SwarmError) else ""
        place = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__}: {error} (in {place.name}, line {place.lineno})"
        failed = HandlerFailed(
            role=self.role,
            handler=handler.name,
            heard=wakeup.fact.id,
            error=message[:2000],
            attempts=ATTEMPTS,
            cure=cure,
        )
        about = {"role": self.role, "handler": handler.name, "session": wakeup.history.id}
        log.error("handler gave up", **about, recorded=not wakeup.now.sealed, exc_info=error)
        try:
            facts = await self._say(wakeup, (failed,))
        except SwarmError:
            if wakeup.now.sealed:
                return
            raise
        letter = {"session": wakeup.history.id, "heard": wakeup.fact.id, "failure": facts[0].id, "error": message[:500]}
        with suppress(Unreachable):  # the log has it; a letter only tells those who listen now
            await self._context.wire.say(subjects.dead_letter(self.role), orjson.dumps(letter))

    async def _repeat(self, name: str, seconds: float) -> None:
        while True:
            try:
                await getattr(self.agent, name)()
            except Exception as error:
                log.warning("rhythm raised", role=self.role, rhythm=name, error=str(error), exc_info=error)
            await asyncio.sleep(seconds)


class _Positions:
    """Positions in a session, a bit for each up to the last: an agent may hear every one of a million windows."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def __contains__(self, position: int) -> bool:
        at = position >> 3
        return at < len(self._bits) and bool(self._bits[at] >> (position & 7) & 1)

    def add(self, position: int) -> None:
        at = position >> 3
        if at >= len(self._bits):
            self._bits.extend(bytes(at + 1 - len(self._bits)))
        self._bits[at] |= 1 << (position & 7)

    def discard(self, position: int) -> None:
        if position in self:
            self._bits[position >> 3] ^= 1 << (position & 7)


def is_cancelled() -> bool:
    """Whether the running task was cancelled: an error that it catches then may only be a consequence."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@asynccontextmanager
async def _kept_awake(wake: Wake) -> AsyncIterator[None]:
    """Inside, tell the broker regularly that the wake-up is being worked on, so that it is not delivered again."""

    async def keep() -> None:
        while True:
            await asyncio.sleep(10)
            try:
                await wake.busy()
            except Unreachable:
                continue

    keeping = asyncio.create_task(keep())
    try:
        yield
    finally:
        keeping.cancel()
