"""What the trainer promises: a claim, windows, decisions at grid steps, and the same bits after any end of a child."""

from __future__ import annotations

import asyncio
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from agents.trainer.jobs.train import WARM, Keeper, PhaseSeconds
from bus.blobs import DirectoryBlobs
from bus.memory import MemoryBus
from contracts.diagnostician import InterventionProposed
from contracts.request import read_request
from contracts.trainer import CheckpointWritten, TrainingCompleted, TrainingProfiled, WindowRecorded
from runtime.host.swarm_node import SwarmNode
from runtime.views.resources import resource_blocks
from tests.harness import crew, kill_child, killed, small_request, until_ended, until_said

TRAINING = ("data_manager", "trainer", "checkpoint_keeper", "ledger", "diagnostician")


async def submitted(made: SwarmNode, **changes: Any) -> str:
    return await made.commands.submit(read_request(small_request(**changes)).resolved(), request_id="r1")


def windows(made: SwarmNode, session: str) -> list[tuple[int, int, str]]:
    history = made.tail.history(session)
    found = [fact.event for fact in history.facts if isinstance(fact.event, WindowRecorded)]
    on_path = [one for one in found if history.state.training.on_path(one.segment, one.last)]
    return [(one.first, one.last, one.weights_digest) for one in on_path]


async def undisturbed(home: Path, **changes: Any) -> tuple[str, list[tuple[int, int, str]]]:
    async with crew(home, TRAINING) as made:
        session = await submitted(made, **changes)
        state = await until_ended(made, session)
        assert isinstance(state.outcome, TrainingCompleted), state.outcome
        return state.outcome.weights_digest, windows(made, session)


async def test_the_same_request_in_two_homes_ends_in_the_same_bits(tmp_path: Path) -> None:
    one, seen = await undisturbed(tmp_path / "a")
    other, also = await undisturbed(tmp_path / "b")
    assert one == other
    assert seen == also


async def test_another_seed_ends_in_other_bits(tmp_path: Path) -> None:
    one, _ = await undisturbed(tmp_path / "a")
    other, _ = await undisturbed(tmp_path / "b", reproducibility={"seed": 7})
    assert one != other


async def test_a_profile_and_workers_change_no_bit_and_the_profile_is_told_once(tmp_path: Path) -> None:
    plain = {"training": {"epochs": 3, "batch_size": 64}, "augment": [{"type": "jitter"}]}
    digest, seen = await undisturbed(tmp_path / "a", **plain)
    data = small_request()["data"] | {"workers": 2}
    async with crew(tmp_path / "b", TRAINING) as made:
        changed = plain | {"training": plain["training"] | {"profile": 4, "accumulate": 1}, "data": data}
        session = await submitted(made, **changed)
        state = await until_ended(made, session)
        assert isinstance(state.outcome, TrainingCompleted), state.outcome
        assert (state.outcome.weights_digest, windows(made, session)) == (digest, seen)
        told = [fact.event for fact in made.tail.history(session).telling((TrainingProfiled,))]
    assert told == [state.training.profile]
    profile = state.training.profile
    assert profile is not None
    assert (profile.first, profile.steps) == (WARM, 4)
    by_name = {one.name: one for one in profile.operators}
    # Two linear layers in each of the four steps, forward and at least the weights' gradient backward.
    assert sum(one.calls for name, one in by_name.items() if name in ("aten::addmm", "aten::mm")) >= 4 * 4
    assert 0 < sum(one.cpu_ms for one in profile.operators) + profile.others_ms <= 2e3 * profile.seconds
    page = str(resource_blocks(state))
    assert "Profile of 4 steps behind step 5" in page


async def test_a_killed_child_is_replaced_and_the_bits_are_the_same(tmp_path: Path) -> None:
    digest, seen = await undisturbed(tmp_path / "a")
    async with crew(tmp_path / "b", TRAINING) as made:
        session = await submitted(made)
        await until_said(made, session, "checkpoint.written")
        await kill_child(made, "train")
        state = await until_ended(made, session)
        assert killed(made, session) == 1
        assert isinstance(state.outcome, TrainingCompleted), state.outcome
        assert state.outcome.weights_digest == digest
        assert windows(made, session) == seen


async def test_a_drained_session_goes_on_by_itself_with_the_same_bits(tmp_path: Path) -> None:
    digest, seen = await undisturbed(tmp_path / "a")
    bus = MemoryBus()
    async with crew(tmp_path / "b", TRAINING, bus=bus) as made:
        session = await submitted(made)
        await until_said(made, session, "window.recorded")
        made.draining.set()
        paused = await until_said(made, session, "training.paused")
        assert paused.event.by == "drain"
    async with crew(tmp_path / "b", TRAINING, bus=bus) as made:
        state = await until_ended(made, session)
        assert isinstance(state.outcome, TrainingCompleted), state.outcome
        assert state.training.claim is not None
        assert state.training.claim.epoch == 2
        assert state.outcome.weights_digest == digest
        assert windows(made, session) == seen


