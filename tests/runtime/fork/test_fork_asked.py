"""What may be asked of a fork is told with its cure, and what was asked stands whole in the genesis."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from agents.trainer.decisions import hopeless_proposals
from contracts.checkpoint_keeper import CheckpointPruned, CheckpointStored
from contracts.commands import ForkCommand
from contracts.diagnostician import InterventionProposed
from contracts.errors import InvalidInput, InvalidRequest, Refused, SwarmError
from contracts.request import read_request
from contracts.trainer import CheckpointWritten, InterventionApplied, TrainingPaused
from runtime import audit
from runtime.audit.log_check import make_bundle
from runtime.bundle import verify_bundle
from runtime.cli.forks import row_names as rows_given
from runtime.cli.main import swarm
from runtime.commands import requests
from runtime.diagnosis.evidence import Evidence
from runtime.fork.genesis import ForkGenesis, ForkRequest, fork_genesis, joined_runs
from runtime.log import retention
from runtime.log.archive import Archive
from runtime.replay.initial_state import LONGEST_LIST, InheritedPlan
from tests.agents.preparing import Bench
from tests.runtime.recorded_home import DIGEST, RecordedHome, claimed, evaluated, window

SECTIONS = {
    "data": {"source": "iris"},
    "model": {"architecture": "mlp", "hidden": [8]},
    "optimizer": {"type": "sgd", "momentum": 0.9},
    "loss": {"type": "cross_entropy"},
    "gradients": [{"type": "grokfast"}],
    "training": {"epochs": 40, "batch_size": 40, "ema": {"decay": 0.9}},
    "early_stopping": {"patience": 3},
}
REQUEST = read_request(SECTIONS).resolved()
RESOLVED = {"rows": 120, "batch": 40, "accumulate": 1, "steps_total": 120, "profile": "exact", "window": 50}
RESOLVED |= {"every_steps": 100}


class Told(RecordedHome):
    """Sessions over iris that were told and not trained."""

    def __init__(self, root: Path) -> None:
        super().__init__(root / "home")
        bench = Bench(root)
        bench.store = self.home.blobs / "datasets"
        self.ready = bench.prepared({"source": "iris"})

    def parent(self, *more: Any, **resolved: Any) -> str:
        """Steps 0 to 100 in two windows, a checkpoint of step 50, whatever follows."""
        session = self.requested(**REQUEST)
        self.say(session, "data_manager", self.ready)
        claim = claimed().model_copy(update={"resolved": RESOLVED | resolved, "dataset": self.ready.root})
        self.say(session, "trainer", claim, window(0, 50), evaluated(50, 0.5), written(50))
        self.say(session, "trainer", window(50, 100), evaluated(100, 0.25), *(more or (PAUSED,)))
        return session

    def forked(self, session: str, step: int = 50, **about: Any) -> ForkGenesis:
        return fork_genesis(Archive(self.home).read(session).history, ForkRequest(step, **about), self.blobs)


PAUSED = TrainingPaused(by="person", segment=1, step=100)


def written(step: int, segment: int = 1) -> CheckpointWritten:
    about = {"state_root": DIGEST, "weights_digest": DIGEST, "blob": "b" * 64, "bytes": 12}
    return CheckpointWritten(segment=segment, step=step, reason="planned", **about)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    return Told(tmp_path_factory.mktemp("asked"))


@pytest.fixture(scope="module")
def parent(told: Told) -> str:
    return told.parent()


def test_the_genesis_names_parent_step_state_and_change(told: Told, parent: str) -> None:
    made = told.forked(parent, set={"optimizer.learning_rate": 0.5, "training.epochs": 50}, without=((3, 4), (9, 9)))
    assert made.request["optimizer"]["learning_rate"] == 0.5
    about = made.fork
    assert (about.session, about.step, about.segment, about.weights_digest) == (parent, 50, 1, DIGEST)
    assert (about.state_root, about.blob, about.dataset) == (DIGEST, "b" * 64, told.ready.root)
    assert (about.resolved, about.changes) == (RESOLVED, [])
    assert about.set == {"optimizer.learning_rate": 0.5, "training.epochs": 50}
    assert about.rows_without == 3
    assert [(one.step, one.value) for one in about.evaluations] == [(50, 0.5)]


def test_one_option_may_be_set_of_those_that_are_recorded_only_where_they_say_something(
    told: Told, parent: str
) -> None:
    unset = {"training.needs.devices": 0}
    made = told.forked(parent, set=unset)
    assert (made.request, made.fork.set) == (REQUEST, unset)
    some = {"training.needs.memory_bytes": 77, "training.needs.devices": 0}
    made = told.forked(parent, set=some)
    assert made.request["training"]["needs"] == {"memory_bytes": 77}  # type: ignore[index]
    assert made.fork.set == some


def test_only_what_differs_from_the_parent_differs_in_the_request(told: Told, parent: str) -> None:
    assert told.forked(parent).request == REQUEST
    begun = read_request(SECTIONS | {"model": {"architecture": "mlp", "init": "/w.safetensors"}}).resolved()
    session = told.requested(**begun)
    told.say(session, "data_manager", told.ready)
    told.say(session, "trainer", claimed().model_copy(update={"resolved": RESOLVED}), window(0, 50), evaluated(50, 1.0))
    told.say(session, "trainer", window(50, 100))
    assert told.forked(session).request["model"]["init"] is None, "what it began with is in its state"


@pytest.mark.parametrize("step", [1, 49, 51, 200])
def test_a_step_off_the_grid_is_refused_with_the_nearest_ones(told: Told, parent: str, step: int) -> None:
    with pytest.raises(InvalidInput, match=f"step {step} is no grid step") as refused:
        told.forked(parent, step)
    assert refused.value.cure == {200: "The nearest are 50 or 100.", 1: "The nearest are 0 or 50."}.get(
        step, "The nearest are 50 or 100." if step > 50 else "The nearest are 0 or 50."
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("data.source", "wine"),
        ("model.hidden", [16]),
        ("optimizer.type", "adam"),
        ("optimizer.momentum", 0.0),
        ("gradients", []),
        ("training.batch_size", 20),
        ("training.accumulate", 2),
        ("training.ema.decay", 0.0),
        ("checkpoints.every_steps", 10),
        ("validation.every_epochs", 2),
        ("reproducibility.deterministic", False),
        ("loss.type", "contrastive"),
    ],
)
def test_what_would_change_state_rows_or_grid_is_refused_with_what_may_change(
    told: Told, parent: str, path: str, value: Any
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        told.forked(parent, set={path: value})
    problems = refused.value.problems
    if path not in ("optimizer.type", "loss.type"):  # of which other keys are not known any more
        assert any(one.path.startswith(path) for one in problems)
        assert all("a fork cannot change it" in one.message for one in problems)
        assert "may change the learning rate" in problems[0].cure


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("optimizer.learning_rate", 0.5),
        ("optimizer.momentum", 0.5),
        ("schedule.type", "cosine"),
        ("training.epochs", 50),
        ("training.grad_clip", None),
        ("training.profile", 0),
        ("training.recheck", 0),
        ("training.ema.decay", 0.99),
        ("early_stopping.metric", "val_accuracy"),
        ("reproducibility.seed", 7),
        ("sampler", {"type": "balanced"}),
        ("loss.label_smoothing", 0.1),
        ("gradients.0.strength", 1.0),
        ("export.formats", ["onnx"]),
        ("diagnosis.auto_fix", False),
        ("name", "another"),
    ],
)
def test_what_leaves_them_alone_may_be_changed(told: Told, parent: str, path: str, value: Any) -> None:
    made = told.forked(parent, set={path: value})
    assert set(made.fork.set) == {path}


def test_a_metric_that_nobody_followed_cannot_stop_a_fork(told: Told, parent: str) -> None:
    with pytest.raises(InvalidRequest, match="did not follow 'val_f1_macro' up to step 50") as refused:
        told.forked(parent, set={"early_stopping.metric": "val_f1_macro"})
    assert refused.value.cure == "It followed val_loss, val_accuracy."
    followed = told.forked(parent, set={"early_stopping.metric": "val_accuracy"}).fork.evaluations
    assert [one.value for one in followed] == [0.5]


def test_a_fork_with_nothing_left_to_do_is_refused(told: Told) -> None:
    ended = told.parent()
    with pytest.raises(InvalidInput, match="training would end at step 90"):
        told.forked(ended, 100, set={"training.epochs": 30})
    impatient = told.parent(*(evaluated(at, 9.0) for at in (100, 100, 100)), PAUSED)
    with pytest.raises(InvalidInput, match="early stopping has ended"):
        told.forked(impatient, 100)
    assert told.forked(impatient, 100, set={"early_stopping.patience": 9})
    stop = InterventionApplied(proposal="p", by="r", segment=2, step=100, changes={"stop": True}, reproducible=False)
    with pytest.raises(InvalidInput, match="training would end at step 100"):
        told.forked(told.parent(stop, PAUSED), 100)


def test_weights_that_are_not_finite_and_bits_that_nobody_promised_are_refused(told: Told) -> None:
    broken = told.parent(window(100, 110).model_copy(update={"finite": False}), PAUSED)
    with pytest.raises(Refused, match="at step 110 are not finite"):
        told.forked(broken, 110)
    fast = told.parent(profile="fast")
    assert told.forked(fast, 50)
    with pytest.raises(Refused, match="kept no checkpoint of step 100"):
        told.forked(fast, 100)


def test_the_newest_step_of_running_training_waits_until_all_of_it_is_recorded(told: Told) -> None:
    running = told.parent(evaluated(100, 0.25))
    assert told.forked(running, 50)
    with pytest.raises(Refused, match="step 100 is the last"):
        told.forked(running, 100)


def test_segments_go_on_by_their_own_line(told: Told) -> None:
    back = InterventionApplied(
        proposal="p", by="r", segment=2, step=50, changes={"learning_rate": 0.5}, reproducible=True
    )
    session = told.parent(back, window(50, 100).model_copy(update={"segment": 2}), PAUSED)
    path, line = told.forked(session, 50).fork, told.forked(session, 50, segment=1).fork
    assert (path.segment, path.changes) == (2, [{"step": 50, "learning_rate": 0.5}])
    assert (line.segment, line.changes) == (1, [])
    assert line.weights_digest == path.weights_digest
    with pytest.raises(InvalidInput, match="has no segment 3") as refused:
        told.forked(session, 50, segment=3)
    assert refused.value.cure == "Its segments: 1 to 2."


def test_sessions_that_trained_nothing_have_no_forks(told: Told) -> None:
    for kind in ("training", "search"):
        with pytest.raises(Refused, match="it has trained nothing"):
            told.forked(told.requested(kind), 0)


def wish(**body: Any) -> ForkCommand:
    return ForkCommand.read({"session": "last", **body})


def test_rows_are_left_out_by_number_place_range_or_file(told: Told, parent: str, tmp_path: Path) -> None:
    state = Archive(told.home).read(parent).history.state
    numbers = np.fromfile(told.blobs.path(told.ready.origins.blobs["train"]), "<i8")

    def meant(*named: str) -> tuple[tuple[int, int], ...]:
        return requests.read_fork(wish(step=50, without=list(named)), state, told.blobs).without

    assert meant("train:3") == meant(str(numbers[2])) == meant(f"row {numbers[2]}") == ((3, 3),)
    assert meant("train:3-7", "train:5-9", "train:11") == ((3, 9), (11, 11))
    assert meant(f"{numbers[2]}-{numbers[9]}") == ((3, 10),)
    listed = tmp_path / "rows.txt"
    listed.write_text(f"train:3\n\n{numbers[4]}\n")
    assert meant(*rows_given([str(listed), "train:4,train:9"])) == ((3, 5), (9, 9))
    blob = {"blob": told.blobs.put(listed.read_bytes())}
    assert requests.read_fork(wish(step=50, without=blob), state, told.blobs).without == ((3, 3), (5, 5))


@pytest.mark.parametrize(
    ("named", "told_so"),
    [
        ("999", "no row is called '999'"),
        ("train:900", "there is no row train:900"),
        ("val:1", "which is never trained on"),
        ("train:9-3", "no row of the training split lies in"),
        ("train:1-120", "no row is left to train on"),
    ],
)
def test_rows_that_cannot_be_left_out_are_refused(told: Told, parent: str, named: str, told_so: str) -> None:
    state = Archive(told.home).read(parent).history.state
    with pytest.raises(SwarmError, match=told_so):
        requests.read_fork(wish(step=50, without=[named]), state, told.blobs)


@pytest.mark.parametrize(
    "body", [{}, {"step": "50"}, {"step": -1}, {"step": 50, "set": [1]}, {"step": 50, "segment": "a"}]
)
def test_a_wish_that_cannot_be_meant_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        wish(**body)


def test_runs_of_rows_are_joined_where_they_touch() -> None:
    assert joined_runs([(7, 9), (1, 2), (3, 3), (8, 12), (20, 20)]) == ((1, 3), (7, 12), (20, 20))


def test_lists_too_long_for_an_event_are_a_blob_that_the_bundle_has(told: Told, parent: str, tmp_path: Path) -> None:
    many = tuple((row, row) for row in range(1, 2 * LONGEST_LIST, 2))
    fields = InheritedPlan(((50, float("nan")),), many).placed(told.blobs)
    assert (fields["evaluations"], fields["without"]) == ([], [])
    fork = told.forked(parent).fork.model_copy(update=fields)
    session = told.requested(fork=fork, **REQUEST)
    history = Archive(told.home).read(session).history
    found = InheritedPlan.of(history.state, told.blobs)
    assert found.without == many
    assert [step for step, _ in found.evaluations] == [50]
    told.say(session, "data_manager", told.ready)
    told.say(session, "trainer", claimed().model_copy(update={"dataset": told.ready.root}), written(50))
    pruned = CheckpointPruned(segment=1, step=50, blob="b" * 64, freed_bytes=12)
    told.say(session, "checkpoint_keeper", pruned)
    told.say(session, "ledger", told.seal(session))
    path = make_bundle(Archive(told.home), session, told.blobs, tmp_path / "b.zip", wanted=("checkpoints",)).path
    assert audit.check_bundle(path).divergences == ()
    assert verify_bundle.findings(path, "")["divergence"] is None
    bare = make_bundle(Archive(told.home), session, told.blobs, tmp_path / "bare.zip").path
    assert any("what the fork inherits" in line for line in audit.check_bundle(bare).unchecked)


@pytest.fixture(scope="module")
def child(told: Told, parent: str) -> str:
    """A fork of the parent, begun and not ended."""
    fork = told.forked(parent, set={"optimizer.learning_rate": 0.5}, without=((3, 4),)).fork
    session = told.requested(fork=fork, **REQUEST)
    told.say(session, "data_manager", told.ready)
    claim = claimed().model_copy(update={"resolved": RESOLVED, "dataset": told.ready.root})
    told.say(session, "trainer", claim, written(50), window(50, 100), written(100))
    for step in (50, 100):
        stored = {"blob": "b" * 64, "state_root": DIGEST, "bytes": 12, "kept_as": []}
        told.say(session, "checkpoint_keeper", CheckpointStored(segment=1, step=step, **stored))
    return session


def test_a_session_says_whose_fork_it_is_wherever_it_is_shown(told: Told, parent: str, child: str) -> None:
    home = ["--home", str(told.home.root)]
    about = f"{parent} at step 50, optimizer.learning_rate=0.5, without 2 rows"
    assert about in CliRunner().invoke(swarm, ["show", child, *home]).stdout
    assert f"a fork of {about}" in CliRunner().invoke(swarm, ["events", child, "--plain", *home]).stdout
    assert f"B is         a fork of {about}" in CliRunner().invoke(swarm, ["diff", parent, child, *home]).stdout
    assert f"(fork of {parent[:11]} at 50)" in CliRunner().invoke(swarm, ["sessions", *home]).stdout
    found = json.loads(CliRunner().invoke(swarm, ["show", child, "--json", *home]).stdout)
    assert found["parent"] == parent
    assert found["fork"]["step"] == 50
    assert (found["step"], found["fork"]["rows_without"]) == (100, 2)


def test_the_state_in_which_a_fork_began_is_kept_for_ever(told: Told, child: str) -> None:
    state = Archive(told.home).read(child).history.state
    assert "anchor" in retention.roles(state)[1, 50]
    assert all(one.written.step != 50 for one in retention.prunable(state))


def test_what_cannot_be_followed_is_declined_as_going_back_beyond_a_forks_first_step(told: Told, child: str) -> None:
    history = Archive(told.home).read(child).history
    evidence = Evidence()
    for fact in history.facts:
        evidence = evidence.advance(fact)
    assert (evidence.segment, evidence.step, evidence.planned(60)) == (1, 100, 50)
    back = InterventionProposed(rule="r", segment=1, rewind_to=0, changes={}, reason="", automatic=False)
    strange, wrong = (back.model_copy(update={"rewind_to": None, "changes": one}) for one in ({"x": 1}, {"stop": 2}))
    facts = told.say(child, "diagnostician", back, strange, wrong)
    declined = hopeless_proposals(Archive(told.home).read(child).history.state)
    assert [id for id, _ in declined] == [fact.id for fact in facts]
    reasons = [reason for _, reason in declined]
    assert reasons[0] == "step 0 lies before step 50, at which this session begins"
    assert "there is no lever 'x'" in reasons[1]
    assert "the lever 'stop' cannot be 2" in reasons[2]


def test_a_fork_whose_parent_is_nowhere_is_audited_as_far_as_that_goes(told: Told, parent: str, child: str) -> None:
    log = told.home.log(parent)
    aside = log.with_name("aside")
    log.rename(aside)
    try:
        found = audit.check_log(Archive(told.home), child, told.blobs)
        assert found.divergences == ()
        assert any(f"its parent {parent} is not here" in line for line in found.unchecked)
    finally:
        aside.rename(log)
