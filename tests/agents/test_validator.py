from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import sklearn.metrics
import torch

from agents.data_manager.agent import DataManager
from agents.validator import jobs
from agents.validator.agent import Validator
from agents.validator.tasks import tasks
from contracts.checkpoint_keeper import CheckpointPruned, CheckpointStored
from contracts.data_manager import DatasetPrepared
from contracts.envelope import Fact
from contracts.trainer import CheckpointWritten, ControlEvaluated, TrainingClaimed
from contracts.validator import CheckpointValidated, ValidationFailed
from runtime.engine import checkpoint
from runtime.engine.dataset import Dataset
from runtime.home.workloads import Workloads, inspect_file
from runtime.jobs.children import Children
from runtime.log.session_log import SessionLog
from tests.agents.cases import Place, tell
from tests.agents.training_for_tests import TrainedOrder, train_to_its_end

pytestmark = pytest.mark.asyncio(loop_scope="module")

DIGITS = {
    "data": {"source": "digits"},
    "model": {"architecture": "mlp", "hidden": [16], "dropout": 0.2},
    "training": {"epochs": 2},
    "validation": {"test_set": True},
}
DIABETES = {"data": {"source": "diabetes"}, "model": {"architecture": "linear"}, "training": {"epochs": 2}}
EXAMPLE = Path(__file__).parents[2] / "examples" / "workload" / "mine.py"
MINE = {
    "data": {"source": "workload", "workload": "mine"},
    "model": {"architecture": "workload", "workload": "mine", "options": {"width": 4}},
    "training": {"epochs": 2},
    "validation": {"metrics": ["accuracy"]},
}


class Trained:
    """A session that was prepared by the data manager, trained by the engine, and told as a trainer tells it."""

    def __init__(self, place: Place, history: SessionLog, told: dict[str, Any]) -> None:
        self.place, self.history, self.told = place, history, told
        self.claim(told["claim"])
        for seen in told["evaluations"]:
            tell(history, "trainer", ControlEvaluated.model_validate(seen))

    def claim(self, about: dict[str, Any]) -> None:
        rest = {"epoch": 1, "worker": "w", "incarnation": "1", "segment": 1, "resumed_from": 0, "environment": {}}
        dataset = self.history.state.training.dataset
        assert dataset is not None
        tell(self.history, "trainer", TrainingClaimed(dataset=dataset.root, sources={}, **rest, **about))

    def written(self, reason: str) -> dict[str, Any]:
        return next(one for one in reversed(self.told["written"]) if one["reason"] == reason)

    def stored(self, written: dict[str, Any], **changed: Any) -> Fact:
        """What trainer and keeper say about a checkpoint."""
        event = CheckpointWritten.model_validate(written | changed)
        (fact,) = tell(self.history, "trainer", event)
        about = event.model_dump(include={"segment", "step", "blob", "state_root", "bytes"})
        (kept,) = tell(self.history, "checkpoint_keeper", CheckpointStored(**about, kept_as=["last"]), cause=fact.id)
        return kept

    async def judged(self, written: dict[str, Any], **changed: Any) -> list[Any]:
        fact = self.stored(written, **changed)
        return await self.place.react(Validator(self.place.ground), "judge", self.history, fact)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory, children: Children) -> Place:
    return Place(tmp_path_factory.mktemp("place"), children)


