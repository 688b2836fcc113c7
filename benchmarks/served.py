"""What a server serves, beside the files that outlive it: a log that was changed, went back or lost something."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bus.admission import Admission
from bus.decode import Void
from bus.files import read
from bus.port import StoredRecord
from bus.records import frame
from contracts.errors import InvalidInput, NotVerified
from runtime.home.home import Home
from runtime.replay.verdict import Divergence


def against_files(home: Home, served: Iterable[StoredRecord], *, root: str = "") -> Iterator[Divergence]:
    """Every way in which a whole stream, as served from its first message, is not the one that the files tell of.

    Messages that are no facts are void in any stream and named as such; a caller that expects some, a seal that was
    overtaken for instance, tells them by their reason.
    """
    admission, seen, last = Admission(root=root), dict[int, StoredRecord](), 0
    for stored in served:
        if stored.seq != last + 1:
            yield Divergence(0, stored.seq, "gap", f"message {stored.seq} is served after message {last}")
            if stored.seq <= last:
                return
        last = stored.seq
        seen[stored.seq] = stored
        admission.admit(stored)
    for session in home.session_ids():
        admission.finish(session)
    yield from (_void(void) for void in admission.voids)
    for session in home.session_ids():
        yield from _against_file(home, session, seen, last)


def _void(void: Void) -> Divergence:
    return Divergence(0, void.seq, str(void.reason), f"message {void.seq} is no fact: {void.detail}")


def _against_file(home: Home, session: str, seen: dict[int, StoredRecord], last: int) -> Iterator[Divergence]:
    for position, kept in enumerate(read(home.log(session)), 1):
        found = seen.get(kept.seq)
        if found is None:
            what = "was served as far as" if kept.seq > last else "is not served, which ends with"
            yield Divergence(position, kept.seq, "regress", f"{session}: message {kept.seq} {what} message {last}")
            return
        if _framed(found) != frame(kept):
            yield Divergence(position, kept.seq, "differs", f"{session}: message {kept.seq} is served otherwise")
            return


def _framed(stored: StoredRecord) -> bytes:
    try:
        return frame(stored)
    except (InvalidInput, NotVerified, UnicodeEncodeError):
        return b""
