"""What it costs to be audited: a real session is trained by a swarm, then verified and computed again offline.

    verify_per_s             events per second of the mode `log`, with schemas, signatures and ledger, without blobs
    verify_s, blobs_s        seconds of that, and those that hashing every named blob takes besides
    full_over_training_1     `swarm audit --mode full --workers 1` over the training, wall clock of whole processes
    full_over_training_2     the same with two workers
    spot_s                   a spot audit of 5 % of the spans (at least one)
    bisect_s                 from a false loss in the middle of the session to window, step and operators
    training_s, spans        what was trained: from the claim to completion, and into how many spans it falls
    swarm_over_training      the same audit in the swarm that trained it, its trainer's children warm: from its genesis
                             to its verdict, by the log
    verify_per_s_1m          what `verify_per_s` is on a session of a million steps, where fixed costs vanish
    bundle_mb_1m             what `swarm bundle` writes of a session of a million steps, without rows and checkpoints
    replay_s_1m              `swarm replay S --step N` of such a session, whole process
    trace_row_s_1m, trace_step_s_1m   `swarm trace S` of one row and of one step, whole process

The last five are measured on a session of 1M steps; with --quick on the short one, and scaled by its steps. Training
is timed by the log: from `training.claimed` to `training.completed`. Audits start from nothing each time, beside an
idle swarm. Trainings and their audits take three turns, and the medians of the turns' ratios count.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import filesystem, options, report
from bus.blobs import DirectoryBlobs
from contracts.envelope import Fact
from contracts.event import pack, unpack
from contracts.trainer import WindowRecorded
from runtime import audit
from runtime.audit.recomputation import recompute
from runtime.home.home import Home
from runtime.jobs.children import Children
from runtime.log.archive import Archive
from runtime.replay.audit_plan import AuditOptions
from runtime.replay.audit_subject import AuditSubject
from runtime.replay.verdict import ReplayVerdict

SWARM = [sys.executable, "-m", "runtime.cli.start"]
PROBED = 400
"""Epochs of the session by which the length of the measured one is chosen."""

LONG = 1_000_000
"""Steps of the session on which what grows with the log is measured."""


def main() -> None:
    """Train, then audit in every way."""
    asked = options(__doc__ or "")
    wanted, turns, probed = (5.0, 1, 100) if asked.quick else (66.0, 3, PROBED)
    with tempfile.TemporaryDirectory(prefix="audit") as folder:
        home = Path(folder) / "home"
        load = f"{os.getloadavg()[0]:.1f}"
        try:
            epochs = math.ceil(probed * wanted / seconds_of(home, submitted(home, Path(folder), probed)))
            taken = [turn(home, Path(folder), epochs) for _ in range(turns)]
            session = taken[-1].session
            long = session if asked.quick else submitted(home, Path(folder), math.ceil(LONG / STEPS), **SMALL)
        finally:
            swarm(home, "down")
        figures = paired(taken) | measured(home, session, taken[-1].spans) | grown(home, long)
        load += f" before, {os.getloadavg()[0]:.1f} after"
        report(asked, figures, {"filesystem": filesystem(home), "turns": str(turns), "load": load})


class Turn(NamedTuple):
    """A session that was trained and then audited in three ways, one after the other; in seconds."""

    session: str
    training: float
    one: float
    two: float
    in_swarm: float
    spans: int


def turn(home: Path, folder: Path, epochs: int) -> Turn:
    """Train, then compute everything again with one worker, with two, and in the swarm."""
    session = submitted(home, folder, epochs)
    one, found = audited(home, session, "full", "--workers", "1")
    two, _ = audited(home, session, "full", "--workers", "2")
    return Turn(session, seconds_of(home, session), one, two, audited_in_swarm(home, session), found["spans_total"])


def paired(taken: list[Turn]) -> dict[str, float]:
    """Each turn's audits over its own training: the machine is another one every few minutes."""
    return {
        "full_over_training_1": statistics.median(one.one / one.training for one in taken),
        "full_over_training_2": statistics.median(one.two / one.training for one in taken),
        "swarm_over_training": statistics.median(one.in_swarm / one.training for one in taken),
        "training_s": statistics.median(one.training for one in taken),
        "full_1_s": statistics.median(one.one for one in taken),
        "full_2_s": statistics.median(one.two for one in taken),
        "spans": taken[-1].spans,
    }


