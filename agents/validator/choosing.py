"""Which checkpoints are judged, on which split, against which recorded values: pure rules over the fold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from contracts.checkpoint_keeper import CheckpointStored
from contracts.envelope import Fact
from contracts.session import SessionState
from contracts.trainer import CheckpointWritten, ControlEvaluated, TrainingClaimed

JUDGED = ("best", "final")


@dataclass(frozen=True)
class Task:
    """One checkpoint to judge on one split; `recorded` are the control values that must come out again."""

    written: CheckpointWritten
    split: str
    request: dict[str, Any]
    dataset: str
    claim: TrainingClaimed
    recorded: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """What the job is told; what was recorded is not among it."""
        return {
            "blob": self.written.blob,
            "state_root": self.written.state_root,
            "split": self.split,
            "request": self.request,
            "dataset": self.dataset,
            "claim": self.claim.model_dump(mode="json", include={"resolved", "fingerprint", "families", "engine_bits"}),
        }


def tasks(kept: CheckpointStored, session: SessionState, facts: Iterable[Fact]) -> list[Task]:
    """What there is to judge because this checkpoint was stored."""
    written = _worth_judging(kept, session)
    if written is None or session.claim is None or session.dataset is None:
        return []
    here = (session.request, session.dataset.root, session.claim)
    found = [Task(written, "val", *here, _recorded(written, session, facts))]
    if written.reason == "final" and _wants_test(session):
        # The last evaluation is over, so the best will stay the best: it alone meets the test rows, and once.
        best = session.checkpoint("best")
        found.append(Task(best.written if best else written, "test", *here))
    return found


def is_gone(written: CheckpointWritten, session: SessionState) -> bool:
    """Whether the checkpoint was deleted since: after the training a former best needs no verdict."""
    here = [one for one in session.checkpoints if one.written == written]
    return bool(here) and all(one.gone for one in here)


def _worth_judging(kept: CheckpointStored, session: SessionState) -> CheckpointWritten | None:
    """The checkpoint as it was written, when it was written for being best or final."""
    here = (kept.segment, kept.step)
    same = [one.written for one in session.checkpoints if (one.written.segment, one.written.step) == here]
    reasons = [one for one in same if one.reason in JUDGED and one.blob == kept.blob]
    return max(reasons, key=lambda one: JUDGED.index(one.reason), default=None)


def _wants_test(session: SessionState) -> bool:
    asked = session.request.get("validation", {}).get("test_set", False)
    return bool(asked and session.dataset and session.dataset.splits.get("test"))


def _recorded(written: CheckpointWritten, session: SessionState, facts: Iterable[Fact]) -> dict[str, float]:
    """The control values of that step: of its own segment, else of the one that the path was on."""
    seen = [
        fact.event for fact in facts if isinstance(fact.event, ControlEvaluated) and fact.event.step == written.step
    ]
    same = [one for one in seen if one.segment == written.segment]
    on_path = [one for one in seen if session.on_path(one.segment, one.step)]
    chosen = (same or on_path)[-1:]
    return dict(chosen[0].values) if chosen else {}
