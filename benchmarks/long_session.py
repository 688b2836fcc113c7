"""A home with one long open session, and what reading that from its file takes in a process that knows nothing of it.

The file is written as a host writes it: a genesis, a claim, windows in signed appends, the ledger's signed notes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bus import notes
from bus.chain import Draft, Head, compose, extended
from bus.keys import Signer
from bus.port import StoredRecord
from bus.records import frame
from bus.tree import Tree, leaf_of
from contracts.event import Event
from contracts.ids import uuid8
from contracts.ledger import LedgerCheckpointed
from contracts.trainer import WindowRecorded
from runtime.home.home import Home
from tests.runtime.recorded_home import TIME, RecordedHome, claimed

APPEND, NOTED = 200, 10_000
"""Windows in an append, and events between two of the ledger's notes."""


class _Lanes:
    """The lanes of one session, each behind what it has said; gives the records of its file."""

    def __init__(self, session: str, signers: dict[str, Signer], begun: list[StoredRecord]) -> None:
        self.session, self._signers, self._heads = session, signers, {}
        self.tree, self.seq = Tree(), 0
        self._heads: dict[str, Head] = {}
        for stored in begun:
            self.tree.append(leaf_of(stored))
            self.seq = stored.seq

    def said(self, lane: str, events: list[Event], cause: str | None = None) -> Iterator[bytes]:
        """One append, framed."""
        drafts = [Draft(event, str(uuid8(self.session, f"{self.seq} {n}")), cause) for n, event in enumerate(events)]
        head = self._heads.get(lane, Head())
        records = compose(
            drafts, session=self.session, lane=lane, head=head, signer=self._signers[lane], source="/b", time=TIME
        )
        for record in records:
            self.seq += 1
            stored = StoredRecord(self.seq, record.subject, record.body, record.headers)
            self.tree.append(leaf_of(stored))
            yield frame(stored)
        self._heads[lane] = extended(head, records, self.seq)

    def noted(self) -> LedgerCheckpointed:
        """The ledger's note over everything so far."""
        last = (f"last-seq {self.seq}",)
        said = notes.SignedTreeHead(notes.origin(self.session), self.tree.size, self.tree.root(), last)
        note = notes.sign(said, self._signers["ledger"])
        return LedgerCheckpointed(size=self.tree.size, root=self.tree.root().hex(), last_seq=self.seq, note=note)


def written(root: Path, events: int, window: Callable[[int], WindowRecorded]) -> str:
    """Make a home in this folder with an open session of so many events; the session."""
    recorded = RecordedHome(root)
    session = recorded.requested()
    lanes = _Lanes(session, recorded.signers, recorded.stream[-1:])
    size = 1
    with recorded.home.log(session).open("ab") as file:
        file.writelines(lanes.said("trainer", [claimed()]))
        size += 1
        cause, noted = str(uuid8(session, "claim")), 0
        while size < events:
            if size - noted >= NOTED:
                file.writelines(lanes.said("ledger", [lanes.noted()]))
                size, noted = size + 1, size
                continue
            ends = min(size + APPEND, events)
            file.writelines(lanes.said("trainer", [window(n) for n in range(size, ends)], cause))
            size = ends
    return session


def read_cold(root: Path, session: str) -> dict[str, Any]:
    """What a process says that reads the session and nothing else: seconds, events and its largest size."""
    done = subprocess.run([sys.executable, __file__, str(root), session], check=True, capture_output=True, text=True)
    read: dict[str, Any] = json.loads(done.stdout)
    return read


def empty_mb() -> float:
    """The largest size of a process that does nothing."""
    look = f"{_LARGEST}\nprint(largest())"
    done = subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True)
    return float(done.stdout)


_LARGEST = """
def largest():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024
"""


def _main() -> None:
    """Read a session from its file, as a command does that is given no swarm; runs in a process of its own."""
    from runtime.jobs import garbage
    from runtime.log.archive import Archive

    garbage.collect_seldom()  # as the host and the command do
    root, session = Path(sys.argv[1]), sys.argv[2]
    begun, before = time.perf_counter(), time.process_time()
    history = Archive(Home(root)).history(session)
    took, computed = time.perf_counter() - begun, time.process_time() - before
    scope: dict[str, Any] = {}
    exec(_LARGEST, scope)  # the very lines that the empty process runs
    told = {"seconds": took, "computed": computed, "events": history.size}
    print(json.dumps(told | {"mb": scope["largest"]()}))


if __name__ == "__main__":
    _main()
