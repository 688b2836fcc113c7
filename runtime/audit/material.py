"""What an audit works on: a session as it is recorded, where its bytes are, and what its jobs are given of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from bus.blobs import DirectoryBlobs
from contracts.session import Session
from runtime.archive import Kept
from runtime.audit import comparable
from runtime.audit.spans import Span, plan_of


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

    @property
    def machine(self) -> dict[str, Any]:
        """Whose bits are wanted, as its first claim says it; nothing when nothing was trained."""
        return machine_of(self.session)

    def identity(self, *, whole: bool) -> dict[str, Any]:
        """What `runtime.audit.reexecute.identity` is given; unless the data are `whole` it resolves nothing."""
        about = {name: self.machine[name] for name in ("device", "precision")}
        return about | {"plan": plan_of(self.session, 1) if whole else None} | self.data

    def arguments(self, span: Span, folder: Path) -> dict[str, Any]:
        """What a job about a span is given; its plan and its records go as a file, for there may be much."""
        path = folder / f"span-{span.number}.json"
        path.write_bytes(orjson.dumps(span.as_json() | {"plan": plan_of(self.session, span.segments)}))
        return {"span": str(path)} | self.data

    @property
    def data(self) -> dict[str, Any]:
        """Where every job finds rows, checkpoints, and weights to begin with."""
        place, _ = comparable.dataset(self.session, self.blobs)
        initial = self.session.claim.initial if self.session.claim else None
        return {"dataset": str(place), "blobs": str(self.blobs.root), "initial": initial}

    def missing(self, *, trusted: bool) -> tuple[list[dict[str, str]], list[str]]:
        """The workloads to run, as jobs take them, and what stands in the way of computing anything."""
        workloads, reasons = comparable.code(self.session, self.home, self.blobs, trusted=trusted)
        _, absent = comparable.dataset(self.session, self.blobs)
        return workloads, [*reasons, *(one for one in (absent, comparable.initial(self.session, self.blobs)) if one)]


def machine_of(session: Session) -> dict[str, Any]:
    """Whose bits a session holds: what a child is sealed with, and the fingerprint of the first claim."""
    claim = session.claim
    if claim is None:
        return {}
    resolved: Mapping[str, Any] = claim.resolved
    sealed = {name: resolved[name] for name in ("threads", "device", "precision", "profile") if name in resolved}
    return sealed | {"fingerprint": claim.fingerprint, "engine_bits": claim.engine_bits}
