"""Where an audit without a swarm computes spans again: in children of its own, several at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from contracts.errors import ChildDied, OutOfMemory, SwarmError
from runtime.jobs import process
from runtime.jobs.children import Children
from runtime.jobs.profiles import claimed_threads
from runtime.replay import comparable
from runtime.replay.docket import AuditOptions
from runtime.replay.jobs import Jobs
from runtime.replay.material import AuditSubject, missing_bytes
from runtime.replay.notebook import AuditResults, key_of
from runtime.replay.spans import Span

Tell = Callable[[str], None]


class AuditRunner:
    """Computes spans, and remembers in a notebook what an interrupted audit had found."""

    def __init__(
        self, material: AuditSubject, asked: AuditOptions, children: Children, folder: Path, tell: Tell
    ) -> None:
        self.material, self.asked, self.folder = material, asked, folder
        self.notebook = AuditResults(material.work / f"{material.session.id}.json")
        self.resolved: dict[str, Any] | None = None
        self.resumed = 0
        workloads, self._missing = material.missing(trusted=asked.trust_code)
        self.jobs = Jobs(children, material.machine, material.session.id, folder / "audit.log", workloads)
        self._tell = tell
        self._here: dict[str, Any] = {}
        if asked.fresh:
            self.notebook.close()
            self.notebook = AuditResults(material.work / f"{material.session.id}.json")

    async def compare(self) -> list[str]:
        """What differs between the claims and this machine, code or data; nothing when all are the same."""
        self._here, unread = await self.jobs.identified(self.material.identity(whole=not self._missing))
        self.resolved = self._here.pop("resolved")
        return comparable.differences(self.material.kept.history.facts, self._here) + self._missing + unread

    async def spans(self, chosen: Sequence[Span], *, until_divergence: bool = False) -> dict[int, dict[str, Any]]:
        """The result of every span by its number; with `until_divergence` none behind the first one that diverges."""
        results: dict[int, dict[str, Any]] = {}
        waiting = sorted(
            chosen, key=lambda one: one.number if until_divergence else (one.begins - one.ends, one.number)
        )
        bad: list[int] = []

        async def work() -> None:
            while waiting:
                span = waiting.pop(0)
                if bad and span.number > min(bad):
                    continue
                results[span.number] = found = await self._one(span)
                if found["divergence"] and until_divergence:
                    bad.append(span.number)
                self._tell(f"{len(results)} of {len(chosen)} spans, {span.name}: {_in_words(found)}")

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(self.asked.workers or places(self.material.machine), len(waiting))):
                tasks.create_task(work())
        return results

    async def _one(self, span: Span) -> dict[str, Any]:
        session = self.material.session
        spec = self.material.spec(span)
        about = {
            "span": spec,
            "here": self._here,
            "workloads": [one["digest"] for one in self.jobs.workloads],
            "engine": comparable.engine_digest(),
            "dataset": session.claim.dataset if session.claim else "",
        }
        key = key_of(about)
        if known := self.notebook.get(key):
            self.resumed += 1
            return known
        try:
            found = await self.jobs.span(self.material.arguments(span, self.folder), spec)
        except (ChildDied, OutOfMemory):
            raise  # of the machine: nothing is known of the code
        except SwarmError as error:
            blob = span.start.written.blob if span.start else None
            return unable(error, span.number, gone=missing_bytes(self.material.data, blob))
        self.notebook.put(key, found)
        return found


def unable(error: SwarmError, number: int, *, gone: bool) -> dict[str, Any]:
    """The result for a span that could not be computed: its bytes are gone by now, or its code ended otherwise.

    User code may raise any error, so that bytes are gone is believed only when they are missing here too.
    """
    problem = error.message[:500]
    differing = "" if gone else f"the outcome of span {number} (computing it ended with: {problem})"
    return {"steps": 0, "divergence": None, "problem": problem, "differing": differing}


def _in_words(found: Mapping[str, Any]) -> str:
    if found["divergence"]:
        return "DIFFERS"
    return "could not be computed" if found.get("problem") else "same bits"


def places(machine: Mapping[str, Any]) -> int:
    """How many spans of such a session this machine computes at a time."""
    return max(1, process.cores() // claimed_threads(machine.get("threads")))
