"""What a supervisor promises: handlers are retried, failures recorded and redriven, and no agent stops another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar

import pytest
from structlog.testing import capture_logs

from bus.memory import MemoryBus
from contracts.common import HandlerFailed
from contracts.diagnostician import DiagnosisReached, ProblemDiagnosed
from contracts.errors import Full, NotFound, Refused
from contracts.ids import ZERO
from contracts.ledger import SessionSealed
from contracts.operator import SessionRequested
from contracts.trainer import TrainingClaimed
from runtime.host.swarm_node import SwarmNode
from runtime.node import supervisor
from runtime.node.agent import Agent, Say, WiringError, every, on, together
from runtime.node.agent_context import Wakeup
from runtime.node.node import wake_subjects
from tests.harness import beside, claim, crew, until_said


class Diagnostician(Agent):
    """Answers a genesis; raises as often as it was told to."""

    troubles = 0
    calls = 0
    trouble: ClassVar[Exception] = ValueError("there is no step 7")

    @on
    async def answer(self, asked: SessionRequested) -> DiagnosisReached:
        return self.reached()

    def reached(self) -> DiagnosisReached:
        type(self).calls += 1
        if type(self).troubles:
            type(self).troubles -= 1
            raise self.trouble
        return DiagnosisReached(segment=1, step=7)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    Diagnostician.troubles = Diagnostician.calls = CheckpointKeeper.troubles = 0
    monkeypatch.setattr(supervisor, "_FIRST_WAIT", 0.001)


@asynccontextmanager
async def swarm(home: Path, *agents: type[Agent], bus: MemoryBus | None = None) -> AsyncIterator[SwarmNode]:
    async with crew(home, (), bus=bus) as made, asyncio.TaskGroup() as tasks:
        for kind in agents:
            await made.bus.consumer(kind.role, wake_subjects(kind))
        made.employ(tasks, {kind.role: kind for kind in agents})
        await made.ready()
        yield made
        for task in list(tasks._tasks):
            task.cancel()


class DataManager(Agent):
    """Notes where it was woken, by what one instance does and by what all do together."""

    alone: ClassVar[list[str]] = []
    joined: ClassVar[list[str]] = []

    @on
    async def work(self, asked: SessionRequested) -> None:
        self.alone.append(self.ground.instance)

    @on
    @together
    async def join(self, asked: SessionRequested) -> None:
        self.joined.append(self.ground.instance)


async def test_what_instances_of_a_role_do_together_is_begun_by_each_once_and_the_rest_by_one(tmp_path: Path) -> None:
    async with swarm(tmp_path, DataManager) as made, beside(made, {"data_manager": DataManager}, "other"):
        await made.commands.submit({"name": "said"})
        async with asyncio.timeout(10):
            while len(DataManager.joined) < 2 or not DataManager.alone:
                await asyncio.sleep(0.01)
        assert sorted(DataManager.joined) == sorted([made.instance, "other"])
        assert len(DataManager.alone) == 1


async def test_a_handler_that_raises_once_is_tried_again(tmp_path: Path) -> None:
    Diagnostician.troubles = 1
    async with swarm(tmp_path, Diagnostician) as made:
        session = await made.commands.submit({"name": "said"})
        await until_said(made, session, "diagnosis.reached", 10)
        assert Diagnostician.calls == 2


async def test_what_raises_every_time_is_recorded_with_the_reason_and_redriven_on_request(tmp_path: Path) -> None:
    Diagnostician.troubles = supervisor.ATTEMPTS
    async with swarm(tmp_path, Diagnostician) as made:
        session = await made.commands.submit({"name": "said"})
        failed = await until_said(made, session, "handler.failed", 10)
        assert isinstance(failed.event, HandlerFailed)
        assert "there is no step 7" in failed.event.error
        assert failed.event.attempts == supervisor.ATTEMPTS
        (letter,) = (await made.commands.verbs["dlq"]({}))["letters"]
        assert letter["failure"] == failed.id
        await made.commands.verbs["redrive"]({"failure": failed.id})
        await until_said(made, session, "diagnosis.reached", 10)
        assert not made.tail.history(session).state.failures


async def test_a_dead_letter_that_is_redriven_is_answered_once_or_written_again_whoever_is_there_then(
    tmp_path: Path,
) -> None:
    bus = MemoryBus()

    async def letters(made: SwarmNode) -> list[str]:
        return [one["failure"] for one in (await made.commands.verbs["dlq"]({}))["letters"]]

    Diagnostician.troubles = 2 * supervisor.ATTEMPTS
    with capture_logs():  # not drawn, which takes seconds
        async with swarm(tmp_path, Diagnostician, bus=bus) as made:
            session = await made.commands.submit({"name": "said"})
            first = await until_said(made, session, "handler.failed", 10)
            await made.commands.verbs["redrive"]({"failure": first.id})
            history = made.tail.history(session)
            async with asyncio.timeout(10):
                while len(list(history.telling((HandlerFailed,)))) < 2:
                    await history.grown(history.size)
            second = list(history.telling((HandlerFailed,)))[1]
            assert second.envelope.causationid == first.envelope.causationid
            assert await letters(made) == [second.id]
            with pytest.raises(NotFound, match="no failure"):
                await made.commands.verbs["redrive"]({"failure": first.id})
    async with swarm(tmp_path, bus=bus) as made:  # nobody of the role is there to hear the wish
        await made.commands.verbs["redrive"]({"failure": second.id})
        assert await letters(made) == []
    async with swarm(tmp_path, Diagnostician, bus=bus) as made:
        answer = await until_said(made, session, "diagnosis.reached", 10)
        assert answer.envelope.causationid == first.envelope.causationid
        with pytest.raises(NotFound, match="no failure"):
            await made.commands.verbs["redrive"]({"failure": second.id})
    assert Diagnostician.calls == 2 * supervisor.ATTEMPTS + 1


class Cramped(Diagnostician):
    """Answers a claim as well, as often as there is room."""

    role = "diagnostician"

    @on
    async def follow(self, claimed: TrainingClaimed) -> DiagnosisReached:
        return self.reached()


@pytest.fixture
def cramped(monkeypatch: pytest.MonkeyPatch) -> type[Cramped]:
    monkeypatch.setattr(Diagnostician, "trouble", Full("there is no room.", cure="Free some space."))
    monkeypatch.setattr(supervisor, "_LONGEST_WAIT", 0.001)
    return Cramped


async def test_what_finds_no_room_in_a_session_that_is_trained_is_tried_until_there_is_some(
    tmp_path: Path, cramped: type[Cramped]
) -> None:
    async with swarm(tmp_path, cramped) as made:
        session = await made.commands.submit({"name": "said"})
        await until_said(made, session, "diagnosis.reached", 10)
        cramped.calls, cramped.troubles = 0, 3 * supervisor.ATTEMPTS
        (claimed,) = await made.writer("trainer").say(session, [claim(1)])
        async with asyncio.timeout(10):
            while not made.tail.history(session).answers("diagnostician", claimed.id):
                await asyncio.sleep(0.001)
        assert cramped.calls == 3 * supervisor.ATTEMPTS + 1
        assert not made.tail.history(session).state.failures


async def test_what_finds_no_room_before_training_is_given_up_with_the_cure(
    tmp_path: Path, cramped: type[Cramped]
) -> None:
    cramped.troubles = supervisor.ATTEMPTS
    async with swarm(tmp_path, cramped) as made:
        session = await made.commands.submit({"name": "said"})
        failed = await until_said(made, session, "handler.failed", 10)
        assert isinstance(failed.event, HandlerFailed)
        assert failed.event.cure == "Free some space."


async def test_an_answered_trigger_is_not_handled_again_after_a_restart(tmp_path: Path) -> None:
    bus = MemoryBus(wake_again=0.05)
    async with swarm(tmp_path, Diagnostician, bus=bus) as made:
        session = await made.commands.submit({"name": "said"})
        await until_said(made, session, "diagnosis.reached", 10)
    async with swarm(tmp_path, Diagnostician, bus=bus) as made:
        other = await made.commands.submit({"name": "next"})
        await until_said(made, other, "diagnosis.reached", 10)
        said = [fact for fact in made.tail.history(session).facts if fact.lane == "diagnostician"]
        assert len(said) == 1
    assert Diagnostician.calls == 2


async def test_a_trigger_that_came_while_nobody_was_there_is_handled_at_the_next_start(tmp_path: Path) -> None:
    bus = MemoryBus()
    async with swarm(tmp_path, bus=bus) as made:
        session = await made.commands.submit({"name": "said"})
    async with swarm(tmp_path, Diagnostician, bus=bus) as made:
        said = await until_said(made, session, "diagnosis.reached", 10)
        assert said.envelope.causationid == made.tail.history(session).facts[0].id


class Validator(Agent):
    """Crashes in its rhythm, which is nobody else's business."""

    @on
    async def hear(self, asked: SessionRequested) -> None:
        return None

    @every(0.001)
    async def stumble(self) -> None:
        raise RuntimeError("out of step")