@pytest.fixture(scope="module")
def mine(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "mine.py"
    path.write_text(EXAMPLE.read_text())
    Workloads(place.ground.home.root)._write({"mine": inspect_file(str(path))})
    return path


TOLD: dict[str, Mapping[str, Any]] = {}
"""What training a request told: the same each time, so it is trained once."""


async def train(place: Place, request: dict[str, Any]) -> Trained:
    history = place.session(request)
    (said,) = await place.react(DataManager(place.ground), "prepare", history, history.facts[0])
    assert isinstance(said, DatasetPrepared), said
    asked = history.state.request
    order = TrainedOrder(asked, said.root, place.blobs.root, Workloads(place.ground.home.root).needed(asked))
    key = str(request)
    if key not in TOLD:
        TOLD[key] = await place.ground.children.run(train_to_its_end, order)
    return Trained(place, history, TOLD[key])


async def test_the_control_metric_is_reproduced_bit_for_bit_and_the_rest_is_added(place: Place) -> None:
    trained = await train(place, DIGITS)
    best = trained.written("final")
    verdict, _ = await trained.judged(best)
    recorded = trained.history.state.training.evaluations[-1].values
    assert isinstance(verdict, CheckpointValidated)
    assert verdict.control == "reproduced"
    assert (verdict.split, verdict.rows, verdict.step) == ("val", 180, best["step"])
    assert {f"val_{name}": value for name, value in verdict.metrics.items()} == recorded
    assert set(verdict.metrics) == {"loss", "accuracy", "f1_macro"}


async def test_the_figures_are_those_that_scikit_learn_computes(place: Place) -> None:
    trained = await train(place, DIGITS)
    verdict, _ = await trained.judged(trained.written("final"))
    dataset = trained.history.state.training.dataset
    assert dataset is not None
    rows = Dataset.open(place.blobs.root / "datasets" / dataset.root)
    from contracts.request import Request

    tensors = checkpoint.unpack(place.blobs.get(verdict.blob)).tensors
    model = checkpoint.load_model(Request.model_validate(trained.history.state.request), rows.facts, tensors)
    val = rows.columns("val")
    said = model(torch.from_numpy(np.array(val["x"]))).argmax(1).numpy()
    wanted = sklearn.metrics.classification_report(val["y"], said, output_dict=True, zero_division=np.nan)
    assert verdict.metrics["accuracy"] == pytest.approx(wanted["accuracy"])
    assert verdict.metrics["f1_macro"] == pytest.approx(sklearn.metrics.f1_score(val["y"], said, average="macro"))
    assert verdict.details.confusion == sklearn.metrics.confusion_matrix(val["y"], said).tolist()
    for one in verdict.details.per_class:
        theirs = wanted[one.label]
        assert (one.precision is None) == bool(np.isnan(theirs["precision"]))
        assert one.recall == pytest.approx(theirs["recall"])
        assert one.rows == theirs["support"]


async def test_the_test_rows_are_met_once_by_the_best_when_training_is_over(place: Place) -> None:
    trained = await train(place, DIGITS)
    best = trained.written("best")
    assert [one.split for one in await trained.judged(best)] == ["val"]
    val, test = await trained.judged(trained.written("final"))
    assert (val.split, test.split, test.rows) == ("val", "test", 180)
    assert test.step == trained.history.state.training.best.step  # type: ignore[union-attr]
    assert test.control == "not-comparable"


async def test_without_a_wish_the_test_rows_stay_unseen(place: Place) -> None:
    trained = await train(place, DIABETES)
    assert [one.split for one in await trained.judged(trained.written("final"))] == ["val"]


async def test_numbers_are_judged_by_their_errors(place: Place) -> None:
    trained = await train(place, DIABETES)
    (verdict,) = await trained.judged(trained.written("final"))
    assert verdict.control == "reproduced"
    assert set(verdict.metrics) == {"loss", "rmse", "mae", "r2"}
    assert verdict.details.errors.largest >= verdict.details.errors.p90_absolute > 0


async def test_planned_checkpoints_are_not_judged(place: Place) -> None:
    trained = await train(place, DIABETES)
    assert await trained.judged(trained.written("planned")) == []


async def test_a_session_of_a_workload_is_judged_like_any_other(place: Place, mine: Path) -> None:
    trained = await train(place, MINE)
    (verdict,) = await trained.judged(trained.written("final"))
    assert verdict.control == "reproduced"
    assert set(verdict.metrics) == {"loss", "accuracy"}


# When bits differ.


async def test_other_bits_with_the_same_fingerprint_are_an_incident(place: Place) -> None:
    trained = await train(place, DIABETES)
    _forge(trained)
    (verdict,) = await trained.judged(trained.written("final"))
    assert verdict.control == "differs"
    recorded, computed = verdict.details.control.recorded_and_computed["val_loss"]
    assert float.fromhex(recorded) == float.fromhex(computed) * 2


CHEATING = """

from agents.validator import jobs, tasks

jobs._compared = jobs.compare_control = tasks.compare_control = lambda *_: ("reproduced", {})
tasks.differing_values = lambda *_: {}
"""


async def test_code_that_changes_the_comparing_functions_cannot_make_a_difference_a_reproduction(
    place: Place, mine: Path
) -> None:
    trained = await train(place, MINE)
    mine.write_text(mine.read_text() + CHEATING)
    Workloads(place.ground.home.root)._write({"mine": inspect_file(str(mine))})
    _forge(trained)
    (verdict,) = await trained.judged(trained.written("final"))
    assert verdict.control == "differs"


async def test_other_bits_with_another_fingerprint_are_not_comparable_and_name_the_families(place: Place) -> None:
    trained = await train(place, DIABETES)
    _forge(trained)
    families = trained.told["claim"]["families"]
    name = min(families)
    trained.claim(trained.told["claim"] | {"fingerprint": "0" * 64, "families": families | {name: "other"}})
    (verdict,) = await trained.judged(trained.written("final"))
    assert verdict.control == "not-comparable"
    assert verdict.details.control.families == [name]


async def test_without_the_device_that_trained_a_checkpoint_is_judged_and_not_comparable(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    trained = await train(place, DIABETES)
    _forge(trained)
    resolved = trained.told["claim"]["resolved"] | {"device": "cuda"}
    trained.claim(trained.told["claim"] | {"resolved": resolved, "fingerprint": "0" * 64})
    (verdict,) = await trained.judged(trained.written("final"))
    assert verdict.control == "not-comparable"
    assert verdict.details.control.reason == "another numeric fingerprint"


async def test_other_engine_bits_are_not_comparable(place: Place) -> None:
    trained = await train(place, DIABETES)
    _forge(trained)
    trained.claim(trained.told["claim"] | {"engine_bits": 999})
    (verdict,) = await trained.judged(trained.written("final"))
    assert verdict.control == "not-comparable"
    assert "999" in verdict.details.control.reason


def _forge(trained: Trained) -> None:
    """Record the last evaluation again with another loss."""
    seen = trained.history.state.training.evaluations[-1]
    wrong = seen.values | {"val_loss": seen.values["val_loss"] * 2}
    tell(trained.history, "trainer", seen.model_copy(update={"values": wrong}))


# When there is nothing to judge.


async def test_a_checkpoint_whose_blob_is_gone_fails_validation(place: Place) -> None:
    trained = await train(place, DIABETES)
    (failed,) = await trained.judged(trained.written("final"), blob="e" * 64)
    assert isinstance(failed, ValidationFailed)
    assert failed.code == "not-found"
    assert "e" * 64 in failed.message


async def test_a_checkpoint_with_another_root_fails_validation(place: Place) -> None:
    trained = await train(place, DIABETES)
    (failed,) = await trained.judged(trained.written("final"), state_root="0" * 64)
    assert failed.code == "not-verified"


async def test_a_changed_workload_fails_validation_with_the_cure(place: Place, mine: Path) -> None:
    trained = await train(place, MINE)
    mine.write_text(EXAMPLE.read_text() + "# changed\n")
    (failed,) = await trained.judged(trained.written("final"))
    assert failed.code == "not-verified"
    assert "swarm workload add" in failed.message


async def test_a_former_best_that_was_let_go_is_not_judged(place: Place) -> None:
    trained = await train(place, DIABETES)
    fact = trained.stored(trained.written("final"))
    event = fact.event
    assert isinstance(event, CheckpointStored)
    gone = CheckpointPruned(segment=event.segment, step=event.step, blob=event.blob, freed_bytes=1)
    tell(trained.history, "checkpoint_keeper", gone)
    assert await place.react(Validator(place.ground), "judge", trained.history, fact) == []


async def test_values_of_a_superseded_segment_are_not_those_of_the_path(place: Place) -> None:
    trained = await train(place, DIABETES)
    seen = trained.history.state.training.evaluations[-1]
    tell(trained.history, "trainer", seen.model_copy(update={"segment": 2, "values": {"val_loss": 1.0}}))
    fact = trained.stored(trained.written("final"))
    state, event = trained.history.state, fact.event
    assert isinstance(event, CheckpointStored)
    (task,) = tasks(event, state, trained.history.facts)
    assert task.recorded == seen.values


# What stands in the details.


async def test_calibration_is_the_mean_gap_between_confidence_and_truth() -> None:
    answers = np.log(np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]]))
    found = jobs.calibration(answers, np.array([0, 1, 0, 0]))
    assert found is not None
    assert found.ece == pytest.approx((abs(1.8 - 1) + abs(1.2 - 1)) / 4)
    assert [one.rows for one in found.bins] == [2, 2]


async def test_answers_that_are_not_finite_have_no_calibration() -> None:
    answers = np.array([[np.nan, 1.0], [0.0, 1.0]], np.float32)
    found = jobs.of_classes(answers, np.array([0, 1]), ("a", "b"))
    assert found.calibration is None
    assert jobs.of_numbers(answers[:, 0], np.array([0.0, 1.0])).errors is None


async def test_of_many_classes_only_those_most_mixed_up_are_listed() -> None:
    truth = np.arange(100)
    answers = np.eye(100)[np.where(truth == 7, 8, truth)]
    found = jobs.of_classes(answers, truth, tuple(f"c{n}" for n in range(100)))
    assert found.model_dump()["confused"] == [{"is": "c7", "said": "c8", "rows": 1}]
    assert "confusion" not in found.model_dump()
