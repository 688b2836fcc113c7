"""Rows and steps are found in each other without going through the order, and held against the signed digests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from pydantic import TypeAdapter

from bus.blobs import digest_of
from contracts.data_manager import DatasetPrepared, DatasetRejected
from contracts.errors import InvalidInput, NotFound
from contracts.request import read_request
from contracts.request.sampler import Sampler
from contracts.trainer import ControlEvaluated, InterventionApplied, WindowRecorded
from runtime.audit.log_check import make_bundle
from runtime.cli.main import swarm
from runtime.engine.evaluations import EvaluationsView
from runtime.engine.sampling import TrainingRows, samplers
from runtime.log.archive import Archive
from runtime.views import trace
from runtime.views.trace import Trace
from tests.agents.preparing import Bench
from tests.runtime.recorded_home import RecordedHome, claimed, evaluated, window

BATCH, ROWS = 16, 120
REQUEST = read_request({"data": {"source": "iris"}, "model": {"architecture": "mlp"}}).resolved()


class Told(RecordedHome):
    """Sessions over iris whose windows name the order of rows that they were computed in."""

    def __init__(self, root: Path) -> None:
        super().__init__(root / "home")
        bench = Bench(root)
        bench.store = self.home.blobs / "datasets"
        self.ready = bench.prepared({"source": "iris"})
        self.classes = np.asarray(bench.dataset(self.ready).columns("train")["y"])

    def session(self, *windows: WindowRecorded | ControlEvaluated | InterventionApplied, **sampler: Any) -> str:
        session = self.requested(**REQUEST | ({"sampler": sampler} if sampler else {}))
        self.say(session, "data_manager", self.ready)
        resolved = {"rows": ROWS, "batch": BATCH, "accumulate": 1, "steps_total": 100}
        claim = claimed().model_copy(update={"resolved": resolved, "dataset": self.ready.root})
        self.say(session, "trainer", claim, *windows)
        return session

    def order(self, **sampler: Any) -> Any:
        chosen = TypeAdapter(Sampler).validate_python(sampler or {"type": "uniform"})
        return samplers.of(chosen)(chosen, 42, TrainingRows(ROWS, {"y": self.classes}))

    def window(self, first: int, last: int, segment: int = 1, **sampler: Any) -> WindowRecorded:
        rows = self.order(**sampler).take(first * BATCH, (last - first) * BATCH)
        changes = {"segment": segment, "index_digest": digest_of(rows.astype("<i8").tobytes())}
        return window(first, last).model_copy(update=changes)

    def trace(self, session: str) -> Trace:
        return Trace(Archive(self.home).read(session).history, self.blobs)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    return Told(tmp_path_factory.mktemp("traced"))


@pytest.fixture(scope="module")
def straight(told: Told) -> str:
    return told.session(told.window(0, 20), told.window(20, 40))


def seen(told: Told, steps: range, place: int, **sampler: Any) -> list[int]:
    """By going through the whole order."""
    rows = told.order(**sampler).take(0, steps[-1] * BATCH).reshape(-1, BATCH)
    return [step for step in steps for _ in np.flatnonzero(rows[step - 1] == place - 1)]


@pytest.mark.parametrize("kind", ["uniform", "balanced", "grouped", "weighted"])
def test_the_steps_that_saw_a_row_are_those_in_which_it_stands(told: Told, kind: str) -> None:
    session = told.session(told.window(0, 40, type=kind), type=kind)
    for place in (1, 77, 120):
        found = told.trace(session).row(f"train:{place}", 100)
        comings = seen(told, range(1, 41), place, type=kind)
        assert found["times"] == len(comings)
        assert found["steps"] == list(dict.fromkeys(comings))
        assert found["superseded"] == []
        assert all(one["held"] for one in found["windows"])


def test_a_row_is_asked_for_by_its_number_in_the_source(told: Told, straight: str) -> None:
    by_place = told.trace(straight).row("train:77", 100)
    name = by_place["row"]["name"]
    assert name.startswith("row ")
    assert told.trace(straight).row(name, 100) == told.trace(straight).row(name.removeprefix("row "), 100) == by_place
    assert (by_place["source"], by_place["dataset"]) == ("iris", told.ready.root)


def test_the_rows_of_a_step_come_with_their_names_and_the_coming_of_each(told: Told, straight: str) -> None:
    found = told.trace(straight).step(9)
    rows = told.order().take(8 * BATCH, BATCH)
    assert [one["place"] for one in found["rows"]] == [f"train:{row + 1}" for row in rows]
    assert {one["coming"] for one in found["rows"]} == {2}, "rows 121 to 144 of the order are in its second epoch"
    for one in found["rows"]:
        assert 9 in told.trace(straight).row(one["name"], 100)["steps"]
    (window,) = found["windows"]
    assert window == {"session": straight, "event": 4, "segment": 1, "first": 0, "last": 20, "held": True}


def test_steps_that_a_rewind_superseded_are_told_apart_from_the_path(told: Told) -> None:
    back = InterventionApplied(proposal="p", by="rule", segment=2, step=10, changes={}, reproducible=True)
    session = told.session(told.window(0, 10), told.window(10, 40), back, told.window(10, 30, segment=2))
    found = told.trace(session).row("train:5", 100)
    assert found["steps"] == list(dict.fromkeys(seen(told, range(1, 31), 5)))
    (gone,) = found["superseded"]
    assert (gone["segment"], gone["first"], gone["last"], gone["on_path"]) == (1, 11, 40, False)
    assert gone["steps"] == list(dict.fromkeys(seen(told, range(11, 41), 5)))
    made = told.trace(session).step(25)["made"]
    assert [(one["segment"], one["on_path"]) for one in made] == [(2, True), (1, False)]
    assert [one["segment"] for one in told.trace(session).step(35)["made"]] == [1]


def test_rows_of_a_curriculum_are_found_by_the_evaluations_that_each_segment_went_on_from(told: Told) -> None:
    chosen = {"type": "curriculum", "column": "y", "start": 0.34, "widen": 0.33, "patience": 0}
    base = told.order(**chosen)
    before, ahead = EvaluationsView([(10, 0.5), (20, 0.6)]), EvaluationsView([(10, 0.5), (20, 0.6), (30, 0.7)])

    def of(seen: EvaluationsView, first: int, last: int, segment: int) -> WindowRecorded:
        rows = base.after(seen, BATCH).take(first * BATCH, (last - first) * BATCH)
        changes = {"segment": segment, "index_digest": digest_of(rows.astype("<i8").tobytes())}
        return window(first, last).model_copy(update=changes)

    back = InterventionApplied(proposal="p", by="rule", segment=2, step=20, changes={}, reproducible=True)
    said = [evaluated(10, 0.5), evaluated(20, 0.6), evaluated(30, 0.7)]
    session = told.session(of(ahead, 0, 40, 1), *said, back, of(before, 20, 40, 2), **chosen)
    hardest = 1 + int(np.flatnonzero(told.classes == 2)[0])
    found = told.trace(session).row(f"train:{hardest}", 100)
    assert found["steps"] == [], "the segment that counts went back to before the second stall"
    assert found["superseded"][0]["times"] > 0
    assert found["superseded"][0]["steps"][0] > 30
    easiest = told.trace(session).row(f"train:{1 + int(np.flatnonzero(told.classes == 0)[0])}", 100)
    assert [(one["segment"], one["held"]) for one in easiest["windows"]] == [(1, True), (2, True)]
    assert all(one["held"] for one in told.trace(session).step(35)["windows"])


def test_rows_that_are_only_judged_by_are_told_with_the_steps_that_were_judged(told: Told) -> None:
    session = told.session(told.window(0, 20))
    told.say(session, "trainer", evaluated(20, 0.5))
    found = told.trace(session).row("val:3", 100)
    assert found["evaluated"] == [20]
    assert "steps" not in found
    assert told.trace(session).row("test:1", 100)["evaluated"] == []


def test_an_order_that_the_log_did_not_sign_is_told(told: Told) -> None:
    other = told.window(20, 40).model_copy(update={"index_digest": "0" * 64})
    session = told.session(told.window(0, 20), other)
    assert [one["held"] for one in told.trace(session).step(3)["windows"]] == [True]
    assert [one["held"] for one in told.trace(session).step(30)["windows"]] == [False]


def test_steps_and_rows_that_there_are_not_are_refused_with_the_range(told: Told, straight: str) -> None:
    with pytest.raises(InvalidInput, match="made no step 41; it made 40"):
        told.trace(straight).step(41)
    with pytest.raises(NotFound, match="no row is called '999'"):
        told.trace(straight).row("999", 10)
    with pytest.raises(InvalidInput, match="no step of"):
        told.trace(told.requested())


def test_a_million_steps_are_answered_without_going_through_them(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    million = told.window(0, 20).model_copy(update={"first": 0, "last": 1_000_000})
    session = told.session(million)
    monkeypatch.setattr(trace.Trace, "_held", lambda *_: [])
    traced = told.trace(session)
    monkeypatch.setattr(type(traced._sampler), "take", None)
    found = traced.row("train:77", 10)
    assert abs(found["times"] - 1_000_000 * BATCH // ROWS) <= 1
    assert (len(found["steps"]), found["more"] > 100_000) == (10, True)


def run(told: Told, *arguments: str) -> Result:
    return CliRunner().invoke(swarm, ["trace", *arguments, "--home", str(told.home.root)])


def test_trace_answers_from_files_and_from_bundles(told: Told, tmp_path: Path) -> None:
    session = told.session(told.window(0, 40))
    told.say(session, "ledger", told.seal(session))
    path = make_bundle(Archive(told.home), session, told.blobs, tmp_path / "b.zip", wanted=("dataset",)).path
    for where in (session, str(path)):
        found = json.loads(run(told, where, "--row", "train:77", "--json").stdout)
        assert found == told.trace(session).row("train:77", 1000)
        assert len(json.loads(run(told, where, "--step", "9", "--json").stdout)["rows"]) == BATCH


def test_trace_reads_as_a_page_and_an_order_that_was_not_signed_is_3(told: Told, straight: str) -> None:
    text = run(told, straight, "--row", "train:77").stdout
    assert "times, in steps" in text
    assert "recorded over this very order of rows" in text
    assert "16 rows of iris, in their order:" in run(told, straight, "--step", "9").stdout
    other = told.window(0, 20).model_copy(update={"index_digest": "0" * 64})
    result = run(told, told.session(other), "--step", "9")
    assert result.exit_code == 3
    assert "ANOTHER order of rows" in result.stdout
    assert run(told, straight).exit_code == 2
    assert run(told, straight, "--step", "9", "--row", "1").exit_code == 2


def test_who_was_set_aside_is_told_to_have_been_seen_by_no_step(tmp_path: Path) -> None:
    told = Told(tmp_path)
    bench = Bench(tmp_path)
    bench.store = told.home.blobs / "datasets"
    lines = ["a,b,kind", *(f"{n}.5,{n if n != 7 else ''},{'xy'[n % 2]}" for n in range(1, 41))]
    told.ready = DatasetPrepared.model_validate(bench.prepared(bench.csv("\n".join(lines)) | {"tolerance": 0.1}))
    session = told.session(told.window(0, 20))
    assert told.trace(session).row("7", 10)["set_aside"]["kind"] == "missing"
    assert "never: set aside as missing" in run(told, session, "--row", "7").stdout


@pytest.mark.parametrize(
    ("kind", "ended", "says", "cure"),
    [
        ("search", True, "is of the kind 'search', which trains nothing itself", "a trial of a search"),
        ("training", True, "ended .* before its first step", "swarm show"),
        ("training", False, "no step of .* was made yet", "swarm wait"),
    ],
)
def test_a_session_without_a_step_says_why_it_has_none(
    tmp_path: Path, kind: Any, ended: bool, says: str, cure: str
) -> None:
    recorded = RecordedHome(tmp_path)
    session = recorded.requested(kind)
    if ended:
        recorded.say(session, "data_manager", DatasetRejected(source="iris", problems=[]))
    history = Archive(recorded.home).read(session).history
    with pytest.raises(InvalidInput, match=says) as refused:
        Trace(history, recorded.blobs)
    assert cure in refused.value.cure
