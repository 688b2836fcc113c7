"""What an audit works on: a recorded session, where its bytes are, and whether this machine can compute them again.

It looks at files; the jobs of `runtime.replay.jobs` compute.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import orjson
from blake3 import blake3

from bus.blobs import DirectoryBlobs
from contracts.envelope import Fact
from contracts.errors import NotFound, NotVerified
from contracts.event import fitted
from contracts.findings import AuditedMachine
from contracts.session import SessionState
from contracts.trainer import TrainingClaimed
from runtime import engine
from runtime.home.workloads import WorkloadEntry, Workloads
from runtime.jobs.job import MOST_THREADS, claimed_threads
from runtime.log.archive import StoredSession
from runtime.replay.initial_state import InheritedPlan, plan_of
from runtime.replay.jobs import IdentityQuery, MachineIdentity, ReplayData, SpanFile
from runtime.replay.spans import Span, SpanSpec, claims

_SEALED = ("threads", "device", "precision", "profile")


@dataclass(frozen=True)
class AuditSubject:
    """A session, and where its bytes are."""

    kept: StoredSession
    blobs: DirectoryBlobs
    work: Path
    home: Path | None = None

    @property
    def session(self) -> SessionState:
        """The session as it is recorded."""
        return self.kept.history.state

    @property
    def machine(self) -> AuditedMachine | None:
        """Whose bits are wanted, as its first claim says it; None when nothing was trained."""
        return machine_of(self.session.training.claim) if self.session.training.claim else None

    def identity(self, *, whole: bool) -> IdentityQuery:
        """What is asked about this machine beside the claim; unless the data are `whole` nothing is resolved."""
        machine, fork = self.machine or AuditedMachine(), self.session.fork
        plan = plan_of(self.session, self.inherited, 1) if whole else None
        return IdentityQuery(machine.device, machine.precision, plan, fork.resolved if fork else None, self.data)

    def task(self, span: Span, folder: Path) -> SpanFile:
        """What a job about a span is given; its plan goes as a file, for there may be much. No record is among it."""
        path = folder / f"span-{span.number}.json"
        path.write_text(self.spec(span).task.model_dump_json())
        return SpanFile(path, self.data)

    def spec(self, span: Span) -> SpanSpec:
        """A span with its plan and the evaluations on which best and patience depend, inherited ones included."""
        return span.spec(plan_of(self.session, self.inherited, span.segments), self.inherited.evaluations)

    @cached_property
    def inherited(self) -> InheritedPlan:
        """What the session takes from the one in whose bits it began."""
        return InheritedPlan.of(self.session, self.blobs)

    @property
    def data(self) -> ReplayData:
        """Where every job finds rows, checkpoints, and weights to begin with."""
        claim = self.session.training.claim
        place = self.blobs.root / "datasets" / (claim.dataset if claim else "")
        return ReplayData(place, self.blobs.root, claim.initial if claim else None)

    def trusted(self) -> tuple[str, ...]:
        """What no computing can check: code of the user's runs in the process that computes."""
        return tuple(
            f"the code of workload {name!r} runs in the processes that compute: "
            "that they tell what they have computed, nothing but this code says"
            for name in sorted(self.session.training.claim.sources if self.session.training.claim else {})
        )

    def missing(self, *, trusted: bool) -> tuple[list[WorkloadEntry], list[str]]:
        """The workloads to run, and the reasons why nothing can be computed here."""
        workloads, reasons = runnable_code(self.session, self.home, self.blobs, trusted=trusted)
        absent = missing_rows(self.session, self.blobs)
        machine = self.machine
        unsaid = [name for name in _SEALED if machine and name not in machine.model_fields_set]
        reasons += [f"{name} of the claim, which does not say it" for name in unsaid]
        absences = (absent, missing_weights(self.session, self.blobs))
        reasons += [*filter(None, absences), *missing_inherited(self.session, self.blobs)]
        return workloads, reasons


def recorded_path(folder: Path, number: int) -> Path:
    """Where a span is written down with its records."""
    return folder / f"recorded-{number}.json"


def missing_bytes(data: ReplayData, blob: str | None) -> bool:
    """Whether what a span needs of `AuditSubject.data` is gone, or not what it was: state, weights, rows."""
    blobs = DirectoryBlobs(data.blobs)
    try:
        for digest in filter(None, (blob, data.initial)):
            blobs.check(digest)
    except (NotFound, NotVerified):
        return True
    return not has_rows(data.dataset)


def machine_of(claim: TrainingClaimed) -> AuditedMachine:
    """Whose bits a session holds that is trained under this claim: what a child is sealed with, and the fingerprint."""
    sealed = {name: claim.resolved[name] for name in _SEALED if name in claim.resolved}
    told = sealed | {"fingerprint": claim.fingerprint, "engine_bits": claim.engine_bits}
    return AuditedMachine.model_validate(fitted(AuditedMachine, told))


