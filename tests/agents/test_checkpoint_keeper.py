from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from agents.checkpoint_keeper.agent import CheckpointKeeper
from bus.blobs import digest_of
from contracts.checkpoint_keeper import CheckpointCorrupt, CheckpointPromoted, CheckpointPruned, CheckpointStored
from contracts.diagnostician import InterventionProposed
from contracts.envelope import Fact
from contracts.operator import ExportRequested
from contracts.trainer import (
    CheckpointRefused,
    CheckpointWritten,
    ControlEvaluated,
    InterventionApplied,
    TrainingClaimed,
    TrainingCompleted,
    WindowRecorded,
)
from contracts.validator import CheckpointValidated, JudgementDetails, ValidationFailed
from runtime.engine import checkpoint
from runtime.jobs.children import Children
from runtime.log import retention
from runtime.log.session_log import SessionLog
from tests.agents.cases import Place, fork_of, of, tell

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVERY = 100


@pytest.fixture
def place(tmp_path: Path, children: Children) -> Place:
    return Place(tmp_path, children)


@pytest.fixture
def keeper(place: Place) -> CheckpointKeeper:
    return CheckpointKeeper(place.ground)


def session(place: Place, seed: int = 1, initial: str | None = None, **limits: int) -> SessionLog:
    kept = {"keep_last": 1, "keep_best": 1, "anchors": 2} | limits
    request = {
        "data": {"source": "digits"},
        "model": {"architecture": "linear"},
        "checkpoints": kept,
        "reproducibility": {"seed": seed},
    }
    history = place.session(request)
    claimed = TrainingClaimed(
        epoch=1,
        worker="here",
        incarnation="1",
        segment=1,
        resumed_from=0,
        dataset="d" * 64,
        resolved={"every_steps": EVERY, "steps_total": 2000},
        engine_bits=1,
        fingerprint="f" * 64,
        families={},
        environment={},
        sources={},
        initial=initial,
    )
    tell(history, "trainer", claimed)
    return history


def state_of(step: int, salt: int = 0) -> bytes:
    """A small but real checkpoint of some step."""
    tensors = {"model.weight": torch.full((4, 4), float(step + salt)), "optimizer.step": torch.tensor(step)}
    return checkpoint.pack(checkpoint.seal(tensors, step))


def write(place: Place, history: SessionLog, at: int, reason: Any = "planned", **wrong: Any) -> Fact:
    """What a trainer does at a checkpoint: the bytes, then the event."""
    data = state_of(at)
    sealed = checkpoint.unpack(data)
    about = {
        "segment": history.state.training.segment.number,
        "step": at,
        "reason": reason,
        "state_root": sealed.state_root,
        "weights_digest": sealed.weights_digest,
        "blob": place.blobs.put(data),
        "bytes": len(data),
    }
    (fact,) = tell(history, "trainer", CheckpointWritten(**about | wrong))
    return fact


def evaluate(history: SessionLog, step: int, *, improved: bool = True) -> None:
    seen = ControlEvaluated(
        segment=history.state.training.segment.number,
        step=step,
        epoch=1,
        values={"val_loss": 1.0 / (step + 1)},
        metric="val_loss",
        improved=improved,
        best=1.0,
        best_step=step,
        patience_left=1,
        stop=False,
    )
    tell(history, "trainer", seen)


def judged(history: SessionLog, stored: CheckpointStored) -> Fact:
    verdict = CheckpointValidated(
        segment=stored.segment,
        step=stored.step,
        blob=stored.blob,
        split="val",
        rows=1,
        metrics={},
        control="reproduced",
        details=JudgementDetails(),
    )
    (fact,) = tell(history, "validator", verdict)
    return fact


def steps_of(events: list[Any]) -> list[int]:
    return [event.step for event in events]


async def keep(place: Place, keeper: CheckpointKeeper, history: SessionLog, *steps: int) -> list[Any]:
    said = []
    for step in steps:
        said += await place.react(keeper, "keep", history, write(place, history, step))
    return said


# Reading back.


