"""Rules about the machine. Clocks and memory are no function of the plan, so of these rules only one has a remedy:
that memory ran out was recorded by the trainer, whose lane everybody folds alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import ClassVar

from contracts.errors import count_of
from contracts.resource_monitor import ResourcesMeasured
from runtime.diagnosis.evidence import Evidence, Remedy, Rule, RuleFinding, rule
from runtime.engine.parts.levers import CutBatch


class ResourceRule(Rule):
    """A rule that is asked after each sum over epochs; its findings are notes about the steps of the last of them."""

    severity = "note"
    after = ("resources",)
    least: ClassVar[int] = 3
    """Sums that it needs."""

    def note(self, seen: Evidence, message: str, **figures: float) -> RuleFinding:
        """The finding, with the event that completes its evidence."""
        id, measured = seen.resources[-1]
        first = seen.resources[-self.least][1].step if len(seen.resources) > self.least else seen.origin
        return RuleFinding(self.name, "note", first, max(first, measured.step), message, self.cure, (id,), figures)

    def recent(self, seen: Evidence, count: int = 0) -> list[ResourcesMeasured]:
        """The last sums; none when there are fewer than it needs."""
        count = count or self.least
        return [measured for _, measured in seen.resources[-count:]] if len(seen.resources) >= count else []


@rule
@dataclass(frozen=True)
class DataStarvation(ResourceRule):
    """Fires when the machine waited for disks for a fifth of the time of several epochs."""

    name = "data_starvation"
    looks_at = "the share of the time in which the machine waits for disks"
    cure = "Set data.workers, put the home on a faster disk, or give the machine more memory for rows it reads again."
    waiting: ClassVar[float] = 20.0

    def look(self, seen: Evidence) -> RuleFinding | None:
        """The smallest share of the last sums."""
        shares = [one.waiting_percent or 0.0 for one in self.recent(seen)]
        if not shares or min(shares) < self.waiting:
            return None
        message = f"For {median(shares):.0f} % of the time something waited for a disk, in {len(shares)} sums in a row."
        return self.note(seen, message, waiting_percent=median(shares))


@rule
@dataclass(frozen=True)
class MemoryGrowth(ResourceRule):
    """Fires when the session's memory rises from sum to sum, and would rise by half until the end of the plan."""

    name = "memory_growth"
    looks_at = "the session's largest memory from epoch to epoch, and what it would be at the end of the plan"
    cure = "Look for what keeps results of each step (a list of losses, a graph that is not let go) in the workload."
    least = 6
    rising: ClassVar[float] = 0.8
    grows: ClassVar[float] = 0.5
    enough: ClassVar[int] = 64 << 20

    def look(self, seen: Evidence) -> RuleFinding | None:
        """The first and the last of the recent sums, and the way between them."""
        recent = self.recent(seen, 8 if len(seen.resources) >= 8 else 0)
        if not recent or not seen.total:
            return None
        sizes, steps = [one.session_memory_bytes for one in recent], recent[-1].step - recent[0].step
        rises = sum(after > before for before, after in pairwise(sizes))
        if steps <= 0 or rises < self.rising * (len(sizes) - 1) or sizes[-1] - sizes[0] < self.enough:
            return None
        expected = sizes[-1] + (sizes[-1] - sizes[0]) / steps * max(0, seen.total - recent[-1].step)
        if expected < (1 + self.grows) * sizes[0]:
            return None
        message = (
            f"The session's memory has grown from {sizes[0] / 2**20:.0f} to {sizes[-1] / 2**20:.0f} MiB in {steps}"
            f" steps; at the end of the plan it would be {expected / 2**20:.0f} MiB."
        )
        return self.note(seen, message, first=sizes[0], last=sizes[-1], expected=expected)


@rule
@dataclass(frozen=True)
class IdleDevice(ResourceRule):
    """Fires when a GPU was used for less than 60 % of several epochs, and nothing waited for disks."""

    name = "idle_device"
    looks_at = "how much of the time the GPU is used, while nothing waits for disks"
    cure = (
        "Raise training.batch_size, or set training.precision to bf16: small steps leave the GPU waiting for the next."
    )
    used: ClassVar[float] = 60.0
    waiting: ClassVar[float] = 10.0

    def look(self, seen: Evidence) -> RuleFinding | None:
        """The largest use of the last sums."""
        recent = self.recent(seen)
        used = [one.gpu_percent for one in recent if one.gpu_percent is not None]
        if not used or len(used) < len(recent) or max(used) > self.used:
            return None
        if max(one.waiting_percent or 0.0 for one in recent) > self.waiting:
            return None
        return self.note(seen, f"The GPU was used for {median(used):.0f} % of the time.", gpu_percent=median(used))


@rule
@dataclass(frozen=True)
class EpochDrift(ResourceRule):
    """Fires when epochs take a quarter longer than they took at first, and no recent one was as quick."""

    name = "epoch_drift"
    looks_at = "the seconds per epoch, beside those of the first epochs"
    cure = "Look at what else runs (swarm status), at heat and throttling, and at work that grows per step."
    least = 8
    slower: ClassVar[float] = 1.25

    def look(self, seen: Evidence) -> RuleFinding | None:
        """Three recent sums beside the first ones that are kept, of which the very first is left out: it warms up."""
        recent = self.recent(seen)
        if not recent:
            return None
        seconds = [one.seconds / max(1, one.epochs) for _, one in seen.resources]
        before, now = median(seconds[1:4]), seconds[-3:]
        if before <= 0 or min(now) < self.slower * before:
            return None
        message = f"An epoch takes {median(now):.3g} s, and took {before:.3g} s at first."
        return self.note(seen, message, before=before, now=median(now))


@rule
@dataclass(frozen=True)
class MemoryShortage(Rule):
    """Fires when a training ran out of memory; its remedy is the same step in smaller parts, as long as there are any.

    An evaluation may have been what took too much: with a batch that cannot be cut it alone goes in smaller batches.
    """

    name = "out_of_memory"
    looks_at = "whether memory ran out, and in how many rows at once a step is taken"
    severity = "critical"
    cure = "Make training.batch_size smaller and training.accumulate larger by as much, or choose a smaller model."
    edition = 1
    after = ("exhaustion",)

    def look(self, seen: Evidence) -> RuleFinding | None:
        """What the trainer recorded, from the planned checkpoint before it again in smaller parts."""
        if seen.exhausted is None:
            return None
        id, told = seen.exhausted
        message = f"A step of {told.batch} x {told.accumulate} rows took too much memory: {told.message}"
        figures = {"batch": told.batch, "accumulate": told.accumulate, "evaluated": told.evaluated}
        figures |= {} if told.limit is None else {"limit": told.limit}
        cut, whole = CutBatch.below(seen.request, told.batch, told.evaluated), CutBatch.whole(seen.request)
        if cut is None:
            because = f": {whole}" if whole and told.batch > 1 else ""
            cure = f"{count_of(told.batch, 'row')} cannot be halved{because}. Choose a smaller model or free memory."
            remedy = None
        else:
            if (seen.request.get("model") or {}).get("architecture") == "workload":
                whole = "what the workload takes over the rows of a batch is taken over fewer"
            notes = f" ({whole})" if whole and cut.value > 1 else ""
            why = f"{count_of(told.batch, 'row')} at once took more memory than there is{notes}"
            cure, remedy = self.cure, Remedy(seen.planned(told.step), (cut,), why)
        about = (self.name, self.severity, told.step, told.step + 1, message, cure, (id,), figures)
        return RuleFinding(*about, remedy, confidence="certain")
