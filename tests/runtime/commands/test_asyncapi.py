from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bus import decode, subjects
from contracts.event import SPOKEN, Event, events
from contracts.roles import BUILT_IN
from contracts.trainer import TrainingCompleted
from runtime.commands.asyncapi import document
from runtime.commands.commands import Commands
from runtime.home.home import Home
from runtime.node import roster
from runtime.node.agent import Agent, on
from tests.contracts.make_goldens import body
from tests.runtime.recorded_session import FootprintEstimated

TOOLS = Path(__file__).parents[2] / "tools"


class Footprint(Agent):
    role = "guest_footprint"

    @on
    async def weigh(self, done: TrainingCompleted) -> FootprintEstimated:
        return FootprintEstimated(grams=done.step)


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    return document(roster.load_all())


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for one in node.values():
            yield from references(one)
    elif isinstance(node, list):
        for one in node:
            yield from references(one)


def found(document: dict[str, Any], reference: str) -> Any:
    node: Any = document
    for key in reference.removeprefix("#/").split("/"):
        node = node[key]
    return node


def test_every_reference_leads_somewhere(told: dict[str, Any]) -> None:
    assert set(references(told))
    assert all(found(told, one) is not None for one in set(references(told)))


def test_every_event_is_a_message_with_its_version_and_its_channel(told: dict[str, Any]) -> None:
    for wire, kind in events().items():
        message = told["components"]["messages"][wire]
        assert message["x-stigmergy"]["version"] == kind.version()
        assert any(wire in channel["messages"] for channel in told["channels"].values())


def test_facts_stand_in_the_lanes_in_which_they_are_believed(told: dict[str, Any]) -> None:
    addresses = [channel["address"] for channel in told["channels"].values()]
    facts = [one for one in addresses if one.startswith("swarm.ev.") and "{lane}" not in one and "{agent}" not in one]
    assert len(facts) >= len(BUILT_IN)
    for address in facts:
        where = subjects.parse(address.replace("{pp}.{session}", "00.00-session"))
        kind = SPOKEN[where.name]
        assert decode.lane_may_say(kind.model_construct(), where.lane), address


def test_every_command_of_the_desk_is_described_and_no_other(told: dict[str, Any], tmp_path: Path) -> None:
    desk = Commands(SimpleNamespace(home=Home(tmp_path), tail=None))  # type: ignore[arg-type]
    asked = {name.removesuffix(".command") for name in told["channels"] if name.endswith(".command")}
    assert asked == set(desk.verbs)
    for verb in asked:
        assert told["channels"][f"{verb}.command"]["address"] == subjects.command(verb)
        reply = told["operations"][f"desk.hears.{verb}"]["reply"]
        assert reply["channel"]["$ref"] == f"#/channels/{verb}.reply"


def test_who_hears_and_says_what_is_read_from_the_agents(told: dict[str, Any]) -> None:
    agents = roster.load_all()
    assert agents.keys() == set(BUILT_IN)
    for role, agent in agents.items():
        assert agent.says()
        assert agent.hears()
        for event in agent.says():
            assert f"{role}.says.{event.wire}" in told["operations"] or f"any.says.{event.wire}" in told["operations"]
        for event in agent.hears():
            if event is not Event:
                assert any(
                    name.startswith(f"{role}.hears.") and name.endswith(event.wire) for name in told["operations"]
                )


def test_a_stranger_in_the_roster_is_described_like_the_others() -> None:
    told = document({"guest_footprint": Footprint})
    channel = told["channels"]["guest_footprint.footprint.estimated"]
    assert channel["address"] == "swarm.ev.{pp}.{session}.guest.footprint.footprint_estimated"
    assert "footprint.estimated.v1" in told["components"]["schemas"]
    assert told["operations"]["guest_footprint.hears.trainer.training.completed"]["action"] == "receive"


def test_the_document_is_the_same_in_every_process() -> None:
    """Sets of text have another order in a process with another seed of hashes."""
    program = (
        "import json; from runtime.node import roster; from runtime.commands.asyncapi import document\n"
        "print(json.dumps(document(roster.load_all())))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    (document_,) = printed
    assert json.loads(document_)["asyncapi"]


def judged(script: str, given: Any) -> Any:
    """What a Node program says to some JSON. A missing tool is a failure: `sh tests/tools/install.sh`."""
    node = shutil.which("node")
    assert node, "there is no node; run: sh tests/tools/install.sh"
    assert (TOOLS / "node_modules").is_dir(), "the npm packages are missing; run: sh tests/tools/install.sh"
    done = subprocess.run(
        [node, str(TOOLS / script)], input=json.dumps(given), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.foreign
def test_the_official_parser_accepts_the_document(told: dict[str, Any]) -> None:
    verdict = judged("check_asyncapi.mjs", told)
    assert [one for one in verdict["diagnostics"] if one["severity"] in ("error", "warning")] == []
    assert verdict["version"] == "3.0.0"
    assert verdict["channels"] == len(told["channels"])
    assert verdict["operations"] == len(told["operations"])
    assert verdict["messages"] == len(told["components"]["messages"])


@pytest.mark.foreign
def test_the_official_parser_would_have_seen_a_mistake(told: dict[str, Any]) -> None:
    broken = json.loads(json.dumps(told))
    broken["operations"]["desk.hears.train"]["action"] = "listen"
    verdict = judged("check_asyncapi.mjs", broken)
    assert any(one["severity"] == "error" for one in verdict["diagnostics"])


@pytest.mark.foreign
def test_stored_events_are_what_their_schemas_say(told: dict[str, Any]) -> None:
    samples = [{"message": wire, "payload": json.loads(body(kind))} for wire, kind in events().items()]
    verdict = judged("check_messages.mjs", {"document": told, "samples": samples})
    assert verdict == {"checked": len(samples), "failures": []}
    strange = json.loads(body(events()["window.recorded"])) | {"dataschema": "window.recorded/99"}
    verdict = judged(
        "check_messages.mjs", {"document": told, "samples": [{"message": "window.recorded", "payload": strange}]}
    )
    assert len(verdict["failures"]) == 1