async def test_a_sound_checkpoint_is_stored_with_its_size_and_roles(place: Place, keeper: CheckpointKeeper) -> None:
    history = session(place)
    fact = write(place, history, 0)
    (stored,) = await place.react(keeper, "keep", history, fact)
    assert isinstance(stored, CheckpointStored)
    assert (stored.step, stored.kept_as, stored.bytes) == (0, ["last", "anchor"], len(state_of(0)))
    assert stored.state_root == fact.event.state_root  # type: ignore[attr-defined]
    assert retention.holders(place.blobs.root, stored.blob) == [history.id]


async def test_a_flipped_bit_is_corrupt_and_says_which_digest(place: Place, keeper: CheckpointKeeper) -> None:
    history = session(place)
    fact = write(place, history, 0)
    path = place.blobs.path(fact.event.blob)  # type: ignore[attr-defined]
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.chmod(0o600)
    path.write_bytes(damaged)
    (corrupt,) = await place.react(keeper, "keep", history, fact)
    assert isinstance(corrupt, CheckpointCorrupt)
    assert digest_of(bytes(damaged)) in corrupt.reason
    assert retention.holders(place.blobs.root, corrupt.blob) == []
    assert history.state.training.checkpoint("last") is None


async def test_a_missing_blob_is_corrupt(place: Place, keeper: CheckpointKeeper) -> None:
    history = session(place)
    fact = write(place, history, 0)
    place.blobs.remove(fact.event.blob)  # type: ignore[attr-defined]
    (corrupt,) = await place.react(keeper, "keep", history, fact)
    assert isinstance(corrupt, CheckpointCorrupt)
    assert "there is no blob" in corrupt.reason


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"state_root": "0" * 64}, "has the root"),
        ({"weights_digest": "0" * 64}, "has the weights_digest"),
        ({"step": 7}, "has the step 0"),
    ],
)
async def test_a_checkpoint_that_is_not_what_the_log_says_is_corrupt(
    place: Place, keeper: CheckpointKeeper, wrong: dict[str, Any], says: str
) -> None:
    history = session(place)
    (corrupt,) = await place.react(keeper, "keep", history, write(place, history, 0, **wrong))
    assert isinstance(corrupt, CheckpointCorrupt)
    assert says in corrupt.reason


async def test_bytes_that_are_no_checkpoint_are_corrupt(place: Place, keeper: CheckpointKeeper) -> None:
    history = session(place)
    fact = write(place, history, 0, blob=place.blobs.put(b"not a checkpoint"))
    (corrupt,) = await place.react(keeper, "keep", history, fact)
    assert "not a checkpoint of ours" in corrupt.reason


# Best, last, anchors.


async def test_the_best_on_the_path_is_promoted_once(place: Place, keeper: CheckpointKeeper) -> None:
    history = session(place)
    await keep(place, keeper, history, 0)
    evaluate(history, 150)
    first = await place.react(keeper, "keep", history, write(place, history, 150, "best"))
    again = await place.react(keeper, "keep", history, write(place, history, 150, "final"))
    assert steps_of(of(CheckpointPromoted, first)) == [150]
    assert of(CheckpointStored, first)[0].kept_as == ["best", "last"]
    assert of(CheckpointPromoted, again) == []


async def test_only_the_newest_are_kept_as_last(place: Place, keeper: CheckpointKeeper) -> None:
    history = session(place, keep_last=2)
    said = await keep(place, keeper, history, 0, 110, 120, 130)
    assert steps_of(of(CheckpointPruned, said)) == [110]
    assert [kept.written.step for kept in history.state.training.path_checkpoints() if kept.usable] == [0, 120, 130]


async def test_only_the_best_are_kept_as_best_once_they_are_judged(place: Place, keeper: CheckpointKeeper) -> None:
    history = session(place)
    await keep(place, keeper, history, 0)
    stored = []
    for step in (110, 120, 130):
        evaluate(history, step)
        said = await place.react(keeper, "keep", history, write(place, history, step, "best"))
        assert of(CheckpointPruned, said) == []
        stored += of(CheckpointStored, said)
    pruned = [await place.react(keeper, "tidy", history, judged(history, one)) for one in stored]
    assert [steps_of(one) for one in pruned] == [[110], [120], []]


