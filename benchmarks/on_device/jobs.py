"""What `benchmarks/gpu.py` measures in children: each job is a fork that touches the device for the first time."""

from __future__ import annotations

import queue
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runtime.engine import seal, state
from runtime.engine.dataset import Dataset
from runtime.engine.fingerprint import UNABLE, fingerprint
from runtime.engine.learner import Learner
from runtime.engine.passes import computing
from runtime.engine.plan import Plan
from runtime.jobs.job import job, torch_profile


@dataclass(frozen=True)
class DeviceTask:
    """What the jobs here are given; each looks at what it needs."""

    device: str = "cpu"
    precision: str = "fp32"
    plan: Mapping[str, Any] = field(default_factory=dict)
    dataset: Path = Path()
    turns: int = 1
    steps: int = 1
    warm: int = 1


probe = job(purpose="probe", profile=lambda task: torch_profile(1, task.device))


def settle(device: str) -> None:
    """Wait until the device has done everything that it was told."""
    if device == "cuda":
        torch.cuda.synchronize()


@probe
def measured(task: DeviceTask) -> Mapping[str, Any]:
    """The fingerprint, how long it took, how long the second time, and the families without a kernel."""
    seal.apply(threads=1, profile="exact")
    device, precision = task.device, task.precision
    begun = time.perf_counter()
    found = fingerprint(device, precision)
    first = time.perf_counter()
    again = fingerprint(device, precision)
    took = {"first_s": first - begun, "again_s": time.perf_counter() - first}
    unable = [name for name, said in found.families.items() if said == UNABLE]
    return took | {"digest": found.digest, "same": again.digest == found.digest, "unable": unable}


class Loop:
    """The loop that anybody would write around the engine's model: rows on the device, clipping, fused AdamW."""

    def __init__(self, plan: Plan, dataset: Dataset) -> None:
        resolved, self._learner = plan.resolved, Learner(plan.request, dataset.facts)
        self.device, self._precision, self._batch = resolved.device, resolved.precision, resolved.batch
        self.model = self._learner.ready(self._learner.build()).to(self.device)
        self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)
        columns = dataset.columns("train")
        self._columns = {name: torch.from_numpy(one.copy()).to(self.device) for name, one in columns.items()}
        self._rows = dataset.facts.rows["train"]
        self._order = torch.randperm(self._rows, generator=torch.Generator().manual_seed(0)).to(self.device)
        self._done = 0

    def steps(self, count: int, after: Callable[[int], None] = lambda step: None) -> float:
        """Train so many steps; the microseconds that one took, until the device was done with the last."""
        settle(self.device)
        begun = time.perf_counter()
        for step in range(self._done, self._done + count):
            at = step * self._batch % max(1, self._rows - self._batch)
            rows = self._order[at : at + self._batch]
            batch = {name: one.index_select(0, rows) for name, one in self._columns.items()}
            with computing(self._precision, self.device):
                loss, _ = self._learner.objective(self.model, batch)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self._optimizer.step()
            after(step + 1)
        self._done += count
        settle(self.device)
        return 1e6 * (time.perf_counter() - begun) / count


def _opened(task: DeviceTask) -> tuple[Plan, Dataset]:
    return Plan.from_json(task.plan), Dataset.open(task.dataset, verify=False)


@probe
def bare(task: DeviceTask) -> Mapping[str, Any]:
    """Microseconds per step of the loop, turn by turn, with the settings that a session has."""
    seal.apply(threads=1, profile="exact")
    loop = Loop(*_opened(task))
    loop.steps(task.warm)
    return {"us": [loop.steps(task.steps) for _ in range(task.turns)]}


@probe
def strict(task: DeviceTask) -> Mapping[str, Any]:
    """Microseconds per step of the loop: strict, without strictness, and with TF32 besides; in alternation."""
    loops: dict[str, Loop] = {}
    taken: dict[str, list[float]] = {name: [] for name in SETTINGS}
    for turn in range(task.turns + 1):
        for name, choose in SETTINGS.items():
            choose()
            if name not in loops:
                loops[name] = Loop(*_opened(task))
            taken[name].append(loops[name].steps(task.steps if turn else task.warm))
    return {name: found[1:] for name, found in taken.items()}


def _exact() -> None:
    seal.apply(threads=1, profile="exact")


