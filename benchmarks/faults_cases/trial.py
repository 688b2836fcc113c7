"""One session of the fault bench in a child of its own: the real training job, heard by the real diagnosis.

What a trainer appends is folded as it comes, event by event, and what the diagnosis says is appended as its agent
would; so decisions are those of a swarm in which every word is heard at once. They do not depend on when it is heard.
"""

from __future__ import annotations

import math
import queue
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agents.trainer.jobs import AttemptTask, ChangePlan, Hold, HoldNotice, Leave, PlanEnd, StateFile, TrainingNews
from benchmarks.faults_cases.kept import ZERO, admit, answers, decisions_in, found_in, priority, written
from bus.blobs import DirectoryBlobs
from contracts import ids
from contracts.data_manager import DatasetPrepared
from contracts.diagnostician import InterventionProposed
from contracts.envelope import Fact
from contracts.errors import SwarmError
from contracts.event import Event
from contracts.operator import RULES, ProposalApproved, SessionRequested
from contracts.request import read_request
from contracts.trainer import (
    AttemptBisected,
    CheckpointWritten,
    InterventionApplied,
    InterventionDeclined,
    TrainingClaimed,
    TrainingCompleted,
    TrainingFailed,
    WindowRecorded,
)
from runtime.diagnosis.health import diagnose
from runtime.home.workloads import WorkloadEntry
from runtime.jobs.job import Seal, job, torch_profile
from runtime.log.session_log import SessionLog

MOST_SEGMENTS = 12


@dataclass(frozen=True)
class Forced:
    """A change of plan that takes effect at the first window that ends at step `at` or later, whatever was found."""

    at: int
    rewind_to: int | None
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Trial:
    """A request as it is read, its prepared rows, weights to begin with, and clean rows to judge by.

    Clean rows are a file of arrays, or the test split of another dataset. Of the changes of plan that wait for a person
    so many are `approved`, at once.
    """

    request: Mapping[str, Any]
    prepared: Mapping[str, Any]
    blobs: Path
    unseen: Path
    score: str
    prior: float
    start: Mapping[str, float] | None
    workloads: Sequence[WorkloadEntry]
    approved: int = 0
    forced: Sequence[Forced] = ()


@dataclass(frozen=True)
class Held:
    """What came of it: the session's events, what was found and done, and how good the model is on clean rows.

    `applied` are the remedies that took effect, each with its `rule`, its `remedy` and what it `set`. `following` is
    what `swarm diagnose` changes in the next request, with what took effect; None when it has no next request.
    """

    bodies: Sequence[tuple[str, str]]
    found: Sequence[Mapping[str, Any]]
    decisions: Sequence[str]
    applied: Sequence[Mapping[str, Any]]
    following: Mapping[str, Any] | None
    score: float
    skill: float
    ended: str
    validation: Sequence[float]
    steps: int


@job(purpose="train", profile=lambda trial: torch_profile(1))
def hold(trial: Trial) -> Held:
    """Train to the end of the plan, with everything that is decided on the way, and judge what came out."""
    from runtime.home.workloads import enlist

    enlist(trial.workloads)
    session = Session(trial)
    session.train()
    score, skill = session.judged()
    state = session.log.state
    return Held(
        session.bodies,
        found_in(session.log),
        decisions_in(session.log),
        session.applied(),
        session.following(),
        score,
        skill,
        state.outcome.wire if state.outcome else "",
        [seen.values.get("val_loss", math.nan) for seen in state.training.evaluations],
        state.step,
    )