async def test_a_checkpoint_that_failed_to_be_judged_may_go(place: Place, keeper: CheckpointKeeper) -> None:
    history = session(place)
    evaluate(history, 110)
    (stored, _) = await place.react(keeper, "keep", history, write(place, history, 110, "best"))
    failed = ValidationFailed(segment=1, step=110, blob=stored.blob, code="not-found", message="gone")
    (fact,) = tell(history, "validator", failed, cause=list(history.state.training.checkpoints)[-1].stored_id)
    evaluate(history, 120)
    await place.react(keeper, "keep", history, write(place, history, 120, "best"))
    assert steps_of(await place.react(keeper, "tidy", history, fact)) == []
    assert next(iter(history.state.training.checkpoints)).gone == "pruned"


async def test_with_the_final_checkpoint_former_bests_go_that_nobody_judged(
    place: Place, keeper: CheckpointKeeper
) -> None:
    history = session(place)
    await keep(place, keeper, history, 0)
    for step in (110, 120):
        evaluate(history, step)
        await place.react(keeper, "keep", history, write(place, history, step, "best"))
    said = await place.react(keeper, "keep", history, write(place, history, 130, "final"))
    assert steps_of(of(CheckpointPruned, said)) == [110]


async def test_an_ended_session_is_left_as_it_is(place: Place, keeper: CheckpointKeeper) -> None:
    history = session(place)
    evaluate(history, 110)
    (stored, _) = await place.react(keeper, "keep", history, write(place, history, 110, "best"))
    evaluate(history, 120)
    await place.react(keeper, "keep", history, write(place, history, 120, "best"))
    end(history, 120)
    assert await place.react(keeper, "tidy", history, judged(history, stored)) == []


def end(history: SessionLog, step: int) -> None:
    done = TrainingCompleted(
        segment=1,
        step=step,
        epochs=1,
        stopped_early=False,
        best_step=step,
        weights_digest="a" * 64,
        state_root="a" * 64,
        final_blob="a" * 64,
        values={},
    )
    tell(history, "trainer", done)


@pytest.mark.parametrize(
    ("newest", "kept"),
    [
        (0, [0]),
        (2, [0, 1, 2]),
        (3, [0, 1, 2, 3]),
        (4, [0, 2, 4]),
        (7, [0, 2, 4, 6]),
        (8, [0, 4, 8]),
        (100, [0, 32, 64, 96]),
    ],
)
async def test_anchors_are_evenly_spaced_and_thinned_by_doubling(newest: int, kept: list[int]) -> None:
    steps = [number * EVERY for number in range(newest + 1)] + [37, 250]
    found = retention.anchors([step for step in steps if step <= newest * EVERY], EVERY, 3)
    assert sorted(found) == [number * EVERY for number in kept]


async def test_thinning_as_training_goes_on_gives_the_anchors_of_the_whole() -> None:
    kept: set[int] = set()
    for number in range(1000):
        kept = retention.anchors({*kept, number * EVERY}, EVERY, 16)
        assert 0 in kept
        assert len(kept) <= 17
    assert kept == retention.anchors([number * EVERY for number in range(1000)], EVERY, 16)


async def test_anchors_are_pruned_as_training_goes_on(place: Place, keeper: CheckpointKeeper) -> None:
    history = session(place)
    said = await keep(place, keeper, history, 0, 100, 200, 300, 400)
    assert steps_of(of(CheckpointPruned, said)) == [100, 300]
    assert history.state.training.checkpoint(0) is not None


def kept_steps(history: SessionLog) -> set[int]:
    return {one.written.step for one in history.state.training.checkpoints if one.usable}


async def test_a_budget_leaves_room_for_the_best_and_the_last_first_and_thins_the_anchors(
    place: Place, keeper: CheckpointKeeper
) -> None:
    size = len(state_of(0))
    history = session(place, anchors=16, budget_bytes=5 * size)
    evaluate(history, 150)
    await keep(place, keeper, history, 0, 100, 150, 200, 300, 400, 500)
    assert kept_steps(history) == {0, 150, 200, 400, 500}


