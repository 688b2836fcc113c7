"""A trainer trains what has a slot in the queue and says by which grant; of its bits nothing depends on that."""

from __future__ import annotations

from pathlib import Path

from bus.memory import MemoryBus
from contracts.envelope import Fact
from contracts.queue import Queue, SessionGranted
from contracts.request import read_request
from contracts.trainer import TrainingClaimed, TrainingCompleted, TrainingResumed
from runtime.host.swarm_node import SwarmNode
from runtime.views.view import summary
from tests.harness import beside, crew, small_request, until_ended, until_said

ROLES = ("data_manager", "trainer", "checkpoint_keeper", "resource_monitor", "ledger")
SHORT = {"training": {"epochs": 1, "batch_size": 64}}
LONG = {"training": {"epochs": 100_000, "batch_size": 64}, "early_stopping": {"enabled": False}}


async def requested(made: SwarmNode, name: str, **changes: object) -> str:
    request = small_request(name=name, diagnosis={"auto_fix": False}, **changes)
    return await made.commands.submit(read_request(request).resolved())


def queue(made: SwarmNode) -> Queue:
    found = made.tail.queue
    assert found is not None
    return found


def claims(made: SwarmNode, session: str) -> list[TrainingClaimed]:
    told = [fact.event for fact in made.tail.history(session).facts]
    return [event for event in told if isinstance(event, TrainingClaimed)]


def grants(made: SwarmNode, session: str) -> list[Fact]:
    log = made.tail.queue_log
    assert log is not None
    return [one for one in log.facts if isinstance(one.event, SessionGranted) and one.event.session == session]


async def until_queue(made: SwarmNode, *, waiting: list[str]) -> None:
    """Return once just these sessions wait, in this order."""
    while list(queue(made).waiting) != waiting:
        log = made.tail.queue_log
        assert log is not None
        await log.grown(log.size)


async def test_sessions_train_by_the_grants_that_they_cite_and_a_pause_lets_the_next_one_train(tmp_path: Path) -> None:
    async with crew(tmp_path / "home", ROLES, queue=True, trainings=1) as made:
        first = await requested(made, "first", **LONG)
        await until_said(made, first, "window.recorded")
        second, third = [await requested(made, name, **SHORT) for name in ("second", "third")]
        for session in (second, third):
            await until_said(made, session, "dataset.prepared")
        await until_queue(made, waiting=[second, third])
        waits = summary(made.tail.history(third).state, None, queue(made))["waits"]
        assert waits == f"for its turn to train: place 2 of 2: 1 slot (setting `trainings`), taken by {first}"
        await made.commands.verbs["cancel"]({"session": third})
        assert (await until_ended(made, third)).training.claim is None
        await made.commands.verbs["pause"]({"session": first})
        ended = await until_ended(made, second)
        assert isinstance(ended.outcome, TrainingCompleted)
        await made.commands.verbs["resume"]({"session": first})
        resumed = await until_said(made, first, "training.resumed")
        assert isinstance(resumed.event, TrainingResumed)
        (lone,) = claims(made, second)
        assert [lone.grant] == [fact.id for fact in grants(made, second)]
        cited = [*(claim.grant for claim in claims(made, first)), resumed.event.grant]
        assert cited == [fact.id for fact in grants(made, first)]
        assert (len(cited), grants(made, third)) == (2, [])
        await made.commands.verbs["cancel"]({"session": first})
        await until_ended(made, first)
        while queue(made).slots:
            await until_queue(made, waiting=[])
        status = await made.commands.verbs["status"]({})
        assert status["queue"] == {"limit": 1, "slots": [], "length": 0, "waiting": []}
    async with crew(tmp_path / "other", ROLES) as alone:
        plain = await until_ended(alone, await requested(alone, "second", **SHORT))
        assert [claim.grant for claim in claims(alone, plain.id)] == [None]
        assert plain.training.claim is not None
        assert plain.training.claim.resolved == lone.resolved
        assert isinstance(plain.outcome, TrainingCompleted)
        assert plain.outcome.state_root == ended.outcome.state_root


async def test_what_had_a_slot_when_its_process_ended_is_claimed_again_by_the_same_grant(tmp_path: Path) -> None:
    home, bus = tmp_path / "home", MemoryBus()
    async with crew(home, ROLES, bus=bus, queue=True, trainings=1) as made:
        first = await requested(made, "first", **LONG)
        await until_said(made, first, "window.recorded")
        second = await requested(made, "second", **SHORT)
        await until_said(made, second, "dataset.prepared")
        await until_queue(made, waiting=[second])
    async with crew(home, ROLES, bus=bus, queue=True, trainings=1) as made:
        history = made.tail.history(first)
        while len(claims(made, first)) < 2:
            await history.grown(history.size)
        await made.commands.verbs["cancel"]({"session": first})
        assert isinstance((await until_ended(made, second)).outcome, TrainingCompleted)
        (grant,) = grants(made, first)
        assert [claim.grant for claim in claims(made, first)] == [grant.id, grant.id]
        assert [claim.grant for claim in claims(made, second)] == [fact.id for fact in grants(made, second)]


async def test_what_waits_can_be_paused_and_resumed_and_a_trainer_that_joins_takes_from_the_same_queue(
    tmp_path: Path,
) -> None:
    async with crew(tmp_path / "home", ROLES, queue=True, trainings=1) as made:
        first = await requested(made, "first", **LONG)
        await until_said(made, first, "window.recorded")
        second, third = [await requested(made, name, **LONG) for name in ("second", "third")]
        for session in (second, third):
            await until_said(made, session, "dataset.prepared")
        await until_queue(made, waiting=[second, third])
        await made.commands.verbs["pause"]({"session": second})
        await until_queue(made, waiting=[third])
        waits = summary(made.tail.history(second).state, None, queue(made))["waits"]
        assert waits == f"for a person, who paused it before it began (swarm resume {second})"
        async with beside(made, ("trainer",), "two"):
            taken = await until_said(made, third, "training.claimed")
            assert isinstance(taken.event, TrainingClaimed)
            assert taken.event.incarnation.startswith("two/")
            assert (queue(made).limit, set(queue(made).slots)) == (2, {first, third})
            await made.commands.verbs["resume"]({"session": second})
            await until_queue(made, waiting=[second])
            await made.commands.verbs["cancel"]({"session": first})
            await until_said(made, second, "window.recorded")
            for session in (second, third):
                await made.commands.verbs["cancel"]({"session": session})
                await until_ended(made, session)
        said = [fact.name for fact in made.tail.history(second).facts]
        assert "training.paused" not in said
        assert "training.resumed" not in said
