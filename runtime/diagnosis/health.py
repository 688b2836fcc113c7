"""How healthy a recorded training was: what is wrong with it, what was tried, and with which request to go on.

A pure function of a session's facts. The findings are those that the session's log tells, and beside them what the
rules of today find in the same facts, by the diagnostician's fold in the mode `observe`: whatever the session's own
mode was, and whichever rules there were when it began.
"""

import functools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from typing_extensions import TypedDict

from contracts.diagnostician import AdvisorAnswered, OutcomeJudged, ProblemDiagnosed
from contracts.envelope import Fact
from contracts.errors import InvalidRequest, SwarmError
from contracts.operator import ProposalApproved, SessionRequested
from contracts.request.reading import put, read_request
from contracts.request.training import diagnosis_of, less_is_better
from contracts.session import SessionState
from contracts.trainer import InterventionDeclined, WindowRecorded
from runtime.diagnosis.evidence import Evidence, Remedy, RuleFinding
from runtime.diagnosis.fold import DiagnosisState
from runtime.diagnosis.remedies import LADDERS, Rung, Trouble
from runtime.engine.plain_kinds import read_levers
from runtime.statistics.resampling import share_of

Figure = float | str | None
"""A number; a word for one that is not finite."""


class ExpectedGain(TypedDict):
    """Of the bench's faulty trainings in which a remedy was tried for a problem, in how many it was the last.

    That is, the training reached its healthy twin with it; `low` and `high` bound the share with a confidence of 90 %.
    """

    reached: int
    tried: int
    low: float
    high: float


class RungLine(TypedDict):
    """One remedy of a problem's ladder, how it is rated, how often it took effect, and what the bench had from it."""

    remedy: str
    words: str
    impact: int
    effort: int
    risk: int
    by_itself: bool
    taken: int
    expected: ExpectedGain | None


class FindingLine(TypedDict):
    """One problem; `said` when the session's log tells it, `superseded` when a later segment took its steps back."""

    number: int
    rule: str
    severity: str
    confidence: str | None
    priority: int
    segment: int
    first: int
    last: int
    message: str
    cure: str
    figures: dict[str, Figure]
    evidence: list[str]
    said: bool
    superseded: bool
    ladder: list[RungLine]


class TriedLine(TypedDict):
    """One proposal, or one change by hand (`proposal` is None then): what was decided, and whether it helped."""

    proposal: int | None
    rule: str
    remedy: str
    reason: str
    changes: dict[str, object]
    decision: Literal["took effect", "declined", "approved", "rejected", "open"]
    because: str
    step: int | None
    segment: int | None
    begun: str | None
    helped: bool | None
    judgement: str


class AdviceLine(TypedDict):
    """One question to the advisor, what came of it, and what it cost; `proposal` is the number of what it chose."""

    rule: str
    question: str
    model: str
    outcome: Literal["proposed", "agreed", "kept", "refused", "failed", "open"]
    action: str
    value: float | None
    confidence: str | None
    proposal: int | None
    because: str
    rung: str
    calls: int
    tokens: int
    seconds: float


class OptionLine(TypedDict):
    """One value of the next request that is not what it was, and why."""

    path: str
    before: object
    after: object
    why: str


class NextRequest(TypedDict):
    """A whole request to go on with: the session's, with what took effect in it and the next remedy of `rule`."""

    rule: str
    remedy: str
    expected: ExpectedGain | None
    changes: list[OptionLine]
    notes: list[str]
    request: dict[str, object]


class DiagnosisAnswer(TypedDict):
    """What is known of a session's health; `judged` says whether its own diagnosis asked more than the oldest rules."""

    session: str
    state: str
    mode: str
    judged: bool
    step: int
    steps_total: int | None
    superseded_steps: int
    unsound_windows: int
    findings: list[FindingLine]
    tried: list[TriedLine]
    advice: list[AdviceLine]
    next: NextRequest | None
    no_next: str