async def test_a_budget_too_small_for_anything_still_keeps_the_best_and_the_last(
    place: Place, keeper: CheckpointKeeper
) -> None:
    history = session(place, budget_bytes=1)
    evaluate(history, 150)
    await keep(place, keeper, history, 0, 100, 150, 200)
    assert kept_steps(history) == {0, 150, 200}, "step 0 is what the trainer would resume from"
    await place.react(keeper, "keep", history, write(place, history, 300, "final"))
    assert kept_steps(history) == {150, 300}


async def test_what_is_off_the_path_may_go_and_what_it_stands_on_stays(place: Place, keeper: CheckpointKeeper) -> None:
    history = session(place, anchors=16, keep_last=2)
    await keep(place, keeper, history, 0, 100, 200, 300)
    applied = InterventionApplied(proposal="p", by="rules", segment=2, step=100, changes={}, reproducible=True)
    tell(history, "trainer", applied)
    said = await keep(place, keeper, history, 200)
    assert [(one.segment, one.step) for one in of(CheckpointPruned, said)] == [(1, 200), (1, 300)]


async def test_what_was_not_read_back_yet_is_never_pruned(place: Place, keeper: CheckpointKeeper) -> None:
    history = session(place)
    write(place, history, 110)
    said = await keep(place, keeper, history, 120)
    assert of(CheckpointPruned, said) == []


async def test_late_reading_does_not_prune_twice(place: Place, keeper: CheckpointKeeper) -> None:
    history = session(place)
    facts = [write(place, history, step) for step in (0, 110, 120, 130)]
    said = [event for fact in facts for event in await place.react(keeper, "keep", history, fact)]
    assert steps_of(of(CheckpointPruned, said)) == [110, 120]
    assert of(CheckpointStored, said)[1].kept_as == []


# Obligations.


async def test_a_checkpoint_that_a_proposal_rewinds_to_stays(place: Place, keeper: CheckpointKeeper) -> None:
    history = session(place, anchors=1)
    await keep(place, keeper, history, 0, 100)
    proposal = InterventionProposed(
        rule="spike", segment=1, rewind_to=100, changes={}, reason="because", automatic=True
    )
    tell(history, "diagnostician", proposal)
    assert of(CheckpointPruned, await keep(place, keeper, history, 200)) == []


async def test_a_checkpoint_that_is_to_be_exported_stays(place: Place, keeper: CheckpointKeeper) -> None:
    history = session(place)
    await keep(place, keeper, history, 110)
    tell(history, "operator", ExportRequested(asked_by="me", format="onnx", checkpoint="110"))
    assert of(CheckpointPruned, await keep(place, keeper, history, 120)) == []


async def test_a_checkpoint_that_a_trainer_resumes_from_stays(place: Place, keeper: CheckpointKeeper) -> None:
    history = session(place)
    await keep(place, keeper, history, 0, 110)
    claim = history.state.training.claim
    assert claim is not None
    tell(history, "trainer", claim.model_copy(update={"epoch": 2, "resumed_from": 110}))
    assert of(CheckpointPruned, await keep(place, keeper, history, 120)) == []


# Doubts.


def refuse(history: SessionLog, written: CheckpointWritten) -> Fact:
    """What a trainer says that could not begin from a checkpoint."""
    about = {name: getattr(written, name) for name in ("segment", "step", "blob")}
    (fact,) = tell(history, "trainer", CheckpointRefused(**about, reason="damaged", instead=0))
    return fact


@pytest.mark.parametrize("broken", [True, False])
async def test_a_checkpoint_that_a_trainer_could_not_use_is_looked_at_again(
    place: Place, keeper: CheckpointKeeper, broken: bool
) -> None:
    history = session(place)
    written = write(place, history, 110)
    await place.react(keeper, "keep", history, written)
    if broken:
        place.blobs.remove(written.event.blob)
    said = await place.react(keeper, "doubt", history, refuse(history, written.event))
    assert steps_of(of(CheckpointCorrupt, said)) == ([110] if broken else [])
    assert next(iter(history.state.training.checkpoints)).usable is not broken


