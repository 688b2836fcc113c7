"""What the front desk answers, on the in-memory bus: to what it understands, and to what nobody can mean."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from bus import subjects
from bus.admission import Admission
from bus.memory import MemoryBus
from runtime.commands import commands, session_index
from runtime.commands.client import SwarmClient
from runtime.commands.session_index import SessionIndex
from runtime.host.swarm_node import SwarmNode
from runtime.log.archive import Archive
from runtime.log.follower import LogFollower
from tests.harness import crew, small_request
from tests.runtime.recorded_home import RecordedHome


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[SwarmNode]:
    async with crew(tmp_path, ()) as made:
        yield made


async def asked(made: SwarmNode, verb: str, body: Any) -> dict[str, Any]:
    answer: dict[str, Any] = orjson.loads(await made.bus.ask(subjects.owner_command(verb), orjson.dumps(body)))
    return answer


@pytest.mark.parametrize(
    ("verb", "body", "paths"),
    [
        ("session", {"session": 5}, ["session"]),
        ("session", {"session": "last", "wait": "long"}, ["wait"]),
        ("events", {"session": ["last"], "after": -3, "limit": 0}, ["session", "after", "limit"]),
        ("events", {"session": "last", "after": 1.5, "wait": True}, ["after", "wait"]),
        ("export", {"session": "last", "format": "onx", "quantize": {"a": 1}}, ["format", "quantize"]),
        ("cancel", {"session": "last", "reason": "r" * 3000}, ["reason"]),
        ("redrive", {"failure": 5}, ["failure"]),
        ("trial", {"parent": "last", "request": []}, ["request"]),
        ("admit", {"name": "ant", "hears": ["window.recorded", 7]}, ["hears"]),
        ("revoke", {"key": "x", "reason": 5}, ["reason"]),
        ("train", {"data": 1, "request_id": 5, "asked_by": ""}, ["data", "model", "request_id", "asked_by"]),
        ("search", {"base": 5, "request_id": ""}, ["base", "space", "request_id"]),
    ],
)
async def test_a_body_that_does_not_fit_is_answered_with_every_misfit(
    made: SwarmNode, verb: str, body: Any, paths: list[str]
) -> None:
    error = (await asked(made, verb, body))["error"]
    assert error["code"] == "invalid-request"
    assert [one["path"] for one in error["problems"]] == paths
    assert all(one["message"] and one["cure"] for one in error["problems"])


async def test_what_is_null_was_not_given(made: SwarmNode) -> None:
    assert "no session is named" in (await asked(made, "session", {"session": None}))["error"]["message"]


async def test_a_checkpoint_that_nobody_can_mean_is_no_crash(made: SwarmNode) -> None:
    session = await made.commands.submit(small_request())
    error = (await asked(made, "export", {"session": session, "checkpoint": "nope"}))["error"]
    assert error["code"] == "invalid-request"
    assert "best, last, or a step" in error["cure"]


async def test_the_same_request_at_once_is_one_session_with_one_beginning(made: SwarmNode) -> None:
    body = small_request() | {"request_id": "once"}
    answers = await asyncio.gather(*(asked(made, "train", body) for _ in range(4)))
    (session,) = {one["session"] for one in answers}
    assert [fact.name for fact in made.tail.history(session).facts] == ["session.requested"]


async def test_of_two_requests_at_once_under_one_id_the_later_is_refused(made: SwarmNode) -> None:
    bodies = [small_request(name=name) | {"request_id": "mine"} for name in ("one", "two")]
    answers = await asyncio.gather(*(asked(made, "train", body) for body in bodies))
    assert sorted([*one] for one in answers) == [["error"], ["session"]]
    (error,) = [one["error"] for one in answers if "error" in one]
    assert error["code"] == "refused"
    assert "another request" in error["message"]


@pytest.mark.parametrize(
    ("kind", "verb"), [("export", "cancel"), ("export", "pause"), ("search", "pause"), ("search", "export")]
)
async def test_nobody_is_told_that_a_session_will_do_what_its_kind_never_does(
    made: SwarmNode, kind: Any, verb: str
) -> None:
    session = await made.commands.submit({"name": "x"}, kind)
    error = (await asked(made, verb, {"session": session}))["error"]
    assert error["code"] == "refused"
    assert kind in error["message"]
    assert [fact.name for fact in made.tail.history(session).facts] == ["session.requested"]


async def test_sessions_are_listed_page_by_page_those_in_memory_and_those_in_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded, tail = RecordedHome(tmp_path), LogFollower(MemoryBus(), Admission())
    months = [f"2026-0{month}-01T00:00:00.000000Z" for month in (3, 1, 2)]
    march, january, february = (recorded.requested(time=month) for month in months)
    tail.histories[march] = Archive(recorded.home).read(march).history
    monkeypatch.setattr(session_index, "PAGE", 2)
    stock = SessionIndex(recorded.home, tail)
    first, is_all = await stock.page("", 10**6)
    assert ([one["session"] for one in first], is_all) == ([january, february], False)
    second, is_all = await stock.page(february, 10**6)
    assert ([one["session"] for one in second], is_all) == ([march], True)
    assert [one["session"] for one in (await stock.page("", 1))[0]] == [january], "a page is never larger than asked"


async def test_what_is_sealed_is_read_from_its_file_once(tmp_path: Path) -> None:
    recorded = RecordedHome(tmp_path)
    stock, session = SessionIndex(recorded.home, LogFollower(MemoryBus(), Admission())), recorded.trained()
    before = await stock.find(session)
    assert await stock.find("last") is before
    assert await stock.genesis(session) == before.state.genesis
    assert before.state.sealed


async def test_a_client_lists_every_session_whatever_fits_into_one_answer(
    made: SwarmNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [await made.commands.submit(small_request(name=f"{number}")) for number in range(5)]
    monkeypatch.setattr(commands, "_MOST_BYTES", 900)
    assert len((await asked(made, "sessions", {}))["sessions"]) < 5
    assert [one["session"] for one in await SwarmClient(made.bus).sessions()] == wanted


@pytest.mark.parametrize(("share", "begins"), [(0.89, True), (0.91, False), (1.2, False)])
async def test_no_session_begins_above_nine_tenths_of_the_logs_budget(
    made: SwarmNode, share: float, begins: bool
) -> None:
    async def stored_bytes() -> int:
        return int(share * made.settings.store_bytes)

    made.commands.stored_bytes = stored_bytes
    answer = await asked(made, "train", small_request())
    assert ("session" in answer) is begins
    assert begins or "no session begins above 90%" in answer["error"]["message"]
