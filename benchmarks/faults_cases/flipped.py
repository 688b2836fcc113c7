"""One training in which a bit flips, what such a machine records of it, and the full audit of that record.

`benchmarks/corruption.py` says what is counted.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from bus.blobs import DirectoryBlobs
from contracts import envelope, ids
from contracts.envelope import Fact
from contracts.event import Event, Value
from contracts.operator import RULES, SessionRequested
from contracts.request import read_request
from contracts.trainer import Computed, TrainingClaimed, TrainingCompleted, TrainingFailed
from runtime.audit.blob_check import BlobCheck, HomeBlobs
from runtime.engine import checkpoint, seal
from runtime.engine.dataset import Dataset, write
from runtime.engine.facts import describe
from runtime.engine.loop import Run
from runtime.engine.plan import Plan
from runtime.engine.random_keys import uniform
from runtime.engine.reduction import RankGradients
from runtime.engine.resolve import resolve
from runtime.jobs.job import Seal, job
from runtime.log.session_log import SessionLog
from runtime.replay import audit_plan, comparison, jobs, reexecute
from runtime.replay.initial_state import InheritedPlan, plan_of
from runtime.replay.spans import SpanSpec, session_spans
from runtime.replay.verdict import Divergence, LocatedDivergence, SpanResult, Verdict, replay_verdict

PLACES = ("weights", "optimizer", "gradient", "batch", "checkpoint", "stored")

TASKS: dict[str, dict[str, Any]] = {
    "mlp": {
        "model": {"architecture": "mlp", "hidden": [16], "dropout": 0.2},
        "optimizer": {"type": "adamw"},
        "training": {"epochs": 4, "batch_size": 16, "grad_clip": 1.0, "ema": {"decay": 0.9}},
    },
    "cnn": {
        "model": {"architecture": "cnn", "channels": [4, 8]},
        "optimizer": {"type": "sgd", "momentum": 0.9},
        "training": {"epochs": 4, "batch_size": 16},
    },
}
"""Between them: moments, an average, dropout, clipping, statistics of batches."""

COMMON = {"data": {"source": "csv", "path": "x.csv", "target": "y"}, "validation": {"every_epochs": 2}}
WINDOW, EVERY = 10, 20
CLAIMED = {"engine_bits": 1, "fingerprint": "0" * 64, "families": {}, "environment": {}, "sources": {}}


@dataclass(frozen=True)
class Portion:
    """Which flips a child plants."""

    seed: int
    numbers: Sequence[int]


@dataclass(frozen=True)
class Outcome:
    """What came of a flip: which value of what, and where an audit found the first difference, if it did."""

    number: int
    task: str
    place: str
    step: int
    what: str
    verdict: str
    found: str


@job(purpose="train")
def plant(portion: Portion) -> Sequence[Outcome]:
    """Train with each of these flips, and audit what was recorded."""
    seal.apply(**asdict(Seal(1)))
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="corruption-", dir=memory if memory.is_dir() else None) as folder:
        ground = Ground(Path(folder))
        return [ground.outcome(portion.seed, number) for number in portion.numbers]


class Flip:
    """One bit, drawn by seed and number: in which training, place and step; what exactly is drawn where it is."""

    def __init__(self, seed: int, number: int, steps: int) -> None:
        self.draw = f"{seed}/{number}"
        self._chance = random.Random(self.draw)
        self.task = self._chance.choice(sorted(TASKS))
        self.place = PLACES[number % len(PLACES)]
        self.step = self._chance.randrange(steps)
        self.what = ""

    def tensors(self, named: Mapping[str, Tensor]) -> None:
        """Flip one bit of these tensors, each as likely as it is large."""
        names = [name for name, one in named.items() if one.numel()]
        sizes = [named[name].numel() * named[name].element_size() for name in names]
        (name,) = self._chance.choices(names, sizes)
        array = named[name].detach().numpy()
        at = tuple(self._chance.randrange(size) for size in array.shape)
        element = bytearray(array[at].tobytes())
        bit = self._flip(element)
        before, array[at] = array[at].copy(), np.frombuffer(bytes(element), array.dtype)[0]
        if array[at].tobytes() != bytes(element):
            raise AssertionError(f"bit {bit} of {name}{list(at)} was not flipped")
        self.what = f"bit {bit} of {name}{list(at)}: {before} -> {array[at]}"

    def file(self, path: Path) -> None:
        """Flip one bit of a file."""
        content = bytearray(path.read_bytes())
        at = self._chance.randrange(len(content))
        bit = self._chance.randrange(8)
        content[at] ^= 1 << bit
        path.unlink()
        path.write_bytes(content)
        self.what = f"bit {bit} of byte {at} of {len(content)}"

    def _flip(self, element: bytearray) -> int:
        bit = self._chance.randrange(8 * len(element))
        element[bit // 8] ^= 1 << bit % 8
        return bit


class Ground:
    """Rows and plans of the trainings, what each records without a flip, and how one with a flip is judged."""

    def __init__(self, folder: Path) -> None:
        splits = {name: _rows(rows, 10 * at) for at, (name, rows) in enumerate({"train": 160, "val": 32}.items(), 1)}
        self.folder = folder
        self.rows = folder / "rows"
        write(self.rows, splits, describe(splits, "classification"))
        self.dataset = Dataset.open(self.rows)
        self.plans: dict[str, Plan] = {}
        for name, sections in TASKS.items():
            request = read_request({**COMMON, **sections})
            numbers = resolve(request, self.dataset.facts, cores=1)
            self.plans[name] = Plan(request, replace(numbers, window=WINDOW, every_steps=EVERY))
        self.steps = next(iter(self.plans.values())).resolved.steps_total
        self.honest = {name: Record(self, name, folder / f"honest-{name}") for name in TASKS}
        for record in self.honest.values():
            record.train(None)
            if (found := record.audited()) is not None:
                raise AssertionError(f"without any flip an audit finds {found}")

    def outcome(self, seed: int, number: int) -> Outcome:
        """Train with a flip, audit the record, and judge the audit by what the flip has changed."""
        flip = Flip(seed, number, self.steps)
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            record, honest = Record(self, flip.task, Path(folder)), self.honest[flip.task]
            record.train(flip)
            if not flip.what:
                raise AssertionError(f"flip {number} of seed {seed} was not planted")
            found, (verdict, told) = record.audited(), ("missed", "")
            changed = record.first_change(honest)
            if found is not None:
                told = f"{found.what} {found.message}"[:300]
            if changed is not None:
                verdict = "located" if found is not None and changed.is_at(found) else "missed"
            elif flip.place == "stored":
                verdict = "located" if found is not None and record.damaged in found.message else "missed"
            elif found is None:
                verdict = "stopped" if record.error else "same" if record.root == honest.root else "missed"
                told = record.error
        return Outcome(number, flip.task, flip.place, flip.step, flip.what, verdict, told)


class Change(Value):
    """The first recorded event that a flip has changed, and the fields of it that are others; none where it is new."""

    position: int
    name: str
    fields: tuple[str, ...]

    def is_at(self, found: Divergence) -> bool:
        """Whether a divergence that an audit found is this one."""
        field = found.about.field.partition(".")[0] if isinstance(found, LocatedDivergence) else ""
        return (found.position, found.what) == (self.position, self.name) and (field in self.fields or not self.fields)


def change_between(mine: Fact, other: Fact | None) -> Change | None:
    """What of an event is not as in another record; all of it where the other has none like it."""
    said = mine.event.model_dump(mode="json")
    if other is None or mine.name != other.name:
        return Change(position=mine.position, name=mine.name, fields=())
    wanted = other.event.model_dump(mode="json")
    fields = tuple(name for name, value in said.items() if wanted.get(name) != value)
    return Change(position=mine.position, name=mine.name, fields=fields) if fields else None


class Record:
    """The log of one training, as the machine that trains writes it, and the audit of that log."""

    def __init__(self, ground: Ground, task: str, folder: Path) -> None:
        self._ground, self.plan = ground, ground.plans[task]
        self.folder, self.blobs = folder, DirectoryBlobs(folder)
        self.log = SessionLog(ids.session_for("corruption bench"))
        self.error = self.damaged = self.root = ""
        self._say("operator", SessionRequested(
            kind="training", request=self.plan.request.resolved(), keyring="", asked_by="bench", rules=RULES
        ))  # fmt: skip
        self._say("trainer", TrainingClaimed(
            epoch=1, worker="bench", incarnation="bench", segment=1, resumed_from=0, dataset=ground.dataset.root,
            resolved=self.plan.resolved.as_json(), **CLAIMED,
        ))  # fmt: skip

    def _say(self, lane: str, event: Event) -> None:
        number, zero = self.log.size + 1, "0" * 64
        body = envelope.write(
            event, id=f"bench-{number}", session=self.log.id, lane=lane, laneseq=number, prev=zero, source="bench",
            time="2026-01-01T00:00:00.000000Z",
        )  # fmt: skip
        self.log.add([Fact(number, number, *envelope.read(body), zero, "signed")])

    # The machine that trains

    def train(self, flip: Flip | None) -> None:
        """Train to the end of the plan and record everything; `flip` happens on the way."""
        run = Run.start(self.plan, self._ground.dataset)
        if flip is not None:
            _plant_in(run, flip)
        last = None
        try:
            while not run.finished:
                told = run.advance()
                if told.window is not None:
                    self._say("trainer", comparison.window_event(told.window))
                if told.evaluation is not None:
                    last = told.evaluation
                    self._say("trainer", comparison.evaluation_event(last))
                if told.checkpoint:
                    self._keep(run, told.checkpoint, flip)
        except Exception as error:  # noqa: BLE001 - whatever a flipped bit makes of the user's loss
            self.error = f"{type(error).__name__}: {error}"[:200]
        kept = list(self.log.state.training.checkpoints)
        if self.error or not kept or kept[-1].written.step != run.step or last is None:
            message = self.error or "the weights are not finite"
            self._say("trainer", TrainingFailed(segment=1, step=run.step, code="failed", message=message))
            return
        final = kept[-1].written
        self.root = final.state_root
        self._say("trainer", TrainingCompleted(
            segment=1, step=run.step, epochs=last.epoch, stopped_early=run.step < self.plan.last_step,
            best_step=last.best_step, weights_digest=final.weights_digest, state_root=final.state_root,
            final_blob=final.blob, values=dict(last.values),
        ))  # fmt: skip

    def _keep(self, run: Run, reason: comparison.Reason, flip: Flip | None) -> None:
        staged = run.tensors()
        mine = flip is not None and not flip.what and run.step > flip.step
        if mine and flip.place == "checkpoint":
            flip.tensors(staged)
        sealed = checkpoint.seal(staged, run.step, run.aliases)
        data = checkpoint.pack(sealed)
        blob = self.blobs.put(data)
        self._say("trainer", comparison.checkpoint_event(sealed, 1, reason, blob=blob, size=len(data)))
        if mine and flip.place == "stored":
            flip.file(self.blobs.path(blob))
            self.damaged = f"checkpoint of step {run.step}"

    # The audit

    def audited(self) -> Divergence | None:
        """The first divergence that a full audit of this record names: blobs first, then every span computed again."""
        facts, session = self.log.facts, self.log.state
        damaged = next(BlobCheck(session, HomeBlobs(self.blobs)).divergences(), None)
        if damaged is not None:
            return damaged
        laid = session_spans(facts, session, self.blobs.has)
        plan = audit_plan.AuditPlan(
            mode="full",
            seed=0,
            spans=tuple(audit_plan.plan_span(one) for one in laid.spans),
            chosen=tuple(one.number for one in laid.spans),
            broken=(*audit_plan.strays(laid), *audit_plan.broken_rules(facts, session)),
            ended=True,
            reached=max((one.ends for one in laid.spans), default=0),
            events=session.events,
        )
        results = {
            one.number: self._computed(one.spec(plan_of(session, InheritedPlan(), one.segments), ()))
            for one in laid.spans
        }
        verdict = replay_verdict(Verdict(session.id, "pass"), plan, results)
        return verdict.divergences[0] if verdict.divergences else None

    def _computed(self, spec: SpanSpec) -> SpanResult:
        compared = comparison.SpanComparison(spec)
        path = self.folder / "span.json"
        path.write_text(spec.task.model_dump_json())
        file = jobs.SpanFile(path, jobs.ReplayData(self._ground.rows, self.folder, None))
        try:
            told = _Listener(compared)
            reexecute.compute(told, jobs.SpanQuery(file, jobs.Conditions(Seal(1), "cpu")))  # type: ignore[arg-type]
        except _Differs as found:
            return SpanResult(steps=compared.steps, divergence=found.args[0])
        return SpanResult(steps=compared.steps, divergence=compared.left())

    # What the flip has done

    def first_change(self, honest: Record) -> Change | None:
        """The first event whose values are not those of the honest record; None when all that was computed is alike."""
        ours, theirs = ([one for one in log.facts if isinstance(one.event, Computed)] for log in (self.log, honest.log))
        for mine, other in zip(ours, theirs, strict=False):
            if found := change_between(mine, other):
                return found
        return None if self.error or len(ours) == len(theirs) else Change(position=0, name="an event", fields=())


class _Differs(Exception):
    """The comparison has found a divergence, and ends the job that computes."""


class _Listener:
    """Hears what the job that computes a span tells, as the process does that runs the job."""

    def __init__(self, comparison: comparison.SpanComparison) -> None:
        self._comparison = comparison

    def tell(self, told: Any) -> None:
        """Hold what was computed against what was recorded."""
        if isinstance(told, jobs.SpanEnd):
            self._comparison.ended(told)
        elif found := self._comparison.computed(told):
            raise _Differs(found)


def _plant_in(run: Run, flip: Flip) -> None:
    """Have a bit flipped while a run is under way; each attempt of these plans takes one batch."""
    attempts, setup = 0, run._setup  # noqa: SLF001 - the memory of a machine knows no privacy

    def measured(label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def fetched(*args: Any) -> Any:
            nonlocal attempts
            mine = attempts == flip.step
            if mine and flip.place in ("weights", "optimizer"):
                held = setup.tensors()
                ours = {
                    name: one for name, one in held.items() if name.startswith("model.") == (flip.place == "weights")
                }
                flip.tensors(ours)
            batch = function(*args)
            if mine and flip.place == "batch":
                flip.tensors(batch)
            attempts += 1
            return batch

        return fetched if label == "data" else function

    def gather(own: RankGradients) -> Sequence[RankGradients]:
        if flip.place == "gradient" and attempts == flip.step + 1:
            names = setup.movement.names
            flip.tensors({names[place]: one for place, one in zip(own.held, own.gradients, strict=True)})
        return (own,)

    run.measured(measured)
    run._setup = replace(setup, gather=gather)  # noqa: SLF001


def _rows(rows: int, key: int) -> dict[str, Any]:
    x = uniform(key, rows * 64).reshape(rows, 1, 8, 8)
    y = (uniform(key + 1, rows) * 4).astype(np.int64)
    x.reshape(rows, -1)[np.arange(rows), y] += 3
    return {"x": x, "y": y}
