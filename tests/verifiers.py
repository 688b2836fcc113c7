"""The three programs that admit a session, played on the same records: record by record, at once, and stand-alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bus import fast_admission
from bus.admission import Admission
from bus.port import StoredRecord
from bus.records import RecordReader, frame, title
from contracts.errors import SwarmError
from runtime.bundle import bundle_members, verify_bundle
from runtime.bundle.verify_bundle import Broken
from runtime.log.archive import admit_file

SCHEMAS = json.loads(bundle_members.event_schemas())


@dataclass(frozen=True)
class Verdicts:
    """Why each of the programs does not admit the whole session; empty where it does."""

    one_by_one: str
    at_once: str
    alone: str

    @property
    def agree(self) -> bool:
        """Whether both that say why come to one verdict, and the third admits nothing that they refuse."""
        return bool(self.one_by_one) == bool(self.alone) and bool(self.at_once or not self.one_by_one)

    @property
    def admitted(self) -> bool:
        """Whether both that say why admit it."""
        return not (self.one_by_one or self.alone)


@dataclass
class Programs:
    """The keyring of a deployment as its records have it, and the sessions that are judged by it."""

    ring_session: str
    ring: Sequence[StoredRecord]
    root: str = ""
    keys: Admission = field(init=False)

    def __post_init__(self) -> None:
        self.keys = Admission(root=self.root)
        for stored in self.ring:
            self.keys.admit(stored)

    def judge(self, session: str, records: Sequence[StoredRecord]) -> Verdicts:
        """The three verdicts on whether these records are admitted, every one."""
        data = title(session) + b"".join(map(frame, records))
        return Verdicts(self._one_by_one(session, data), self._at_once(session, data), self._alone(session, data))

    def _one_by_one(self, session: str, data: bytes) -> str:
        try:
            kept = admit_file(RecordReader(Path("log"), data), session, Admission(self.keys.keyring))
        except SwarmError as error:
            return error.message
        return "; ".join(f"{void.reason}: {void.detail}" for void in kept.voids)

    def _at_once(self, session: str, data: bytes) -> str:
        try:
            fast_admission.admit_session(
                fast_admission.FileLines(data, session),
                fast_admission.AdmissionInputs(session, self.keys.keyring("00")),
            )
        except fast_admission.NeedsFullAdmission:
            return "unusual"
        return ""

    def _alone(self, session: str, data: bytes) -> str:
        ring = verify_bundle.Keyring(self.ring_session, self.root)
        try:
            ring_data = title(self.ring_session) + b"".join(map(frame, self.ring))
            verify_bundle.Reader("keyring", self.ring_session, ring, SCHEMAS).read(
                verify_bundle.records_of("keyring", ring_data)[1]
            )
            verify_bundle.Reader("log", session, ring, SCHEMAS).read(verify_bundle.records_of("log", data)[1])
        except Broken as broken:
            return str(broken)
        return ""
