"""A bundle open for an audit: its sessions admitted as from files, its blobs at hand or unpacked into a folder.

It judges only its own shape.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from bus.admission import Admission
from bus.blobs import DirectoryBlobs, digest_of
from bus.records import RecordReader, frame, title
from contracts.errors import NotFound, NotVerified
from runtime.bundle import bundle_members as members
from runtime.bundle.container import Container
from runtime.engine.dataset import PIECE, plain_name
from runtime.log.archive import StoredSession, admit_file
from runtime.replay.audit_subject import AuditSubject
from runtime.replay.verdict import Divergence

_MARKER = re.compile(r"stigmergy/bundle/1 ([a-z0-9-]+)((?: [a-z]+)*)\n")


class Bundle:
    """The parsed content of a bundle; `NotVerified` when it cannot be parsed."""

    place = "the bundle"

    def __init__(self, path: Path, root: str = "") -> None:
        self.path = path
        self._file = Container(path)
        try:
            self.session, self.sections = self._marker()
            self.ring = self._read(members.KEYRING, Admission(root=root))
            self.kept = self._read(members.LOG, Admission(self.ring.admission.keyring, root=root), self.session)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._file.close()

    def check(self, digest: str) -> None:
        """The member that holds a blob, compared with its name."""
        seal = self.kept.history.state.sealed
        fixed = [name for name in members.FIXED_MEMBERS if seal and seal.members.get(name) == digest]
        names = (f"{members.BLOBS}{digest}", *fixed)
        name = next((one for one in names if one in self._file.members), None)
        if name is None:
            raise NotFound(f"blob {digest} is not in the bundle.")
        found = digest_of(self._file.read(name))
        if found != digest:
            raise NotVerified(f"{name} holds the bytes of {found}, not of {digest}.")

    def pieces(self, root: str, file: str) -> Iterator[bytes]:
        """A file of the dataset, in pieces."""
        name = f"{members.DATASET}{file}"
        if name not in self._file.members:
            raise NotFound(f"{name} is not in the bundle.")
        content = self._file.read(name)
        return (content[first : first + PIECE] for first in range(0, len(content), PIECE))

    def divergences(self) -> Iterator[Divergence]:
        """Where the bundle is not the only one that could be written of its own content."""
        yield from self._against_records()
        empty = set(self.sections) - set(members.possible_sections(self.kept.history.state))
        if empty:
            message = f"{members.MARKER}: nothing in the log belongs to {', '.join(empty)}"
            yield Divergence(0, 0, "sections", message)
        if "dataset" in self.sections and "manifest" not in self.sections:
            yield Divergence(0, 0, "sections", f"{members.MARKER}: rows without their manifest")
        wanted = members.member_names(self.kept.history.state, self.sections, self._manifest())
        found = list(self._file.members)
        missing, extra = [one for one in wanted if one not in found], [one for one in found if one not in wanted]
        if missing:
            yield Divergence(0, 0, "missing", f"the bundle lacks {', '.join(missing)}")
        if extra:
            yield Divergence(0, 0, "extra", f"nothing in the log names {', '.join(extra)}")
        if not missing and not extra and found != wanted:
            yield Divergence(0, 0, "order", "the members stand in another order than they are written in")

    def _against_records(self) -> Iterator[Divergence]:
        seal = self.kept.history.state.sealed
        if seal is None:
            message = f"{members.LOG}: it does not end with a seal"
            yield Divergence(self.kept.history.size + 1, 0, "unsealed", message)
            return
        if len(self.ring.stored) != seal.keyring_size:
            message = f"{members.KEYRING}: {len(self.ring.stored)} records, and the seal covers {seal.keyring_size}"
            yield Divergence(0, 0, "keyring", message)
        wanted = members.number_records(self.kept.stored, seal.size, self.ring.stored)
        for position, (one, other) in enumerate(zip(self.kept.stored, wanted, strict=True), 1):
            if one.seq != other.seq:
                message = f"{members.LOG}: record {one.seq} behind the seal's tree must be numbered {other.seq}"
                yield Divergence(position, one.seq, "sequence", message)

    def _manifest(self) -> bytes | None:
        return self._file.read(members.MANIFEST_FILE) if members.MANIFEST_FILE in self._file.members else None

    def _marker(self) -> tuple[str, tuple[str, ...]]:
        text = self._member(members.MARKER).decode("ascii", errors="replace")
        match = _MARKER.fullmatch(text)
        sections = tuple(match[2].split()) if match else ()
        if match is None or members.marker(match[1], sections).decode() != text:
            raise NotVerified(f"{members.MARKER}: {text[:80]!r} does not begin a bundle that this software knows.")
        return match[1], sections

    def _read(self, name: str, admission: Admission, session: str = "") -> StoredSession:
        data = self._member(name)
        reading = RecordReader(Path(name), data)
        kept = admit_file(reading, session or reading.session, admission)
        if kept.torn_bytes == 0 and title(reading.session) + b"".join(map(frame, kept.stored)) != data:
            raise NotVerified(f"{name}: it is not in its canonical form.")
        return kept

    def _member(self, name: str) -> bytes:
        if name not in self._file.members:
            raise NotVerified(f"the bundle has no member {name!r}.", cure="Ask for the file again.")
        return self._file.read(name)


def unpack_bundle(path: Path, root: str, folder: Path) -> AuditSubject:
    """What an audit needs of a bundle; what lies in it is named by digests that `log` has compared."""
    blobs = DirectoryBlobs(folder / "blobs")
    with Bundle(path, root) as opened:
        kept = opened.kept
    claim = kept.history.state.training.claim
    rows = blobs.root / "datasets" / (claim.dataset if claim else "none")
    with Container(path) as file:
        for name in file.members:
            if name.startswith(members.BLOBS):
                blobs.put(file.read(name))
            elif name.startswith(members.DATASET):
                rows.mkdir(parents=True, exist_ok=True)
                (rows / plain_name(name.removeprefix(members.DATASET))).write_bytes(file.read(name))
    # What was found so far is kept next to the bundle, if something can be written there.
    work = path.with_name(f"{path.name}.audit") if os.access(path.parent, os.W_OK) else folder / "audit"
    return AuditSubject(kept, blobs, work)
