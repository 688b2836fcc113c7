"""Whether the store still holds what the files of a home have: one that was lost or set back is an incident.

Sequences would be given a second time and lanes would fork, so nothing may be appended to such a store.
"""

from __future__ import annotations

from bus import records, subjects
from bus.port import Log, StoredRecord
from contracts.errors import NotVerified
from contracts.ids import PARTITION
from runtime.home.home import Home


async def refuse_if_set_back(bus: Log, home: Home, url: str) -> None:
    """Raise `NotVerified` unless the newest record in the home's files is in the store, byte for byte.

    What is lost when a store is set back is its end, so the newest record is the one to ask for.
    """
    found = newest(home)
    if found is None:
        return
    session, copied = found
    held = await _held(bus, copied)
    if held is None or (held.seq, held.subject, held.body) != (copied.seq, copied.subject, copied.body):
        what = "holds no such record" if held is None else "has another one there"
        raise NotVerified(
            f"the store at {url} was lost or set back: the files of {str(home.root)!r} go up to record {copied.seq}, "
            f"of session {session}, and it {what}.",
            cure=f"Put back what was in {home.root / 'nats' / 'store'}, or go on in another home with --home; "
            "the sessions here stay readable: swarm audit S",
            path=str(home.log(session)),
        )


def newest(home: Home) -> tuple[str, StoredRecord] | None:
    """The record with the highest sequence in the files of this partition, and its session."""
    sessions = (one for one in home.session_ids() if subjects.partition(one) == PARTITION)
    last = ((session, records.newest(home.log(session))) for session in sessions)
    return max(((session, one) for session, one in last if one), key=lambda found: found[1].seq, default=None)


async def _held(bus: Log, copied: StoredRecord) -> StoredRecord | None:
    async with bus.read(copied.subject, after=copied.seq - 1) as messages:
        async for stored in messages:
            return stored
    return None