def diagnose(session: SessionState, facts: Iterable[Fact]) -> DiagnosisAnswer:
    """The health of a training as its facts have it."""
    training, mode = session.training, diagnosis_of(session.request).mode
    last, seen = training.last_window, _Pass.of(session, facts)
    judged = mode != "off" and not training.waived_judgement and (last is None or last.sensors is not None)
    findings, tried = _findings(session, seen, judged=judged), _tried(session, seen)
    taken = [(line["rule"], line["remedy"]) for line in tried if line["decision"] == "took effect" or line["begun"]]
    for line in findings:
        ladder = LADDERS.get(line["rule"], ())
        line["ladder"] = [_rung_line(rung, line["rule"], taken.count((line["rule"], rung.name))) for rung in ladder]
    following, no_next = _next(session, seen, findings, taken)
    return {
        "session": session.id,
        "state": session.state,
        "mode": mode,
        "judged": judged,
        "step": session.step,
        "steps_total": training.total_steps,
        "superseded_steps": seen.superseded,
        "unsound_windows": seen.unsound,
        "findings": findings,
        "tried": tried,
        "advice": [*advice_lines(session)],
        "next": following,
        "no_next": no_next,
    }


@dataclass(frozen=True, slots=True)
class _Pass:
    """What one pass over the facts gives."""

    found: tuple[ProblemDiagnosed, ...]
    state: DiagnosisState
    judgements: Mapping[str, OutcomeJudged]
    declined: Mapping[str, str]
    superseded: int
    unsound: int

    @classmethod
    def of(cls, session: SessionState, facts: Iterable[Fact]) -> "_Pass":
        state = DiagnosisState(Evidence(edition=2))
        found, judgements, declined = list[ProblemDiagnosed](), dict[str, OutcomeJudged](), dict[str, str]()
        superseded = unsound = 0
        for fact in facts:
            state = state.advance(fact)
            if state.at == fact.id:
                found += (told for told in state.said if isinstance(told, ProblemDiagnosed))
            match fact.event:
                case SessionRequested():
                    state = replace(state, evidence=replace(state.evidence, mode="observe"))
                case WindowRecorded() as window:
                    unsound += not window.finite
                    on_path = session.training.on_path(window.segment, window.last)
                    superseded += 0 if on_path else window.last - window.first
                case OutcomeJudged() as judged:
                    judgements[judged.proposal] = judged
                case InterventionDeclined() as refused:
                    declined[refused.proposal] = refused.reason
        return cls(tuple(found), state, judgements, declined, superseded, unsound)


def _findings(session: SessionState, seen: _Pass, *, judged: bool) -> list[FindingLine]:
    """What was said and what would be, the cause of the others first; notes and what was superseded come last.

    Of steps that were superseded a judged session was to say nothing once a remedy was on its way.
    """
    said = [told for _, told in session.training.diagnoses]
    known = {(told.rule, told.segment) for told in said}
    fresh = [told for told in seen.found if (told.rule, told.segment) not in known]
    lines = [_finding_line(session, told, said=True) for told in said]
    lines += [
        line for told in fresh if not (line := _finding_line(session, told, said=False))["superseded"] or not judged
    ]
    lines.sort(key=lambda one: (one["superseded"], one["severity"] == "note", one["priority"] or 1000, one["first"]))
    return [{**line, "number": number} for number, line in enumerate(lines, 1)]


def _finding_line(session: SessionState, told: ProblemDiagnosed, *, said: bool) -> FindingLine:
    return {
        "number": 0,
        "rule": told.rule,
        "severity": told.severity,
        "confidence": told.confidence,
        "priority": told.priority,
        "segment": told.segment,
        "first": told.first,
        "last": told.last,
        "message": told.message,
        "cure": told.cure,
        "figures": {name: value if math.isfinite(value) else str(value) for name, value in told.figures.items()},
        "evidence": list(told.evidence),
        "said": said,
        "superseded": not session.training.on_path(told.segment, told.last),
        "ladder": [],
    }


