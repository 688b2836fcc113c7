"""How long a seal waits for guests: for those that are there, hear the session, and may still answer; and no longer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.ledger.ledger_state import unanswered
from bus import subjects
from bus.keys import new_signer
from contracts.common import HandlerFailed
from contracts.event import Event
from contracts.keyring import KeyAdmitted
from contracts.kind import Duty
from contracts.ledger import DutyWaived
from contracts.resource_monitor import ResourcesSummarised
from contracts.roles import DESK
from contracts.trainer import TrainingFailed
from runtime.host.swarm_node import SwarmNode
from runtime.log.lane_writer import Provenance
from runtime.node.agent import Agent, on
from runtime.node.node import wake_subjects
from tests.harness import FAST, crew, small_request, until_ended, until_said

PATIENCE = 1.5
FOR_EVER = 3600.0
"""A patience that no test outlasts: where a session is sealed all the same, nobody was waited for."""


class ThingWeighed(Event, wire="thing.weighed"):
    """What the guests of these tests say."""

    grams: float


class Quiet(Agent):
    """Looks, and has nothing to say."""

    looked = 0

    @on
    async def look(self, seen: ResourcesSummarised) -> ThingWeighed | None:
        Quiet.looked += 1
        return None


class Slow(Agent):
    """Answers when the test lets it."""

    may_answer = asyncio.Event()

    @on
    async def weigh(self, seen: ResourcesSummarised) -> ThingWeighed:
        await Slow.may_answer.wait()
        return ThingWeighed(grams=2.0)


class Broken(Agent):
    """Fails."""

    @on
    async def weigh(self, seen: ResourcesSummarised) -> ThingWeighed:
        raise ValueError("no scales")


@asynccontextmanager
async def guest(host: SwarmNode, kind: type[Agent], *, at_work: bool = True) -> AsyncIterator[str]:
    """A guest that the host's desk has admitted, with a tail and a key of its own on the same bus."""
    lane, bus = f"{subjects.GUEST}{kind.role}", host.bus
    signer, hears = new_signer(lane), [event.wire for event in kind.hears()]
    await bus.consumer(lane, wake_subjects(kind))  # type: ignore[attr-defined]
    ring = host.tail.admission.keyring().session
    await host.writer(DESK).say(ring, [KeyAdmitted(role=lane, public=signer.public, guest=True, hears=hears)])
    if not at_work:
        yield lane
        return
    nowhere = replace(host.settings, home=Path("/nonexistent"))
    own = SwarmNode(bus, nowhere, {lane: signer}, instance="g", root=host.tail.admission.root, keep_copies=False)
    async with own.working() as tasks:
        await own.follow(tasks)
        own.employ(tasks, {lane: kind})
        await own.ready()
        async with asyncio.timeout(10):
            while not host.presence.heard(lane):
                await asyncio.sleep(0.01)
        yield lane


def ledger(home: Path, patience: float = FOR_EVER) -> AbstractAsyncContextManager[SwarmNode]:
    return crew(home, ("ledger",), guest_patience_seconds=patience)


async def finish(host: SwarmNode) -> str:
    """A session whose last word but the guests' and the ledger's has been said."""
    session, ended = await failed(host)
    summary = ResourcesSummarised(
        seconds=1.0, cpu_percent_mean=1.0, cpu_percent_max=1.0, memory_bytes_max=1, memory_total_bytes=1,
        disk_free_bytes=1, samples=1, children={}, gpus=[],
    )  # fmt: skip
    await host.writer("resource_monitor").say(session, [summary], Provenance(ended, ended))
    return session


async def failed(host: SwarmNode) -> tuple[str, str]:
    """A session that has failed, and the event that says so; nobody has summed up what it used."""
    session = await host.commands.submit(small_request())
    end = TrainingFailed(segment=1, step=0, code="failed", message="no")
    (said,) = await host.writer("trainer").say(session, [end], Provenance())
    return session, said.id


def said(host: SwarmNode, session: str, lane: str) -> list[Any]:
    return [fact.event for fact in host.tail.history(session).facts if fact.lane == lane]


