"""The modes `spot`, `full` and `bisect`: spans computed again in children and held against the log.

It writes nothing into any log. What it found so far stands in the home's work folder until the audit has ended.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import orjson

from bus.blobs import DirectoryBlobs
from contracts.session import Session
from runtime.archive import Kept
from runtime.audit import comparable, exports, parentage
from runtime.audit.notebook import Notebook, key_of
from runtime.audit.spans import Course, Span, course
from runtime.audit.verdict import Divergence, Verdict
from runtime.children import Children, Profile
from runtime.forks.heritage import Heritage, plan_of
from runtime.profiles import torch_profile

Mode = Literal["spot", "full", "bisect"]
Tell = Callable[[str], None]
RATES = (0.01, 0.05, 0.1, 0.25, 0.5)
"""Shares of bad spans for which the chance of finding one is said."""


@dataclass(frozen=True)
class Asked:
    """What is to be computed again, and how."""

    mode: Mode
    segments: int = 5
    seed: int = 0
    workers: int = 0
    """Spans at a time; 0 for as many as there are cores for."""
    trust_code: bool = False
    fresh: bool = False
    """Whether to pass over what an interrupted audit found."""


@dataclass(frozen=True)
class Material:
    """A session, and where its bytes are."""

    kept: Kept
    blobs: DirectoryBlobs
    work: Path
    home: Path | None = None

    @property
    def session(self) -> Session:
        """The session as it is recorded."""
        return self.kept.history.state


@dataclass(frozen=True)
class Located(Divergence):
    """A divergence with everything that is known of its place."""

    about: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        base = {"position": self.position, "seq": self.seq, "what": self.what, "message": self.message}
        return base | {name: value for name, value in self.about.items() if name not in ("name", "place")}


@dataclass(frozen=True)
class Repeated(Verdict):
    """What an audit found that computed spans again."""

    seed: int | None = None
    detection: dict[str, float] = field(default_factory=dict)
    differing: tuple[str, ...] = ()
    steps_checked: int = 0
    spans_resumed: int = 0
    exports_checked: int = 0
    located: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain data, with the keys that programs rely on."""
        return super().as_json() | {
            "seed": self.seed,
            "detection": self.detection,
            "differing": list(self.differing),
            "steps_checked": self.steps_checked,
            "spans_resumed": self.spans_resumed,
            "exports_checked": self.exports_checked,
            "located": self.located,
        }


async def repeat(
    log: Verdict, material: Material, asked: Asked, children: Children, tell: Tell = lambda _: None
) -> Repeated:
    """The verdict of a mode, after that of the mode `log`, which stands unless more is found."""
    base = vars(log) | {"mode": asked.mode, "unchecked": tuple(one for one in log.unchecked if not _is_repeated(one))}
    session, facts = material.session, material.kept.history.facts
    if log.verdict != "pass":
        return Repeated(
            **base | {"unchecked": (*base["unchecked"], "nothing was computed again: the log itself fails")}
        )
    found = course(facts, session, material.blobs.has)
    if session.claim is None:
        return Repeated(**base | {"unchecked": (*base["unchecked"], "nothing was trained yet")})
    with TemporaryDirectory(prefix="audit-", dir=_made(material.work)) as folder:
        bench = Bench(material, asked, children, Path(folder), tell)
        differing = await bench.compare()
        base |= {"spans_total": len(found.spans)}
        if differing:
            told = tuple(f"not comparable: {one} differs" for one in differing[:20])
            return Repeated(
                **base
                | {"verdict": "not-comparable", "differing": tuple(differing), "unchecked": (*base["unchecked"], *told)}
            )
        return await _judged(base, bench, found)