def grown(home: Path, session: str) -> dict[str, float]:
    """What grows with the log, of a session of a million steps."""
    history = Archive(Home(home)).read(session).history
    scale = LONG / history.state.step
    out = home / "long.zip"
    done = swarm(home, "bundle", session, "-o", str(out), "--force")
    if done.returncode:
        raise SystemExit(f"no bundle: {done.stderr}")
    middle = str(history.state.step // 2)
    events, verified = verification(home, session, home / "no blobs")
    return {
        "verify_per_s_1m": events / verified,
        "long_steps": history.state.step,
        "long_events": history.size,
        "bundle_mb_1m": out.stat().st_size / 1e6 * scale,
        "replay_s_1m": timed(home, "replay", session, "--step", middle) * scale,
        "trace_row_s_1m": timed(home, "trace", session, "--row", "train:7") * scale,
        "trace_step_s_1m": timed(home, "trace", session, "--step", middle) * scale,
    }


def timed(home: Path, *words: str) -> float:
    """Seconds of one command."""
    began = time.perf_counter()
    done = swarm(home, *words, "--json")
    took = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{words[0]} failed: {done.stdout[-500:]}{done.stderr[-500:]}")
    return took


def audited_in_swarm(home: Path, session: str) -> float:
    """Seconds from the genesis of an audit in the swarm to its verdict, by the writers' clocks."""
    done = swarm(home, "audit", session, "--mode", "full", "--in-swarm", "--json")
    found = json.loads(done.stdout.splitlines()[-1])
    if found["verdict"] != "pass":
        raise SystemExit(f"the audit failed: {found}")
    facts = Archive(Home(home)).read(found["audit"]).history.facts
    times = {fact.name: datetime.fromisoformat(fact.envelope.time) for fact in reversed(facts)}
    return (times["audit.completed"] - times["session.requested"]).total_seconds()


def measured(home: Path, session: str, spans: int) -> dict[str, float]:
    """What is told of one session, without its training."""
    events, verified = verification(home, session, home / "no blobs")
    _, with_blobs = verification(home, session, Home(home).blobs)
    spot, _ = audited(home, session, "spot", "--segments", str(math.ceil(spans * 0.05)), "--seed", "1")
    return {
        "verify_per_s": events / verified,
        "verify_s": verified,
        "blobs_s": with_blobs - verified,
        "spot_s": spot,
        "bisect_s": bisected(home, session),
        "events": events,
    }


STEPS = 22.45
"""Steps of one epoch: 1437 rows in batches of 64."""

SMALL: dict[str, Any] = {"model": {"architecture": "linear"}, "validation": {"every_epochs": 1000}}
"""Sections of a training that is as quick as can be, so that a million steps are soon made."""


def submitted(home: Path, folder: Path, epochs: int, **sections: Any) -> str:
    """Train to the end; the session."""
    request = {
        "name": "audited",
        "data": {"source": "digits"},
        "model": {"architecture": "mlp", "hidden": [256, 256]},
        "training": {"epochs": epochs, "batch_size": 64},
        "validation": {"every_epochs": 10},
        "early_stopping": {"enabled": False},
        "diagnosis": {"auto_fix": False},
        "export": {"formats": []},
    } | sections
    path = folder / f"{epochs}.json"
    path.write_text(json.dumps(request))
    done = swarm(home, "run", str(path), "--json")
    answer = json.loads(done.stdout.splitlines()[-1])
    if answer["state"] != "completed":
        raise SystemExit(f"the session did not complete: {answer}")
    return str(answer["session"])


def seconds_of(home: Path, session: str) -> float:
    """From the first claim to completion, by the writer's clock."""
    facts = Archive(Home(home)).read(session).history.facts
    times = {fact.name: datetime.fromisoformat(fact.envelope.time) for fact in reversed(facts)}
    return (times["training.completed"] - times["training.claimed"]).total_seconds()


def verification(home: Path, session: str, blobs: Path) -> tuple[int, float]:
    """How many events the log has, and the seconds that it takes to verify them and the blobs that are there."""
    place, took = Home(home), []
    for _ in range(5):
        began = time.perf_counter()
        found = audit.check_log(Archive(place), session, DirectoryBlobs(blobs))
        took.append(time.perf_counter() - began)
        if found.verdict != "pass":
            raise SystemExit(f"the log does not hold: {found.divergences[:3]}")
    return found.events, statistics.median(took)


def audited(home: Path, session: str, mode: str, *more: str) -> tuple[float, dict[str, Any]]:
    """Seconds of one audit from the command line, and its verdict."""
    began = time.perf_counter()
    done = swarm(home, "audit", session, "--mode", mode, "--fresh", "--json", *more)
    took = time.perf_counter() - began
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if found["verdict"] != "pass":
        raise SystemExit(f"the audit failed: {found}")
    return took, found


def bisected(home: Path, session: str) -> float:
    """Seconds to find a false loss in the middle; the record is falsified in memory, after the log was verified."""
    place = Home(home)
    kept, blobs = Archive(place).read(session), DirectoryBlobs(place.blobs)
    log = audit.check_log(Archive(place), session, blobs)
    falsified(kept.history.facts)
    material = AuditSubject(kept, blobs, place.root / "work" / "bisect")

    async def judged() -> ReplayVerdict:
        children = Children()
        try:
            return await recompute(log, material, AuditOptions("bisect"), children)
        finally:
            await children.close()

    began = time.perf_counter()
    found = asyncio.run(judged())
    took = time.perf_counter() - began
    if not found.located or found.located.get("step") is None:
        raise SystemExit(f"the false loss was not found: {found}")
    return took


def falsified(facts: list[Fact]) -> None:
    """The last loss of the window in the middle becomes a little lower."""
    windows = [fact for fact in facts if isinstance(fact.event, WindowRecorded)]
    chosen = windows[len(windows) // 2]
    event = chosen.event
    assert isinstance(event, WindowRecorded)
    losses = list(unpack(event.losses))
    losses[-1] /= 2
    false = event.model_copy(update={"losses": pack(struct.pack(f"<{len(losses)}f", *losses))})
    facts[chosen.position - 1] = chosen._replace(event=false)


def swarm(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run one command on a home."""
    return subprocess.run([*SWARM, "--home", str(home), *words], check=False, capture_output=True, text=True)


if __name__ == "__main__":
    main()