async def test_a_seal_waits_for_the_answer_of_a_guest_and_covers_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = 0

    def counted(*given: Any) -> tuple[Duty, ...]:
        nonlocal waited
        found = unanswered(*given)
        waited += bool(found)
        return found

    monkeypatch.setattr("agents.ledger.agent.unanswered", counted)
    Slow.may_answer = asyncio.Event()
    async with ledger(tmp_path) as host, guest(host, Slow) as lane:
        session = await finish(host)
        async with asyncio.timeout(60):
            while waited < 3:
                await asyncio.sleep(0.01)
        assert host.tail.history(session).state.sealed is None
        Slow.may_answer.set()
        state = await until_ended(host, session)
        assert [type(event) for event in said(host, session, lane)] == [ThingWeighed]
        assert state.sealed is not None
        assert lane in state.sealed.lanes
        assert not state.waived


async def test_a_guest_that_has_nothing_to_say_keeps_nobody_waiting(tmp_path: Path) -> None:
    async with ledger(tmp_path) as host, guest(host, Quiet) as lane:
        before = Quiet.looked
        session = await finish(host)
        state = await until_ended(host, session)
        assert Quiet.looked == before + 1
        assert said(host, session, lane) == []
        assert not state.waived


async def test_a_guest_that_fails_keeps_nobody_waiting_once_it_has_said_so(tmp_path: Path) -> None:
    async with ledger(tmp_path) as host, guest(host, Broken) as lane:
        session = await finish(host)
        state = await until_ended(host, session)
        assert [type(event) for event in said(host, session, lane)] == [HandlerFailed]
        assert not state.waived


async def test_a_guest_that_is_too_late_is_waived_and_lives_on(tmp_path: Path) -> None:
    Slow.may_answer = asyncio.Event()
    async with ledger(tmp_path, PATIENCE) as host, guest(host, Slow) as lane:
        begun = time.monotonic()
        session = await finish(host)
        state = await until_ended(host, session)
        assert time.monotonic() - begun >= PATIENCE
        (waiver,) = [event for event in said(host, session, "ledger") if isinstance(event, DutyWaived)]
        assert (waiver.role, waiver.silent_seconds) == (lane, PATIENCE)
        Slow.may_answer.set()
        again = await finish(host)
        await until_said(host, again, "thing.weighed")
        state = await until_ended(host, again)
        assert not state.waived
        assert said(host, session, lane) == []


async def test_a_guest_that_is_not_there_keeps_nobody_waiting(tmp_path: Path) -> None:
    async with ledger(tmp_path) as host, guest(host, Slow, at_work=False) as lane:
        session = await finish(host)
        state = await until_ended(host, session)
        assert not state.waived
        assert said(host, session, lane) == []


async def test_what_a_silent_role_owes_is_waived_when_it_was_silent_for_long_enough_and_not_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.ledger.agent._LOOK_AGAIN", 3600.0)
    async with ledger(tmp_path) as host:
        session, _ = await failed(host)
        await until_ended(host, session)
        (waiver,) = [event for event in said(host, session, "ledger") if isinstance(event, DutyWaived)]
        assert waiver.role == "resource_monitor"
        assert waiver.silent_seconds >= FAST["waive_after_seconds"]


async def test_a_session_that_no_guest_hears_is_sealed_at_once(tmp_path: Path) -> None:
    async with ledger(tmp_path) as host:
        session = await finish(host)
        state = await until_ended(host, session)
        assert state.sealed is not None
        assert not state.waived


async def test_two_guests_that_hear_each_other_do_not_keep_a_session_open(tmp_path: Path) -> None:
    async with ledger(tmp_path, PATIENCE) as host:

        class Ping(Agent):
            @on
            async def hit(self, seen: ResourcesSummarised | BallPonged) -> BallPinged:
                return BallPinged()

        class Pong(Agent):
            @on
            async def hit(self, seen: BallPinged) -> BallPonged:
                return BallPonged()

        async with guest(host, Ping), guest(host, Pong):
            session = await finish(host)
            state = await until_ended(host, session)
            assert state.sealed is not None


class BallPinged(Event, wire="ball.pinged"):
    """One side."""


class BallPonged(Event, wire="ball.ponged"):
    """The other side."""


async def test_a_guest_owes_one_answer_to_the_last_event_it_hears(tmp_path: Path) -> None:
    async with ledger(tmp_path) as host, guest(host, Slow, at_work=False) as lane:
        session = await finish(host)
        history, key = host.tail.history(session), host.tail.admission.keyring().current(lane)
        assert key is not None
        state = await until_ended(host, session)
        summary = next(fact for fact in history.facts if fact.name == "resources.summarised")
        assert [(duty.role, duty.cause) for duty in unanswered(state, history.facts, [key])] == [(lane, summary.id)]
        assert unanswered(state, history.facts[: summary.position - 1], [key]) == ()
        assert not any(one.startswith("guest_") for one in state.answered)
