"""The trials of a search as one table, folded from its events alone: live, as a page, as CSV and as JSON.

A trial's cost is the epochs that it trained, and the seconds from its request to its end; what it waited at rungs is
not counted, what it waited for a slot is.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import ValidationError
from typing_extensions import TypedDict

from contracts import hyperparameter_specialist as searches
from contracts.errors import InvalidInput, NotFound
from contracts.event import Event
from contracts.operator import SessionRequested
from contracts.request.objectives import Costs, Objective, costs, pareto_front, weigh
from contracts.request.population import Population
from contracts.request.search import Search
from contracts.request.space import value_at
from contracts.session import SessionState
from runtime.log.session_log import SessionLog
from runtime.views.blocks import (
    LONGEST_CELL,
    Block,
    Content,
    Page,
    PageColumn,
    PageTable,
    Phrase,
    Tone,
    key_figures,
    shortened,
)
from runtime.views.formatting import finite, in_words, one_line
from runtime.views.view import moment


class TrialRung(TypedDict):
    """A trial at a rung: after so many epochs, its value, and whether it went on; None while nothing is decided."""

    rung: int
    epochs: int
    value: float | None
    goes_on: bool | None


class TrialRow(TypedDict):
    """One trial of a search. `value` is what counts for the best; what it came to before is in `rungs`.

    Of several objectives `values` has each, by metric, and `spread` the standard deviation over several seeds. `broken`
    says which constraints the trial breaks; such a one is never the best.

    `state` is running, waiting (at a rung), stopped (there), completed, failed, cancelled, refused (no request could
    be made of its parameters), rejected (its data) or repeated (it is trial `same_as` again).
    """

    number: int
    state: str
    value: float | None
    values: dict[str, float]
    spread: dict[str, float]
    broken: list[str]
    epochs: int
    seconds: float | None
    rung: int | None
    parameters: dict[str, object]
    session: str
    same_as: int | None
    rungs: list[TrialRung]


class TrialsAnswer(TypedDict):
    """The trials of a search, how many there will be, the best by number, and the command that trains that in full.

    Of several objectives `front` has the trials than which no other is better in all.
    """

    session: str
    name: str
    state: str
    metric: str
    direction: Literal["minimize", "maximize"] | None
    planned: int | None
    best: int | None
    front: list[int]
    train: str
    trials: list[TrialRow]


class TrialTable:
    """Takes the events of a search one by one, and has a row for each of its trials, by number."""

    def __init__(self) -> None:
        self.search: Search | Population | None = None
        """None before the search was requested, and where this software cannot read its request."""
        self.rows: dict[int, TrialRow] = {}
        self._since: dict[int, str] = {}

    @property
    def planned(self) -> int | None:
        """How many trials there will be: a grid may have fewer than were asked for; a population's is not known."""
        if not isinstance(self.search, Search):
            return None
        size = self.search.grid_size if self.search.sampler in ("auto", "grid") else None
        return self.search.trials if size is None else min(size, self.search.trials)

    @property
    def objectives(self) -> Sequence[Objective]:
        """Those by which the search is judged, where there are several."""
        return self.search.objectives if isinstance(self.search, Search) else ()

    @property
    def front(self) -> list[int]:
        """The trials so far than which no other is better in all objectives; none where there is one."""
        return pareto_front(self._costs()) if self.objectives else []

    @property
    def best(self) -> int | None:
        """The trial with the best value so far, or of several objectives with the best score by their weights."""
        if self.objectives and self.search:
            weights = [objective.weight for objective in self.objectives if objective.weight is not None]
            scores, front = weigh(self._costs(), weights) if weights else {}, self.front
            return min((number for number in front if number in scores), key=lambda n: (scores[n], n), default=None)
        known = (row for row in self.rows.values() if self.search and row["value"] is not None and not row["broken"])
        return min(map(self.place, known), default=(False, 0.0, None))[2]

    def _costs(self) -> dict[int, Costs]:
        rows = (row for row in self.rows.values() if not row["broken"])
        return {row["number"]: costs(row["values"], self.objectives) for row in rows}

    def take(self, event: Event, time: str) -> None:
        """Fold one more event, which was said at that time."""
        match event:
            case SessionRequested(kind="search", request=request):
                method = Population if request.get("method") == "population" else Search
                with suppress(ValidationError):
                    self.search = method.model_validate(request)
            case searches.TrialStarted(number=number):
                self._since[number] = time
                self.rows[number] = {
                    "number": number,
                    "state": "running",
                    "value": None,
                    "values": {},
                    "spread": {},
                    "broken": [],
                    "epochs": 0,
                    "seconds": None,
                    "rung": None,
                    "parameters": {**event.parameters},
                    "session": event.session,
                    "same_as": event.same_as,
                    "rungs": [],
                }
            case searches.TrialPaused(number=number, rung=rung, epochs=epochs) if row := self.rows.get(number):
                self._stops(row, "waiting", time)
                row["epochs"], row["rung"], value = epochs, rung, _known(event.value)
                row["rungs"].append({"rung": rung, "epochs": epochs, "value": value, "goes_on": None})
            case (
                searches.RungDecided(kept=kept, stopped=stopped)
                | searches.GenerationDecided(kept=kept, stopped=stopped)
            ):
                self._decided(kept, time, goes_on=True)
                self._decided(stopped, time, goes_on=False)
            case searches.TrialFinished(number=number) if row := self.rows.get(number):
                self._stops(row, event.state, time)
                row["value"], row["epochs"] = _known(event.value), event.epochs or row["epochs"]
                row["values"], row["spread"] = dict(event.values), dict(event.spread)
            case searches.TrialMeasured(number=number) if row := self.rows.get(number):
                row["broken"] = [measure.words for measure in event.measures if measure.excess > 0]
            case searches.SearchCancelled():
                for row in (row for row in self.rows.values() if row["state"] in ("running", "waiting")):
                    self._stops(row, "cancelled", time)

    def place(self, row: TrialRow) -> tuple[bool, float, int]:
        """What trials are ordered by, the best first, of equals the earlier; those without a value come last."""
        value, more_is_better = row["value"], self.search is not None and not self.search.minimizes
        return value is None, (value or 0.0) * (-1 if more_is_better else 1), row["number"]

    def _stops(self, row: TrialRow, state: str, time: str) -> None:
        """The trial goes no further for now; what passed since it was last let go on is added."""
        row["state"] = state
        begun, ended = moment(self._since.pop(row["number"], "")), moment(time)
        if begun and ended:
            row["seconds"] = round((row["seconds"] or 0.0) + max(0.0, (ended - begun).total_seconds()), 3)

    def _decided(self, numbers: Sequence[int], time: str, *, goes_on: bool) -> None:
        for row in (self.rows[number] for number in numbers if number in self.rows):
            row["state"] = "running" if goes_on else "stopped"
            if row["rungs"]:
                row["rungs"][-1]["goes_on"] = goes_on
            if goes_on:
                self._since[row["number"]] = time


