"""The hyperparameter specialist: carries searches and range tests through. What it knows is in their sessions."""

from __future__ import annotations

from agents.hyperparameter_specialist.bench import Sayings, SearchContext
from agents.hyperparameter_specialist.lr_range import test_range
from agents.hyperparameter_specialist.tuning import Tuning
from contracts.operator import SessionRequested
from contracts.request.search import RangeTest, read_search
from runtime.node.agent import Agent, Say, on
from runtime.node.agent_context import Wakeup


class HyperparameterSpecialist(Agent):
    """Chooses trials in children and has them trained as sessions of their own."""

    @on
    async def seek(self, asked: SessionRequested, case: Wakeup, say: Say[Sayings]) -> None:
        """Carry out a search to its end; after a restart, continue where its log ends."""
        if asked.kind != "search" or case.now.outcome is not None:
            return
        bench, wanted = SearchContext(self.role, case, say), read_search(asked.request)
        if isinstance(wanted, RangeTest):
            await test_range(wanted, bench)
        else:
            await Tuning(wanted, bench).run()
