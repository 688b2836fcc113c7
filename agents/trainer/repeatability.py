"""Whether what is computed again equals what was computed: against the log, and user code against a fresh child.

`RecordedPath` is why nothing is recorded twice when a trainer dies between an append and its acknowledgement: the next
attempt begins at a checkpoint, and every window that the log has is compared here and not appended again.
`RepeatabilityCheck` has fresh children repeat what a training child of user code has computed. What is owed follows
from the fold, so the trainer that takes a session over repeats what has no recorded verdict yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from agents.trainer.jobs import AttemptTask, RepetitionTask, StagedWindow, repeat_window
from contracts import trainer as events
from contracts.envelope import Fact
from contracts.errors import ChildDied, NotRepeatable, SwarmError
from contracts.event import Event
from contracts.session import SessionState
from runtime.engine.report import StepTrace, compare_traces
from runtime.node.agent_context import Wakeup
from runtime.replay.comparison import INCIDENTAL

TRIES = 3
"""Children that may die over one repetition before the session fails."""

Verdict = tuple[events.BirthAudited | events.TrainingFailed, ...]


@dataclass
class RecordedPath:
    """The windows, evaluations and checkpoints on the path after the step from which an attempt starts."""

    known: dict[tuple[str, int, int], Event] = field(default_factory=dict)
    reproduced: int = 0

    @classmethod
    def of(cls, facts: Iterable[Fact], session: SessionState, step: int, unusable: Iterable[str] = ()) -> RecordedPath:
        """The records that an attempt from `step` will compute again; checkpoints whose blobs are lost count as new."""
        known: dict[tuple[str, int, int], Event] = {}
        usable = {kept.written.blob for kept in session.training.checkpoints if kept.usable}
        corrupt = {kept.written.blob for kept in session.training.checkpoints if kept.gone == "corrupt"}
        lost = {*unusable, *(corrupt - usable)}
        for fact in facts:
            event = fact.event
            if isinstance(event, events.CheckpointWritten) and event.blob in lost:
                continue
            if isinstance(event, events.Computed):
                segment, at = event.segment, events.computed_at(event)
                if at >= step and session.training.on_path(segment, at):
                    known[events.place_of(event)] = event
        return cls(known)

    def take(self, computed: events.Computed) -> events.DivergenceFound | bool | None:
        """True when the log lacks this event; None when it equals the recorded one; else the difference."""
        recorded = self.known.get(events.place_of(computed))
        if recorded is None:
            return True
        self.reproduced += isinstance(computed, events.WindowRecorded)
        return difference(recorded, computed)


def difference(recorded: Event, computed: events.Computed) -> events.DivergenceFound | None:
    """The first field, by name, in which two events that should be equal differ; None when they are equal."""
    # JSON text compares exact floats by their bits, NaN included.
    before, after = recorded.model_dump(mode="json"), computed.model_dump(mode="json")
    for name in sorted(before.keys() - INCIDENTAL):
        if before[name] != after.get(name):
            _, first, last = events.place_of(computed)
            return events.DivergenceFound(
                segment=after["segment"],
                first=first,
                last=last,
                field=f"{recorded.wire}.{name}",
                recorded=str(before[name])[:200],
                computed=str(after.get(name))[:200],
            )
    return None


def divergence_failure(divergence: events.DivergenceFound, session: SessionState) -> events.TrainingFailed:
    """The end of a session in which something did not come out as recorded."""
    of_theirs = f" {NotRepeatable.RULES}" if is_workload(session) else ""
    return events.TrainingFailed(
        segment=divergence.segment,
        step=divergence.last,
        code="divergence",
        message=f"{divergence.field} of steps {divergence.first}..{divergence.last} came out differently.",
        cure=f"Find the first difference: swarm audit {session.id} --mode bisect.{of_theirs}",
    )


def is_workload(session: SessionState) -> bool:
    """Whether it trains code of the user's."""
    return bool(session.request["model"]["architecture"] == "workload")


def missing_repetitions(session: SessionState) -> set[str]:
    """The repetitions that the log still lacks: "window" and "evaluation" for user code, none for built-in models."""
    if not is_workload(session):
        return set()
    done = {"window"} if session.training.births else set()
    return {"window", "evaluation"} - done - {"evaluation" for verdict in session.training.births if verdict.evaluated}


class RepeatabilityCheck:
    """The repetitions of one attempt; those that run end with it. `arrived` is called when one has its verdict."""

    def __init__(self, wakeup: Wakeup, task: AttemptTask, arrived: Callable[[], None]) -> None:
        self._wakeup = wakeup
        self._task = task
        self._arrived = arrived
        self._running: list[asyncio.Task[Verdict]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    @property
    def pending(self) -> bool:
        """Whether a verdict is still to come, or to be said."""
        return bool(self._running)

    def begin(self, told: StagedWindow) -> None:
        """Repeat in a child what the training child reported of one window, and compare."""

        task = asyncio.create_task(self._repeat(told))
        task.add_done_callback(lambda _: self._arrived())
        self._running.append(task)

    def verdicts(self) -> Verdict:
        """The events for repetitions that were compared since the last call; each is returned once."""
        done = [task for task in self._running if task.done()]
        self._running = [task for task in self._running if task not in done]
        return tuple(event for task in done for event in task.result())

    async def _repeat(self, told: StagedWindow) -> Verdict:
        """Repeat, and compare here, where no code of the user's has ever run; a death may be an accident."""
        try:
            for tries in range(1, TRIES + 1):
                try:
                    again = await self._ask(told)
                    break
                except ChildDied:
                    if tries == TRIES:
                        raise
            differing = compare_traces(told.trace, again)
        except SwarmError as error:
            return (_failure(told, error.as_json(), error.path),)
        finally:
            told.staged.unlink(missing_ok=True)
        verdict = events.BirthAudited(
            segment=told.segment,
            first=told.first,
            last=told.last,
            evaluated=told.evaluated,
            difference=differing.what if differing else "",
            tensor=differing.tensor if differing else "",
            suspects=list(differing.suspects) if differing else [],
        )
        return (verdict, _failure(told, differing.error().as_json())) if differing else (verdict,)

    async def _ask(self, told: StagedWindow) -> StepTrace:
        context, session, given = self._wakeup.ground, self._wakeup.history.id, self._task
        task = RepetitionTask(
            plan=told.plan,
            seal=given.seal,
            device=given.device,
            dataset=given.dataset,
            staged=told.staged,
            last=told.last,
            evaluations=told.evaluations,
            workloads=given.workloads,
        )
        log = context.home.session(session) / "birth.log"
        return await context.children.run(repeat_window, task, session=session, log=log)


def _failure(told: StagedWindow, error: Mapping[str, str], frame: str = "") -> events.TrainingFailed:
    segment, step, message = told.segment, told.last, error["message"][:4000]
    return events.TrainingFailed(
        segment=segment, step=step, code=error["code"], message=message, cure=error["cure"], frame=frame
    )
