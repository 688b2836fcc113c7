"""Bits that flip in sessions of a swarm that runs: a host, a broker, children; the full audit of each, and who told.

`benchmarks/corruption.py` says what is counted.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.faults_cases.flipped import Change, Flip, Outcome, change_between
from bus.blobs import DirectoryBlobs
from contracts.envelope import Fact
from contracts.trainer import BirthAudited, Computed, DivergenceFound, TrainingFailed, WindowRechecked, place_of
from runtime import audit
from runtime.api.swarm import Swarm
from runtime.audit.recomputation import recompute
from runtime.home.home import Home
from runtime.jobs.children import Children
from runtime.log.archive import Archive
from runtime.replay.audit_plan import AuditOptions
from runtime.replay.audit_subject import AuditSubject
from runtime.replay.verdict import Verdict

NAME = "flip_bench"
WORKLOAD = Path(__file__).with_name("flipping.py")
PATIENCE = 600.0
"""Seconds in which all sessions together are sealed."""


@dataclass(frozen=True)
class LiveOutcome(Outcome):
    """What came of a flip in a session that runs: besides what an audit found, the event by which the session told."""

    told: str


def asked(options: Mapping[str, Any], recheck: int) -> dict[str, Any]:
    """The request of a session in which such a bit flips; with no options none does."""
    return {
        "data": {"source": "digits"},
        "model": {"architecture": "workload", "workload": NAME, "options": dict(options)},
        "training": {"epochs": 8, "batch_size": 64} | ({"recheck": recheck} if recheck else {}),
        "optimizer": {"type": "adamw", "learning_rate": 3e-3},
        "early_stopping": {"enabled": False},
        "checkpoints": {"every_steps": 20},
        "diagnosis": {"mode": "off"},
    }


async def flip_live(home: Path, seed: int, count: int, recheck: int) -> list[LiveOutcome]:
    """Train a session without a flip and one with each of these, and audit every one in full."""
    home.mkdir(parents=True, exist_ok=True)
    swarm = [sys.executable, "-P", "-m", "runtime.cli.start"]
    subprocess.run([*swarm, "workload", "add", str(WORKLOAD), "--name", NAME, "--home", str(home)], check=True)
    try:
        async with Swarm.start(home=home) as running:
            honest = await running.submit(asked({}, 0))
            await _sealed(running, honest)
            steps = Archive(Home(home)).history(honest).state.step
            flips = [Flip(seed, number, steps) for number in range(count)]
            ids = [
                await running.submit(asked(_options(home, flip, number), recheck)) for number, flip in enumerate(flips)
            ]
            for one in ids:
                await _sealed(running, one)
    finally:
        await asyncio.to_thread(subprocess.run, [*swarm, "down", "--home", str(home)], check=False)
    children = Children()
    try:
        judge = _Judge(home, honest, children)
        return [
            await judge.outcome(number, flip, one) for number, (flip, one) in enumerate(zip(flips, ids, strict=True))
        ]
    finally:
        await children.close()


def _options(home: Path, flip: Flip, number: int) -> dict[str, Any]:
    if flip.place == "stored":
        return {}
    return {"place": flip.place, "step": flip.step, "draw": f"{flip.draw}/live", "mark": str(home / f"mark-{number}")}


async def _sealed(running: Swarm, session: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while not (await running.session(session)).get("sealed"):
            await asyncio.sleep(0.2)


class _Judge:
    """Holds each session against the one without a flip, and against its own full audit."""

    def __init__(self, home: Path, honest: str, children: Children) -> None:
        self._home, self._children = Home(home), children
        self._blobs = DirectoryBlobs(self._home.blobs)
        self._honest = Archive(self._home).history(honest)

    async def outcome(self, number: int, flip: Flip, session: str) -> LiveOutcome:
        """The verdict on one session; a file that was flipped is put back, for others may have the same state."""
        history, mark = Archive(self._home).history(session), self._home.root / f"mark-{number}"
        facts, damaged, before, path = history.facts, "", b"", Path()
        if flip.place == "stored":
            kept = [one.written for one in history.state.training.checkpoints if one.usable]
            chosen = kept[flip.step % len(kept)]
            path, damaged = self._blobs.path(chosen.blob), f"checkpoint of step {chosen.step}"
            before = path.read_bytes()
            flip.file(path)
        else:
            flip.what = mark.read_text() if mark.exists() else ""
        if not flip.what:
            raise AssertionError(f"flip {number} was not planted: {flip.place} at step {flip.step}")
        try:
            found = await self._audited(session)
        finally:
            if before:
                path.unlink()
                path.write_bytes(before)
        first = found.divergences[0] if found.divergences else None
        changed = _first_change(facts, self._honest.facts)
        verdict, told = "missed", _told(facts)
        if changed is not None:
            verdict = "located" if first is not None and changed.is_at(first) else "missed"
        elif damaged:
            verdict = "located" if first is not None and damaged in first.message else "missed"
        elif found.verdict == "pass":
            ours, theirs = history.state.outcome, self._honest.state.outcome
            same = getattr(ours, "state_root", "") == getattr(theirs, "state_root", "")
            verdict = "same" if same else "stopped" if isinstance(ours, TrainingFailed) else "missed"
        message = f"{first.what} {first.message}"[:300] if first else ""
        return LiveOutcome(number, "live", flip.place, flip.step, flip.what, verdict, message, told)

    async def _audited(self, session: str) -> Verdict:
        archive = Archive(self._home)
        log = audit.check_log(archive, session, self._blobs)
        work = self._home.root / "work" / "audits"
        subject = AuditSubject(archive.read(session), self._blobs, work, self._home.root)
        return await recompute(log, subject, AuditOptions("full"), self._children)


def _first_change(ours: Sequence[Fact], theirs: Sequence[Fact]) -> Change | None:
    """The first event, in the order of the log, that was computed otherwise than without a flip."""
    honest = {place_of(one.event): one for one in theirs if isinstance(one.event, Computed)}
    for one in ours:
        if isinstance(one.event, Computed) and (found := change_between(one, honest.get(place_of(one.event)))):
            return found
    return None


def _told(facts: Sequence[Fact]) -> str:
    """The first event by which a session says itself that something was computed otherwise, or cannot go on."""
    for fact in facts:
        match fact.event:
            case DivergenceFound() | TrainingFailed():
                return fact.name
            case BirthAudited(difference=what) if what:
                return fact.name
            case WindowRechecked(fields=fields) if fields:
                return fact.name
    return ""