async def test_a_crew_that_vanishes_in_mid_training_is_followed_by_one_that_ends_in_the_same_bits(
    tmp_path: Path,
) -> None:
    digest, seen = await undisturbed(tmp_path / "a")
    bus = MemoryBus()
    async with crew(tmp_path / "b", TRAINING, bus=bus) as made:
        session = await submitted(made)
        await until_said(made, session, "control.evaluated")
    async with crew(tmp_path / "b", TRAINING, bus=bus) as made:
        state = await until_ended(made, session)
        assert isinstance(state.outcome, TrainingCompleted), state.outcome
        assert state.outcome.weights_digest == digest
        assert windows(made, session) == seen


async def test_a_person_pauses_and_resumes(tmp_path: Path) -> None:
    digest, _ = await undisturbed(tmp_path / "a", training={"epochs": 20, "batch_size": 64})
    async with crew(tmp_path / "b", TRAINING) as made:
        session = await submitted(made, training={"epochs": 20, "batch_size": 64})
        await until_said(made, session, "window.recorded")
        await made.commands.verbs["pause"]({"session": session})
        await until_said(made, session, "training.paused")
        assert made.tail.history(session).state.state == "paused"
        await made.commands.verbs["resume"]({"session": session})
        state = await until_ended(made, session)
        assert isinstance(state.outcome, TrainingCompleted), state.outcome
        assert state.outcome.weights_digest == digest


async def test_a_session_that_a_person_has_paused_can_be_cancelled_also_after_a_restart(tmp_path: Path) -> None:
    bus = MemoryBus()
    async with crew(tmp_path / "a", TRAINING, bus=bus) as made:
        for name in ("r1", "r2"):
            request = read_request(small_request(training={"epochs": 500, "batch_size": 64})).resolved()
            session = await made.commands.submit(request, request_id=name)
            await until_said(made, session, "window.recorded")
            await made.commands.verbs["pause"]({"session": session})
            await until_said(made, session, "training.paused")
            if name == "r1":
                assert await cancelled_at_rest(made, session) == 1
    async with crew(tmp_path / "a", TRAINING, bus=bus) as made:
        assert await cancelled_at_rest(made, session) == 2


async def test_what_a_person_has_paused_waits_for_that_person_also_with_who_takes_over(tmp_path: Path) -> None:
    bus, leave = MemoryBus(), asyncio.Event()
    paused: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def first() -> str:
        async with crew(tmp_path / "a", TRAINING, bus=bus) as made:
            session = await submitted(made, training={"epochs": 20, "batch_size": 64})
            await until_said(made, session, "window.recorded")
            await made.commands.verbs["pause"]({"session": session})
            await until_said(made, session, "training.paused")
            paused.set_result(session)
            await leave.wait()
            return made.instance

    owner = asyncio.create_task(first())
    async with asyncio.timeout(90):
        session = await paused
    shutil.copytree(tmp_path / "a" / "keys", tmp_path / "b" / "keys")
    async with crew(tmp_path / "b", TRAINING, bus=bus, blobs=str(tmp_path / "a" / "blobs")) as made:
        leave.set()
        gone, history = await owner, made.tail.history(session)
        async with asyncio.timeout(30):
            while made.presence.instance_silent_seconds("trainer", gone) < 3:
                await asyncio.sleep(0.1)
        assert (history.state.state, history.state.training.claim.epoch) == ("paused", 1)
        await made.commands.verbs["resume"]({"session": session})
        state = await until_ended(made, session)
        assert isinstance(state.outcome, TrainingCompleted), state.outcome
        names = [fact.name for fact in history.facts]
        assert (names.count("training.claimed"), names.count("training.resumed")) == (2, 1)


