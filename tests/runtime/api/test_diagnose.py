"""`swarm diagnose`: what is wrong with a recorded training, the request to go on with, and two trainings compared."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import stigmergy
from contracts.diagnostician import InterventionProposed, OutcomeJudged, ProblemDiagnosed
from contracts.event import Event
from contracts.operator import SessionRequested
from contracts.trainer import InterventionApplied, WindowRecorded
from runtime.api import request_file
from runtime.audit.log_check import make_bundle
from runtime.cli.main import swarm
from runtime.diagnosis import health
from runtime.engine.dataset import Dataset, write
from runtime.engine.facts import describe
from runtime.log.archive import Archive
from runtime.views.health import NOT_SAID
from tests.runtime.diagnosis.test_rules import facts_of, judged, rows
from tests.runtime.recorded_home import RecordedHome, completed
from tests.runtime.recorded_session import full_session

HOT: dict[str, Any] = {
    "data": {"source": "digits"},
    "model": {"architecture": "mlp", "hidden": [32]},
    "optimizer": {"type": "sgd", "learning_rate": 1000.0},
    "training": {"epochs": 3, "grad_clip": None},
    "early_stopping": {"enabled": False},
    "diagnosis": {"mode": "off"},
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    place: Path = tmp_path_factory.mktemp("digits")
    (x, y), cut = rows("digits"), 1400
    splits = {"train": {"x": x[:cut], "y": y[:cut]}, "val": {"x": x[cut:], "y": y[cut:]}}
    write(place, splits, describe(splits, "classification", labels=[str(n) for n in range(10)], counted=True))
    return Dataset.open(place)


def trained(digits: Dataset, request: dict[str, Any]) -> list[tuple[str, Event]]:
    """What is said in a training of this request, each with its lane, but for the diagnostician."""
    return [(fact.lane, fact.event) for fact in facts_of(digits, request)]


@pytest.fixture(scope="module")
def hot(digits: Dataset) -> list[tuple[str, Event]]:
    return trained(digits, HOT)


@pytest.fixture(scope="module")
def healthy(digits: Dataset) -> list[tuple[str, Event]]:
    return trained(digits, {**HOT, "optimizer": {"type": "sgd", "learning_rate": 0.1}})


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> RecordedHome:
    return RecordedHome(tmp_path_factory.mktemp("recorded") / "home")


def kept(recorded: RecordedHome, said: list[tuple[str, Event]], *more: tuple[str, Event], **asked: Any) -> str:
    """A sealed session in the home in which this was said; `asked` replaces parts of its request."""
    events = [(lane, event) for lane, event in said if not isinstance(event, SessionRequested)]
    genesis = next(event for _, event in said if isinstance(event, SessionRequested))
    session = recorded.requested(**(genesis.request | asked))
    for lane, event in (*events, *more, ("trainer", completed(recorded.blobs.put(b"weights")))):
        recorded.say(session, lane, event)
    recorded.say(session, "ledger", recorded.seal(session))
    return session


@pytest.fixture(scope="module")
def unjudged(recorded: RecordedHome, hot: list[tuple[str, Event]]) -> str:
    return kept(recorded, hot)


def command(recorded: RecordedHome, *words: object, code: int = 0) -> str:
    done = CliRunner().invoke(swarm, ["diagnose", *map(str, words), "--home", str(recorded.home.root)])
    assert done.exit_code == code, done.output
    return done.output if code else done.stdout


def rules_of(answer: stigmergy.DiagnosisAnswer) -> list[str]:
    return [line["rule"] for line in answer["findings"]]


def test_a_session_whose_diagnosis_was_off_is_judged_by_the_rules_of_today(recorded: RecordedHome, unjudged: str):
    found = stigmergy.diagnose(unjudged, home=recorded.home.root)
    assert json.loads(command(recorded, unjudged, "--json")) == json.loads(json.dumps(found))
    assert (found["judged"], found["mode"]) == (False, "off")
    assert rules_of(found)[0] == "non_finite"
    assert not any(line["said"] or line["superseded"] for line in found["findings"])
    graver = [line["severity"] == "note" for line in found["findings"]]
    assert graver == sorted(graver), "notes come last"
    page = command(recorded, unjudged)
    assert NOT_SAID in page
    assert "1 non_finite, steps 0.." in page.partition("Marked")[2], "it is marked on the curves"


@pytest.mark.parametrize("suffix", ["md", "html", "txt"])
def test_the_page_is_written_in_any_form(recorded: RecordedHome, unjudged: str, tmp_path: Path, suffix: str):
    command(recorded, unjudged, "--out", tmp_path / f"page.{suffix}")
    page = (tmp_path / f"page.{suffix}").read_text()
    assert NOT_SAID in page
    assert "What can be tried" in page


def test_what_the_session_said_is_found_by_the_same_fold_and_told_once(
    recorded: RecordedHome, hot: list[tuple[str, Event]], unjudged: str, digits: Dataset
):
    told, _ = judged(facts_of(digits, HOT | {"diagnosis": {"mode": "observe"}}))
    observed = kept(
        recorded, hot, *(("diagnostician", one) for one in told), diagnosis={"auto_fix": False, "prove": False}
    )
    found = stigmergy.diagnose(observed, home=recorded.home.root)
    assert found["judged"]
    assert all(line["said"] for line in found["findings"])
    assert rules_of(found) == rules_of(stigmergy.diagnose(unjudged, home=recorded.home.root))
    older = [(lane, _without_sensors(event)) for lane, event in hot]
    assert not stigmergy.diagnose(kept(recorded, older), home=recorded.home.root)["judged"]


def _without_sensors(event: Event) -> Event:
    return event.model_copy(update={"sensors": None}) if isinstance(event, WindowRecorded) else event


def test_a_bundle_is_diagnosed_as_its_session_is(recorded: RecordedHome, unjudged: str, tmp_path: Path):
    bundle = tmp_path / "b.zip"
    make_bundle(Archive(recorded.home), unjudged, recorded.blobs, bundle)
    assert stigmergy.diagnose(bundle, home=tmp_path) == stigmergy.diagnose(unjudged, home=recorded.home.root)
    command(recorded, bundle, "-o", tmp_path / "next.yaml")
    assert "# It came in a bundle" in (tmp_path / "next.yaml").read_text()


def test_the_next_request_is_read_and_trains_better(recorded: RecordedHome, digits: Dataset, tmp_path: Path):
    hot = {**HOT, "optimizer": {"type": "sgd", "learning_rate": 10.0}}
    session, file = kept(recorded, trained(digits, hot)), tmp_path / "next.yaml"
    found = stigmergy.diagnose(session, to=file, home=recorded.home.root)
    assert found["next"] is not None
    assert request_file.read_resolved(str(file), ()) == found["next"]["request"]
    changed = {line["path"]: line["after"] for line in found["next"]["changes"]}
    assert changed == {"optimizer.learning_rate": 1.0}
    assert f"# {found['next']['rule']} (" in file.read_text()
    problems, state = judged(facts_of(digits, found["next"]["request"]))
    assert "critical" not in [one.severity for one in problems]
    assert state.evidence.evaluations[-1].values["val_accuracy"] > 0.8
    assert "exists" in command(recorded, session, "-o", file, code=6)
    assert "not a .yaml" in command(recorded, session, "-o", tmp_path / "next.json", code=2)


def test_what_the_bench_had_from_a_remedy_stands_beside_it_and_nothing_where_it_was_never_tried(
    recorded: RecordedHome, unjudged: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    counts = tmp_path / "gain.json"
    counts.write_text(json.dumps({"non_finite": {"lower_rate": [7, 9], "clip": [0, 0]}}))
    monkeypatch.setattr(health, "EXPECTED", counts)
    found = stigmergy.diagnose(unjudged, home=recorded.home.root)
    rungs = {rung["remedy"]: rung["expected"] for rung in found["findings"][0]["ladder"]}
    assert rungs["clip"] is rungs["warm_up"] is None
    gain = rungs["lower_rate"]
    assert gain is not None
    assert (gain["reached"], gain["tried"]) == (7, 9)
    assert gain["low"] < 7 / 9 < gain["high"]
    following = found["next"]
    assert following is not None
    assert (following["remedy"], following["expected"]) == ("lower_rate", gain)
    words = f"7 of 9 cases ({gain['low']:.0%} to {gain['high']:.0%})"
    command(recorded, unjudged, "--out", tmp_path / "page.html", "-o", tmp_path / "next.yaml")
    for page in (command(recorded, unjudged), (tmp_path / "page.html").read_text()):
        assert words in " ".join(page.split())
    sentence = f"# In the bench of faults lower_rate reached the healthy twin in {words}."
    assert sentence in (tmp_path / "next.yaml").read_text()
    monkeypatch.setattr(health, "EXPECTED", tmp_path / "empty.json")
    (tmp_path / "empty.json").write_text("{}")
    assert "cases" not in command(recorded, unjudged)


def test_what_took_effect_stays_in_the_next_request_and_the_rung_is_not_tried_again(
    recorded: RecordedHome, hot: list[tuple[str, Event]]
):
    proposal = InterventionProposed(
        rule="non_finite", segment=1, rewind_to=0, changes={"learning_rate": 0.1}, reason="r", automatic=True
    ).model_copy(update={"remedy": "lower_rate"})

    def session(times: int, **changes: Any) -> str:
        said = [*hot]
        recorded_so = recorded.requested(**next(e.request for _, e in hot if isinstance(e, SessionRequested)))
        for lane, event in said[1:]:
            recorded.say(recorded_so, lane, event)
        for segment in range(2, 2 + times):
            (made,) = recorded.say(recorded_so, "diagnostician", proposal)
            about = {"by": "non_finite", "segment": segment, "step": 0, "reproducible": True}
            effect = InterventionApplied(proposal=made.id, changes=proposal.changes | changes, **about)
            (applied,) = recorded.say(recorded_so, "trainer", effect)
            helped = OutcomeJudged(proposal=applied.id, helped=False, message="It came back.", figures={})
            recorded.say(recorded_so, "diagnostician", helped)
            for lane, event in said[1:]:
                if hasattr(event, "segment") and not hasattr(event, "resumed_from"):
                    recorded.say(recorded_so, lane, event.model_copy(update={"segment": segment}))
        return recorded_so

    twice = stigmergy.diagnose(session(2, skip_rows=[[7, 7]]), home=recorded.home.root)
    assert [(line["decision"], line["helped"], line["step"]) for line in twice["tried"]] == [
        ("took effect", False, 0),
        ("took effect", False, 0),
    ]
    following = twice["next"]
    assert following is not None
    assert following["remedy"] == "clip", "lower_rate is at its end: it took effect twice"
    request: Any = following["request"]
    assert request["optimizer"]["learning_rate"] == pytest.approx(10.0)
    assert request["training"]["grad_clip"] == 1.0
    assert any("training row 7 left out" in note for note in following["notes"])
    superseded = [line for line in twice["findings"] if line["superseded"]]
    assert superseded
    assert twice["superseded_steps"] > 0
    assert twice["findings"].index(superseded[0]) > 0, "what is on the path comes first"


def test_two_sessions_are_compared_in_what_can_be_compared(
    recorded: RecordedHome, unjudged: str, hot: list[tuple[str, Event]], healthy: list[tuple[str, Event]]
):
    good = kept(recorded, healthy)
    found = stigmergy.diagnose(good, unjudged, home=recorded.home.root)
    problems = {pair["rule"]: (pair["severities"], pair["better"]) for pair in found["problems"]}
    assert problems["non_finite"] == ([None, "critical"], "A")
    figures = {pair["name"]: (pair["better"], pair["why"]) for pair in found["figures"]}
    assert figures["val_loss"] == figures["val_accuracy"] == ("A", "")
    assert figures["steps that were superseded"] == ("neither", "")
    back = stigmergy.diagnose(unjudged, good, home=recorded.home.root)
    assert {pair["better"] for pair in back["figures"]} == {"B", "neither"}
    smooth = {"type": "cross_entropy", "label_smoothing": 0.1}
    other = stigmergy.diagnose(good, kept(recorded, hot, loss=smooth), home=recorded.home.root)
    better = {pair["name"]: (pair["better"], pair["why"]) for pair in other["figures"]}
    assert better["val_loss"] == ("not comparable", "another loss")
    assert better["val_accuracy"] == ("A", "")
    assert "other data" in command(recorded, good, full_session(recorded))
    assert "non_finite" in command(recorded, good, unjudged)


def test_a_remedy_that_no_request_can_have_is_not_written(
    recorded: RecordedHome, healthy: list[tuple[str, Event]], tmp_path: Path
):
    figures = {"update_ratio": 1e-5}
    about = {"message": "m", "cure": "c", "evidence": [], "figures": figures, "priority": 1}
    slow = ProblemDiagnosed(rule="creeping", segment=1, first=0, last=20, severity="warning", **about)
    fast = {"type": "sgd", "learning_rate": 900.0}
    session = kept(recorded, healthy, ("diagnostician", slow), optimizer=fast)
    found = stigmergy.diagnose(session, home=recorded.home.root)
    assert found["next"] is None, "the bound of learning_rate is 1000"
    assert "for creeping" in found["no_next"]
    assert "there is no next request" in command(recorded, session, "-o", tmp_path / "next.yaml", code=4)
    assert not (tmp_path / "next.yaml").exists()


@pytest.mark.parametrize("asked", [{"optimizer": "fast"}, {"diagnosis": {"mode": 7}}, {"model": [1]}])
def test_a_log_whose_request_is_none_is_no_fault_of_ours(
    recorded: RecordedHome, healthy: list[tuple[str, Event]], asked: dict[str, Any]
):
    session = kept(recorded, healthy, **asked)
    done = CliRunner().invoke(swarm, ["diagnose", session, "--home", str(recorded.home.root)])
    assert done.exit_code in (0, 2)
    assert "no rule can judge" in done.output or "does not take the session's request" in done.output


def test_what_is_no_training_is_refused(recorded: RecordedHome, tmp_path: Path):
    assert "there is no session 'nobody'" in command(recorded, "nobody", code=4)
    search = recorded.requested("search")
    assert "no training but 'search'" in command(recorded, search, code=2)
    assert "-o is about one session" in command(recorded, search, search, "-o", tmp_path / "x.yaml", code=2)


def test_a_strangers_log_writes_no_line_of_the_next_request(tmp_path: Path):
    odd = {"a": "1e-4", "b": "no", "c": "010", "d": "true", "e": 1e-7, "f": None, "g": ["~", "1.5"], "h": "x\ny"}
    for name in ("message\ndata: {source: evil}", "a\rb: 1", "a\x85b: 1", "a\u2028b: 1"):
        text = request_file.written(odd, [name])
        assert request_file.parse(text, "next.yaml", ".yaml") == odd
