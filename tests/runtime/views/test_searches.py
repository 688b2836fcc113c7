"""What a search found is shown with its parameters and its session, and a range test with its curve."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import orjson
import pytest

from contracts.hyperparameter_specialist import (
    ConstraintMeasure,
    FrontTrial,
    LearningRateSuggested,
    LineageStage,
    LineageTraced,
    SearchCancelled,
    SearchCompleted,
    SearchState,
    SeedResult,
    TrialFinished,
    TrialMeasured,
    TrialStarted,
)
from contracts.operator import SessionRequested
from contracts.request.search import read_search
from contracts.session import SessionState
from runtime.log.archive import Archive
from runtime.views import markdown, plot, svg, terminal, view
from runtime.views.answer_pages import session_page
from runtime.views.blocks import Curves, walk
from runtime.views.sentences import sentence
from runtime.views.session_page import report_page
from runtime.views.session_record import SessionRecord
from runtime.views.trials import TrialTable
from tests.contracts.told import requested
from tests.runtime.recorded_home import RecordedHome
from tests.runtime.searched_home import BASE

RATE = "optimizer.learning_rate"
SESSION, FIRST, SECOND = "00-agq7rxjuhn2hhptp3cs3bhofwa", "00-first", "00-second"
TRIALS = (
    TrialStarted(number=0, session=FIRST, parameters={RATE: 0.001, "model.hidden": [64]}),
    TrialStarted(number=1, session=SECOND, parameters={RATE: 0.0123456, "model.hidden": [8, 8]}),
    TrialStarted(number=2, session="", parameters={RATE: 0.5, "model.hidden": [8]}),
)
FINISHED = (
    TrialFinished(number=0, session=FIRST, state="completed", value=0.5),
    TrialFinished(number=1, session=SECOND, state="completed", value=0.25),
    TrialFinished(number=2, session="", state="refused"),
)
COMPLETED = SearchCompleted(
    trials=3, best_number=1, best_session=SECOND, best_value=0.25, best_parameters=TRIALS[1].parameters
)
CANCELLED = SearchCancelled(reason="enough", trials=2, best_session=SECOND)
RATES = [10 ** (place / 10 - 5) for place in range(60)]
LOSSES = [2.0] * 30 + [1.0] * 20 + [1e30] * 8 + [math.inf, math.nan]
SUGGESTED = LearningRateSuggested(rates=RATES, losses=LOSSES, suggestion=0.01, steepest=0.02, diverged_at=0.1)


def searched(outcome: SearchCompleted | SearchCancelled | None) -> SessionState:
    return SessionState(SESSION, own=SearchState(trials=TRIALS, finished=FINISHED), outcome=outcome)


@pytest.mark.parametrize("outcome", [COMPLETED, CANCELLED])
def test_the_best_trial_is_shown_with_its_parameters_and_its_session(
    outcome: SearchCompleted | SearchCancelled,
) -> None:
    seen = view.summary(searched(outcome))
    best = {"number": 1, "session": SECOND, "value": 0.25, "parameters": TRIALS[1].parameters, "data_path": ""}
    assert seen["best_trial"] == best
    assert f"1, session {SECOND}: {RATE} 0.01235, model.hidden [8, 8]" in terminal.render(session_page(seen))


@pytest.mark.parametrize("outcome", [None, SearchCancelled(reason="enough", trials=0)])
def test_a_search_without_a_best_trial_names_none(outcome: SearchCancelled | None) -> None:
    seen = view.summary(searched(outcome))
    assert seen["best_trial"] is None
    assert "best trial" not in terminal.render(session_page(seen))


def test_a_report_lists_the_parameters_and_the_session_of_every_trial() -> None:
    table = TrialTable()
    space = {RATE: {"type": "float", "low": 1e-4, "high": 1.0}, "model.hidden": [[64], [8], [8, 8]]}
    request = read_search({"base": BASE, "space": space}).resolved()
    for event in (requested(request, "search"), *TRIALS, *FINISHED, COMPLETED):
        table.take(event, "")
    page = markdown.render(report_page(searched(COMPLETED), SessionRecord(trials=table)))
    assert "| trial | state | value | epochs | time | session | parameters |" in page
    assert f"| 1 | completed | 0.25 (best) |  |  | `{SECOND}` | {RATE} 0.01235, model.hidden [8, 8] |" in page
    assert f"| 2 | refused |  |  |  |  | {RATE} 0.5, model.hidden [8] |" in page
    assert f"| best trial | 1: {RATE} 0.01235, model.hidden [8, 8], session {SECOND} |" in page


FRONT = [
    FrontTrial(number=0, session=FIRST, values={"val_loss": 0.5, "parameters": 10.0}),
    FrontTrial(number=1, session=SECOND, values={"val_loss": 0.25, "parameters": 99.0}),
]
OPEN = COMPLETED.model_copy(update={"best_number": None, "best_session": None, "best_value": None, "front": FRONT})


def test_a_front_is_shown_with_the_values_of_its_trials_and_a_score_where_there_are_weights() -> None:
    seen = view.summary(searched(OPEN))
    assert seen["best_trial"] is None
    assert [(one["number"], one["values"], one["score"]) for one in seen["front"]] == [
        (one.number, one.values, None) for one in FRONT
    ]
    assert seen["front"][1]["parameters"] == TRIALS[1].parameters
    for page in (session_page(seen), report_page(searched(OPEN), SessionRecord())):
        assert f"| 1 | 0.25 | 99 | {RATE} 0.01235, model.hidden [8, 8] | `{SECOND}` |" in markdown.render(page)
    assert "score" not in terminal.render(session_page(seen))
    scored = [one.model_copy(update={"score": 1.5}) for one in FRONT]
    seen = view.summary(searched(COMPLETED.model_copy(update={"front": scored})))
    assert "| 1 | 0.25 | 99 | 1.5 |" in markdown.render(session_page(seen))
    assert "with 2 trials than which none is better in all objectives" in sentence(OPEN)
    assert view.summary(searched(COMPLETED))["front"] == []
    told = TrialFinished(number=1, session=SECOND, state="completed", value=0.25, values=FRONT[1].values)
    assert sentence(told) == "trial 1 completed: val_loss 0.25, parameters 99"


@pytest.mark.parametrize("outcome", [None, CANCELLED])
def test_the_front_so_far_is_shown_before_a_search_has_completed_and_without_what_breaks_a_constraint(
    outcome: SearchCancelled | None,
) -> None:
    asked = {"objectives": [{"metric": "val_loss"}, {"metric": "parameters"}]}
    request = SessionRequested(kind="search", request=asked, keyring="k", asked_by="me", rules=1)
    ended = [told.model_copy(update={"values": of.values}) for told, of in zip(FINISHED, FRONT, strict=False)]
    small = TrialFinished(number=2, session="00-small", state="completed", values={"val_loss": 0.1, "parameters": 1.0})
    size = ConstraintMeasure(constraint="max_size_mb", limit=1.0, value=2.0, n=1, missing="")
    broken = TrialMeasured(number=2, session="00-small", measures=[size])
    state = SearchState(trials=TRIALS, finished=(*ended, small), measured=(broken,))
    seen = view.summary(SessionState(SESSION, genesis=request, own=state, outcome=outcome))
    assert [(one["number"], one["values"]) for one in seen["front"]] == [(one.number, one.values) for one in FRONT]
    free = SearchState(trials=TRIALS, finished=(*ended, small))
    seen = view.summary(SessionState(SESSION, genesis=request, own=free, outcome=outcome))
    assert [one["number"] for one in seen["front"]] == [2]


def test_several_seeds_are_shown_with_their_spread() -> None:
    seeds = [
        SeedResult(seed=place, session=f"00-{place}", state="completed", epochs=2, values={"val_loss": value})
        for place, value in enumerate((0.2, 0.3))
    ]
    told = FINISHED[1].model_copy(update={"spread": {"val_loss": 0.0707}, "seeds": seeds})
    assert sentence(told) == "trial 1 completed: 0.25 over 2 seeds (± 0.0707)"
    begun = TRIALS[1].model_copy(update={"sessions": [SECOND, "00-more"]})
    assert sentence(begun).startswith(f"trial 1 is session {SECOND} and 1 more with other seeds: ")
    state = SearchState(trials=TRIALS, finished=(FINISHED[0], told))
    asked = {"metric": "val_loss"}
    request = SessionRequested(kind="search", request=asked, keyring="k", asked_by="me", rules=1)
    seen = view.summary(SessionState(SESSION, genesis=request, own=state, outcome=COMPLETED))
    assert seen["best_trial"] is not None
    assert (seen["best_trial"]["spread"], seen["best_trial"]["seeds"]) == (0.0707, 2)
    assert "(0.25 ± 0.071 over 2 seeds)" in terminal.render(session_page(seen))
    several = OPEN.model_copy(update={"front": FRONT[1:]})
    seen = view.summary(SessionState(SESSION, genesis=request, own=state, outcome=several))
    assert seen["front"][0]["spread"] == {"val_loss": 0.0707}
    assert "| trial | val_loss | parameters | ± over seeds |" in markdown.render(session_page(seen))


def test_the_end_of_a_search_is_told_with_what_it_found() -> None:
    def told(**about: Any) -> str:
        return sentence(COMPLETED.model_copy(update=about))

    assert told() == f"search completed after 3 trials, best 0.25 (trial 1: {RATE} 0.01235, model.hidden [8, 8])"
    nothing = {"best_number": None, "best_session": None, "best_value": None}
    assert told(**nothing, best_parameters={RATE: 0.01}) == f"range test completed, suggests {RATE} 0.01"
    assert "none of which has a value" in told(**nothing, best_parameters={})


def test_a_range_test_shows_its_suggestion_and_its_curve(tmp_path: Path) -> None:
    recorded = RecordedHome(tmp_path)
    session = recorded.requested("search")
    recorded.say(session, "hyperparameter_specialist", SUGGESTED)
    history = Archive(recorded.home).read(session).history
    seen = view.summary(history.state)
    shown = orjson.loads(orjson.dumps(seen["range_test"]))
    assert (shown["suggestion"], shown["steepest"], shown["diverged_at"]) == (0.01, 0.02, 0.1)
    assert (shown["rates"], shown["losses"]) == (RATES, [*LOSSES[:58], None, None])
    page = terminal.render(session_page(seen))
    assert "0.01 (the loss fell fastest at 0.02, training broke at 0.1)" in page
    assert "▅" * 15 + "▁" * 10 + "█" * 4 + "   losses at rates from 1e-05 to 7.943" in page
    report = report_page(history.state, SessionRecord.of(history.state, history.facts))
    text = markdown.render(report, {"range_test": "plots/range_test.svg"})
    assert "Suggests a learning rate of 0.01 (the loss fell fastest at 0.02, training broke at 0.1)." in text
    assert "| 1e-05 | 2 |" in text
    assert "plots/range_test.svg" in text


def test_the_curve_of_a_range_test_is_drawn_though_it_ends_in_no_numbers() -> None:
    page = report_page(SessionState(SESSION, own=SearchState(suggested=SUGGESTED)), SessionRecord())
    (tried,) = (block for block in walk(page.blocks) if isinstance(block, Curves))
    picture = svg.picture_of(tried)
    assert tried.file == "range_test"
    assert b"8 points above 3 are drawn there." in picture
    assert b"nan" not in picture


@pytest.mark.parametrize(
    ("values", "row"),
    [
        ([], ""),
        ([None, math.nan], ""),
        ([1.0], "▁"),
        ([2.0, 1.0, 3.0], "▅▁█"),
        ([2.0, 1.0, None, 1e9], "▅▁ █"),
        ([1.0, 2.0, 9.0], "▁▂█"),
        ([1.7e308, -1.7e308], "█▁"),
    ],
)
def test_a_curve_in_a_line_is_as_high_above_its_beginning_as_it_falls(values: list[float | None], row: str) -> None:
    assert plot.sketch(values) == row


def test_many_values_fit_the_line() -> None:
    assert len(plot.sketch([float(one) for one in range(1000)], 50)) == 50


def test_the_lineage_of_the_best_member_is_shown_with_the_commands_that_train_it_again() -> None:
    first = LineageStage(number=0, session=FIRST, step=0, parameters={RATE: 0.01, "schedule.type": "constant"})
    then = LineageStage(number=4, session=SECOND, step=45, parameters={RATE: 0.0125, "schedule.type": "constant"})
    seen = SessionState(SESSION, own=SearchState(lineage=LineageTraced(stages=[first, then])))
    stages = view.summary(seen)["lineage"]
    assert [stage["command"] for stage in stages] == [
        f"swarm fork {FIRST} --at 0 --set 'training.pauses=[]' --request-id again-agq7rxju-1",
        f"swarm fork again-agq7rxju-1 --at 45 --set {RATE}=0.0125 --request-id again-agq7rxju-2",
    ]
    page = terminal.render(session_page(view.summary(seen)))
    for told in (*(stage["command"] for stage in stages), f"{RATE} 0.0125, schedule.type constant"):
        assert told in " ".join(page.split())
    assert "Lineage" in markdown.render(report_page(seen, SessionRecord()), {})
    assert view.summary(SessionState(SESSION, own=SearchState()))["lineage"] == []