async def test_a_plan_pauses_after_its_epochs_and_goes_on_to_the_same_bits_also_with_another_crew(
    tmp_path: Path,
) -> None:
    training = {"epochs": 4, "batch_size": 64}
    digest, seen = await undisturbed(tmp_path / "a", training=training)
    bus, epochs = MemoryBus(), []
    for times in (1, 2):
        async with crew(tmp_path / "b", TRAINING, bus=bus) as made:
            session = await submitted(made, training=training | {"pauses": [3, 1]})
            history = made.tail.history(session)
            async with asyncio.timeout(60):
                while sum(fact.name == "training.paused" for fact in history.facts) < times:
                    await history.grown(history.size)
            pause = history.state.training.pause
            assert pause is not None
            assert (pause.by, history.state.training.paused_by_plan) == ("plan", history.state.step)
            assert session not in (made.tail.queue.slots if made.tail.queue else {})
            epochs.append(history.state.training.evaluations[-1].epoch)
            await made.commands.verbs["resume"]({"session": session})
            if times == 2:
                state = await until_ended(made, session)
                names = [fact.name for fact in history.facts]
    assert epochs == [1, 3]
    assert isinstance(state.outcome, TrainingCompleted), state.outcome
    assert (state.outcome.weights_digest, windows(made, session)) == (digest, seen)
    assert "windows.reproduced" not in names, "it goes on from where it paused"


async def cancelled_at_rest(made: SwarmNode, session: str) -> int:
    """Cancel a session that rests, which trains no more; how often it was claimed."""
    await made.commands.verbs["cancel"]({"session": session})
    state = await until_ended(made, session)
    assert state.state == "cancelled"
    names = [fact.name for fact in made.tail.history(session).facts]
    assert "window.recorded" not in names[names.index("training.paused") :]
    return names.count("training.claimed")


async def test_a_cancelled_session_ends_cancelled(tmp_path: Path) -> None:
    async with crew(tmp_path / "a", TRAINING) as made:
        session = await submitted(made, training={"epochs": 500, "batch_size": 64})
        await until_said(made, session, "window.recorded")
        await made.commands.verbs["cancel"]({"session": session, "reason": "enough"})
        state = await until_ended(made, session)
        assert state.state == "cancelled"


async def test_a_proposal_rewinds_and_what_was_recorded_after_it_is_off_the_path(tmp_path: Path) -> None:
    async with crew(tmp_path / "a", TRAINING) as made:
        session = await submitted(made, training={"epochs": 30, "batch_size": 64})
        history = made.tail.history(session)
        async with asyncio.timeout(30):
            while history.state.step < 150:
                await history.grown(history.size)
        proposal = InterventionProposed(
            rule="person", segment=1, rewind_to=50, changes={"learning_rate": 0.5}, reason="test", automatic=False
        )
        await made.ground.speak("diagnostician", session, proposal, history.facts[-1].id)
        applied = await until_said(made, session, "intervention.applied")
        assert applied.event.step == 50
        state = await until_ended(made, session)
        assert isinstance(state.outcome, TrainingCompleted), state.outcome
        assert state.outcome.segment == 2
        path = windows(made, session)
        assert [first for first, _, _ in path] == sorted({first for first, _, _ in path})


async def test_a_proposal_for_a_segment_that_is_over_is_declined(tmp_path: Path) -> None:
    async with crew(tmp_path / "a", TRAINING) as made:
        session = await submitted(made, training={"epochs": 30, "batch_size": 64})
        window = await until_said(made, session, "window.recorded")
        proposal = InterventionProposed(
            rule="person", segment=9, rewind_to=0, changes={}, reason="test", automatic=False
        )
        await made.ground.speak("diagnostician", session, proposal, window.id)
        declined = await until_said(made, session, "intervention.declined")
        assert "over" in declined.event.reason
        await until_ended(made, session)


@pytest.mark.parametrize("rate", [1000.0])
async def test_a_diverging_training_is_rewound_and_tamed(tmp_path: Path, rate: float) -> None:
    optimizer = {"type": "sgd", "learning_rate": rate}
    async with crew(tmp_path / "a", TRAINING) as made:
        session = await submitted(made, optimizer=optimizer, training={"epochs": 4, "batch_size": 64})
        state = await until_ended(made, session)
        assert state.training.diagnoses
        assert state.training.segments[1:], "auto_fix rewinds a session whose loss is not finite"


# Checkpoints that cannot be used, the clock, and where time goes.


RARE = {"training": {"epochs": 20, "batch_size": 64}, "checkpoints": {"every_steps": 1000, "keep_last": 8}}
"""Few checkpoints but those of pauses: what is lost is not written anew."""


async def paused(made: SwarmNode, session: str, beyond: int) -> CheckpointWritten:
    """Pause a session beyond a step; the checkpoint of the pause, once its keeper has read it back."""
    history = made.tail.history(session)
    async with asyncio.timeout(30):
        while history.state.step < beyond:
            await history.grown(history.size)
        await made.commands.verbs["pause"]({"session": session})
        while history.state.training.pause is None or history.state.training.path_checkpoints()[-1].stored is None:
            await history.grown(history.size)
    return history.state.training.path_checkpoints()[-1].written