EXPECTED = Path(__file__).with_name("expected_gain.json")
"""By problem and remedy, in how many trainings of the bench it was the last that was tried, and in how many tried."""


@functools.cache
def _counted_gains(file: Path) -> Mapping[str, Mapping[str, Sequence[int]]]:
    counts: Mapping[str, Mapping[str, Sequence[int]]] = json.loads(file.read_bytes())
    return counts


def expected_gain(rule: str, remedy: str) -> ExpectedGain | None:
    """What the bench of faults had from a remedy for a problem; None where it was never tried."""
    reached, tried = _counted_gains(EXPECTED).get(rule, {}).get(remedy, (0, 0))
    if not tried:
        return None
    _, low, high = share_of(reached, tried)
    return {"reached": reached, "tried": tried, "low": low, "high": high}


def _rung_line(rung: Rung, rule: str, taken: int) -> RungLine:
    return {
        "remedy": rung.name,
        "words": rung.words,
        "impact": rung.impact,
        "effort": rung.effort,
        "risk": rung.risk,
        "by_itself": rung.automatic,
        "taken": taken,
        "expected": expected_gain(rule, rung.name),
    }


OLDER = {"learning_rate": "lower_rate", "grad_clip": "clip"}
"""The remedies of proposals that did not name theirs, by what they changed first."""


def _tried(session: SessionState, seen: _Pass) -> list[TriedLine]:
    """Every proposal in its order, then what was changed by hand."""
    training = session.training
    applied = {told.proposal: (id, told) for id, told in training.applied}
    lines: list[TriedLine] = []
    for number, (id, proposal) in enumerate(training.proposals, 1):
        event, effect = applied.pop(id, ("", None))
        said, judged = training.decided.get(id), seen.judgements.get(event)
        approved = isinstance(said, ProposalApproved)
        lines.append(
            {
                "proposal": number,
                "rule": proposal.rule,
                "remedy": proposal.remedy or OLDER.get(next(iter(proposal.changes), ""), ""),
                "reason": proposal.reason,
                "changes": dict(proposal.set or proposal.changes),
                "decision": "took effect"
                if effect
                else "declined"
                if id in seen.declined
                else "open"
                if said is None
                else "approved"
                if approved
                else "rejected",
                "because": seen.declined.get(id, "") or getattr(said, "reason", ""),
                "step": effect.step if effect else None,
                "segment": effect.segment if effect else None,
                "begun": said.session if isinstance(said, ProposalApproved) else None,
                "helped": judged.helped if judged else None,
                "judgement": judged.message if judged else "",
            }
        )
    for event, effect in applied.values():
        judged = seen.judgements.get(event)
        lines.append(
            {
                "proposal": None,
                "rule": "",
                "remedy": "",
                "reason": f"asked for by {effect.by}",
                "changes": dict(effect.changes),
                "decision": "took effect",
                "because": "",
                "step": effect.step,
                "segment": effect.segment,
                "begun": None,
                "helped": judged.helped if judged else None,
                "judgement": judged.message if judged else "",
            }
        )
    return lines


def advice_lines(session: SessionState) -> Iterator[AdviceLine]:
    """Every question to the advisor in its order."""
    training = session.training
    numbers = {training.advised.get(id): number for number, (id, _) in enumerate(training.proposals, 1)}
    for id, asked in training.questions.items():
        came = training.answers.get(id) or AdvisorAnswered(asked=id, rung="none", outcome="failed")
        yield {
            "rule": asked.rule,
            "question": asked.question,
            "model": asked.model,
            "outcome": came.outcome if id in training.answers else "open",
            "action": came.action,
            "value": came.value,
            "confidence": came.confidence,
            "proposal": numbers.get(id),
            "because": came.reason or came.error,
            "rung": came.rung,
            "calls": came.calls,
            "tokens": came.prompt_tokens + came.completion_tokens,
            "seconds": came.seconds,
        }


# ---------------------------------------------------------------- the next request

