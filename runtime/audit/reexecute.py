"""Jobs that compute a span again and compare it with what was recorded. They read files and write none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import orjson

from bus.blobs import DirectoryBlobs
from contracts.errors import InvalidRequest
from contracts.trainer import CheckpointWritten, ControlEvaluated, TrainingCompleted, WindowRecorded
from runtime import initial, reported
from runtime.audit import compared
from runtime.engine import checkpoint, seal
from runtime.engine.control import Control
from runtime.engine.dataset import Dataset
from runtime.engine.digest import digest
from runtime.engine.fingerprint import fingerprint
from runtime.engine.loop import ENGINE_BITS, Run
from runtime.engine.plan import Plan
from runtime.engine.resolve import resolve
from runtime.engine.state import Tensors
from runtime.processes.job import Job
from runtime.workloads import enlist

Divergence = dict[str, Any]
R = TypeVar("R", bound=Run)


def identity(job: Job) -> dict[str, Any]:
    """As `here`, in a child of its own."""
    seal.apply(**job.args["seal"])
    return here(job.args)


def here(args: Mapping[str, Any]) -> dict[str, Any]:
    """What makes the bits here, and the numbers that the request resolves to with this dataset, where it is at hand."""
    found = fingerprint(args["device"], args["precision"])
    about = {"fingerprint": found.digest, "families": dict(found.families), "engine_bits": ENGINE_BITS}
    if args["plan"] is None:
        return about | {"resolved": None}
    enlist(args["workloads"])
    plan, dataset = Plan.from_json(args["plan"]), Dataset.open(Path(args["dataset"]), verify=False)
    return about | {"resolved": _resolved(plan, dataset, initial.tensors(args), args["inherited"])}


def _resolved(
    plan: Plan, dataset: Dataset, begun: Tensors | None, inherited: Mapping[str, Any] | None
) -> dict[str, Any]:
    cuda = plan.resolved.device == "cuda"
    try:
        found = resolve(plan.request, dataset.facts, cores=1, cuda=cuda, initial=begun, inherited=inherited)
    except InvalidRequest as error:
        return {"refused": error.message}
    # How many threads there are is the one number that the first claim's machine has a say in.
    return found.as_json() | ({} if inherited else {"threads": plan.resolved.threads})


def main(job: Job) -> dict[str, Any]:
    """Compute one span again: {"steps", "divergence": None or the first, as plain data}."""
    seal.apply(**job.args["seal"])
    enlist(job.args["workloads"])
    span = orjson.loads(Path(job.args["span"]).read_bytes())
    run: Run = begun(job.args, span)
    found = Repetition(run, span).whole(lambda step: job.tell("progress", step=step))
    return {"steps": run.step - span["begins"], "divergence": found}


def begun(args: Mapping[str, Any], span: Mapping[str, Any], kind: type[R] = Run) -> R:  # type: ignore[assignment]
    """The run of a span at its beginning; its state is verified against the root that the log names."""
    plan = Plan.from_json(span["plan"])
    dataset = Dataset.open(Path(args["dataset"]), verify=False)
    if span["start"] is None:
        return kind.start(plan, dataset, initial=initial.tensors(args))
    data = DirectoryBlobs(Path(args["blobs"])).get(span["start"]["blob"])
    kept = checkpoint.unpack(data, state_root=span["start"]["state_root"])
    seen = [(step, float.fromhex(value)) for step, value in span["evaluations"]]
    control = Control.of(plan.request.early_stopping).after_all(seen)
    return kind.resume(plan, dataset, kept.tensors, span["begins"], control=control)


class Repetition:
    """A run beside the records of its span."""

    def __init__(self, run: Run, span: Mapping[str, Any]) -> None:
        self.run = run
        self._span = span
        self._records = compared.by_place(span["records"])
        self._open = set(self._records)

    def whole(self, told: Callable[[int], None] = lambda _: None) -> Divergence | None:
        """Go to the end of the span; the first divergence, or None when everything came out as recorded."""
        ends = self._span["ends"]
        return self.upto(ends, told) or self._left(ends) or self._ending()

    def upto(self, ends: int, told: Callable[[int], None] = lambda _: None) -> Divergence | None:
        """Go to the last grid step up to `ends`; the first divergence of what was computed."""
        run = self.run
        if self._span["start"] is None and run.step == 0 and (found := self._checkpoint(0, wanted=False)):
            return found
        while run.step < ends and not run.finished and run.plan.next_grid(run.step) <= ends:
            if found := self._advanced():
                return found
            told(run.step)
        return None

    def window_at(self, first: int) -> Mapping[str, Any] | None:
        """The recorded window that begins at a step."""
        return next(iter(self._records.get((WindowRecorded.wire, first), ())), None)

    def _advanced(self) -> Divergence | None:
        report = self.run.advance()
        found = None
        if report.window is not None:
            found = self._same(reported.window(report.window))
        if found is None and report.evaluation is not None:
            found = self._same(reported.evaluation(report.evaluation))
        return found or self._checkpoint(report.step, wanted=bool(report.checkpoint))

    def _same(self, computed: WindowRecorded | ControlEvaluated | CheckpointWritten) -> Divergence | None:
        place = compared.key(computed)
        self._open.discard(place)
        records = self._records.get(place, [])
        if not records:
            return self._missing(computed)
        return next((found for one in records if (found := compared.difference(one, computed))), None)

    def _missing(self, computed: WindowRecorded | ControlEvaluated | CheckpointWritten) -> Divergence | None:
        """What ended in mid-sentence (a crash, a rewind) may lack its last words; a line that goes on may not."""
        if self.run.step >= self._span["ends"] and not self._span["whole"]:
            return None
        if isinstance(computed, CheckpointWritten) and not self._span["whole"]:
            return None
        data = computed.model_dump(mode="json")
        first = computed.first if isinstance(computed, WindowRecorded) else computed.step
        place = {"name": computed.wire, "first": first, "last": self.run.step, "data": data} | self._next_place()
        return compared.diverged(place, "", "nothing", "an event that the log lacks")

    def _next_place(self) -> dict[str, int]:
        """The place of the first record that comes after this step."""
        later = [one for one in self._span["records"] if one["last"] > self.run.step]
        first = min(later, key=lambda one: int(one["place"]), default=self._span["after"])
        return {"place": first["place"], "seq": first["seq"]}

    def _checkpoint(self, step: int, *, wanted: bool) -> Divergence | None:
        records = self._records.get((CheckpointWritten.wire, step), [])
        if not records and not wanted:
            return None
        sealed = checkpoint.seal(self.run.tensors(), step, self.run.aliases)
        data = checkpoint.pack(sealed)
        segment = self.run.plan.segment_at(step - 1)
        return self._same(reported.written(sealed, segment, "planned", blob=digest(data), size=len(data)))

    def _left(self, ends: int) -> Divergence | None:
        """Records that nothing gave again: of steps off the grid, or beyond where the rules end the training."""
        left = [one for place in self._open for one in self._records[place] if one["last"] <= ends]
        if not left:
            return None
        first = min(left, key=lambda one: (one["last"], one["place"]))
        return compared.diverged(first, "", "this event", "none at this place by the rules of the plan")

    def _ending(self) -> Divergence | None:
        told = self._span["outcome"]
        if told is None:
            return None
        said = TrainingCompleted.model_validate_json(orjson.dumps(told["data"]))
        run = self.run
        sealed = checkpoint.seal(run.tensors(), run.step)
        found = {
            "stopped_early": run.step < run.plan.last_step,
            "best_step": run.control.best_step,
            "weights_digest": sealed.weights_digest,
            "state_root": sealed.state_root,
        }
        against = compared.ending(said, run.step, finished=run.finished, found=found)
        about = {"name": said.wire, "first": run.step, "last": said.step, "data": {"segment": said.segment}}
        place = about | {"place": told["place"], "seq": told["seq"]}
        return compared.diverged(place, "end", against, "") if against else None