async def test_an_agent_whose_rhythm_raises_stops_no_other(tmp_path: Path) -> None:
    async with swarm(tmp_path, Validator, Diagnostician) as made:
        session = await made.commands.submit({"name": "said"})
        await until_said(made, session, "diagnosis.reached", 10)
        assert made.supervisors["validator"].ready.is_set()


class Exporter(Agent):
    """Takes long, and stumbles over being told to end."""

    begun = 0

    @on
    async def hear(self, asked: SessionRequested, say: Say[DiagnosisReached]) -> None:
        type(self).begun += 1
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("it fell on the way out")


async def test_an_agent_that_raises_when_it_is_told_to_end_ends_all_the_same(tmp_path: Path) -> None:
    async with asyncio.timeout(20):
        async with swarm(tmp_path, Exporter) as made:
            await made.commands.submit({"name": "said"})
            while not Exporter.begun:
                await asyncio.sleep(0)
    assert Exporter.begun == 1


class Patient(Diagnostician):
    """Waits for a word before it answers, except where it breaks."""

    role = "diagnostician"
    word = asyncio.Event()

    @on
    async def answer(self, asked: SessionRequested, say: Say[DiagnosisReached]) -> None:
        if asked.request["name"] == "breaks":
            raise ValueError("and once more")
        await type(self).word.wait()
        await say(DiagnosisReached(segment=1, step=7))