def _free() -> None:
    seal.apply(threads=1, profile="fast")
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def _tf32() -> None:
    seal.apply(threads=1, profile="fast")


SETTINGS: dict[str, Callable[[], None]] = {"strict": _exact, "free": _free, "tf32": _tf32}


class Aside:
    """Roots that are computed while training goes on: a snapshot, copied on a stream of its own, hashed in a thread."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._mirror = state.Mirror()
        self._stream = torch.cuda.Stream() if torch.cuda.is_available() else None
        self._work: queue.Queue[tuple[dict[str, Tensor], Any] | None] = queue.Queue()
        self.roots: list[str] = []
        self._thread = threading.Thread(target=self._hash_all, daemon=True)
        self._thread.start()

    def take(self) -> None:
        """Begin with the root of the weights as they are now."""
        snapshot = {name: one.detach().clone() for name, one in state.weights(self._model).items()}
        ready = torch.cuda.current_stream().record_event() if self._stream else None
        self._work.put((snapshot, ready))

    def finish(self) -> None:
        """Return when every root is there."""
        self._work.put(None)
        self._thread.join()

    def _hash_all(self) -> None:
        while (taken := self._work.get()) is not None:
            snapshot, ready = taken
            self.roots.append(state.root(self._brought(snapshot, ready)))

    def _brought(self, snapshot: dict[str, Tensor], ready: Any) -> state.Tensors:
        if self._stream is None:
            return self._mirror.of(snapshot)
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(ready)
            return self._mirror.of(snapshot)


@probe
def roots(task: DeviceTask) -> Mapping[str, Any]:
    """Microseconds per step without roots, with one every fifty steps in line, and with one aside."""
    seal.apply(threads=1, profile="exact")
    taken: dict[str, list[float]] = {"none": [], "inline": [], "aside": []}
    seen: dict[str, list[str]] = {"inline": [], "aside": []}
    every, steps = 50, task.steps
    for turn in range(task.turns + 1):
        for name, found in taken.items():
            loop, mirror = Loop(*_opened(task)), state.Mirror()
            aside = Aside(loop.model)

            def inline(mirror: state.Mirror = mirror, loop: Loop = loop) -> None:
                seen["inline"].append(state.root(mirror.of(state.weights(loop.model))))

            take = {"none": lambda: None, "inline": inline, "aside": aside.take}[name]
            take()  # the first one finds new memory
            loop.steps(every)
            us = loop.steps(steps, lambda step, take=take: None if step % every else take())  # type: ignore[misc]
            aside.finish()
            seen["aside"] += aside.roots
            if turn:
                found.append(us)
    return {**taken, "same": seen["inline"] == seen["aside"] and len(seen["inline"]) > 0, **_root_alone(loop)}


def _root_alone(loop: Loop) -> dict[str, float]:
    """Milliseconds of one root: in all, and what bringing the weights to the CPU takes of it."""
    weights, mirror = state.weights(loop.model), state.Mirror()
    brought, whole = [], []
    for _ in range(6):
        settle(loop.device)
        begun = time.perf_counter()
        here = mirror.of(weights)
        brought.append(time.perf_counter() - begun)
        state.root(here)
        whole.append(time.perf_counter() - begun)
    size = sum(one.nbytes for one in weights.values())
    return {
        "root_ms": 1e3 * statistics.median(whole),
        "bring_ms": 1e3 * statistics.median(brought),
        "weights_mb": size / 1e6,
    }


@probe
def stall(task: DeviceTask) -> Mapping[str, Any]:
    """Milliseconds per 100 MB of state: the look whether it is finite, and the copy for which training stands still."""
    from benchmarks.checkpoint import alive

    tensors = {name: one.to(task.device) for name, one in alive().items()}
    per = 1e3 * 1e8 / sum(one.nbytes for one in tensors.values())
    staged: state.Tensors | None = None
    taken: dict[str, list[float]] = {"finite": [], "stall": []}
    for _ in range(task.turns + 1):
        settle(task.device)
        begun = time.perf_counter()
        assert state.finite(tensors)
        looked = time.perf_counter()
        staged = state.copied(tensors, staged)
        taken["finite"].append(per * (looked - begun))
        taken["stall"].append(per * (time.perf_counter() - looked))
    return {name: statistics.median(found[1:]) for name, found in taken.items()}
