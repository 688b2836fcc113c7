"""What the diagnostician says: what is wrong, on what evidence, what it proposes, and whether that helped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field, JsonValue

from contracts.event import Event, Exact, Hex64, Payload, unchanged
from contracts.kind import Carrier, Kind, KindState, failed_unless_cancelled, having
from contracts.operator import CancelRequested
from contracts.roles import DIAGNOSTICIAN

Severity = Literal["note", "warning", "critical"]
Confidence = Literal["certain", "likely", "possible"]
"""`certain` follows from what is recorded, `likely` most often shows so, `possible` is one of several causes."""


def _not_ranked(old: Payload) -> Payload:
    return old | {"confidence": None, "priority": 0}


class ProblemDiagnosed(
    Event,
    lane=DIAGNOSTICIAN,
    wire="problem.diagnosed",
    says="{severity}: {message} (steps {first}..{last}) {cure}",
    upcasts=[_not_ranked],
):
    """A rule found a problem in these steps; the evidence names the events.

    Since version 2 it says how sure that is, and its `priority`: of several problems the one with the smallest number
    explains the others. 0 is a problem that was not ranked.
    """

    rule: str
    segment: int
    first: int
    last: int
    severity: Severity
    message: str
    cure: str
    evidence: list[str]
    figures: dict[str, Exact]
    confidence: Confidence | None = None
    priority: int = 0


def _decided_by_its_rule(old: Payload) -> Payload:
    return old | {"remedy": "", "waits": False, "set": {}}


class InterventionProposed(
    Event, lane=DIAGNOSTICIAN, wire="intervention.proposed", upcasts=[unchanged, _decided_by_its_rule]
):
    """A change of plan for one segment; the trainer applies or declines it.

    Since version 3 it names the `remedy`, may wait for a person, and may ask for another training instead: one whose
    request has these values `set`, by dotted path.
    """

    rule: str
    segment: int
    rewind_to: int | None
    changes: dict[str, JsonValue]
    reason: str
    automatic: bool
    remedy: str = ""
    waits: bool = False
    set: dict[str, JsonValue] = Field(default_factory=dict)


class DiagnosisReached(
    Event, lane=DIAGNOSTICIAN, wire="diagnosis.reached", says="every rule has seen the steps up to {step}"
):
    """Every rule has seen the segment up to this step; nothing further is proposed for it."""

    segment: int
    step: int


def _not_to_be_proven(old: Payload) -> Payload:
    return old | {"prove": False}


class OutcomeJudged(Event, lane=DIAGNOSTICIAN, wire="outcome.judged", upcasts=[_not_to_be_proven]):
    """What became of an intervention; since version 2 it may ask that this be proven by going on without it as well."""

    proposal: str
    helped: bool
    message: str
    figures: dict[str, Exact]
    prove: bool = False


Question = Literal["rate", "batch", "gradients", "memory", "duration"]
"""What an advisor may be asked about."""


class AdvisorAsked(
    Event, lane=DIAGNOSTICIAN, wire="advisor.asked", says="asks the advisor about {rule}: {question} ({model})"
):
    """One instance of the diagnostician is about to ask the advisor of its home about a problem, and no other does.

    `actions` are those it may choose from: remedies by name, or `keep`. `form` is the digest of instruction and
    form of the answer, `prompt` that of everything sent; both follow from the log up to the problem.
    """

    problem: str
    rule: str
    segment: int
    first: int
    last: int
    severity: Severity
    question: Question
    actions: list[str]
    model: str
    form: Hex64
    prompt: Hex64
    asker: str


AnswerRung = Literal["schema", "json", "repaired", "none"]
"""How an answer was read: in the form that was demanded of the server, as JSON in its text, as that after one request
to mend it, or not at all."""


class AdvisorAnswered(Event, lane=DIAGNOSTICIAN, wire="advisor.answered"):
    """What the advisor answered to a question, and what becomes of it; nothing of what it wrote but the action chosen.

    `proposed` is followed by the proposal, `agreed` chose what waits already, `kept` changes nothing, `refused` may not
    be proposed, and `failed` is no answer. `error` says in one word what went wrong with the endpoint. `text` is the
    digest of what was read, empty where there was nothing; tokens are 0 where the endpoint told none.
    """

    asked: str
    rung: AnswerRung
    outcome: Literal["proposed", "agreed", "kept", "refused", "failed"]
    action: str = ""
    value: Exact | None = None
    confidence: Confidence | None = None
    reason: str = ""
    error: str = ""
    text: str = ""
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: Exact = 0.0


class ProofRequested(
    Event,
    lane=DIAGNOSTICIAN,
    wire="proof.requested",
    says="what the intervention was worth is shown by session {session}",
):
    """A session of its own is to show what an intervention was worth."""

    intervention: str
    session: str


def _one_pair(old: Payload) -> Payload:
    return old | {"more": []}


class ProofForked(
    Event,
    lane=DIAGNOSTICIAN,
    wire="proof.forked",
    upcasts=[_one_pair],
    says="goes on from step {step} with it as {with_it}, without as {without_it}",
):
    """Two sessions go on from the bits in which an intervention took effect: with it, and without.

    Since version 2 `more` has the sessions of further pairs, with it and without in turn, each pair with another seed.
    """

    intervention: str
    step: int
    with_it: str
    without_it: str
    more: list[str] = Field(default_factory=list)


def _of_one_seed(old: Payload) -> Payload:
    return old | {"seeds": 1, "effect": None, "low": None, "high": None}


class InterventionProven(Event, lane=DIAGNOSTICIAN, wire="intervention.proven", upcasts=[_of_one_seed]):
    """What came of both: the best control metric of each, the first step in which they part, and who did better.

    `reproduced` windows of the parent came out again in one of the forks, `superseded` of these in the one without the
    intervention; `differing` ones did not, and are an incident. A fork that failed has lost against one that completed.
    Since version 2 there may be several `seeds`: `effect` is the mean gain of the metric over their pairs, `low` and
    `high` bound it with a confidence of 90 %, and the verdict is no difference when they lie around 0.
    """

    intervention: str
    step: int
    with_it: str
    without_it: str
    metric: str
    with_value: Exact | None
    without_value: Exact | None
    verdict: Literal["better", "worse", "no difference"]
    parted: int | None
    reproduced: int
    superseded: int
    differing: int
    seeds: int = 1
    effect: Exact | None = None
    low: Exact | None = None
    high: Exact | None = None


class ProofFailed(Event, lane=DIAGNOSTICIAN, wire="proof.failed", says="nothing could be shown: {message} {cure}"):
    """Nothing could be shown, and why."""

    message: str
    cure: str = ""


@dataclass(frozen=True)
class ProofState(KindState):
    """The proof of an intervention as of one event: both forks, once they were begun."""

    forked: ProofForked | None = None


PROOF = Kind(
    "proof",
    ProofState,
    carriers=(Carrier(DIAGNOSTICIAN),),
    ends={InterventionProven: "completed", ProofFailed: failed_unless_cancelled},
    heeds=(CancelRequested,),
    begets=("fork",),
    folds={ProofForked: lambda s, e, f: having(s, forked=e)},
)