class Session:
    """The log of one session, the diagnosis over it, and a trainer that obeys it."""

    def __init__(self, trial: Trial) -> None:
        from runtime.engine.dataset import Dataset
        from runtime.engine.resolve import resolve

        self._approves = trial.approved
        self.trial, self.log = trial, SessionLog(ids.session_for("fault bench"))
        self.bodies: list[tuple[str, str]] = []
        self.request = read_request(trial.request)
        prepared = DatasetPrepared.model_validate(trial.prepared)
        self.dataset = Dataset.open(trial.blobs / "datasets" / prepared.root, verify=False)
        self.initial, tensors = self._initial()
        self.resolved = resolve(self.request, self.dataset.facts, cores=1, initial=tensors)
        self.say("operator", SessionRequested(
            kind="training", request=self.request.resolved(), keyring="", asked_by="bench", rules=RULES
        ))  # fmt: skip
        self.say("data_manager", prepared)
        self.hear(self._claim())

    def _initial(self) -> tuple[str | None, Any]:
        """The weights to begin with as a blob, where the session is told to begin with some."""
        if self.trial.start is None:
            return None, None
        import safetensors.torch
        import torch

        from runtime.engine.learner import Learner
        from runtime.replay.initial_state import initial_tensors

        drawn = Learner(read_request({**self.trial.request, "model": {**self.trial.request["model"], "init": None}}),
                        self.dataset.facts).build()  # fmt: skip
        trained = dict(drawn.named_parameters())
        alike, times = self.trial.start.get("alike"), self.trial.start.get("times", 1.0)
        made = {
            name: (torch.full_like(one, alike) if alike is not None else one * times).detach().clone()
            if name in trained and one.dim() > 1
            else one.detach().clone()
            for name, one in drawn.state_dict().items()
        }
        blob = DirectoryBlobs(self.trial.blobs).put(safetensors.torch.save(made))
        return blob, initial_tensors(self.trial.blobs, blob)

    def _claim(self) -> TrainingClaimed:
        words: dict[str, str] = {}
        return TrainingClaimed(
            epoch=1,
            worker="bench",
            incarnation="bench",
            segment=1,
            resumed_from=0,
            dataset=self.dataset.root,
            resolved=self.resolved.as_json(),
            engine_bits=1,
            fingerprint=ZERO,
            families=words,
            environment=words,
            sources=words,
            initial=self.initial,
        )

    # The log

    def say(self, lane: str, event: Event, cause: str | None = None) -> Fact:
        """Append one event."""
        body = written(self.log, lane, event, cause)
        self.bodies.append((lane, body.decode()))
        return admit(self.log, body)

    def hear(self, event: Event) -> None:
        """Append what the trainer says, and then what the diagnosis says because of it."""
        self._answered(self.say("trainer", event))

    def _answered(self, fact: Fact) -> None:
        for said in answers(self.log, fact):
            told = self.say("diagnostician", said, cause=fact.id)
            if isinstance(said, InterventionProposed) and said.waits and said.changes and self._approves > 0:
                # A person begins with what explains the rest.
                first = min((one for one in found_in(self.log) if one["severity"] != "note"), key=priority)
                if first["rule"] == said.rule:
                    self._approves -= 1
                    self.say("operator", ProposalApproved(asked_by="bench", proposal=told.id))
        self._force(fact)

    def _force(self, fact: Fact) -> None:
        """Propose what is to take effect whatever was found: one after the other, each in the segment of the last."""
        training, event = self.log.state.training, fact.event
        done = len(training.applied) + len(training.declined)
        if not isinstance(event, WindowRecorded) or done >= len(self.trial.forced):
            return
        forced = self.trial.forced[done]
        if event.last >= forced.at and not training.open_proposals():
            proposal = InterventionProposed(
                rule="chance",
                segment=training.segment.number,
                rewind_to=forced.rewind_to,
                changes=dict(forced.changes),
                reason="by chance",
                automatic=True,
            )
            self.say("diagnostician", proposal, cause=fact.id)

    def applied(self) -> list[dict[str, Any]]:
        """The remedies that took effect, in their order."""
        training = self.log.state.training
        made = dict(training.proposals)
        return [
            {"rule": one.by, "remedy": made[one.proposal].remedy, "set": dict(one.changes)}
            for _, one in training.applied
        ]

    def following(self) -> dict[str, Any] | None:
        """What the next request changes, as `swarm diagnose` writes it."""
        following = diagnose(self.log.state, self.log.facts)["next"]
        if following is None:
            return None
        values = {line["path"]: line["after"] for line in following["changes"]}
        return {"rule": following["rule"], "remedy": following["remedy"], "set": values}

    # The trainer

    def train(self) -> None:
        """Attempt after attempt, until the session has an outcome."""
        from agents.trainer.jobs import train

        with suppress(_Over):
            while self.log.state.outcome is None and len(self.log.state.training.segments) <= MOST_SEGMENTS:
                try:
                    train.run(_Desk(self), self._task())  # type: ignore[arg-type]
                except SwarmError as error:
                    self._fail(error.code, error.message, error.cure)

    def _task(self, before: int | None = None) -> AttemptTask:
        from agents.trainer.decisions import starting_point

        state = self.log.state
        start = starting_point(state, (), before)
        upto = start.written.step if start else 0
        plan = {
            "request": state.request,
            "resolved": self.resolved.as_json(),
            "changes": state.training.changes(),
            "begins": 0,
            "without": (),
        }
        blobs = DirectoryBlobs(self.trial.blobs)
        resumed = StateFile(blobs.path(start.written.blob), start.written.state_root) if start else None
        return AttemptTask(
            plan=plan,
            seal=Seal(1),
            device="cpu",
            dataset=self.dataset.directory,
            verify=False,
            blobs=self.trial.blobs,
            resume=resumed,
            initial=self.initial,
            evaluations=[(one.step, one.values[one.metric]) for one in state.training.evaluations if one.step <= upto],
            workloads=(),
        )

    def name_rows(self) -> None:
        """Name the rows that made a segment's first unsound window so, as a trainer has a child do."""
        from agents.trainer.jobs import BisectionTask, train

        training = self.log.state.training
        window = training.unsound
        wanted = self.request.diagnosis.mode in ("fix", "propose")
        if window is None or not wanted or training.segment.number in training.bisected:
            return
        found = train.bisect(BisectionTask(self._task(window.first + 1), window.last))
        about = {"segment": window.segment, "first": window.first, "last": window.last, "step": found.step}
        self.hear(AttemptBisected(**about, rows=list(found.rows), looked=found.looked, problem=""))

    def _fail(self, code: str, message: str, cure: str) -> None:
        state = self.log.state
        segment = state.training.segment.number
        self.hear(TrainingFailed(segment=segment, step=state.step, code=code, message=message[:4000], cure=cure))

    def complete(self, end: PlanEnd) -> None:
        """What the trainer says at the end of the plan."""
        from agents.trainer.decisions import non_finite_weights

        state = self.log.state
        final = [kept for kept in state.training.path_checkpoints() if kept.written.step == end.step]
        if not final:
            self._fail("non-finite", *non_finite_weights(state, end.step))
            return
        last = state.training.evaluations[-1] if state.training.evaluations else None
        completed = TrainingCompleted(
            segment=state.training.segment.number,
            step=end.step,
            epochs=last.epoch if last else 0,
            stopped_early=end.stopped_early,
            best_step=last.best_step if last else None,
            weights_digest=final[-1].written.weights_digest,
            state_root=final[-1].written.state_root,
            final_blob=final[-1].written.blob,
            values=last.values if last else {},
        )
        # The trainer waits for nobody between these.
        reason = "the training ended before anybody decided"
        waiting = [InterventionDeclined(proposal=id, reason=reason) for id, _ in state.training.waiting_proposals()]
        for fact in [self.say("trainer", event) for event in (*waiting, completed)]:
            self._answered(fact)

    # What came out

    def judged(self) -> tuple[float, float]:
        """Score and skill of the final weights on clean rows; chance where there are none, or they say nothing."""
        from runtime.engine.evaluate import Judge
        from runtime.engine.learner import Learner
        from runtime.model.trained import read_checkpoint, rebuild

        done = self.log.state.outcome
        if not isinstance(done, TrainingCompleted):
            return 0.0, 0.0
        facts = self.dataset.facts
        learner = Learner(self.request, facts)
        content = read_checkpoint(self.trial.blobs, done.final_blob, done.state_root)
        model = rebuild(learner, self.request, facts, content).model
        with tempfile.TemporaryDirectory(prefix="clean-", dir=self.trial.blobs) as fresh:
            rows, split = self._clean(Path(fresh))
            values = Judge(learner, self.resolved, rows, split).values(model)
        score, loss = values[f"{split}_{self.trial.score}"], values[f"{split}_loss"]
        skill = 1 - loss / self.trial.prior
        return tuple(max(-1.0, one) if math.isfinite(one) else 0.0 for one in (score, skill))  # type: ignore[return-value]

    def _clean(self, fresh: Path) -> tuple[Any, str]:
        import numpy as np

        from runtime.engine.dataset import Dataset, write

        if self.trial.unseen.is_dir():
            return Dataset.open(self.trial.unseen, verify=False), "test"
        facts, arrays = self.dataset.facts, np.load(self.trial.unseen)
        x, y = arrays["x"], arrays["y"]
        if facts.features and x.ndim == 2:
            # Columns that a request ignores are no features.
            x = x[:, [int(name.removeprefix("f")) for name in facts.features]]
        if facts.task == "classification":
            # A file names its classes, and a class that it lacks cannot be asked for.
            known = {name.removeprefix("class "): at for at, name in enumerate(facts.labels)}
            asked = np.array([known.get(str(one), -1) for one in y.tolist()])
            x, y = x[asked >= 0], asked[asked >= 0]
        given = {"x": x, "y": y}
        rows = {
            name: given[name].astype(column.dtype).reshape(-1, *column.shape) for name, column in facts.columns.items()
        }
        count = len(rows["y"])
        write(fresh, {"train": rows, "val": rows}, replace(facts, rows={"train": count, "val": count}))
        return Dataset.open(fresh, verify=False), "val"