MANIFEST = "manifest.json"
ROWLESS = "which are not here (a bundle has them when it was made with `swarm bundle S --dataset`)"


def machine_differences(facts: Iterable[Fact], here: MachineIdentity) -> list[str]:
    """What of this machine and engine is not what a claim says, each named."""
    found: dict[str, None] = {}
    for _, claim in claims(facts):
        if claim.fingerprint != here.fingerprint:
            there, ours = claim.families, here.families
            families = sorted(name for name in there.keys() | ours.keys() if there.get(name) != ours.get(name))
            found |= dict.fromkeys(f"family {one}" for one in families)
            found |= {} if families else {"fingerprint (torch, threads or device, with no family that differs)": None}
        if claim.engine_bits != here.engine_bits:
            found[f"engine_bits {claim.engine_bits}, here {here.engine_bits}"] = None
        threads = claim.resolved.get("threads", 1)
        if claimed_threads(threads) != threads:
            found[f"threads {threads!r:.40}, where an audit computes with 1 to {MOST_THREADS}"] = None
        if claim.resolved.get("profile") != "exact":
            found[f"profile {claim.resolved.get('profile')!r}, which promises no bits"] = None
    return list(found)


def runnable_code(
    session: SessionState, home: Path | None, blobs: DirectoryBlobs, *, trusted: bool
) -> tuple[list[WorkloadEntry], list[str]]:
    """The workloads to run, and the reasons why others cannot be run here."""
    entries, missing = [], []
    known = Workloads(home or blobs.root / "nowhere")
    claimed = session.training.claim.sources if session.training.claim else {}
    for name in _named(session.request):
        if name not in claimed:
            missing.append(f"code of workload {name!r}, whose digest the claim does not say")
            continue
        entry, reason = known.claimed(name, claimed[name], blobs, trusted=trusted)
        entries += [entry] if entry else []
        missing += [reason] if reason else []
    return entries, missing


def missing_rows(session: SessionState, blobs: DirectoryBlobs) -> str:
    """What is missing of the rows, which mode `log` has compared with their root."""
    root = session.training.claim.dataset if session.training.claim else ""
    place = blobs.root / "datasets" / root
    if not root or not (place / MANIFEST).is_file():
        return f"dataset {root}, which is not here"
    return "" if has_rows(place) else f"the rows of dataset {root}, {ROWLESS}"


def has_rows(place: Path) -> bool:
    """Whether every file is there that the manifest in a folder names; what is in them is judged elsewhere."""
    try:
        splits = orjson.loads((place / MANIFEST).read_bytes())["splits"]
        names = [one["file"] for columns in splits.values() for one in columns.values()]
        return all(Path(name).name == name and (place / name).is_file() for name in names)
    except (OSError, KeyError, TypeError, AttributeError, orjson.JSONDecodeError):
        return False


def missing_weights(session: SessionState, blobs: DirectoryBlobs) -> str:
    """What is missing of the weights that the session begins with."""
    digest = session.training.claim.initial if session.training.claim else None
    return f"weights to begin with, blob {digest}, which is not here" if digest and not blobs.has(digest) else ""


def missing_inherited(session: SessionState, blobs: DirectoryBlobs) -> Iterator[str]:
    """What is missing of that in which a fork begins."""
    fork = session.fork
    if fork is None or session.training.last_window is None:
        return
    if fork.more is not None and not blobs.has(fork.more):
        yield f"what the fork inherits, blob {fork.more}, which is not here"
    given = [one.written.blob for one in session.training.checkpoints if one.written.step == fork.step]
    if not any(map(blobs.has, given)):
        known = f"blob {given[-1]}" if given else "of which it wrote no checkpoint"
        yield f"the state of step {fork.step} to begin with, {known}, which is not here"


def _named(request: Mapping[str, Any]) -> list[str]:
    sections = (request.get("model"), request.get("data"))
    names = [one["workload"] for one in sections if isinstance(one, Mapping) and one.get("workload")]
    return list(dict.fromkeys(names))


@cache
def engine_digest() -> str:
    """One digest over all files that a span's result follows from: results of other code are no results of this one."""
    root, hasher = Path(engine.__path__[0]).parent, blake3()
    for path in span_sources():
        hasher.update(f"{path.relative_to(root)}\0".encode() + blake3(path.read_bytes()).digest())
    return hasher.hexdigest()


def span_sources() -> list[Path]:
    """The files of the engine, and of what computes spans with it and compares them, in order."""
    root = Path(engine.__path__[0]).parent
    return sorted(path for room in ("engine", "replay") for path in (root / room).rglob("*.py"))
