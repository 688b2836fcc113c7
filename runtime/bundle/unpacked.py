"""A bundle's members as a store of blobs in a folder, so that its spans can be computed again without a home."""

from __future__ import annotations

import os
from pathlib import Path

from bus.blobs import DirectoryBlobs
from runtime.bundle import contents
from runtime.bundle.container import Container
from runtime.bundle.opened import Bundle
from runtime.engine.dataset import plain_name
from runtime.replay.audit_subject import AuditSubject


def unpacked(path: Path, root: str, folder: Path) -> AuditSubject:
    """What an audit needs of a bundle; what lies in it is named by digests that `log` has compared."""
    blobs = DirectoryBlobs(folder / "blobs")
    with Bundle(path, root) as opened:
        kept = opened.kept
    claim = kept.history.state.claim
    rows = blobs.root / "datasets" / (claim.dataset if claim else "none")
    with Container(path) as file:
        for name in file.members:
            if name.startswith(contents.BLOBS):
                blobs.put(file.read(name))
            elif name.startswith(contents.DATASET):
                rows.mkdir(parents=True, exist_ok=True)
                (rows / plain_name(name.removeprefix(contents.DATASET))).write_bytes(file.read(name))
    return AuditSubject(kept, blobs, _beside(path, folder))


def _beside(path: Path, folder: Path) -> Path:
    """Where what was found so far is kept: next to the bundle, if something can be written there."""
    return path.with_name(f"{path.name}.audit") if os.access(path.parent, os.W_OK) else folder / "audit"