@pytest.mark.parametrize("harm", ["a flipped bit", "gone"])
async def test_a_broken_checkpoint_is_passed_over_for_an_earlier_one_and_the_log_says_so(
    tmp_path: Path, harm: str
) -> None:
    rare = RARE | {"validation": {"every_epochs": 20}}
    digest, seen = await undisturbed(tmp_path / "a", **rare)
    async with crew(tmp_path / "b", TRAINING) as made:
        session = await submitted(made, **rare)
        earlier = await paused(made, session, 50)
        await made.commands.verbs["resume"]({"session": session})
        newest = await paused(made, session, earlier.step + 50)
        damage(made.ground.blobs.path(newest.blob), harm)
        await made.commands.verbs["resume"]({"session": session})
        state = await until_ended(made, session)
        assert isinstance(state.outcome, TrainingCompleted), state.outcome
        assert (state.outcome.weights_digest, windows(made, session)) == (digest, seen)
        refused = await until_said(made, session, "checkpoint.refused")
        assert (refused.event.step, refused.event.instead) == (newest.step, earlier.step)
        corrupt = await until_said(made, session, "checkpoint.corrupt")
        assert (corrupt.event.step, corrupt.envelope.causationid) == (newest.step, refused.id)


def damage(place: Path, harm: str) -> None:
    if harm == "gone":
        place.unlink()
        return
    data = bytearray(place.read_bytes())
    data[len(data) // 2] ^= 1
    place.chmod(0o600)
    place.write_bytes(data)


async def test_a_checkpoint_found_broken_is_written_anew_when_training_passes_it_again(tmp_path: Path) -> None:
    async with crew(tmp_path / "b", TRAINING) as made:
        session = await submitted(made, training={"epochs": 20, "batch_size": 64}, checkpoints={"every_steps": 50})
        await paused(made, session, 150)
        history = made.tail.history(session)
        lost = next(
            one.written for one in reversed(history.state.training.path_checkpoints()) if one.written.step % 50 == 0
        )
        for one in history.state.training.path_checkpoints():
            if one.usable and one.written.step >= lost.step:
                damage(made.ground.blobs.path(one.written.blob), "a flipped bit")
        await made.commands.verbs["resume"]({"session": session})
        state = await until_ended(made, session)
        again = [one for one in state.training.checkpoints if one.written.step == lost.step]
        assert len(again) == 2, "it is news, not a repetition of what was recorded"
        assert made.ground.blobs.check(lost.blob)


async def test_state_is_kept_by_the_clock_at_grid_steps_and_the_bits_are_the_same(tmp_path: Path) -> None:
    digest, _ = await undisturbed(tmp_path / "a")
    async with crew(tmp_path / "b", TRAINING) as made:
        session = await submitted(made, checkpoints={"every_steps": 1000, "every_seconds": 0.001})
        state = await until_ended(made, session)
        assert isinstance(state.outcome, TrainingCompleted), state.outcome
        timed = [one.written for one in state.training.checkpoints if one.written.reason == "timed"]
        assert timed
        assert {one.step for one in timed} <= {last for _, last, _ in windows(made, session)}
        assert state.outcome.weights_digest == digest


@pytest.mark.parametrize("reason", ["drain", "timed"])
def test_what_is_not_finite_is_never_kept_whoever_wants_it(tmp_path: Path, reason: Any) -> None:
    told: list[str] = []
    job: Any = SimpleNamespace(tell=lambda kind, **_: told.append(kind))
    keeper = Keeper(job, DirectoryBlobs(tmp_path), PhaseSeconds())
    for value in (float("nan"), 1.0):
        weights = {"model.weight": torch.full((2, 2), value)}
        plan = SimpleNamespace(segment_at=lambda step: 1)
        run: Any = SimpleNamespace(step=50, plan=plan, aliases={}, tensors=lambda into, found=weights: found)
        keeper.keep(run, reason)
        keeper.finish()
        assert len(told) == (0 if math.isnan(value) else 1)


async def test_an_attempt_says_where_its_time_went_before_the_session_ends(tmp_path: Path) -> None:
    async with crew(tmp_path / "a", TRAINING) as made:
        session = await submitted(made)
        await until_ended(made, session)
        said = [fact for fact in made.tail.history(session).facts if fact.lane == "trainer"]
        assert [fact.name for fact in said][-2:] == ["attempt.ended", "training.completed"]
        seconds = said[-2].event.seconds
        assert {"data", "step", "evaluation", "log", "checkpoint"} <= seconds.keys()
        assert all(one >= 0 for one in seconds.values())
        assert seconds["step"] > 0