async def test_a_doubt_about_what_was_pruned_meanwhile_says_nothing(place: Place, keeper: CheckpointKeeper) -> None:
    history = session(place)
    written = write(place, history, 110)
    await place.react(keeper, "keep", history, written)
    await keep(place, keeper, history, 120)
    assert await place.react(keeper, "doubt", history, refuse(history, written.event)) == []


# Deleting.


async def pruned_fact(place: Place, keeper: CheckpointKeeper, history: SessionLog) -> Fact:
    await keep(place, keeper, history, 110, 120)
    return next(fact for fact in history.facts if isinstance(fact.event, CheckpointPruned))


async def test_pruned_bytes_are_deleted_and_deleting_again_does_nothing(place: Place, keeper: CheckpointKeeper) -> None:
    history = session(place)
    fact = await pruned_fact(place, keeper, history)
    blob = digest_of(state_of(110))
    assert place.blobs.has(blob)
    for _ in range(2):
        await place.react(keeper, "let_go", history, fact)
        assert not place.blobs.has(blob)
        assert retention.holders(place.blobs.root, blob) == []
    assert place.blobs.has(digest_of(state_of(120)))


async def test_bytes_that_another_session_keeps_stay(place: Place, keeper: CheckpointKeeper) -> None:
    theirs = session(place, seed=2)
    await keep(place, keeper, theirs, 110)
    # Sealed long ago: nobody remembers it, only its mark is left.
    del place.histories[theirs.id]
    history = session(place)
    fact = await pruned_fact(place, keeper, history)
    await place.react(keeper, "let_go", history, fact)
    assert place.blobs.has(digest_of(state_of(110)))
    assert retention.holders(place.blobs.root, digest_of(state_of(110))) == [theirs.id]


async def test_bytes_that_an_equal_session_may_be_about_to_name_stay(place: Place, keeper: CheckpointKeeper) -> None:
    twin = session(place)
    history = session(place)
    fact = await pruned_fact(place, keeper, history)
    await place.react(keeper, "let_go", history, fact)
    assert place.blobs.has(digest_of(state_of(110)))
    end(twin, 120)
    await place.react(keeper, "let_go", history, fact)
    assert not place.blobs.has(digest_of(state_of(110)))


async def test_bytes_in_which_a_fork_begins_stay(place: Place, keeper: CheckpointKeeper) -> None:
    history = session(place)
    fact = await pruned_fact(place, keeper, history)
    request = {"data": {"source": "digits"}, "model": {"architecture": "mlp"}}
    place.session(request, fork=fork_of(history, 110, blob=digest_of(state_of(110))))
    await place.react(keeper, "let_go", history, fact)
    assert place.blobs.has(digest_of(state_of(110)))


async def test_bytes_that_were_written_again_since_stay(place: Place, keeper: CheckpointKeeper) -> None:
    history = session(place)
    fact = await pruned_fact(place, keeper, history)
    await place.react(keeper, "let_go", history, fact)
    place.blobs.put(state_of(110))
    await place.react(keeper, "let_go", history, fact)
    assert place.blobs.has(digest_of(state_of(110)))


async def test_bytes_that_another_checkpoint_of_the_session_has_stay(place: Place, keeper: CheckpointKeeper) -> None:
    history = session(place)
    fact = await pruned_fact(place, keeper, history)
    other = fact.event.model_copy(update={"blob": digest_of(state_of(120))})
    (same,) = tell(history, "checkpoint_keeper", other.model_copy(update={"step": 999}))
    await place.react(keeper, "let_go", history, same)
    assert place.blobs.has(digest_of(state_of(120)))


async def test_bytes_that_the_session_begins_with_stay(place: Place, keeper: CheckpointKeeper) -> None:
    history = session(place, initial=digest_of(state_of(110)))
    fact = await pruned_fact(place, keeper, history)
    await place.react(keeper, "let_go", history, fact)
    assert place.blobs.has(digest_of(state_of(110)))


async def test_windows_change_nothing_for_the_keeper() -> None:
    assert WindowRecorded not in CheckpointKeeper.hears()
