"""What an audit works on: a session as it is recorded, where its bytes are, and what its jobs are given of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from bus.blobs import DirectoryBlobs
from contracts.errors import NotFound, NotVerified
from contracts.session import SessionState
from runtime.log.archive import StoredSession
from runtime.replay import comparable
from runtime.replay.heritage import InheritedPlan, plan_of
from runtime.replay.spans import Span, task_of

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
    def machine(self) -> dict[str, Any]:
        """Whose bits are wanted, as its first claim says it; nothing when nothing was trained."""
        return machine_of(self.session)

    def identity(self, *, whole: bool) -> dict[str, Any]:
        """What `runtime.replay.reexecute.identity` is given; unless the data are `whole` it resolves nothing."""
        about = {name: self.machine.get(name, default) for name, default in (("device", "cpu"), ("precision", "fp32"))}
        about |= {"plan": plan_of(self.session, self.heritage, 1) if whole else None}
        return about | {"inherited": self.session.fork.resolved if self.session.fork else None} | self.data

    def arguments(self, span: Span, folder: Path) -> dict[str, Any]:
        """What a job about a span is given; its plan goes as a file, for there may be much. No record is among it."""
        path = folder / f"span-{span.number}.json"
        path.write_bytes(orjson.dumps(task_of(self.spec(span))))
        return {"span": str(path)} | self.data

    def spec(self, span: Span) -> dict[str, Any]:
        """A span with its plan and the evaluations on which best and patience depend, inherited ones included."""
        spec = span.as_json() | {"plan": plan_of(self.session, self.heritage, span.segments)}
        inherited = [[step, value.hex()] for step, value in self.heritage.evaluations]
        return spec | {"evaluations": [*inherited, *spec["evaluations"]]}

    @cached_property
    def heritage(self) -> InheritedPlan:
        """What the session takes from the one in whose bits it began."""
        return InheritedPlan.of(self.session, self.blobs)

    @property
    def data(self) -> dict[str, Any]:
        """Where every job finds rows, checkpoints, and weights to begin with."""
        place, _ = comparable.dataset(self.session, self.blobs)
        initial = self.session.claim.initial if self.session.claim else None
        return {"dataset": str(place), "blobs": str(self.blobs.root), "initial": initial}

    def trusted(self) -> tuple[str, ...]:
        """What no computing can check: code of the user's runs in the process that computes."""
        return tuple(
            f"the code of workload {name!r} runs in the processes that compute: "
            "that they tell what they have computed, nothing but this code says"
            for name in sorted(self.session.claim.sources if self.session.claim else {})
        )

    def missing(self, *, trusted: bool) -> tuple[list[dict[str, str]], list[str]]:
        """The workloads to run, as jobs take them, and the reasons why nothing can be computed here."""
        workloads, reasons = comparable.code(self.session, self.home, self.blobs, trusted=trusted)
        _, absent = comparable.dataset(self.session, self.blobs)
        unsaid = [name for name in _SEALED if self.session.claim and name not in self.machine]
        reasons += [f"{name} of the claim, which does not say it" for name in unsaid]
        absences = (absent, comparable.initial(self.session, self.blobs))
        reasons += [*filter(None, absences), *comparable.heritage(self.session, self.blobs)]
        return workloads, reasons


def recorded(folder: Path, number: int) -> Path:
    """Where a span is written down with its records."""
    return folder / f"recorded-{number}.json"


def missing_bytes(data: Mapping[str, Any], blob: str | None) -> bool:
    """Whether what a span needs of `AuditSubject.data` is gone, or not what it was: state, weights, rows."""
    blobs = DirectoryBlobs(Path(data["blobs"]))
    try:
        for digest in filter(None, (blob, data["initial"])):
            blobs.check(digest)
    except (NotFound, NotVerified):
        return True
    return not comparable.has_rows(Path(data["dataset"]))


def machine_of(session: SessionState) -> dict[str, Any]:
    """Whose bits a session holds: what a child is sealed with, and the fingerprint of the first claim."""
    claim = session.claim
    if claim is None:
        return {}
    resolved: Mapping[str, Any] = claim.resolved
    sealed = {name: resolved[name] for name in _SEALED if name in resolved}
    return sealed | {"fingerprint": claim.fingerprint, "engine_bits": claim.engine_bits}
