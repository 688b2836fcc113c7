"""Where a fork begins: the path of its parent up to a step, and the state there, kept or computed again.

The path is what the session computed under its first segments, as if no later had come.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

from bus.blobs import DirectoryBlobs
from contracts.errors import InvalidInput, NotFound, NotVerified, Refused
from contracts.fork import Fork
from contracts.session import Segment, counts
from contracts.trainer import CheckpointWritten, ControlEvaluated, WindowRecorded
from runtime.home.home import Home
from runtime.jobs.children import Children
from runtime.log.archive import Archive
from runtime.log.session_log import SessionLog
from runtime.replay.audit_subject import AuditSubject
from runtime.replay.jobs import StateDigests, restage_state
from runtime.replay.steps import compute_at_step

NEAREST = 2


@dataclass(frozen=True)
class StepWeights:
    """The weights' digest at a step of a path, and the checkpoint that was written there, also if it is gone."""

    step: int
    segment: int
    weights_digest: str
    finite: bool
    checkpoint: CheckpointWritten | None


class SegmentPath:
    """The path of a session up to one of its segments."""

    def __init__(self, history: SessionLog, segments: Sequence[Segment]) -> None:
        self._history = history
        self._segments = segments

    @classmethod
    def of(cls, history: SessionLog, segment: int | None = None) -> Self:
        """The line of a segment, else the path; `InvalidInput` when there is no such segment."""
        segments = history.state.training.segments
        if segment is None:
            return cls(history, segments)
        upto = [one for one in segments if one.number <= segment]
        if not upto or upto[-1].number != segment:
            known = f"{segments[0].number} to {segments[-1].number}" if len(segments) > 1 else f"{segments[0].number}"
            message = f"session {history.id} has no segment {segment}."
            raise InvalidInput(message, cure=f"Its segments: {known}.", path="--segment")
        return cls(history, upto)

    def at(self, step: int) -> StepWeights:
        """The weights of the line at a grid step; `InvalidInput` names the nearest grid steps when it is none."""
        # What came after a step, or that nothing will, says that all that belongs to it was recorded.
        state = self._history.state
        later = [segment.begins for segment in state.training.segments[len(self._segments) :]]
        ended = not later and (state.outcome is not None or state.training.pause is not None)
        if step == self.steps[-1] and step not in later and not ended:
            message = f"step {step} is the last that {self._history.id} reached; more may still be recorded of it."
            raise Refused(message, cure="Begin earlier, or wait until training is further.", path="--at")
        kept = next((one for one in reversed(self.checkpoints) if one.step == step), None)
        window = self._ends.get(step)
        inside = [one.number for one in self._segments if one.begins <= step]
        if inside and window is not None:
            return StepWeights(step, inside[-1], window.weights_digest, window.finite, kept)
        if inside and step == self._segments[0].begins and (kept or state.fork):
            digest = kept.weights_digest if kept else state.fork.weights_digest if state.fork else ""
            return StepWeights(step, inside[-1], digest, finite=True, checkpoint=kept)
        raise self._no_step(step)

    @cached_property
    def steps(self) -> list[int]:
        """Every grid step that was reached, the first one included."""
        return sorted({self._segments[0].begins, *self._ends})

    @cached_property
    def checkpoints(self) -> list[CheckpointWritten]:
        """Everything that was written on the line."""
        return [
            one.written
            for one in self._history.state.training.checkpoints
            if self.holds(one.written.segment, one.written.step)
        ]

    def evaluations(self, upto: int) -> list[ControlEvaluated]:
        """What was evaluated on the line up to a step."""
        seen = [fact.event for fact in self._history.facts if isinstance(fact.event, ControlEvaluated)]
        return [one for one in seen if one.step <= upto and self.holds(one.segment, one.step)]

    def changes(self, step: int) -> int:
        """How many of the session's segments, the first included, are in force at a step of the line."""
        return max(at for at, one in enumerate(self._segments, 1) if one.begins <= step)

    def holds(self, segment: int, step: int) -> bool:
        """Whether what a segment recorded at a step belongs to the line."""
        return segment <= self._segments[-1].number and counts(segment, step, self._segments)

    @cached_property
    def _ends(self) -> dict[int, WindowRecorded]:
        seen = [fact.event for fact in self._history.facts if isinstance(fact.event, WindowRecorded)]
        return {one.last: one for one in seen if self.holds(one.segment, one.last)}

    def _no_step(self, step: int) -> InvalidInput:
        session, steps = self._history.id, self.steps
        near = sorted(sorted(steps, key=lambda one: abs(one - step))[:NEAREST])
        names = " or ".join(map(str, near))
        message = f"step {step} is no grid step of {session}, which reached step {steps[-1]}"
        if step < steps[0]:
            message = f"session {session} begins at step {steps[0]}, after step {step}"
        return InvalidInput(f"{message}.", cure=f"The nearest are {names}.", path="--at")


class StartState(NamedTuple):
    """A state in the blob store."""

    blob: str
    state_root: str


async def start_state(fork: Fork, blobs: DirectoryBlobs, home: Home, children: Children) -> StartState:
    """The state that a fork's genesis names, its bytes sound; computing it compares every window on the way.

    `NotFound` without checkpoint and log of the parent, `NotVerified` when they lead to another state, `Refused` when
    this machine computes other bits than the parent's.
    """
    if fork.blob is not None and fork.state_root is not None:
        with suppress(NotFound, NotVerified):
            blobs.check(fork.blob)
            return StartState(fork.blob, fork.state_root)
    try:
        kept = Archive(home).read(fork.session)
    except NotFound:
        message = f"the state of {fork.session} at step {fork.step} is not here, and neither is its log."
        raise NotFound(message, cure="Fork in the home that holds the parent.") from None
    material = AuditSubject(kept, blobs, home.root / "work" / "audits", home.root)
    made = await recompute_state(material, fork, children, blobs.root)
    _compare(fork, made)
    return StartState(made.blob, made.state_root)


async def recompute_state(
    material: AuditSubject, fork: Fork, children: Children, store: Path, *, trust_code: bool = False
) -> StateDigests:
    """Compute the parent's state again, and keep it in a store of blobs as the checkpoint that it would have been."""
    made, _ = await compute_at_step(
        material, restage_state, store, children, step=fork.step, segment=fork.segment, trust_code=trust_code
    )
    return made


def _compare(fork: Fork, made: StateDigests) -> None:
    for name in ("weights_digest", "state_root", "blob"):
        wanted = getattr(fork, name)
        if wanted is not None and (found := getattr(made, name)) != wanted:
            message = f"the {name} of {fork.session} at step {fork.step} is {found}, and the genesis names {wanted}."
            raise NotVerified(message, cure=f"Find the place: swarm audit {fork.session} --mode bisect")