async def _judged(base: dict[str, Any], bench: Bench, found: Course) -> Repeated:
    asked, material = bench.asked, bench.material
    wrong = [*_strays(found), *comparable.broken_rules(material.kept.history.facts, material.session, bench.resolved)]
    chosen = (
        drawn(found.spans, asked.segments, asked.seed, material.session.id) if asked.mode == "spot" else found.spans
    )
    results = await bench.spans(chosen, until_divergence=asked.mode == "bisect")
    wrong += [bench.located(span, results[span.number]["divergence"]) for span in chosen if _diverged(results, span)]
    again, begun = exports.Again(), parentage.Judged()
    if asked.mode != "spot":
        begun = await parentage.again(material, bench.children, trust_code=asked.trust_code)
        wrong += begun.divergences
    if asked.mode == "full":
        again = await exports.again(material, bench.workloads, bench.children, bench.folder)
        wrong += again.divergences
    place = await _bisected(bench, chosen, results) if asked.mode == "bisect" else None
    bench.notebook.close()
    unchecked = (*base["unchecked"], *begun.unchecked, *again.unchecked, *_left(found, results, material.session))
    wrong.sort(key=lambda one: one.position or 1 << 60)
    return Repeated(
        **base
        | {
            "verdict": "fail" if wrong else "pass",
            "divergences": tuple(wrong),
            "unchecked": unchecked,
            "spans_checked": len(results),
            "steps_checked": sum(one["steps"] for one in results.values()),
            "spans_resumed": bench.resumed,
            "exports_checked": again.checked,
            "seed": asked.seed if asked.mode == "spot" else None,
            "detection": detection(len(chosen), len(found.spans)) if asked.mode == "spot" else {},
            "located": place,
        }
    )


