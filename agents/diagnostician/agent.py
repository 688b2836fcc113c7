"""The diagnostician: turns its fold over the trainer's lane into findings, and asks an advisor where one is set up."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Any

from agents.diagnostician.advisor import (
    DEADLINE_SECONDS,
    MOST_ANSWER_TOKENS,
    MOST_CALLS,
    Advisor,
    AdvisorBudget,
    Consultation,
)
from agents.diagnostician.proof import Proof, Sayings
from contracts import trainer
from contracts.diagnostician import (
    PROOF,
    AdvisorAnswered,
    AdvisorAsked,
    InterventionProposed,
    OutcomeJudged,
    ProblemDiagnosed,
    ProofRequested,
)
from contracts.operator import SessionRequested
from contracts.resource_monitor import ResourcesMeasured
from contracts.training import TRAINING, TrainingState
from runtime.diagnosis.fold import DiagnosisState, End, Said
from runtime.diagnosis.questions import Advice, Prompt, advice_of, is_explained, prompt_about
from runtime.home.settings import Settings
from runtime.log.session_log import SessionLog
from runtime.node.agent import Agent, Say, on, together
from runtime.node.agent_context import Wakeup, first_done

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

FUTILE = 3
"""Questions of a session that came to nothing, one after the other, after which no more are asked."""


class Diagnostician(Agent):
    """Finds problems by rules, proposes what cures them, judges whether it helped."""

    def __init__(self, ground: Any = None) -> None:
        super().__init__(ground)
        self._prompts: dict[str, Prompt] = {}
        """By problem, what this instance is about to ask; what is not in it any more is not asked again."""

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
    async def ask_advisor(self, problem: ProblemDiagnosed, wakeup: Wakeup) -> AdvisorAsked | None:
        """Say that this instance asks the advisor about a problem. What any instance answers is said once, so one asks.

        Nobody asks where no advisor is set up, in a fork, where no remedy would wait for a person, about what another
        problem explains that was asked about, or once a session has cost what it may or its last questions came to
        nothing.
        """
        settings, now = self.ground.settings, wakeup.now
        if not settings.llm_model or wakeup.session.kind is not TRAINING or now.training.fork or now.outcome:
            return None
        answers = list(now.training.answers.values())
        if len(answers) >= FUTILE and all(one.outcome == "failed" for one in answers[-FUTILE:]):
            return None
        if not calls_left(now.training, settings):
            return None
        if problem.segment != now.training.segment.number or is_explained(problem, now.training.questions.values()):
            return None
        prompt = prompt_about(problem, wakeup.history.derived(DiagnosisState(), wakeup.fact.position))
        if prompt is None:
            return None
        self._prompts[wakeup.fact.id] = prompt
        return AdvisorAsked(
            problem=wakeup.fact.id,
            rule=problem.rule,
            segment=problem.segment,
            first=problem.first,
            last=problem.last,
            severity=problem.severity,
            question=prompt.question,
            actions=list(prompt.actions),
            model=settings.llm_model[:200],
            form=prompt.form_digest,
            prompt=prompt.digest,
            asker=self._me,
        )

    @together
    @on
    async def consult(
        self, asked: AdvisorAsked, wakeup: Wakeup, say: Say[AdvisorAnswered | InterventionProposed]
    ) -> None:
        """Ask the advisor, if this instance said so, and say what becomes of the answer; training waits for neither.

        A question of an instance that is no more, or one that failed here after it was asked, is not asked again: that
        nothing came of it is said in its place.
        """
        prompt, came = self._prompts.pop(asked.problem, None), Consultation(error="interrupted")
        if asked.asker != self._me:
            await self._answered_by_its_asker(asked, wakeup)
        elif prompt is not None:
            came = await self._consultation(prompt, wakeup)
        id, history = wakeup.fact.id, wakeup.history
        if id in wakeup.now.training.answers:
            return
        problem = history.find(self.role, asked.problem)
        advice = None
        if came.answer is not None and problem is not None and isinstance(problem.event, ProblemDiagnosed):
            if wakeup.now.outcome is not None:
                advice = Advice("refused", "The session has ended.")
            else:
                advice = advice_of(asked, came.answer, problem.event, history.derived(DiagnosisState()))
        answered = AdvisorAnswered(
            asked=id,
            rung=came.rung,
            outcome=advice.outcome if advice else "failed",
            action=came.answer.action if came.answer else "",
            value=came.answer.value if came.answer else None,
            confidence=came.answer.confidence if came.answer else None,
            reason=advice.reason if advice else came.reason,
            error=came.error,
            text=came.text,
            calls=came.calls,
            prompt_tokens=came.prompt_tokens,
            completion_tokens=came.completion_tokens,
            seconds=came.seconds,
        )
        await say(answered, *([advice.proposal] if advice and advice.proposal else []))

    @property
    def _me(self) -> str:
        return f"{self.ground.instance}/{self.ground.incarnation}"

    async def _consultation(self, prompt: Prompt, wakeup: Wakeup) -> Consultation:
        """What the advisor says within what is left of the day, and before the session ends."""
        settings, history, training = self.ground.settings, wakeup.history, wakeup.now.training
        calls = min(MOST_CALLS, calls_left(training, settings, but=1))
        # No tokenizer is here: a token is seldom shorter than two bytes.
        tokens = calls * (len(prompt.facts) // 2 + MOST_ANSWER_TOKENS)
        budget = AdvisorBudget(self.ground.home.root / "advisor.json", settings)
        if not calls or not budget.take(calls, tokens):
            return Consultation(error="budget")
        advisor, said = Advisor(settings), list[Consultation]()
        read = [one.rung for one in training.answers.values() if one.rung in ("schema", "json")]
        demand = read[-1:] != ["json"]

        async def ask() -> None:
            said.append(await advisor.ask(prompt, demand=demand, most_calls=calls))

        await first_done(ask(), _until_ended(history))
        came = said[0] if said else replace(advisor.so_far, error="ended")
        # What a request that was given up has taken is not known.
        budget.give_back(calls - came.calls, tokens - came.tokens if said and came.tokens else 0)
        return came

    async def _answered_by_its_asker(self, asked: AdvisorAsked, wakeup: Wakeup) -> None:
        """Wait until another instance has said what became of its question, or must have stopped asking."""
        if asked.asker.partition("/")[0] == self.ground.instance:
            return  # an earlier life of this one
        with suppress(TimeoutError):
            async with asyncio.timeout(2 * DEADLINE_SECONDS):
                while wakeup.fact.id not in wakeup.now.training.answers:
                    await wakeup.history.grown(wakeup.history.size)


def calls_left(training: TrainingState, settings: Settings, but: int = 0) -> int:
    """How many calls a session may still cost; each open question, `but` so many, counts as all that it may take.

    None is left once the answers have taken the tokens that they may; an endpoint that tells none is taken to have
    answered at length.
    """
    answers = training.answers.values()
    spent = sum(one.prompt_tokens + one.completion_tokens or one.calls * MOST_ANSWER_TOKENS for one in answers)
    asking = MOST_CALLS * (len(training.questions) - len(answers) - but)
    left = settings.llm_calls_per_session - sum(one.calls for one in answers) - asking
    return max(0, left) if spent < settings.llm_tokens_per_session else 0


async def _until_ended(history: SessionLog) -> None:
    while history.state.outcome is None:
        await history.grown(history.size)
