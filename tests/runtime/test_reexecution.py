"""A session audits `pass` by computing it again, whatever happened to it; one that lies does not."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from bus.blobs import DirectoryBlobs
from contracts.diagnostician import InterventionProposed
from contracts.request import read_request
from contracts.trainer import TrainingCompleted
from runtime import audit
from runtime.archive import Archive
from runtime.audit import repeated
from runtime.audit.repeated import Asked, Material, Repeated
from runtime.audit.spans import course
from runtime.children import Children
from runtime.crew import Crew
from runtime.home import Home
from tests.harness import crew, small_request, until_ended, until_said

TRAINING = ("data_manager", "trainer", "checkpoint_keeper", "ledger", "diagnostician", "exporter", "resource_monitor")


@pytest.fixture(scope="module")
def eventful(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, str]:
    """A session with a crash, a rewind, a learning-rate decision, an early stop and an export."""
    home = tmp_path_factory.mktemp("eventful")
    return Home(home), asyncio.run(_eventful(home))


async def _eventful(home: Path) -> str:
    request = small_request(
        training={"epochs": 200, "batch_size": 64},
        early_stopping={"enabled": True, "patience": 4, "metric": "val_loss", "min_delta": 0.002},
        export={"formats": ["safetensors"]},
        diagnosis={"auto_fix": False},
    )
    async with crew(home, TRAINING) as made:
        session = await made.desk.submit(read_request(request).resolved(), request_id="r1")
        await until_said(made, session, "checkpoint.written")
        for one in made.children.running():
            if one.purpose == "train":
                os.kill(one.pid, signal.SIGKILL)
        await _reached(made, session, 150)
        await _proposed(made, session, segment=1, rewind_to=50, changes={"learning_rate": 0.7})
        await _reached(made, session, 100)
        await _proposed(made, session, segment=2, rewind_to=None, changes={"learning_rate": 0.5})
        state = await until_ended(made, session)
        assert isinstance(state.outcome, TrainingCompleted), state.outcome
        assert state.outcome.stopped_early
        assert len(state.segments) == 3
        assert state.exports
    return session


async def _reached(made: Crew, session: str, step: int) -> None:
    history = made.tail.history(session)
    async with asyncio.timeout(30):
        while history.state.step < step:
            await history.grown(history.size)


async def _proposed(made: Crew, session: str, **about: Any) -> None:
    history = made.tail.history(session)
    proposal = InterventionProposed(rule="person", reason="test", automatic=False, **about)
    before = len(history.state.applied)
    await made.ground.speak("diagnostician", session, proposal, history.state.last_window_id)
    async with asyncio.timeout(30):
        while len(history.state.applied) == before:
            await history.grown(history.size)


def material(home: Home, session: str) -> Material:
    return Material(Archive(home).read(session), DirectoryBlobs(home.blobs), home.root / "work" / "audits", home.root)


async def audited(home: Home, session: str, asked: Asked) -> Repeated:
    log = audit.log(Archive(home), session, DirectoryBlobs(home.blobs))
    children = Children()
    try:
        return await repeated.repeat(log, material(home, session), asked, children, print)
    finally:
        await children.close()


async def test_an_eventful_session_passes_in_full(eventful: tuple[Home, str]) -> None:
    home, session = eventful
    found = await audited(home, session, Asked("full", workers=2))
    assert found.verdict == "pass", found.as_json()
    assert found.spans_checked == found.spans_total > 3
    assert found.exports_checked == 1


async def test_spans_cover_every_record_also_those_that_a_rewind_superseded(eventful: tuple[Home, str]) -> None:
    home, session = eventful
    history = Archive(home).read(session).history
    found = course(history.facts, history.state, lambda _: True)
    told = {one.position for span in found.spans for one in span.records}
    names = ("window.recorded", "control.evaluated", "checkpoint.written")
    assert told == {fact.position for fact in history.facts if fact.name in names}
    assert not found.strays