Taken = Sequence[tuple[str, str]]


def _next(
    session: SessionState, seen: _Pass, findings: Iterable[FindingLine], taken: Taken
) -> tuple[NextRequest | None, str]:
    """The request to go on with, or why there is none."""
    try:
        request: Any = read_request({**session.request, "request_id": None}).resolved()
    except InvalidRequest as error:
        return None, f"This version does not take the session's request: {error}"
    request, changes, notes = with_effects(session, request)
    if session.fork:
        notes.append(f"The session is a fork of {session.fork.session}; this request trains from the beginning.")
    open_ones = [line for line in findings if not line["superseded"] and line["severity"] != "note"]
    for line in open_ones:
        for rung, values in _rungs(seen, line, request, taken):
            following, why = request, f"{rung.words}, for {line['rule']} in steps {line['first']}..{line['last']}"
            for path, value in values.items():
                following = put(following, path.split("."), value)
            try:
                following = read_request(following).resolved()
            except InvalidRequest:
                continue
            if following == request:
                continue
            more = [_option(request, path, value, why) for path, value in values.items()]
            changed = [*changes, *more]
            expected = expected_gain(line["rule"], rung.name)
            made = NextRequest(
                rule=line["rule"], remedy=rung.name, expected=expected, changes=changed, notes=notes, request=following
            )
            return made, ""
    if changes and not open_ones:
        return NextRequest(rule="", remedy="", expected=None, changes=changes, notes=notes, request=request), ""
    if open_ones:
        rules = ", ".join(dict.fromkeys(line["rule"] for line in open_ones))
        return None, f"No remedy is left that a request can say for {rules}."
    return None, "No problem is left on the path that training took."


def with_effects(session: SessionState, request: Any) -> tuple[Any, list[OptionLine], list[str]]:
    """A request with everything that took effect in a session, what that changed, and what of it no request can say."""
    changes, notes = list[OptionLine](), list[str]()
    for _, applied in session.training.applied:
        try:
            pulled = read_levers(applied.changes)
        except SwarmError as error:
            notes.append(f"What took effect at step {applied.step} is not here: {error.message}")
            continue
        for lever in pulled:
            values = {} if lever.misfit(request) else lever.in_request(request)
            why = f"{lever.sentence()}: took effect in the session at step {applied.step}, by {applied.by}"
            if not values:
                notes.append(f"Not here, because no request can say it: {why}.")
            for path, value in values.items():
                changes.append(_option(request, path, value, why))
                request = put(request, path.split("."), value)
    return request, changes, notes


def _rungs(
    seen: _Pass, line: FindingLine, request: Mapping[str, Any], taken: Taken
) -> Iterator[tuple[Rung, Mapping[str, Any]]]:
    """The remedies of a problem's ladder that may be tried (again), with the values of a request that have them."""
    evidence = replace(seen.state.evidence, request=request)
    # No rate helps a training whose very first loss is no number.
    sound = evidence.initial is None or math.isfinite(evidence.initial)
    finding = RuleFinding(
        line["rule"],
        "critical" if line["severity"] == "critical" else "warning",
        line["first"],
        line["last"],
        line["message"],
        line["cure"],
        (),
        {name: value for name, value in line["figures"].items() if isinstance(value, float)},
        remedy=Remedy.gentler("", line["first"]) if sound else None,
    )
    trouble = Trouble(finding, evidence, clip=request["training"]["grad_clip"])
    for rung in LADDERS.get(line["rule"], ()) if trouble.began_sound else ():
        changes = rung.pull(trouble) if taken.count((line["rule"], rung.name)) < rung.times else None
        if changes is None:
            continue
        values = dict(changes) if rung.another else {}
        for lever in () if rung.another else read_levers(changes):
            values |= {} if lever.misfit(request) else lever.in_request(request)
        if values:
            yield rung, values


def _option(request: Any, path: str, value: object, why: str) -> OptionLine:
    before = request
    for key in path.split("."):
        before = before.get(key) if isinstance(before, Mapping) else None
    return {"path": path, "before": before, "after": value, "why": why}


