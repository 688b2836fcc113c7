"""What the diagnostician does among the others: a session that diverges is repaired, and a restart changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bus.memory import MemoryBus
from contracts.request import read_request
from contracts.session import SessionState
from runtime.host.swarm_node import SwarmNode
from tests import harness

DIVERGING: dict[str, Any] = {
    "optimizer": {"type": "sgd", "learning_rate": 100.0},
    "training": {"epochs": 4, "batch_size": 64, "grad_clip": None},
}


async def requested(made: SwarmNode, **changes: Any) -> str:
    request = read_request(harness.small_request(**(DIVERGING | changes))).resolved()
    return await made.ground.submit(request, "training", asked_by="me")


def plan_of(session: SessionState) -> list[tuple[int, int | None, str]]:
    return [(one.segment, one.rewind_to, one.rule) for _, one in session.training.proposals if one.automatic]


async def test_a_session_that_diverges_is_repaired_and_an_interruption_does_not_change_its_bits(tmp_path: Path) -> None:
    async with harness.crew(tmp_path / "one") as made:
        whole = await harness.until_ended(made, await requested(made))
    bus = MemoryBus()
    async with harness.crew(tmp_path / "two", bus=bus) as made:
        session = await requested(made)
        await harness.until_said(made, session, "intervention.proposed")
    async with harness.crew(tmp_path / "two", bus=bus) as made:
        resumed = await harness.until_ended(made, session)
    assert whole.state == resumed.state == "completed"
    assert plan_of(whole)
    assert plan_of(whole) == plan_of(resumed)
    assert whole.weights_digest == resumed.weights_digest
    assert whole.training.judged == {applied for applied, _ in whole.training.applied}
    assert whole.training.diagnosed == resumed.training.diagnosed
    assert whole.training.diagnosed is not None


async def test_without_auto_fix_a_session_is_told_and_left_alone(tmp_path: Path) -> None:
    async with harness.crew(tmp_path) as made:
        # Nothing waits for what is only told, so the training is a longer one.
        longer = DIVERGING["training"] | {"epochs": 60}
        asked = await requested(made, diagnosis={"auto_fix": False}, training=longer)
        ended = await harness.until_ended(made, asked)
    assert ended.training.diagnoses
    assert ended.training.proposals == ()
