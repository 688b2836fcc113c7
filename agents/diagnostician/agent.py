"""The diagnostician: turns its fold over the trainer's lane into findings, and asks an advisor where one is set up."""

from __future__ import annotations

from agents.diagnostician.advisor import Advisor, question
from agents.diagnostician.diagnosis import DiagnosisState
from agents.diagnostician.proving import Proving, Sayings, is_open
from contracts.diagnostician import (
    DiagnosisReached,
    InterventionProposed,
    OutcomeJudged,
    ProblemDiagnosed,
    ProofRequested,
)
from contracts.operator import SessionRequested
from contracts.trainer import (
    ControlEvaluated,
    InterventionApplied,
    InterventionDeclined,
    TrainingCancelled,
    TrainingCompleted,
    TrainingFailed,
    WindowRecorded,
)
from runtime.node.agent import Agent, Say, on
from runtime.node.ground import Wakeup

Heard = (
    WindowRecorded
    | ControlEvaluated
    | InterventionApplied
    | InterventionDeclined
    | TrainingCompleted
    | TrainingFailed
    | TrainingCancelled
)
Answer = ProblemDiagnosed | InterventionProposed | OutcomeJudged | DiagnosisReached

MOST_ADVICE = 4
"""Questions to the advisor per session."""


class Diagnostician(Agent):
    """Finds problems by rules, proposes what cures them, judges whether it helped."""

    @on
    async def judge(self, heard: Heard, case: Wakeup) -> list[Answer]:
        """Say what the rules find in the trainer's lane up to this fact: problems, proposals, judgements."""
        # Up to the fact itself, not to the end of its batch: so the answer does not depend on how facts were grouped.
        found = case.history.derived(DiagnosisState(), case.fact.position)
        if found.at != case.fact.id:
            return []
        if case.now.outcome is not None:
            # Once a session has ended only what it is owed is said.
            return list(found.verdicts)
        return [*found.said, *found.verdicts]

    @on
    async def ask(self, judged: OutcomeJudged, case: Wakeup) -> ProofRequested | None:
        """Request the proof of an intervention where its judgement asks for one; once, also after restarts."""
        if not judged.prove:
            return None
        wish = {"session": case.history.id, "intervention": judged.proposal, "asked_by": self.role}
        return ProofRequested(intervention=judged.proposal, session=await self.ground.ask("prove", wish))

    @on
    async def settle(self, asked: SessionRequested, case: Wakeup, say: Say[Sayings]) -> None:
        """Carry out a proof to its end; after a restart, continue where its log ends."""
        if is_open(case.now):
            await Proving(self.role, case, say).run()

    @on
    async def advise(self, found: ProblemDiagnosed, case: Wakeup, say: Say[ProblemDiagnosed]) -> None:
        """Ask the advisor what it makes of a problem; training never waits for the answer and never follows it."""
        settings = self.ground.settings
        if not settings.llm_model or found.rule == "llm" or case.session.kind != "training":
            return
        asked = sum(one.rule == "llm" for _, one in case.now.diagnoses)
        if asked >= MOST_ADVICE or case.now.outcome is not None or case.history.answers(self.role, case.fact.id):
            return
        advice = await Advisor(settings.llm_url, settings.llm_model).ask(question(found, case.session))
        if advice is not None and case.now.outcome is None:
            await say(
                ProblemDiagnosed(
                    rule="llm",
                    segment=found.segment,
                    first=found.first,
                    last=found.last,
                    severity="note",
                    message=advice.message,
                    cure=advice.cure,
                    evidence=[case.fact.id],
                    figures={"tokens": float(advice.tokens)},
                )
            )