class Bench:
    """Where spans are computed again: children, their arguments, and what is known so far."""

    def __init__(self, material: Material, asked: Asked, children: Children, folder: Path, tell: Tell) -> None:
        self.material, self.asked, self.children, self.folder = material, asked, children, folder
        self.notebook = Notebook(material.work / f"{material.session.id}.json")
        self.workloads: list[dict[str, str]] = []
        self.resolved: dict[str, Any] | None = None
        self.resumed = 0
        self._tell = tell
        self._here: dict[str, Any] = {}
        self._claim = material.session.claim
        if asked.fresh:
            self.notebook.close()
            self.notebook = Notebook(material.work / f"{material.session.id}.json")

    async def compare(self) -> list[str]:
        """What differs between the claims and this machine, code or data; nothing when all are the same."""
        session, blobs = self.material.session, self.material.blobs
        self.workloads, missing = comparable.code(session, self.material.home, blobs, trusted=self.asked.trust_code)
        place, absent = comparable.dataset(session, blobs)
        missing += [one for one in (absent, comparable.initial(session, blobs)) if one]
        missing += comparable.heritage(session, blobs)
        plan = plan_of(session, self._heritage, 1) if not missing else None
        claimed = session.claim.resolved if session.claim else {}
        args = {"device": claimed["device"], "precision": claimed["precision"], "plan": plan, "dataset": str(place)}
        args |= self._weights | {"inherited": session.fork.resolved if session.fork else None}
        self._here = await self.job("runtime.audit.reexecute:identity", args)
        self.resolved = self._here.pop("resolved")
        return comparable.differences(self.material.kept.history.facts, self._here) + missing

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
            for _ in range(min(self.workers, len(waiting))):
                tasks.create_task(work())
        return results

    @property
    def workers(self) -> int:
        """How many spans are computed at a time."""
        threads = max(1, int(self._claim.resolved.get("threads", 1))) if self._claim else 1
        return self.asked.workers or max(1, _cores() // threads)

    async def _one(self, span: Span) -> dict[str, Any]:
        session = self.material.session
        about = {
            "span": self._spec(span),
            "plan": plan_of(session, self._heritage, span.segments),
            "here": self._here,
            "workloads": [one["digest"] for one in self.workloads],
        }
        key = key_of(
            about | {"engine": comparable.engine_digest(), "dataset": self._claim.dataset if self._claim else ""}
        )
        if known := self.notebook.get(key):
            self.resumed += 1
            return known
        found = await self.job("runtime.audit.reexecute:main", self.arguments(span))
        self.notebook.put(key, found)
        return found

    def arguments(self, span: Span) -> dict[str, Any]:
        """What a job about a span is given; what was recorded of it goes as a file, for there may be much."""
        path = self.folder / f"span-{span.number}.json"
        path.write_bytes(orjson.dumps(self._spec(span)))
        place, _ = comparable.dataset(self.material.session, self.material.blobs)
        plan = plan_of(self.material.session, self._heritage, span.segments)
        return {"span": str(path), "plan": plan, "dataset": str(place)} | self._weights

    def _spec(self, span: Span) -> dict[str, Any]:
        """A span with everything that best and patience stand on, also what a fork inherits."""
        spec = span.as_json()
        inherited = [[step, value.hex()] for step, value in self._heritage.evaluations]
        return spec | {"evaluations": [*inherited, *spec["evaluations"]]}

    @cached_property
    def _heritage(self) -> Heritage:
        return Heritage.of(self.material.session, self.material.blobs)

    @property
    def _weights(self) -> dict[str, Any]:
        """Where jobs find the weights that spans begin with."""
        initial = self._claim.initial if self._claim else None
        return {"blobs": str(self.material.blobs.root), "initial": initial}

    async def job(self, function: str, args: dict[str, Any]) -> dict[str, Any]:
        """Run one job of an audit to its end."""
        resolved = self._claim.resolved if self._claim else {}
        seal = {"threads": resolved["threads"], "profile": "exact"}
        profile = _profile(resolved["threads"], resolved["device"])
        given = args | {"seal": seal, "workloads": self.workloads}
        log, session = self.folder / "audit.log", self.material.session.id
        async with self.children.job(
            function, given, profile=profile, purpose="audit", session=session, log=log
        ) as child:
            return await child.wait()

    def located(self, span: Span, found: dict[str, Any]) -> Located:
        """A job's divergence with its place in the log."""
        history = self.material.kept.history
        position = found["place"] or (history.state.outcome and _position(history.facts, history.state.outcome_id)) or 0
        seq = history.facts[position - 1].seq if position else 0
        about = found | {"span": span.number, "line": span.segments}
        return Located(position, seq, found["name"], sentence(found), about)


def drawn(spans: Sequence[Span], count: int, seed: int, session: str) -> tuple[Span, ...]:
    """So many spans, by a rule that anybody can follow: those with the lowest SHA-256 of `seed/session/number`."""

    def lot(span: Span) -> bytes:
        return hashlib.sha256(f"{seed}/{session}/{span.number}".encode()).digest()

    return tuple(sorted(sorted(spans, key=lot)[:count], key=lambda one: one.number))


def detection(drawn: int, total: int) -> dict[str, float]:
    """The least chance of finding a share `f` of bad spans: 1-(1-f)^k; and that of finding a single bad one."""
    if drawn >= total:
        return {f"{rate:g}": 1.0 for rate in RATES} | {"one": 1.0}
    return {f"{rate:g}": round(1 - (1 - rate) ** drawn, 6) for rate in RATES} | {"one": round(drawn / total, 6)}


def _strays(found: Course) -> Iterator[Divergence]:
    for one in found.strays:
        message = f"steps {one.first}..{one.last} of segment {one.event.segment} lie on no path that there was"
        yield Divergence(one.position, one.seq, one.event.wire, message)


def _left(found: Course, results: dict[int, dict[str, Any]], session: Session) -> Iterator[str]:
    left = len(found.spans) - len(results)
    if left:
        yield f"{left} of {len(found.spans)} spans were not computed again"
    if session.outcome is None:
        reached = max((one.ends for one in found.spans), default=0)
        yield f"training has not ended: what was recorded up to step {reached}, event {session.events}, was looked at"


async def _bisected(bench: Bench, chosen: Sequence[Span], results: dict[int, dict[str, Any]]) -> dict[str, Any] | None:
    from runtime.audit.bisected import bisected

    first = next((span for span in chosen if _diverged(results, span)), None)
    return await bisected(bench, first, results[first.number]["divergence"]) if first else None


def _diverged(results: dict[int, dict[str, Any]], span: Span) -> bool:
    return span.number in results and results[span.number]["divergence"] is not None


def sentence(found: dict[str, Any]) -> str:
    """A divergence in words."""
    where = f"steps {found['first']}..{found['last']}" if found["first"] != found["last"] else f"step {found['last']}"
    if found["field"] == "end":
        return str(found["recorded"])
    if not found["field"]:
        return f"{where}: recorded {found['recorded']}, computed {found['computed']}"
    step = f", first at step {found['step']}" if found.get("step", -1) >= 0 else ""
    said, came = found["recorded"][:80], found["computed"][:80]
    return f"{where}: {found['field']} is recorded as {said} and computed as {came}{step}"


def _position(facts: Sequence[Any], id: str) -> int:
    return next((fact.position for fact in facts if fact.id == id), 0)


def _is_repeated(told: str) -> bool:
    return told.startswith("the computation itself")


def _profile(threads: int, device: str) -> Profile:
    """As whatever trains has it; what every fork would import for itself is there before it is forked."""
    plain = torch_profile(threads, device)
    parts = sorted((Path(__file__).parents[1] / "engine" / "parts").glob("*/[a-z]*.py"))
    named = [f"runtime.engine.parts.{one.parent.name}.{one.stem}" for one in parts]
    return replace(plain, modules=(*plain.modules, "runtime.audit.stepwise", *named))


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