class _Over(Exception):
    """The session has gone on for longer than any does."""


class _Desk:
    """What the training job is given in place of a trainer at the other end of a socket."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._written: queue.SimpleQueue[CheckpointWritten] = queue.SimpleQueue()
        self._held: int | None = None
        self._ended: PlanEnd | None = None

    def tell(self, told: TrainingNews) -> None:
        """Take what the job tells."""
        if isinstance(told, CheckpointWritten):
            # A thread of the job writes checkpoints; the log has one writer.
            self._written.put(told)
            return
        self._flush()
        match told:
            case HoldNotice(step):
                self._held = step
            case PlanEnd():
                self._ended, self._held = told, told.step
            case Event():
                self._session.hear(told)

    def _flush(self) -> None:
        while not self._written.empty():
            self._session.hear(self._written.get())

    def order(self, *, wait: bool = False) -> Hold | ChangePlan | Leave | None:
        """What the trainer orders now; `wait` says that the job holds until it is told."""
        from agents.trainer.decisions import hopeless_proposals, next_decision

        self._flush()
        session = self._session
        session.name_rows()
        for id, why in hopeless_proposals(session.log.state):
            session.hear(InterventionDeclined(proposal=id, reason=why))
        decision = next_decision(session.log.state)
        if decision is None:
            if self._ended is None:
                return None
            session.complete(self._ended)
            return Leave(keep=False)
        if not wait:
            return Hold()
        proposal = decision.proposal
        assert proposal is not None
        number = session.log.state.training.segment.number + 1
        if number > MOST_SEGMENTS:
            raise _Over
        begins = (self._held or 0) if proposal.rewind_to is None else proposal.rewind_to
        session.hear(
            InterventionApplied(
                proposal=decision.cause,
                by=proposal.rule,
                segment=number,
                step=begins,
                changes=proposal.changes,
                reproducible=proposal.automatic,
            )
        )
        self._ended, self._held = None, None
        return Leave(keep=False) if proposal.rewind_to is not None else ChangePlan(begins, proposal.changes)