# ---------------------------------------------------------------- two sessions

Better = Literal["A", "B", "neither", "not comparable"]
RANKS = {"critical": 3, "warning": 2, "note": 1}


class ProblemPair(TypedDict):
    """One problem: how severe it is on the path of each session, None where it is not, and who is better off."""

    rule: str
    severities: list[str | None]
    better: Better


class FigurePair(TypedDict):
    """One figure of both, and which is better; `why` says it where they cannot be compared."""

    name: str
    values: list[Figure]
    better: Better
    why: str


class HealthDifference(TypedDict):
    """Which of two sessions is healthier in what, as far as their logs tell."""

    sessions: list[str]
    states: list[str]
    judged: list[bool]
    problems: list[ProblemPair]
    figures: list[FigurePair]


Side = tuple[SessionState, DiagnosisAnswer]


def compare(one: Side, other: Side) -> HealthDifference:
    """The health of two trainings beside each other. No verdict is made of all: each problem and figure has its own."""
    sides = (one, other)
    severities = [_severities(answer) for _, answer in sides]
    problems: list[ProblemPair] = []
    for rule in dict.fromkeys([*severities[0], *severities[1]]):
        both = [side.get(rule) for side in severities]
        ranks = [RANKS.get(severity or "", 0) for severity in both]
        problems.append({"rule": rule, "severities": both, "better": _better(*ranks, less=True)})
    return {
        "sessions": [answer["session"] for _, answer in sides],
        "states": [answer["state"] for _, answer in sides],
        "judged": [answer["judged"] for _, answer in sides],
        "problems": problems,
        "figures": [*_counted(one[1], other[1]), *_measured(one[0], other[0])],
    }


def _severities(answer: DiagnosisAnswer) -> dict[str, str]:
    """The gravest severity of each problem on the path."""
    found: dict[str, str] = {}
    for line in answer["findings"]:
        rule, severity = line["rule"], line["severity"]
        if not line["superseded"] and RANKS.get(severity, 0) > RANKS.get(found.get(rule, ""), 0):
            found[rule] = severity
    return found


def _counted(one: DiagnosisAnswer, other: DiagnosisAnswer) -> Iterator[FigurePair]:
    """What is counted alike whatever is trained on."""
    for name, count in (
        ("windows that are not finite", "unsound_windows"),
        ("steps that were superseded", "superseded_steps"),
    ):
        values = [float(answer[count]) for answer in (one, other)]  # type: ignore[literal-required]
        yield {"name": name, "values": [*values], "better": _better(*values, less=True), "why": ""}


def _measured(one: SessionState, other: SessionState) -> Iterator[FigurePair]:
    """The metrics of the best evaluations, or of the newest where none is best.

    They can be compared on the same rows, and losses under the same loss.
    """
    evaluated = [(state.training.best, *state.training.evaluations[-1:]) for state in (one, other)]
    best = [next((seen.values for seen in side if seen), {}) for side in evaluated]
    data = [state.training.dataset.root if state.training.dataset else None for state in (one, other)]
    for name in (name for name in best[0] if name in best[1]):
        values, why = [side[name] for side in best], ""
        if data[0] != data[1] or data[0] is None:
            why = "other data"
        elif name.endswith(("loss", "perplexity")) and one.request.get("loss") != other.request.get("loss"):
            why = "another loss"
        better = "not comparable" if why else _better(*values, less=less_is_better(name))
        shown: list[Figure] = [value if math.isfinite(value) else str(value) for value in values]
        yield {"name": name, "values": shown, "better": better, "why": why}


def _better(one: float, other: float, *, less: bool) -> Better:
    """Who is better off; a value that is no number is worse than any other."""
    worst = math.inf if less else -math.inf
    one, other = (worst if math.isnan(value) else value for value in (one, other))
    if one == other:
        return "neither"
    return "A" if (one < other) is less else "B"
