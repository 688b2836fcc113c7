"""Makes bundles, and hands one out only after both verifiers have audited the file and passed it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bus.blobs import DirectoryBlobs
from contracts.errors import NotVerified
from runtime.audit import entries
from runtime.bundle import verify_bundle
from runtime.bundle.make import BundleFile, write
from runtime.log.archive import Archive


def make(
    archive: Archive, session: str, blobs: DirectoryBlobs, path: Path, *, wanted: Sequence[str] = ()
) -> BundleFile:
    """As `runtime.bundle.make.write`; `NotVerified`, and no file, when the session does not pass.

    One whose log contradicts itself is bundled: others are to see that.
    """
    made = write(archive, session, blobs, path, wanted=wanted)
    found = entries.bundle(path, root=archive.root, contradictions=False)
    # A seal may name any program, so only our own is run; it is the one inside unless older software sealed.
    alone = verify_bundle.findings(path, archive.root, contradictions=False)
    wrong = found.divergences[0].message if found.divergences else alone["divergence"]
    if wrong:
        path.unlink()
        raise NotVerified(f"session {session} does not pass: {wrong}", cure=f"See: swarm audit {session}")
    return made
