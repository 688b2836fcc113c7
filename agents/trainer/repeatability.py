"""Whether what is computed again equals what was computed: against the log, and against a fresh child.

`RecordedPath` is why nothing is recorded twice when a trainer dies between an append and its acknowledgement: the next
attempt begins at a checkpoint, and every window that the log has is compared here and not appended again.
`RepeatabilityCheck` has fresh children repeat what a training child has computed: the first windows of user code
(births), and every n-th window where `training.recheck` asks for it. What is owed follows from the log, so the trainer
that takes a session over repeats what has no recorded verdict yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import orjson
from blake3 import blake3

from agents.trainer.decisions import starting_point
from agents.trainer.jobs import AttemptTask, RepetitionTask, StagedWindow, WindowAccount, recheck_windows, repeat_window
from contracts import trainer as events
from contracts.envelope import Fact
from contracts.errors import ChildDied, NotRepeatable, SwarmError
from contracts.event import Event
from contracts.request.training import is_rechecked
from contracts.session import SessionState
from runtime.engine.report import compare_traces
from runtime.jobs.child import Child
from runtime.node.agent_context import Wakeup
from runtime.replay.comparison import INCIDENTAL

TRIES = 3
"""Children that may die over one repetition before the session fails."""

MOST_ROOTS = 256
"""Windows that were rechecked last whose state is remembered, for checkpoints that are written meanwhile."""

Verdict = tuple[events.BirthAudited | events.WindowRechecked | events.DivergenceFound | events.TrainingFailed, ...]


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


def rechecked_until(facts: Iterable[Fact], session: SessionState) -> tuple[int, bool]:
    """Up to which step each window that is to be rechecked has its verdict, and whether a recorded one has none."""
    claim, every = session.training.claim, int(session.request["training"].get("recheck", 0))
    if claim is None or not every:
        return 0, False
    due, done = list[tuple[int, int]](), set[tuple[int, int]]()
    for fact in facts:
        event = fact.event
        if isinstance(event, events.WindowRechecked):
            done.add((event.segment, event.first))
        elif isinstance(event, events.WindowRecorded) and session.training.on_path(event.segment, event.last):
            due += [(event.segment, event.first)] if is_rechecked(every, claim.resolved["window"], event.first) else []
    owed = [first for segment, first in due if (segment, first) not in done]
    return (min(owed), True) if owed else (max((first for _, first in due), default=-1) + 1, False)


def missing_repetitions(session: SessionState) -> set[str]:
    """The repetitions that the log still lacks: "window" and "evaluation" for user code, none for built-in models."""
    if not is_workload(session):
        return set()
    done = {"window"} if session.training.births else set()
    return {"window", "evaluation"} - done - {"evaluation" for verdict in session.training.births if verdict.evaluated}


class RepeatabilityCheck:
    """The repetitions of one attempt, one after the other; the one that runs ends with it.

    Each runs in a fresh child, but those that recheck a model of ours: they share one. `arrived` is called when one has
    its verdict.
    """

    def __init__(self, wakeup: Wakeup, task: AttemptTask, arrived: Callable[[], None]) -> None:
        self._wakeup = wakeup
        self._task = task
        self._arrived = arrived
        self._turn = asyncio.Lock()
        self._running: list[asyncio.Task[Verdict]] = []
        self._roots: dict[tuple[int, int], str] = {}
        self._stack = AsyncExitStack()
        self._checker: Child[None, WindowAccount, RepetitionTask] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._stack.aclose()

    @property
    def pending(self) -> bool:
        """Whether a verdict is still to come, or to be said."""
        return bool(self._running)

    def begin(self, told: StagedWindow) -> None:
        """Repeat in a child what the training child reported of one window, and compare."""

        task = asyncio.create_task(self._repeat(told))
        task.add_done_callback(lambda _: self._arrived())
        self._running.append(task)

    def verdicts(self) -> list[Verdict]:
        """For each repetition that was compared since the last call, its events; each is returned once."""
        done = [task for task in self._running if task.done()]
        self._running = [task for task in self._running if task not in done]
        return [task.result() for task in done]

    def checkpoint_difference(self, written: events.CheckpointWritten) -> events.DivergenceFound | None:
        """Where a checkpoint is not the state that two processes had at its step; None where none was rechecked."""
        root = self._roots.get((written.segment, written.step), written.state_root)
        if root == written.state_root:
            return None
        return events.DivergenceFound(
            segment=written.segment,
            first=written.step,
            last=written.step,
            field=f"{written.wire}.state_root",
            recorded=written.state_root,
            computed=root,
        )

    async def _repeat(self, told: StagedWindow) -> Verdict:
        """Repeat, and compare here, where no code of the user's has ever run."""
        try:
            async with self._turn:
                again = await self._computed(told, anew=told.birth)
                born = self._birth(told, again) if told.birth else ()
                return (*born, *(await self._recheck(told, again) if told.recheck else ()))
        except SwarmError as error:
            cure = f"{error.cure} Or leave training.recheck out." if told.recheck else error.cure
            return (_failure(told, {**error.as_json(), "cure": cure}, error.path),)
        finally:
            told.staged.unlink(missing_ok=True)

    def _birth(self, told: StagedWindow, again: WindowAccount) -> Verdict:
        differing = compare_traces(told.lived.trace, again.trace)
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

    async def _recheck(self, told: StagedWindow, again: WindowAccount) -> Verdict:
        """Which of the two was wrong, if they differ, says a third process; a record that it upholds stands."""
        said, found = _values(told.lived), _values(again)
        fields = [name for name in said.keys() | found.keys() if said.get(name) != found.get(name)]
        fields.sort(key=lambda name: (name.startswith("state."), name))
        upheld = not fields or _values(await self._computed(told)) == said
        verdict = events.WindowRechecked(
            segment=told.segment,
            first=told.first,
            last=told.last,
            recorded=_digest(said),
            computed=_digest(found),
            fields=[name[:200] for name in fields[: events.MOST_FIELDS]],
            upheld=upheld,
        )
        divergence: events.DivergenceFound | None = None
        if upheld:
            self._roots[told.segment, told.last] = told.lived.state_root
            if len(self._roots) > MOST_ROOTS:
                del self._roots[next(iter(self._roots))]
            training = self._wakeup.now.training
            written = [training.checkpoints.get(id) for id in training.written_at.get((told.segment, told.last)) or ()]
            differences = (self.checkpoint_difference(kept.written) for kept in written if kept)
            divergence = next(filter(None, differences), None)
        else:
            divergence = events.DivergenceFound(
                segment=told.segment,
                first=told.first,
                last=told.last,
                field=fields[0][:200],
                recorded=said.get(fields[0], "nothing")[:200],
                computed=found.get(fields[0], "nothing")[:200],
            )
        return (verdict, divergence, self.failure(divergence)) if divergence else (verdict,)

    def failure(self, divergence: events.DivergenceFound) -> events.TrainingFailed:
        """The end of a session whose record is not what other processes computed, and how one goes on without it."""
        session = self._wakeup.now
        before = starting_point(session, before=divergence.first + (divergence.first != divergence.last))
        on = f"Go on from before it: swarm fork {session.id} --at {before.written.step}" if before else "Train it again"
        return events.TrainingFailed(
            segment=divergence.segment,
            step=divergence.last,
            code="divergence",
            message=f"{divergence.field} of steps {divergence.first}..{divergence.last} was recorded otherwise than "
            "other processes computed it: a fault of this machine, or code that hangs on more than its state.",
            cure=f"Test the memory of this machine. {on}.",
        )

    async def _computed(self, told: StagedWindow, *, anew: bool = True) -> WindowAccount:
        """What another child gives for the window, a fresh one if it has to be `anew`; a death may be an accident."""
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
        if not anew and not given.workloads:
            with suppress(ChildDied):
                return await self._checked(task, log)
            self._checker = None
            await self._stack.aclose()
        for _ in range(TRIES - 1):
            with suppress(ChildDied):
                return await context.children.run(repeat_window, task, session=session, log=log)
        return await context.children.run(repeat_window, task, session=session, log=log)

    async def _checked(self, task: RepetitionTask, log: Path) -> WindowAccount:
        """What the child that rechecks gives for the window."""
        if self._checker is None:
            job = self._wakeup.ground.children.job(recheck_windows, task, session=self._wakeup.history.id, log=log)
            self._checker = await self._stack.enter_async_context(job)
        else:
            await self._checker.order(task)
        self._checker.resting = False
        async for account in self._checker:
            self._checker.resting = True
            return account
        raise ChildDied("the child that rechecks windows has ended.")


def _values(account: WindowAccount) -> dict[str, str]:
    """Every value of a window by name, in a form that compares floats by their bits."""
    told = {
        f"{event.wire}.{name}": str(value)
        for event in account.computed
        for name, value in event.model_dump(mode="json").items()
    }
    return told | {f"state.{name}": digest for name, digest in account.trace.leaves.items()}


def _digest(values: Mapping[str, str]) -> str:
    return blake3(orjson.dumps(values, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _failure(told: StagedWindow, error: Mapping[str, str], frame: str = "") -> events.TrainingFailed:
    segment, step, message = told.segment, told.last, error["message"][:4000]
    return events.TrainingFailed(
        segment=segment, step=step, code=error["code"], message=message, cure=error["cure"], frame=frame
    )
