"""The diagnostician: turns its fold over the trainer's lane into findings, and asks an advisor where one is set up."""

from __future__ import annotations

from agents.diagnostician.advisor import Advisor, question
from agents.diagnostician.proof import Proof, Sayings
from contracts import trainer
from contracts.diagnostician import PROOF, OutcomeJudged, ProblemDiagnosed, ProofRequested
from contracts.operator import SessionRequested
from contracts.resource_monitor import ResourcesMeasured
from contracts.training import TRAINING
from runtime.diagnosis.fold import DiagnosisState, End, Said
from runtime.node.agent import Agent, Say, on
from runtime.node.agent_context import Wakeup

Heard = (
    trainer.WindowRecorded
    | trainer.ControlEvaluated
    | trainer.AttemptBisected
    | trainer.MemoryExhausted
    | trainer.InterventionApplied
    | trainer.InterventionDeclined
    | ResourcesMeasured
    | End
)

MOST_ADVICE = 4
"""Questions to the advisor per session."""


class Diagnostician(Agent):
    """Finds problems by rules, proposes what cures them, judges whether it helped."""

    @on
    async def judge(self, heard: Heard, wakeup: Wakeup) -> list[Said | OutcomeJudged]:
        """Say what the rules find in the trainer's lane up to this fact: problems, proposals, judgements."""
        # Up to the fact itself, not to the end of its batch: so the answer does not depend on how facts were grouped.
        state = wakeup.history.derived(DiagnosisState(), wakeup.fact.position)
        if state.at != wakeup.fact.id:
            return []
        # Once a session has ended only what it is owed is said.
        return [*(state.said if wakeup.now.outcome is None else ()), *state.verdicts]

    @on
    async def ask(self, judged: OutcomeJudged, wakeup: Wakeup) -> ProofRequested | None:
        """Request the proof of an intervention where its judgement asks for one; once, also after restarts."""
        if not judged.prove:
            return None
        wish = {"session": wakeup.history.id, "intervention": judged.proposal}
        return ProofRequested(intervention=judged.proposal, session=await self.ground.ask(self.role, "prove", wish))

    @on
    async def settle(self, asked: SessionRequested, wakeup: Wakeup, say: Say[Sayings]) -> None:
        """Carry out a proof to its end; after a restart, continue where its log ends."""
        if wakeup.now.kind is PROOF and wakeup.now.outcome is None:
            await Proof(self.role, wakeup, say).run()

    @on
    async def advise(self, problem: ProblemDiagnosed, wakeup: Wakeup, say: Say[ProblemDiagnosed]) -> None:
        """Ask the advisor what it makes of a problem; training never waits for the answer and never follows it."""
        settings = self.ground.settings
        if not settings.llm_model or problem.rule == "llm" or wakeup.session.kind is not TRAINING:
            return
        asked = sum(told.rule == "llm" for _, told in wakeup.now.training.diagnoses)
        if asked >= MOST_ADVICE or wakeup.now.outcome is not None or wakeup.history.answers(self.role, wakeup.fact.id):
            return
        advice = await Advisor(settings.llm_url, settings.llm_model).ask(question(problem, wakeup.session))
        if advice is not None and wakeup.now.outcome is None:
            await say(
                ProblemDiagnosed(
                    rule="llm",
                    segment=problem.segment,
                    first=problem.first,
                    last=problem.last,
                    severity="note",
                    message=advice.message,
                    cure=advice.cure,
                    evidence=[wakeup.fact.id],
                    figures={"tokens": float(advice.tokens)},
                )
            )
