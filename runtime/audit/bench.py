"""Where an audit without a swarm computes spans again: in children of its own, several at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.audit import comparable
from runtime.audit.docket import Asked
from runtime.audit.jobs import IDENTITY, SPAN, Jobs
from runtime.audit.material import Material
from runtime.audit.notebook import Notebook, key_of
from runtime.audit.spans import Span
from runtime.processes import process
from runtime.processes.children import Children

Tell = Callable[[str], None]


class Bench:
    """Computes spans, and remembers in a notebook what an interrupted audit had found."""

    def __init__(self, material: Material, asked: Asked, children: Children, folder: Path, tell: Tell) -> None:
        self.material, self.asked, self.folder = material, asked, folder
        self.notebook = Notebook(material.work / f"{material.session.id}.json")
        self.resolved: dict[str, Any] | None = None
        self.resumed = 0
        workloads, self._missing = material.missing(trusted=asked.trust_code)
        self.jobs = Jobs(children, material.machine, material.session.id, folder / "audit.log", workloads)
        self._tell = tell
        self._here: dict[str, Any] = {}
        if asked.fresh:
            self.notebook.close()
            self.notebook = Notebook(material.work / f"{material.session.id}.json")

    async def compare(self) -> list[str]:
        """What differs between the claims and this machine, code or data; nothing when all are the same."""
        self._here = await self.jobs.run(IDENTITY, self.material.identity(whole=not self._missing))
        self.resolved = self._here.pop("resolved")
        return comparable.differences(self.material.kept.history.facts, self._here) + self._missing

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
                how = "DIFFERS" if found["divergence"] else "same bits"
                self._tell(f"{len(results)} of {len(chosen)} spans, {span.name}: {how}")

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(self.asked.workers or places(self.material.machine), len(waiting))):
                tasks.create_task(work())
        return results

    async def _one(self, span: Span) -> dict[str, Any]:
        session = self.material.session
        about = {
            "span": self.material.spec(span),
            "here": self._here,
            "workloads": [one["digest"] for one in self.jobs.workloads],
            "engine": comparable.engine_digest(),
            "dataset": session.claim.dataset if session.claim else "",
        }
        key = key_of(about)
        if known := self.notebook.get(key):
            self.resumed += 1
            return known
        found = await self.jobs.run(SPAN, self.material.arguments(span, self.folder))
        self.notebook.put(key, found)
        return found


def places(machine: Mapping[str, Any]) -> int:
    """How many spans of such a session this machine computes at a time."""
    return max(1, process.cores() // max(1, int(machine.get("threads", 1))))
