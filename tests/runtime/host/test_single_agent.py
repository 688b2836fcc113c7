"""A built-in agent in a process of its own, beside a host that was started without it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import Refused
from runtime.commands.client import SwarmClient
from tests.harness import small_request
from tests.runtime.strangers import Place, place

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("swarm"), "--without", "validator") as found:
        yield found


async def ends_well(here: Place, swarm: SwarmClient, session: str) -> list[dict[str, Any]]:
    found = await swarm.wait(session, timeout=90)
    assert found["state"] == "completed", found
    assert await asyncio.to_thread(here.audited, session) == "pass"
    return [line async for line in swarm.events(session)]


def answered_once(told: list[dict[str, Any]]) -> None:
    """The best and the last checkpoint are judged, and none twice."""
    judged = Counter(one["cause"] for one in told if one["name"] == "checkpoint.validated")
    assert judged
    assert set(judged.values()) == {1}
    assert judged.keys() <= {one["id"] for one in told if one["name"] == "checkpoint.stored"}
    assert not [one for one in told if one["name"] == "duty.waived"]


async def until_stored(swarm: SwarmClient, session: str) -> None:
    async for line in swarm.events(session, follow=True):
        if line["name"] == "checkpoint.stored":
            return


def test_the_host_says_which_agents_it_runs(here: Place) -> None:
    names = {one["name"] for one in here.command("status")["agents"]}
    assert "trainer" in names
    assert "validator" not in names


async def test_a_session_completes_with_its_validator_in_another_process(here: Place) -> None:
    with here.running("validator"):
        async with here.swarm() as swarm:
            session = await swarm.submit(small_request())
            answered_once(await ends_well(here, swarm, session))
        (shown,) = [one for one in here.command("agents")["agents"] if one["name"] == "validator"]
        assert (shown["running"], shown["ready"]) == (True, True)


async def test_a_validator_that_is_killed_in_the_middle_answers_once(here: Place) -> None:
    async with here.swarm() as swarm:
        session = await swarm.submit(small_request(training={"epochs": 20, "batch_size": 64}))
        with here.running("validator") as first:
            await until_stored(swarm, session)
            os.kill(first.pid, signal.SIGKILL)
            first.wait()
        with here.running("validator"):
            answered_once(await ends_well(here, swarm, session))


async def test_two_validators_share_the_work_and_answer_once(here: Place) -> None:
    url = here.command("status")["server"]["url"]
    with here.running("validator"), here.running("validator", "--url", url):
        async with here.swarm() as swarm:
            session = await swarm.submit(small_request())
            answered_once(await ends_well(here, swarm, session))


async def test_a_session_waits_for_the_validator_that_comes_later(here: Place) -> None:
    async with here.swarm() as swarm:
        session = await swarm.submit(small_request())
        async for line in swarm.events(session, follow=True):
            if line["name"] == "training.completed":
                break
        assert (await swarm.session(session))["state"] == "finishing"
        with here.running("validator"):
            answered_once(await ends_well(here, swarm, session))


async def test_a_search_goes_on_when_its_specialist_runs_alone(tmp_path: Path) -> None:
    search = {
        "name": "small-search",
        "method": "search",
        "base": small_request(training={"epochs": 2, "batch_size": 64}),
        "space": {"optimizer.learning_rate": {"type": "float", "low": 1e-4, "high": 3e-2, "log": True}},
        "trials": 2,
        "metric": "val_loss",
        "seed": 7,
    }
    with place(tmp_path, "--without", "hyperparameter_specialist") as found, found.running("hyperparameter_specialist"):
        async with found.swarm() as swarm:
            session = await swarm.submit(search, kind="search")
            told = await ends_well(found, swarm, session)
            trials = [one["data"]["session"] for one in told if one["name"] == "trial.started"]
            assert [(await swarm.session(one))["kind"] for one in trials] == ["trial", "trial"]
            for parent in (session, trials[0]):
                with pytest.raises(Refused, match="no search that goes on"):
                    await swarm.command("trial", parent=parent, request=small_request())


def test_an_agent_alone_needs_a_swarm(tmp_path: Path) -> None:
    found = Place(tmp_path).command("agent", "run", "validator", code=5)
    assert found["error"]["code"] == "unreachable"


def test_a_guest_that_was_never_admitted_is_told_how_to_be(here: Place) -> None:
    example = Path(__file__).parents[3] / "examples" / "footprint" / "footprint.py"
    found = here.command("agent", "run", str(example), "--name", "nobody", code=4)
    assert found["error"]["cure"] == "Admit it: swarm agent new nobody"


def test_a_role_that_there_is_not_cannot_be_left_out(tmp_path: Path) -> None:
    found = Place(tmp_path).command("up", "-d", "--without", "nobody", code=2)
    assert "there is no built-in agent 'nobody'" in found["error"]["message"]