async def test_an_agent_that_breaks_off_takes_up_again_what_it_had_in_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Patient.word = asyncio.Event()
    bus = MemoryBus()

    async def refuse(subject: str, body: bytes) -> None:
        if subject.startswith("swarm.dlq"):
            raise Refused("no letters today")

    monkeypatch.setattr(bus, "say", refuse)
    async with swarm(tmp_path, Patient, bus=bus) as made:
        waits = await made.commands.submit({"name": "waits"})
        breaks = await made.commands.submit({"name": "breaks"})
        await until_said(made, breaks, "handler.failed", 10)
        async with asyncio.timeout(10):
            while made.supervisors["diagnostician"].ready.is_set():
                await asyncio.sleep(0)
        Patient.word.set()
        said = await until_said(made, waits, "diagnosis.reached", 10)
        assert said.envelope.causationid == made.tail.history(waits).facts[0].id


def test_a_handler_that_hears_nothing_is_refused_when_its_class_is_made() -> None:
    with pytest.raises(WiringError, match="hears nothing"):

        class Deaf(Agent):
            @on
            async def hear(self, words: str) -> None: ...


def test_a_handler_that_is_no_coroutine_is_refused_when_its_class_is_made() -> None:
    with pytest.raises(WiringError, match="not a coroutine"):

        class Sync(Agent):
            @on
            def hear(self, asked: SessionRequested) -> None: ...


def test_what_an_agent_hears_and_says_is_read_from_its_signatures() -> None:
    class Both(Agent):
        @on
        async def one(self, asked: SessionRequested, case: Wakeup) -> DiagnosisReached | None: ...

        @on
        async def two(self, reached: DiagnosisReached, say: Say[ProblemDiagnosed]) -> None: ...

    assert Both.role == "both"
    assert set(Both.hears()) == {SessionRequested, DiagnosisReached}
    assert set(Both.says()) == {DiagnosisReached, ProblemDiagnosed}
    assert [handler.course for handler in Both.handlers] == [False, True]


class CheckpointKeeper(Agent):
    """Tells a person when all is done, beside the log."""

    told: ClassVar[list[str]] = []
    troubles = 0

    @on
    async def tell(self, sealed: SessionSealed, case: Wakeup) -> None:
        if type(self).troubles:
            type(self).troubles -= 1
            raise KeyError("no such mailbox")
        type(self).told.append(case.session.id)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


async def seal(made: SwarmNode, session: str) -> None:
    """A seal as far as admission looks at it."""
    ring, last = made.tail.admission.keyring(), made.tail.history(session).facts[-1].seq
    sealed = SessionSealed(
        size=1, root=ZERO, last_seq=last, lanes={}, keyring=ring.head, keyring_size=1, keyring_root=ZERO,
        members={}, note="-",
    )  # fmt: skip
    await made.writer("ledger").say(session, [sealed])


async def test_an_agent_that_hears_the_seal_is_told_of_it_once_also_after_it_was_away(tmp_path: Path) -> None:
    CheckpointKeeper.told.clear()
    bus = MemoryBus()
    await bus.consumer(CheckpointKeeper.role, wake_subjects(CheckpointKeeper))
    async with crew(tmp_path, (), bus=bus) as made:
        away = await made.commands.submit({"name": "away"})
        await seal(made, away)
    async with swarm(tmp_path, CheckpointKeeper, bus=bus) as made:
        there = await made.commands.submit({"name": "there"})
        await seal(made, there)
        await until(lambda: len(CheckpointKeeper.told) == 2)
        assert CheckpointKeeper.told == [away, there]
        supervised = made.supervisors[CheckpointKeeper.role]
        while supervised._handled or supervised._orders:
            await asyncio.sleep(0)


async def test_a_handler_of_the_seal_that_raises_is_tried_again_and_its_last_error_is_told(tmp_path: Path) -> None:
    CheckpointKeeper.told.clear()
    with capture_logs() as lines:
        async with swarm(tmp_path, CheckpointKeeper) as made:
            CheckpointKeeper.troubles = supervisor.ATTEMPTS - 1
            told = await made.commands.submit({"name": "told in the end"})
            await seal(made, told)
            await until(lambda: CheckpointKeeper.told == [told])
            CheckpointKeeper.troubles = supervisor.ATTEMPTS
            await seal(made, await made.commands.submit({"name": "never told"}))
            await until(lambda: any(line["event"] == "handler gave up" for line in lines))
    gave_up = [line for line in lines if line["event"] == "handler gave up"]
    assert [(repr(line["exc_info"]), line["recorded"]) for line in gave_up] == [("KeyError('no such mailbox')", False)]
    assert CheckpointKeeper.told == [told]
