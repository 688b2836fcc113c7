"""What rules say of real trainings that go wrong, of healthy ones, and of the machine; and what asking them costs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits, make_circles

from contracts import ids
from contracts.data_manager import DatasetFacts, DatasetPrepared, Finding
from contracts.diagnostician import ProblemDiagnosed
from contracts.envelope import Fact
from contracts.event import Event, pack32
from contracts.operator import RULES, SessionRequested
from contracts.request import read_request
from contracts.resource_monitor import ResourcesMeasured
from contracts.trainer import (
    ControlEvaluated,
    Layer,
    WindowRecorded,
    WindowSensors,
    by_layer,
    evidence,
)
from runtime.diagnosis.evidence import Evidence, asked
from runtime.diagnosis.fold import DiagnosisState
from runtime.engine.dataset import Dataset, write
from runtime.engine.facts import describe
from runtime.engine.loop import Run
from runtime.engine.plan import Plan
from runtime.engine.resolve import resolve
from runtime.log.session_log import SessionLog
from runtime.replay.comparison import evaluation_event, window_event
from tests.agents.cases import tell
from tests.harness import claim

DIGEST = "0" * 64
SGD, ADAM = {"type": "sgd"}, {"type": "adamw"}


@cache
def rows(task: str) -> tuple[np.ndarray, np.ndarray]:
    if task == "circles":
        x, y = make_circles(1000, noise=0.1, factor=0.5, random_state=1)
    else:
        x, y = load_digits(return_X_y=True)
        x = x / 16
    if task == "rare":
        chosen = (y != 3) & (y != 7) | (np.arange(len(y)) % 12 == 0)
        x, y = x[chosen], y[chosen]
    if task == "pictures":
        x = x.reshape(-1, 1, 8, 8)
    if task == "wrong labels":
        wrong = np.random.default_rng(0).random(len(y)) < 0.4
        y = np.where(wrong, np.random.default_rng(1).permutation(y), y)
    return x.astype("f4") * (500 if task == "raw" else 1), y.astype("i8")


@pytest.fixture
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
    x, y = rows(request.param)
    cut = len(y) * 4 // 5
    splits = {"train": {"x": x[:cut], "y": y[:cut]}, "val": {"x": x[cut:], "y": y[cut:]}}
    labels = [str(n) for n in range(int(y.max()) + 1)]
    write(tmp_path, splits, describe(splits, "classification", labels=labels, counted=True))
    return Dataset.open(tmp_path)


def facts_of(dataset: Dataset, request: Mapping[str, Any], *, findings: tuple[Finding, ...] = ()) -> Iterator[Fact]:
    """The facts of a training in one process, in the order of its log."""
    wanted = read_request({"data": {"source": "digits"}, "early_stopping": {"enabled": False}, **request})
    history, plan = SessionLog(ids.session_for("judged")), Plan(wanted, resolve(wanted, dataset.facts, cores=1))
    prepared = DatasetPrepared(
        root=DIGEST,
        rows=sum(dataset.facts.rows.values()),
        splits=dict(dataset.facts.rows),
        bytes=1,
        source="",
        source_digest=DIGEST,
        facts=DatasetFacts.model_validate_json(json.dumps(dataset.facts.as_json())),
        findings=list(findings),
    )
    begun = SessionRequested(kind="training", request=wanted.resolved(), keyring="", asked_by="me", rules=RULES)
    yield from tell(history, "operator", begun)
    yield from tell(history, "data_manager", prepared)
    yield from tell(history, "trainer", claim(1, plan.resolved.as_json()))
    run = Run.start(plan, dataset)
    while not run.finished:
        report = run.advance()
        if report.window:
            yield from tell(history, "trainer", window_event(report.window))
        if report.evaluation:
            yield from tell(history, "trainer", evaluation_event(report.evaluation))


def judged(facts: Iterator[Fact]) -> tuple[list[ProblemDiagnosed], DiagnosisState]:
    state, found = DiagnosisState(), []
    for fact in facts:
        state = state.advance(fact)
        found += [one for one in state.said if isinstance(one, ProblemDiagnosed)] if state.at == fact.id else []
    return found, state


def mlp(*hidden: int, **options: Any) -> dict[str, Any]:
    return {"architecture": "mlp", "hidden": hidden, **options}


def epochs(count: int, **options: Any) -> dict[str, Any]:
    return {"epochs": count, "batch_size": 64, **options}


FROZEN = {"architecture": "cnn", "channels": [8, 16], "freeze": ["body.0.weight", "body.4.weight", "body.9.*"]}
TWELVE = mlp(*[32] * 12, activation="tanh")


@pytest.mark.parametrize(
    ("dataset", "request_", "causes"),
    [
        ("circles", {"model": {"architecture": "linear"}, "training": epochs(20)}, {"no_learning"}),
        ("digits", {"model": mlp(32), "optimizer": SGD | {"learning_rate": 1e-7}, "training": epochs(6)}, {"creeping"}),
        ("digits", {"model": TWELVE, "optimizer": SGD | {"learning_rate": 0.1}, "training": epochs(8)}, {"vanishing"}),
        (
            "digits",
            {"model": mlp(32), "optimizer": ADAM | {"learning_rate": 0.2}, "training": epochs(8)},
            {"oscillation"},
        ),
        ("raw", {"model": mlp(32, standardize=False), "training": epochs(4)}, {"missing_normalisation"}),
        ("pictures", {"model": FROZEN, "training": epochs(6)}, {"no_learning"}),
    ],
    ids=["linear on circles", "rate 1e-7", "twelve tanh layers", "rate 0.2", "raw inputs", "all frozen but norms"],
    indirect=["dataset"],
)
def test_a_session_that_learns_nothing_or_badly_is_told_why_before_half_of_the_plan(
    dataset: Dataset, request_: dict[str, Any], causes: set[str]
) -> None:
    found, state = judged(facts_of(dataset, request_))
    early = [one for one in found if one.severity != "note" and one.last <= (state.evidence.total or 0) / 2]
    assert early
    assert min(early, key=lambda one: one.priority).rule in causes


@pytest.mark.parametrize(
    ("dataset", "request_", "rule"),
    [
        ("digits", {"model": mlp(32, 32, dropout=0.9), "training": epochs(6)}, "underfitting"),
        (
            "rare",
            {"model": mlp(16), "optimizer": ADAM | {"learning_rate": 1e-3}, "training": epochs(12)},
            "missing_class",
        ),
        (
            "wrong labels",
            {"model": mlp(256), "optimizer": ADAM | {"learning_rate": 5e-3}, "training": epochs(40)},
            "label_noise",
        ),
    ],
    ids=["dropout", "rare classes", "wrong labels"],
    indirect=["dataset"],
)
def test_what_holds_a_model_back_is_named(dataset: Dataset, request_: dict[str, Any], rule: str) -> None:
    found, _ = judged(facts_of(dataset, request_))
    assert rule in [one.rule for one in found if one.severity != "note"]


@pytest.mark.parametrize("dataset", ["digits"], indirect=True)
def test_a_healthy_session_is_told_nothing_and_asking_costs_little(dataset: Dataset) -> None:
    facts = list(facts_of(dataset, {"model": mlp(48, 48), "training": epochs(8, batch_size=16)}))
    found, state = judged(iter(facts))
    assert [one.rule for one in found if one.severity != "note"] == []
    assert state.evidence.edition == 2
    # What the rules cost beside the fold: the best of several rounds, per window.
    windows = [fact for fact in facts if isinstance(fact.event, WindowRecorded)]
    seen = [Evidence()]
    for fact in facts:
        seen.append(seen[-1].advance(fact))
    at = [one for one in seen if one.newest == "window"]
    best = min(_seconds(at) for _ in range(7))
    assert best / len(windows) < 100e-6  # 20 us on an idle machine; this one may be busy


def _seconds(at: list[Evidence]) -> float:
    begun = time.perf_counter()
    for one in at:
        for rule in asked(one):
            rule.look(one)
    return time.perf_counter() - begun


@pytest.mark.parametrize("dataset", ["digits"], indirect=True)
@pytest.mark.parametrize(
    ("finding", "told"),
    [
        (Finding(kind="leak-val", count=60, where=["val row 1 is train row 2"], severity="warning"), ["leakage"]),
        (Finding(kind="telling-feature", count=1, where=["'price'"], severity="warning"), ["leakage"]),
        (Finding(kind="leak-val", count=2, where=[]), []),
    ],
)
def test_leakage_is_told_at_the_first_evaluation(dataset: Dataset, finding: Finding, told: list[str]) -> None:
    found, _ = judged(facts_of(dataset, {"model": mlp(32), "training": epochs(1)}, findings=(finding,)))
    assert [one.rule for one in found if one.severity != "note"] == told


@pytest.mark.parametrize("dataset", ["wrong labels"], indirect=True)
def test_rows_that_are_answered_otherwise_than_rows_like_them_are_told_as_wrong_labels(dataset: Dataset) -> None:
    doubtful = Finding(kind="doubtful-answers", count=600, where=["about 40%"], severity="warning")
    short = {"model": mlp(32), "training": epochs(4)}
    assert "label_noise" not in [one.rule for one in judged(facts_of(dataset, short))[0]]
    told = [one for one in judged(facts_of(dataset, short, findings=(doubtful,)))[0] if one.severity != "note"]
    assert min(told, key=lambda one: one.priority).rule == "label_noise"


def history_of(
    windows: list[list[float]],
    evaluations: list[dict[str, float]] | None = None,
    *,
    request: Mapping[str, Any] | None = None,
    layer: Layer | None = None,
    task: str = "classification",
    judged_by: int = 50,
    rate: float = 0.1,
) -> SessionLog:
    """The log of a made-up path of ten windows: its losses, and what each evaluation says."""
    history = SessionLog(ids.session_for("made up"))
    facts: dict[str, Any] = {"task": task, "outputs": 4, "counts": [50] * 4, "rows": {"train": 200, "val": judged_by}}
    facts |= {"outputs": 1, "counts": []} if task == "regression" else {}
    prepared = {
        "root": DIGEST,
        "rows": 250,
        "splits": {},
        "bytes": 1,
        "source": "",
        "source_digest": DIGEST,
        "findings": [],
    }
    resolved = {"steps_total": sum(map(len, windows)), "window": 50, "every_steps": 50}
    asked = SessionRequested(kind="training", request=dict(request or {}), keyring="", asked_by="me", rules=RULES)
    tell(history, "operator", asked)
    tell(history, "data_manager", DatasetPrepared.model_validate(prepared | {"facts": facts}))
    tell(history, "trainer", claim(1, resolved))
    step = 0
    for n, losses in enumerate(windows):
        layers = [layer] if layer else []
        sensors = WindowSensors(saturated=by_layer([one.saturated for one in layers]))
        window = WindowRecorded(
            segment=1, first=step, last=step + len(losses), losses=pack32(losses), gradient_norm=1.0,
            learning_rate=rate, index_digest="", weights_digest=DIGEST, finite=True, sensors=sensors,
            **evidence(layers),
        )  # fmt: skip
        step += len(losses)
        tell(history, "trainer", window)
        if evaluations:
            seen = ControlEvaluated(
                segment=1, step=step, epoch=n + 1, values=evaluations[n], metric="val_loss", improved=False, best=None,
                best_step=None, patience_left=1, stop=False,
            )  # fmt: skip
            tell(history, "trainer", seen)
    return history


def told_by(windows: list[list[float]], evaluations: list[dict[str, float]] | None = None, **about: Any) -> list[str]:
    """The warnings about such a path."""
    found, _ = judged(iter(history_of(windows, evaluations, **about).facts))
    return [one.rule for one in found if one.severity != "note"]


def flat(*levels: float) -> list[list[float]]:
    """Windows of 50 losses with a little noise about each level."""
    noise = np.random.default_rng(0).normal(0, 0.01, (len(levels), 50))
    return [list(level + level * row) for level, row in zip(levels, noise, strict=True)]


CODE, MLP = {"architecture": "workload"}, {"architecture": "mlp", "hidden": [8]}
FALLS = (1.38, 1.1, 0.9, 0.7, 0.5, 0.4, 0.35, 0.3, 0.28, 0.26)
NUMBERS = {"windows": flat(*FALLS), "task": "regression", "request": {"model": CODE}}
CUT = NUMBERS | {"windows": flat(1.2, *[0.55] * 9), "evaluations": [{"val_loss": 0.6, "val_r2": 0.4}] * 10}
ALIKE = [[1.386 - step / 1e5 for step in range(50 * n, 50 * n + 50)] for n in range(10)]
LATE, TWICE = [{"val_loss": 1.385, "val_accuracy": 0.3}] * 10, ["no_learning", "double_activation", "underfitting"]
POOR, RIGHT = {"val_loss": 0.3, "val_accuracy": 0.26}, {"val_loss": 0.3, "val_accuracy": 0.95}


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ({"windows": flat(*FALLS)}, []),
        ({"windows": flat(*FALLS), "evaluations": [RIGHT] * 10}, []),
        ({"windows": flat(*FALLS), "evaluations": [POOR] * 10}, ["wrong_loss"]),
        ({"windows": flat(*[-loss for loss in FALLS]), "evaluations": [{"val_loss": -1.0}] * 10}, ["wrong_loss"]),
        (
            {
                "windows": flat(1.386, 1.2, 0.9, *[0.77] * 7),
                "evaluations": [{"val_loss": 0.78, "val_accuracy": 0.96, "val_f1_macro": 0.96}] * 10,
            },
            ["double_activation"],
        ),
        ({"windows": flat(9.0, *FALLS[1:])}, ["bad_initialisation"]),
        ({"windows": flat(9.0, *FALLS[1:]), "request": {"model": {"dropout": 0.6}}}, []),
        ({"windows": flat(9.0, *FALLS[1:]), "request": {"model": CODE}}, []),  # Its loss may be another one.
        ({"windows": flat(*[1.3] * 10), "request": {"model": {"init": "w"}}}, ["bad_initialisation", "underfitting"]),
        # A row that is answered wrong costs ln 2 at least, and a squared error says what is explained.
        ({"windows": flat(*FALLS), "evaluations": [{"val_loss": 0.1, "val_accuracy": 0.6}] * 10}, ["wrong_loss"]),
        ({"windows": flat(*FALLS), "evaluations": [{"val_loss": 0.4, "val_accuracy": 0.7}] * 10}, []),
        ({**NUMBERS, "evaluations": [{"val_loss": 0.25, "val_r2": -0.5}] * 10}, ["wrong_loss"]),
        ({**NUMBERS, "evaluations": [{"val_loss": 0.25, "val_r2": 0.7}] * 10}, []),
        # Behind the last layer of a user's code, answers are cut off; the first losses hardly differ from row to row.
        ({**CUT, "layer": Layer("last", 1.0, 1.0, 1e-3, dead=0.0)}, ["double_activation"]),
        (CUT, []),
        ({"windows": ALIKE, "request": {"model": CODE, "training": {"batch_size": 64}}, "evaluations": LATE}, TWICE),
        ({"windows": ALIKE, "evaluations": LATE}, ["no_learning", "underfitting"]),
        # What the request says of the reason, and what is answered on other rows, speak against `no_learning`.
        ({"windows": flat(*[1.39] * 10), "request": {"model": MLP}}, ["no_learning"]),
        ({"windows": flat(*[1.39] * 10), "request": {"model": MLP | {"hidden": [8, 2]}}}, ["underfitting"]),
        (
            {
                "windows": flat(*[1.36] * 10),
                "request": {"model": MLP},
                "evaluations": [{"val_loss": 1.3, "val_accuracy": 0.9}] * 10,
            },
            [],
        ),
        (
            {
                "windows": flat(*[1.39] * 10),
                "request": {"model": MLP},
                "layer": Layer("body", 1.0, 1.0, 0.05, dead=1.0),
            },
            ["exploding", "oscillation", "dead_layer", "dead_units", "no_learning"],
        ),
        ({"windows": flat(*FALLS), "evaluations": [RIGHT] * 10, "judged_by": 12}, ["noisy_validation"]),
        (
            {
                "windows": flat(*FALLS),
                "evaluations": [RIGHT] * 10,
                "judged_by": 12,
                "request": {"early_stopping": {"enabled": False}},
            },
            [],
        ),
        (
            {"windows": flat(*[0.75] * 10), "evaluations": [{"val_loss": 0.76, "val_accuracy": 0.5}] * 10},
            ["underfitting"],
        ),
        ({"windows": flat(*[0.75] * 10), "evaluations": [{"val_loss": 0.76, "val_accuracy": 0.75}] * 10}, []),
        ({"windows": [*flat(1.3, 0.9, 0.5), [0.5] * 20 + [9.0] + [0.5] * 29, *flat(*[0.86] * 6)]}, ["spike"]),
        ({"windows": [*flat(1.3, 1.0, 0.7), [0.6] * 20 + [9.0] + [0.6] * 29, *flat(*[0.5] * 6)]}, []),
        ({"windows": flat(*[0.88] * 10), "layer": Layer("body", 1.0, 1.0, 1e-3, saturated=0.9)}, ["saturation"]),
        ({"windows": flat(*FALLS), "layer": Layer("body", 1.0, 1.0, 1e-3, saturated=0.2)}, []),
        (
            {
                "windows": flat(*FALLS),
                "evaluations": [{"val_loss": 0.2, "val_accuracy": 0.95, "val_f1_macro": 0.7}] * 10,
            },
            [],  # No class is rare, so classes that are confused are no rare ones.
        ),
    ],
)
def test_each_rule_fires_for_what_it_looks_at_and_not_for_what_looks_like_it(
    path: dict[str, Any], told: list[str]
) -> None:
    assert told_by(**path) == told


@pytest.mark.parametrize(("level", "first"), [(300.0, "dead_units"), (1.0, "exploding")])
def test_what_lasts_of_a_burst_of_huge_steps_is_told_before_that_the_loss_left_its_range(
    level: float, first: str
) -> None:
    """Units that stay silent once steps are small again; where these are as planned, the loss is what there is."""
    phases = [{"share": 0.1, "level": level}, {"share": 0.9, "level": 1.0}]
    request = {"optimizer": {"learning_rate": 0.001}, "schedule": {"type": "composite", "phases": phases}}
    silent, losses = Layer("body", 1.0, 1.0, 1e-4, dead=0.9), [[1.4] + [40.0] * 49, *flat(*[1.2] * 9)]
    said, _ = judged(iter(history_of(losses, layer=silent, rate=0.001, request=request).facts))
    assert {"exploding", "dead_units"} <= {one.rule for one in said}
    assert min(said, key=lambda one: one.priority).rule == first


def measured(n: int, **about: Any) -> ResourcesMeasured:
    given: dict[str, Any] = dict.fromkeys(ResourcesMeasured.model_fields, 0) | {"epochs": 1, "seconds": 1.0}
    given |= {"epoch": n, "step": 10 * n, "waiting_percent": None, "gpu_percent": None, "gpu_memory_bytes": None}
    return ResourcesMeasured.model_validate(given | {"joules": None} | about)


@pytest.mark.parametrize(
    ("rule", "sick", "well"),
    [
        (
            "data_starvation",
            [{"waiting_percent": 40.0}] * 4,
            [{"waiting_percent": share} for share in (40.0, 5.0, 40.0)],
        ),
        (
            "memory_growth",
            [{"session_memory_bytes": (200 + 40 * n) << 20} for n in range(8)],
            [{"session_memory_bytes": (200 + 400 * (n > 0)) << 20} for n in range(8)],
        ),
        ("idle_device", [{"gpu_percent": 30.0}] * 4, [{"gpu_percent": 30.0, "waiting_percent": 50.0}] * 2),
        ("epoch_drift", [{"seconds": 1.0 + n / 10} for n in range(10)], [{"seconds": 3.0}] + [{"seconds": 1.0}] * 9),
    ],
)
def test_the_machine_is_advised_about_by_notes_that_no_remedy_follows(
    rule: str, sick: list[dict[str, Any]], well: list[dict[str, Any]]
) -> None:
    for sums, told in ((sick, [rule]), (well, [])):
        history, state, said = (
            SessionLog(ids.session_for("machine")),
            DiagnosisState(Evidence(edition=2)),
            list[Event](),
        )
        begun = SessionRequested(kind="training", request={}, keyring="", asked_by="me", rules=RULES)
        tell(history, "operator", begun)
        tell(history, "trainer", claim(1, {"steps_total": 1000, "window": 50, "every_steps": 50}))
        for n, one in enumerate(sums, 1):
            tell(history, "resource_monitor", measured(n, **one))
        for fact in history.facts:
            state = state.advance(fact)
            said += state.said if state.at == fact.id else ()
        assert [one.rule for one in said if isinstance(one, ProblemDiagnosed)] == told
        assert all(isinstance(one, ProblemDiagnosed) and one.severity == "note" for one in said)
