"""The jobs of an audit, and where an audit without a swarm runs them: in children of its own, several at a time.

Children that compute may run code of the user's. They tell; what they tell is compared here, outside of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import orjson
from blake3 import blake3
from pydantic import TypeAdapter, ValidationError

from bus.disk import make_directory, write_file
from contracts.errors import ChildDied, OutOfMemory, SwarmError, count_of
from contracts.findings import AuditedMachine, SpanDivergence
from runtime.home.workloads import WorkloadEntry
from runtime.jobs import process
from runtime.jobs.job import Job, claimed_threads
from runtime.replay import audit_subject, jobs
from runtime.replay.audit_plan import AuditOptions
from runtime.replay.comparison import SpanComparison
from runtime.replay.spans import Span, SpanSpec
from runtime.replay.verdict import SpanResult

if TYPE_CHECKING:
    from runtime.jobs.children import Children


A = TypeVar("A", bound=jobs.SpanQuery)
Q = TypeVar("Q")
R = TypeVar("R")


@dataclass(frozen=True)
class ComparedAnswer(Generic[R]):
    """What a job that computes steps of a span answered, how many it computed, and the first divergence, or None.

    The job is ended at a divergence, and gives no answer then.
    """

    answer: R | None
    divergence: SpanDivergence | None
    steps: int


class AuditJobs:
    """Runs one job after the other, or several at once, as where the session was trained: on this machine."""

    def __init__(
        self,
        children: Children,
        machine: AuditedMachine,
        session: str,
        log: Path,
        workloads: Sequence[WorkloadEntry] = (),
    ) -> None:
        self.children = children
        self.conditions = jobs.Conditions.of(machine, workloads)
        self._session = session
        self._log = log

    async def opened(self, job: Job[Q, R, jobs.IdentityQuestion, jobs.IdentityAnswer], argument: Q) -> R:
        """The answer of a job that opens an audit; its question about this machine is answered by another job."""
        async with self.children.job(job, argument, session=self._session, log=self._log) as child:
            async for asked in child:
                child.resting = True
                found, unread = await self.identified(asked.query, asked.workloads)
                await child.order(jobs.IdentityAnswer(found, unread))
                child.resting = False
            return await child.wait()

    async def identified(
        self, query: jobs.IdentityQuery, workloads: Sequence[WorkloadEntry] | None = None
    ) -> tuple[jobs.MachineIdentity, tuple[str, ...]]:
        """This machine beside a claim; and what of the claim cannot be read here, or does not load."""
        under = self.conditions if workloads is None else replace(self.conditions, workloads=workloads)
        try:
            return await self._measured(query, under), ()
        except (ChildDied, OutOfMemory):
            raise  # of the machine: nothing is known of the claim
        except SwarmError as error:
            if query.plan is None:
                raise
            unread = f"what the claim resolves the request to (here that ends with: {error.message[:500]})"
            return await self._measured(replace(query, plan=None), under), (unread,)

    async def machine(self, query: jobs.IdentityQuery) -> jobs.MachineIdentity:
        """Which bits are computed here."""
        return await self._measured(query, self.conditions)

    async def _measured(self, query: jobs.IdentityQuery, under: jobs.Conditions) -> jobs.MachineIdentity:
        asked = jobs.ConditionedIdentity(query, under)
        return await self.children.run(jobs.measure_identity, asked, session=self._session, log=self._log)

    async def run(self, job: Job[A, R, jobs.SpanNews, jobs.GoOn], query: A) -> R:
        """The answer of a job whose news are of no interest."""
        return await self.children.run(job, query, session=self._session, log=self._log)

    async def span(self, task: jobs.SpanFile, span: SpanSpec) -> SpanResult:
        """A whole span computed again; the first divergence may be that something is missing."""
        found = await self.compared(jobs.compute_span, jobs.SpanQuery(task, self.conditions), span)
        return SpanResult(steps=found.steps, divergence=found.divergence)

    async def compared(self, job: Job[A, R, jobs.SpanNews, jobs.GoOn], query: A, span: SpanSpec) -> ComparedAnswer[R]:
        """Run a job that computes steps of a span; what it tells of them is held here against the records."""
        comparison = SpanComparison(span)
        async with self.children.job(job, query, session=self._session, log=self._log) as child:
            async for told in child:
                found = None
                match told:
                    case jobs.SettleNotice():
                        await child.order(jobs.GoOn())
                    case jobs.BegunWindow(window):
                        found = comparison.begun_window(window)
                    case jobs.SpanEnd():
                        comparison.ended(told)
                    case jobs.NamedRows():
                        found = comparison.named(told)
                    case _:
                        found = comparison.computed(told)
                if found:
                    return ComparedAnswer(None, found, comparison.steps)
        # Only a whole span has told all that was recorded.
        left = comparison.left() if job is jobs.compute_span else None
        return ComparedAnswer(child.result, left, comparison.steps)


Tell = Callable[[str], None]


class AuditRunner:
    """Computes spans, and remembers in a file what an interrupted audit had found."""

    def __init__(
        self, subject: audit_subject.AuditSubject, asked: AuditOptions, children: Children, folder: Path, tell: Tell
    ) -> None:
        self.subject, self.asked, self.folder = subject, asked, folder
        self.results = AuditResults(subject.work / f"{subject.session.id}.json")
        self.resolved: Mapping[str, Any] | None = None
        self.resumed = 0
        workloads, self._missing = subject.missing(trusted=asked.trust_code)
        self._machine = subject.machine or AuditedMachine()
        self.jobs = AuditJobs(children, self._machine, subject.session.id, folder / "audit.log", workloads)
        self._tell = tell
        self._here: jobs.MachineIdentity | None = None
        if asked.fresh:
            self.results.close()
            self.results = AuditResults(subject.work / f"{subject.session.id}.json")

    async def compare(self) -> list[str]:
        """What differs between the claims and this machine, code or data; nothing when all are the same."""
        here, unread = await self.jobs.identified(self.subject.identity(whole=not self._missing))
        self._here, self.resolved = replace(here, resolved=None), here.resolved
        return [*audit_subject.machine_differences(self.subject.kept.history.facts, here), *self._missing, *unread]

    async def spans(self, chosen: Sequence[Span], *, until_divergence: bool = False) -> dict[int, SpanResult]:
        """The result of every span by its number; with `until_divergence` none behind the first one that diverges."""
        results: dict[int, SpanResult] = {}
        waiting = sorted(chosen, key=lambda one: (0 if until_divergence else one.begins - one.ends, one.number))
        bad: list[int] = []

        async def work() -> None:
            while waiting:
                span = waiting.pop(0)
                if bad and span.number > min(bad):
                    continue
                results[span.number] = found = await self._one(span)
                if found.divergence and until_divergence:
                    bad.append(span.number)
                outcome = "could not be computed" if found.problem else "same bits"
                outcome = "DIFFERS" if found.divergence else outcome
                self._tell(f"{len(results)} of {count_of(len(chosen), 'span')}, {span.name}: {outcome}")

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(self.asked.workers or spans_at_once(self._machine), len(waiting))):
                tasks.create_task(work())
        return results

    async def _one(self, span: Span) -> SpanResult:
        session = self.subject.session
        spec = self.subject.spec(span)
        about = {
            "span": spec.model_dump(mode="json"),
            "here": self._here,
            "workloads": [one.digest for one in self.jobs.conditions.workloads],
            "engine": audit_subject.engine_digest(),
            "dataset": session.training.claim.dataset if session.training.claim else "",
        }
        key = result_key(about)
        if known := self.results.get(key):
            self.resumed += 1
            return known
        try:
            found = await self.jobs.span(self.subject.task(span, self.folder), spec)
        except (ChildDied, OutOfMemory):
            raise  # of the machine: nothing is known of the code
        except SwarmError as error:
            blob = span.start.written.blob if span.start else None
            return uncomputable_span(error, span.number, gone=audit_subject.missing_bytes(self.subject.data, blob))
        self.results.put(key, found)
        return found


def uncomputable_span(error: SwarmError, number: int, *, gone: bool) -> SpanResult:
    """The result for a span that could not be computed: its bytes are gone by now, or its code ended otherwise.

    User code may raise any error, so that bytes are gone is believed only when they are missing here too.
    """
    problem = error.message[:500]
    differing = "" if gone else f"the outcome of span {number} (computing it ended with: {problem})"
    return SpanResult(steps=0, divergence=None, problem=problem, differing=differing)


def spans_at_once(machine: AuditedMachine) -> int:
    """How many spans of such a session this machine computes at a time."""
    return max(1, process.cores() // claimed_threads(machine.threads))


class AuditResults:
    """Results by what was checked; a file that is not whole counts as none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, SpanResult] = {}
        with suppress(OSError, ValidationError):
            self._found = _RESULTS.validate_json(path.read_bytes())

    def get(self, key: str) -> SpanResult | None:
        """What was found, if it was this that was looked at."""
        return self._found.get(key)

    def put(self, key: str, found: SpanResult) -> None:
        """Keep a result before anything else is done."""
        self._found[key] = found
        make_directory(self._path.parent)
        write_file(self._path, _RESULTS.dump_json(self._found))

    def close(self) -> None:
        """The audit has come to its end; the next one computes everything itself."""
        self._path.unlink(missing_ok=True)


_RESULTS = TypeAdapter(dict[str, SpanResult])


def result_key(what: Mapping[str, Any]) -> str:
    """The digest of all that a result depends on."""
    return str(blake3(orjson.dumps(what, option=orjson.OPT_SORT_KEYS)).hexdigest())
