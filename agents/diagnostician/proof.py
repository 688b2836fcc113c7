"""One proof: two forks from the bits in which an intervention took effect, waited for and compared.

The comparison says who did better, where the two part, and what came out again. Restarted, a proof goes on: everything
that it knows is in its session, and the forks' ids follow from its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Literal

from contracts.diagnostician import InterventionProven, ProofFailed, ProofForked, ProofState
from contracts.errors import InvalidInput, NotFound, NotVerified, Refused, SwarmError
from contracts.request.training import EarlyStopping, less_is_better
from contracts.session import SessionState
from contracts.trainer import InterventionApplied, TrainingCompleted, WindowRecorded
from runtime.log.session_log import SessionLog
from runtime.node.agent import Say
from runtime.node.agent_context import SessionCancelled, Wakeup
from runtime.node.child_sessions import ChildSessions
from runtime.replay.difference import windows
from runtime.statistics.resampling import bootstrap

Sayings = ProofForked | InterventionProven | ProofFailed

QUIET = {"diagnosis.auto_fix": False, "diagnosis.prove": False, "export.formats": [], "export.quantize": []}
"""What a fork of a proof changes besides the intervention: no automatic repair and no export."""

ITS_END = "its proof has ended"
"""Why forks are cancelled that the proof does not wait for any more."""


class Proof:
    """Carries out one proof."""

    def __init__(self, role: str, wakeup: Wakeup, say: Say[Sayings]) -> None:
        self._own, self._say = wakeup.history, say
        self._forks = ChildSessions(role, wakeup)
        self._asked = wakeup.session.request

    async def run(self) -> None:
        """Carry out the proof until its session has an outcome: begin both forks, wait for them, compare."""
        try:
            (parent,) = await self._forks.until_sealed(str(self._asked["session"]))
            applied = self._applied(parent.state)
            forked = ProofState.of(self._own.state).forked or await self._forked(parent, applied)
            forks = await self._forks.until_sealed(forked.with_it, forked.without_it, *forked.more)
            outcome: Sayings = over_seeds(proven(parent, applied, forked, *forks[:2]), parent, forks)
        except SessionCancelled as wish:
            await self._forks.cancel(ITS_END)
            outcome = ProofFailed(message=f"cancelled: {wish}.", cure="Ask for the proof again to go on.")
        except _Hopeless as error:
            await self._forks.cancel(ITS_END)
            outcome = ProofFailed(message=error.message, cure=error.cure)
        await self._say(outcome)

    def _applied(self, parent: SessionState) -> InterventionApplied:
        applied = dict(parent.training.applied).get(self._asked["intervention"])
        if applied is None:
            message = f"{parent.id} has no intervention {self._asked['intervention']!r} any more."
            raise _Hopeless(message, cure=f"See: swarm show {parent.id}")
        return applied

    async def _forked(self, parent: SessionLog, applied: InterventionApplied) -> ProofForked:
        """Both forks, once: their ids follow from the proof's."""
        with_it, without_it, *more = [
            await self._fork(parent, applied.step, applied.segment - behind, f"{name}-{pair}" if pair else name, pair)
            for pair in range(int(self._asked.get("seeds", 1)))
            for behind, name in enumerate(("with", "without"))
        ]
        about = {"intervention": self._asked["intervention"], "step": applied.step}
        forked = ProofForked(**about, with_it=with_it, without_it=without_it, more=more)
        await self._say(forked)
        return forked

    async def _fork(self, parent: SessionLog, step: int, segment: int, name: str, pair: int) -> str:
        seed = (parent.state.request["reproducibility"]["seed"] + pair) % 2**63
        change = QUIET | ({"reproducibility.seed": seed} if pair else {})
        try:
            return await self._forks.fork(name, {"session": parent.id, "step": step, "segment": segment, "set": change})
        except (InvalidInput, NotFound, NotVerified, Refused) as error:
            raise _Hopeless(error.message, cure=error.cure) from error


