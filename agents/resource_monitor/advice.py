"""What a session's figures say about its options, and what an option was worth when somebody took the advice.

Each rule looks at what a training used and names an option, its new value, and a figure that should change by a factor.
A home remembers the advice that it gave, so the training that takes it is compared with the one that got it. Pure, but
for `AdviceBook`.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from bus.disk import write_file
from contracts.event import Value
from contracts.request.reading import flat
from contracts.resource_monitor import AdviceFigure, AdviceJudged, ResourcesAdvised, ResourcesSummarised
from contracts.session import SessionState
from contracts.trainer import AttemptEnded, training_seconds

MOST_ADVICE = 3
"""Pieces of advice that one session gets."""
MOST_KEPT = 200
"""Pieces of advice that a home remembers."""
LESS_IS_BETTER = frozenset({"seconds_per_epoch", "memory_bytes"})
KNOWN = frozenset({"training.batch_size", "training.accumulate", "training.precision", "validation.every_epochs"})
"""Options that rules look at: a request of other software may lack them."""
UNCOMPARED = ("name", "request_id", "mode", "notify")
"""Options that change no figure."""


@dataclass(frozen=True)
class Situation:
    """What a training used, in the words of the rules."""

    options: Mapping[str, Any]
    """Its request, by path."""
    cuda: bool
    threads: int
    cores: int
    spent: Mapping[str, float]
    """Seconds by what they were spent on."""
    steps: int
    epochs: int
    cores_used: float
    cpu_percent: float
    memory_percent: float
    memory_bytes: int
    """The most that the training's own processes held."""
    memory_share: float
    """How much of all memory in use that is."""
    gpu_percent: float
    gpu_memory_percent: float

    @property
    def seconds(self) -> float:
        """Seconds of training, without what comes before and between."""
        return training_seconds(self.spent)

    @property
    def rows_per_step(self) -> int:
        """Rows that one step takes."""
        return int(self.options["training.batch_size"]) * int(self.options["training.accumulate"])

    def share(self, name: str) -> float:
        """The share of the training's time that something took."""
        return self.spent.get(name, 0.0) / self.seconds if self.seconds > 0 else 0.0

    def figures(self) -> dict[AdviceFigure, float]:
        """What advice promises to change."""
        seconds = self.seconds or 1.0
        return {
            "rows_per_second": round(self.steps * self.rows_per_step / seconds, 3),
            "seconds_per_epoch": round(seconds / max(self.epochs, 1), 6),
            "memory_bytes": float(self.memory_bytes),
        }


Rule = Callable[[Situation], ResourcesAdvised | None]


def _advised(
    now: Situation, options: Mapping[str, Any], figure: AdviceFigure, factor: float, reason: str
) -> ResourcesAdvised:
    return ResourcesAdvised(
        options={**options},
        instead_of={path: now.options.get(path, 0) for path in options},
        figure=figure,
        value=now.figures()[figure],
        factor=factor,
        reason=reason,
    )