def _known(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def table_of(history: SessionLog) -> TrialTable:
    """The trials of a whole search; `InvalidInput` for a session of another kind, or a search without trials."""
    state = history.state
    if state.kind is not searches.SEARCH or state.request.get("method") == "lr_range":
        kind = "a range test" if state.kind is searches.SEARCH else f"of the kind {state.kind.name!r}"
        cure = "Name a search: swarm sessions --kind search"
        raise InvalidInput(f"{history.id} is {kind}, and has no trials.", cure=cure)
    table = TrialTable()
    for fact in history.facts:
        table.take(fact.event, fact.envelope.time)
    return table


def trials_answer(table: TrialTable, state: SessionState, named: str = "", options: str = "") -> TrialsAnswer:
    """Everything that is told of a search's trials; `named` is how a command names it, with which options."""
    search, best = table.search, table.best
    path = value_at(state.request, "base.data.path")
    alone = best is not None and isinstance(search, Search)
    return {
        "session": state.id,
        "name": str(state.request.get("name", "")),
        "state": state.state,
        "metric": search.metric if search else "",
        "direction": None if search is None else "minimize" if search.minimizes else "maximize",
        "planned": table.planned,
        "best": best,
        "front": table.front,
        "train": train_command(named or state.id, "best", path, options) if alone else "",
        "trials": [table.rows[number] for number in sorted(table.rows)],
    }


def train_command(named: str, trial: str, data_path: object, options: str = "") -> str:
    """The command that trains a trial in full, as a session of its own.

    A request may read the folder in which it lies, so that of rows in files is written beside them.
    """
    asks = f"swarm{options} trials {shlex.quote(named)} --request {trial}"
    if not isinstance(data_path, str) or not data_path:
        return f"{asks} | swarm{options} run -"
    file = shlex.quote(str(Path(data_path).parent / f"trial-{trial}.yaml"))
    return f"{asks} -o {file} --force && swarm{options} run {file}"


def whole_request(table: TrialTable, trial: str) -> tuple[TrialRow, dict[str, object]]:
    """The trial of that number, or the `best` one, and the request that trains it in full."""
    search, number = table.search, table.best if trial == "best" else int(trial) if trial.isdecimal() else -1
    if isinstance(search, Population):
        message = "a trial of a population goes on from another's state, and has no request of its own."
        raise InvalidInput(message, cure="Load its checkpoint: swarm checkpoints SESSION")
    if search is None:
        raise InvalidInput("this software cannot read the request of the search.", cure="Use the one that made it.")
    row = table.rows.get(number) if number is not None else None
    if row is None:
        what = "no trial has a value yet" if trial == "best" else f"there is no trial {trial!r}"
        raise NotFound(f"{what}; there are {len(table.rows)}.", cure="List them: swarm trials S", path="--request")
    return row, search.whole_trial(row["number"], row["parameters"])


def sorted_trials(answer: TrialsAnswer, by: str) -> list[TrialRow]:
    """The trials by number, by value (the best first), or by what they cost (the dearest first)."""
    sign = -1 if answer["direction"] == "maximize" else 1

    def place(row: TrialRow) -> tuple[bool, float]:
        if by == "value":
            return row["value"] is None or bool(row["broken"]), sign * (row["value"] or 0.0)
        return False, -finite(row["epochs"] if by == "epochs" else row["seconds"] or 0.0)

    return list(answer["trials"]) if by == "number" else sorted(answer["trials"], key=place)


def trials_csv(trials: Sequence[TrialRow]) -> str:
    """A line for each trial, with a column for each parameter; lists are JSON.

    A spreadsheet takes text that begins with one of `=+-@` for a formula, so such text has a ' before it.
    """
    paths = list(dict.fromkeys(path for row in trials for path in row["parameters"]))
    own = ("number", "state", "value", "epochs", "seconds", "rung", "session", "same_as")
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")

    def cell(value: object) -> object:
        if value is None or isinstance(value, int | float):
            return value
        text = one_line(
            value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
        )
        return f"'{text}" if re.match(r"[=+\-@]", text) else text

    writer.writerow(map(cell, (*own, *paths)))
    for row in trials:
        cells: Mapping[str, object] = row
        writer.writerow([*(cell(cells[name]) for name in own), *(cell(row["parameters"].get(path)) for path in paths)])
    return file.getvalue()


TONES: Mapping[str, Tone] = {"failed": "bad", "rejected": "bad", "refused": "warn", "cancelled": "warn"}


def trials_table(trials: Sequence[TrialRow], best: int | None, *, sessions: bool = True) -> PageTable:
    """Trials as rows of a page: what each was given, what it came to and what it cost, `sessions` with its session."""
    columns = [PageColumn("trial", "count"), PageColumn("state"), PageColumn("value", "number")]
    columns += [PageColumn("epochs", "count"), PageColumn("time", "seconds")]
    with_rungs = any(row["rungs"] for row in trials)
    columns += [PageColumn("rung", "count")] if with_rungs else []
    columns += [PageColumn("session", "code")] if sessions else []
    columns.append(PageColumn("parameters"))
    rows = [
        (
            row["number"],
            Phrase(state_of(row), TONES.get(row["state"], "")),
            value_of(row, best),
            row["epochs"] or None,
            row["seconds"],
            *((row["rung"],) if with_rungs else ()),
            *((row["session"],) if sessions else ()),
            parameters_of(row),
        )
        for row in trials
    ]
    note = "A value in brackets is that at a rung, and counts for no best." if with_rungs else ""
    return PageTable(tuple(columns), tuple(rows), note)


def state_of(row: TrialRow) -> str:
    """The state of a trial in a cell."""
    state = "infeasible" if row["broken"] and row["state"] == "completed" else row["state"]
    return state if row["same_as"] is None else f"repeats {row['same_as']}"


def value_of(row: TrialRow, best: int | None) -> Phrase:
    """The value of a trial in a cell: the best one marked by a word, that at a rung in brackets."""
    if row["value"] is not None:
        spread = next(iter(row["spread"].values()), None)
        told = f"{row['value']:.6g}" + (f" ± {spread:.2g}" if spread is not None else "")
        told = in_words(row["values"]) if len(row["values"]) > 1 else told
        is_best = row["number"] == best
        return Phrase(told + (" (best)" if is_best else ""), "good" if is_best else "")
    last = row["rungs"][-1]["value"] if row["rungs"] else None
    return Phrase("" if last is None else f"({last:.6g})", "faint")


def parameters_of(row: TrialRow) -> str:
    """The parameters of a trial in a cell."""
    return shortened(in_words(row["parameters"]), LONGEST_CELL) if row["parameters"] else ""


MOST_NAMED = 40
"""Trials of a front that are named."""
UNREAD = "what its request says, which this software cannot read"


def best_figures(answer: TrialsAnswer) -> Block:
    """The search at a glance: how far it is, its best trial, and the command that trains that in full."""
    states = Counter(row["state"] for row in answer["trials"])
    of = f" of {answer['planned']}" if answer["planned"] is not None else ""
    told = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    best = next((row for row in answer["trials"] if row["number"] == answer["best"]), None)
    spent = sum(finite(row["epochs"]) for row in answer["trials"])
    front = f"{', '.join(map(str, answer['front'][:MOST_NAMED]))}: no other is better in all objectives"
    rows: list[tuple[str, Content]] = [
        ("session", Phrase(answer["session"], code=True)),
        ("state", answer["state"]),
        ("trials", f"{len(answer['trials'])}{of}" + (f": {told}" if told else "")),
        (
            "judged by",
            f"{answer['metric']}, {answer['direction']}"
            if answer["direction"]
            else "a request that this software cannot read",
        ),
        ("epochs", f"{spent:.0f}" if spent else ""),
        ("front", front if answer["front"] else ""),
    ]
    if best is not None:
        rows += [
            ("best", Phrase(f"{best['value']:.6g}, trial {best['number']}", "good")),
            ("its parameters", parameters_of(best)),
            ("its session", Phrase(best["session"], code=True)),
            ("train it in full", Phrase(answer["train"], code=True)),
        ]
    return key_figures(*rows)


def trials_page(answer: TrialsAnswer, shown: Sequence[TrialRow], *, sessions: bool = True) -> Page:
    """What `swarm trials` says."""
    lead = f"search {answer['session']}"
    table = trials_table(shown, answer["best"], sessions=sessions)
    return Page(answer["name"] or "search", lead, (best_figures(answer), *((table,) if table.rows else ())))