class _Hopeless(SwarmError):
    """There is no such fork, and trying again would not make one."""


Verdict = Literal["better", "worse", "no difference"]
Key = tuple[int, int, int]
"""A window: its segment, its first and its last step."""


def proven(
    parent: SessionLog, applied: InterventionApplied, forked: ProofForked, with_it: SessionLog, without_it: SessionLog
) -> InterventionProven:
    """Everything that the logs of the three say."""
    rules = EarlyStopping.model_validate(parent.state.request["early_stopping"])
    forks = (with_it, without_it)
    values = [best(fork.state, rules.metric) for fork in forks]
    completed = [isinstance(fork.state.outcome, TrainingCompleted) for fork in forks]
    parted = windows(with_it, without_it)["parted"]
    again, differing = _reproduced(parent, forks)
    superseded = [key for key in again if not parent.state.training.on_path(key[0], key[2])]
    return InterventionProven(
        intervention=forked.intervention,
        step=applied.step,
        with_it=with_it.id,
        without_it=without_it.id,
        metric=rules.metric,
        with_value=values[0],
        without_value=values[1],
        verdict=_verdict(completed, values, rules),
        parted=None if parted is None else parted["step"] or parted["first"] + 1,
        reproduced=len(again),
        superseded=len(superseded),
        differing=len(differing),
    )


def over_seeds(first: InterventionProven, parent: SessionLog, forks: Sequence[SessionLog]) -> InterventionProven:
    """What all pairs show; with one, or with fewer than two pairs that have a value each, what the first one shows."""
    if len(forks) < 4:
        return first
    sign = -1.0 if less_is_better(first.metric) else 1.0
    values = [best(fork.state, first.metric) for fork in forks]
    pairs = zip(values[::2], values[1::2], strict=True)
    gains = [sign * (ours - theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
    shown = first.model_copy(update={"seeds": len(forks) // 2})
    if len(gains) < 2:
        return shown
    effect = bootstrap(gains, fmean)
    least = EarlyStopping.model_validate(parent.state.request["early_stopping"]).min_delta
    verdict = "better" if effect.low > least else "worse" if effect.high < -least else "no difference"
    figures = {"effect": effect.estimate, "low": effect.low, "high": effect.high}
    return shown.model_copy(update={**figures, "verdict": verdict})


def best(session: SessionState, metric: str) -> float | None:
    """The best value of the control metric on a path; None when none was finite."""
    values = [seen.values[metric] for seen in session.training.evaluations if math.isfinite(seen.values[metric])]
    if not values:
        return None
    return min(values) if less_is_better(metric) else max(values)


def _verdict(completed: list[bool], values: list[float | None], rules: EarlyStopping) -> Verdict:
    """Who failed has lost against who completed; else the metric decides, by more than `min_delta`."""
    if completed[0] != completed[1]:
        return "better" if completed[0] else "worse"
    ours, theirs = values
    if ours is None or theirs is None:
        return "no difference" if ours is theirs else "worse" if ours is None else "better"
    gain = theirs - ours if less_is_better(rules.metric) else ours - theirs
    if abs(gain) <= rules.min_delta:
        return "no difference"
    return "better" if gain > 0 else "worse"


def _reproduced(parent: SessionLog, forks: Iterable[SessionLog]) -> tuple[set[Key], set[Key]]:
    """The windows of the parent that a fork computed again with the same bits, and those that came out otherwise."""
    recorded = dict(_windows(parent))
    pairs = [(key, recorded[key], window) for fork in forks for key, window in _windows(fork) if key in recorded]
    # JSON text compares exact floats by their bits, NaN included.
    differing = {key for key, theirs, ours in pairs if theirs.model_dump_json() != ours.model_dump_json()}
    return {key for key, _, _ in pairs} - differing, differing


def _windows(history: SessionLog) -> list[tuple[Key, WindowRecorded]]:
    windows = (fact.event for fact in history.facts if isinstance(fact.event, WindowRecorded))
    return [((window.segment, window.first, window.last), window) for window in windows]