def memory_is_short(now: Situation) -> ResourcesAdvised | None:
    """Smaller batches, as many of them in a step as before."""
    size, accumulate = int(now.options["training.batch_size"]), int(now.options["training.accumulate"])
    short = (now.memory_percent >= 85 and now.memory_share >= 0.5) or now.gpu_memory_percent >= 92
    if not short or size < 2 or size % 2:
        return None
    options = {"training.batch_size": size // 2, "training.accumulate": 2 * accumulate}
    where = "of the GPU" if now.gpu_memory_percent >= 92 else "of the machine"
    full = max(now.gpu_memory_percent, now.memory_percent)
    return _advised(now, options, "memory_bytes", 0.9, f"{full:.0f} % of the memory {where} was in use")


def evaluation_is_dear(now: Situation) -> ResourcesAdvised | None:
    """Half as many evaluations."""
    share, every = now.share("evaluation"), int(now.options["validation.every_epochs"])
    if share < 0.3 or now.epochs < 4 * every:
        return None
    options = {"validation.every_epochs": 2 * every}
    reason = f"evaluations took {share:.0%} of the training's time"
    return _advised(now, options, "seconds_per_epoch", round(1 - share / 4, 2), reason)


def rows_come_late(now: Situation) -> ResourcesAdvised | None:
    """Threads that make batches ahead, where training waits for its rows; with those, locked memory before a GPU."""
    share, workers = now.share("data"), int(now.options.get("data.workers", 0))
    if share < 0.2 or now.steps < 100:
        return None
    reason = f"{share:.0%} of the training's time went into fetching rows"
    if workers < 2 and now.cores >= 2 and now.cpu_percent < 85:
        return _advised(now, {"data.workers": workers + 1}, "rows_per_second", 1.1, reason)
    if now.cuda and not now.options.get("data.pin_memory", False):
        return _advised(now, {"data.pin_memory": True}, "rows_per_second", 1.1, reason)
    return None


def steps_are_small(now: Situation) -> ResourcesAdvised | None:
    """Twice as many rows in a step, where a step is too short to be worth its overhead, or leaves a GPU idle."""
    size = int(now.options["training.batch_size"])
    each = now.spent.get("step", 0.0) / max(now.steps, 1)
    idle = now.cuda and now.gpu_percent < 50 and now.gpu_memory_percent < 45
    if not (idle or (not now.cuda and 0 < each < 0.001 and size < 256)) or now.memory_percent >= 70 or now.steps < 100:
        return None
    told = f"the GPU was in use for {now.gpu_percent:.0f} % of the time" if idle else f"a step took {each * 1e6:.0f} us"
    options = {"training.batch_size": 2 * size}
    return _advised(now, options, "rows_per_second", 1.2, f"{told}, most of it overhead")


def precision_is_high(now: Situation) -> ResourcesAdvised | None:
    """Half the bits, where a GPU has nothing to spare."""
    if not now.cuda or now.options["training.precision"] != "fp32" or now.gpu_percent < 80:
        return None
    reason = f"the GPU was in use for {now.gpu_percent:.0f} % of the time, with 32-bit numbers"
    return _advised(now, {"training.precision": "bf16"}, "rows_per_second", 1.2, reason)


def cores_are_idle(now: Situation) -> ResourcesAdvised | None:
    """More threads, where steps are long enough to be divided and processors have nothing to do."""
    each = now.spent.get("step", 0.0) / max(now.steps, 1)
    spare = int(now.cores * (1 - now.cpu_percent / 100))
    if now.cuda or each < 0.005 or now.cores_used < 0.8 * now.threads or spare < 1:
        return None
    options = {"training.threads": min(now.threads + spare, 2 * now.threads, now.cores)}
    reason = f"{spare} of {now.cores} processors were idle while steps of {each * 1e3:.0f} ms ran on {now.threads}"
    return _advised(now, options, "rows_per_second", 1.2, reason)


RULES: tuple[Rule, ...] = (
    memory_is_short,
    evaluation_is_dear,
    rows_come_late,
    steps_are_small,
    precision_is_high,
    cores_are_idle,
)
"""In the order of their weight; a later one says nothing of an option that an earlier one changes."""


def advise(now: Situation) -> Iterator[ResourcesAdvised]:
    """What the rules say of a training, at most `MOST_ADVICE`."""
    taken: set[str] = set()
    given = 0
    for rule in RULES:
        found = rule(now)
        if found is not None and not taken & found.options.keys() and given < MOST_ADVICE:
            taken |= found.options.keys()
            given += 1
            yield found


def situation(
    state: SessionState, attempts: Sequence[AttemptEnded], used: ResourcesSummarised, *, cores: int
) -> Situation | None:
    """The figures of a completed training; None where it was not one, or nobody watched it."""
    claim, own, options = state.training.claim, used.children.get("train"), flat(state.request)
    if claim is None or used.samples < FEWEST_SAMPLES or not attempts or not options.keys() >= KNOWN:
        return None
    spent: dict[str, float] = {}
    for attempt in attempts:
        for name, seconds in attempt.seconds.items():
            spent[name] = spent.get(name, 0.0) + seconds
    evaluations = state.training.evaluations
    gpus = [gpu for gpu in used.gpus if gpu.memory_total_bytes]
    seconds = sum(spent.values())
    return Situation(
        options=options,
        cuda=claim.resolved.get("device") == "cuda",
        threads=int(claim.resolved.get("threads", 1)),
        cores=cores,
        spent=spent,
        steps=state.step,
        epochs=evaluations[-1].epoch if evaluations else 0,
        cores_used=own.cpu_seconds / seconds if own and seconds > 0 else 0.0,
        cpu_percent=used.cpu_percent_mean,
        memory_percent=100 * used.memory_bytes_max / used.memory_total_bytes if used.memory_total_bytes else 0.0,
        memory_bytes=own.memory_bytes_max if own else 0,
        memory_share=own.memory_bytes_max / used.memory_bytes_max if own and used.memory_bytes_max else 0.0,
        gpu_percent=max((gpu.percent_mean for gpu in used.gpus), default=0.0),
        gpu_memory_percent=max((100 * gpu.memory_bytes_max / gpu.memory_total_bytes for gpu in gpus), default=0.0),
    )


FEWEST_SAMPLES = 5
"""Samples below which the figures of a training are chance."""


def basis(options: Mapping[str, Any], without: Mapping[str, Any]) -> str:
    """The digest of a request without some of its options: what two trainings share that differ in those alone."""
    names = {*UNCOMPARED, *without}
    shared = sorted((path, value) for path, value in options.items() if path not in names)
    return hashlib.sha256(orjson.dumps(shared)).hexdigest()


class KeptAdvice(Value):
    """Advice as a home remembers it: who got it, and what a training that takes it has in common with that one."""

    session: str
    basis: str
    advice: ResourcesAdvised


class AdviceBook:
    """The advice that a home gave, in a file; it is no harm when the file is lost."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def judge(self, now: Situation) -> Iterator[AdviceJudged]:
        """What each piece of advice was worth that this training took, of an earlier one that got it."""
        for kept in reversed(self._read()):
            advice = kept.advice
            took = all(now.options.get(path) == value for path, value in advice.options.items())
            if not took or basis(now.options, advice.options) != kept.basis:
                continue
            after = now.figures()[advice.figure]
            ratio = after / advice.value if advice.value else 0.0
            yield AdviceJudged(
                session=kept.session,
                options=advice.options,
                figure=advice.figure,
                before=advice.value,
                after=after,
                promised=advice.factor,
                held=ratio <= advice.factor if advice.figure in LESS_IS_BETTER else ratio >= advice.factor,
            )
            return

    def keep(self, session: str, now: Situation, given: Sequence[ResourcesAdvised]) -> None:
        """Remember what a session was advised; a disk that is full forgets it."""
        fresh = [KeptAdvice(session=session, basis=basis(now.options, one.options), advice=one) for one in given]
        if fresh:
            known = [kept for kept in self._read() if kept.session != session]
            lines = [orjson.dumps(kept.model_dump(mode="json")) for kept in [*known, *fresh][-MOST_KEPT:]]
            with suppress(OSError):
                write_file(self._path, b"\n".join(lines) + b"\n")

    def _read(self) -> list[KeptAdvice]:
        found = []
        with suppress(OSError):
            for line in self._path.read_bytes().splitlines():
                with suppress(ValidationError):
                    found.append(KeptAdvice.model_validate_json(line))
        return found
