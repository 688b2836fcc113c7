"""How the events of a lane hang together: heads, and the signed batches that extend them. Nothing is judged here.

The writer's side of what `bus.admission` checks: `laneseq` counts the admitted events of a lane from 1, `prev` is the
SHA-256 of the admitted body before, and each append carries one signature, on its last event.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bus import subjects
from bus.keys import HEADER, Signer
from bus.port import Record
from contracts import envelope
from contracts.errors import InvalidInput
from contracts.event import Event
from contracts.ids import ZERO, sha256

MAX_BATCH = 1000
"""The most events one append may hold; a longer unsigned branch is never admitted."""


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a lane: `laneseq`, `digest` and `admitted` are those of its last fact, `stored` of its last message.

    A writer chains to the fact and expects the message: void messages move `stored` and nothing else.
    """

    laneseq: int = 0
    digest: str = ZERO
    admitted: int = 0
    stored: int = 0


START = Head()
"""The head of a lane in which nothing was said yet."""


@dataclass(frozen=True, slots=True)
class Draft:
    """An event about to be said: its identity and its causes, not yet its place."""

    event: Event
    id: str
    cause: str | None = None
    correlation: str | None = None
    epoch: int | None = None
    step: int | None = None


def compose(
    drafts: Sequence[Draft], *, session: str, lane: str, head: Head, signer: Signer, source: str, time: str
) -> list[Record]:
    """One append: the drafts chained to the head in order, signed on the last. The same input gives the same bytes."""
    if not 0 < len(drafts) <= MAX_BATCH:
        raise InvalidInput(f"an append holds 1 to {MAX_BATCH} events, not {len(drafts)}.")
    records, prev = [], head.digest
    for place, draft in enumerate(drafts, head.laneseq + 1):
        body = envelope.write(
            draft.event,
            id=draft.id,
            session=session,
            lane=lane,
            laneseq=place,
            prev=prev,
            source=source,
            time=time,
            cause=draft.cause,
            correlation=draft.correlation,
            epoch=draft.epoch,
            step=draft.step,
        )
        prev = sha256(body)
        records.append(Record(subjects.fact(session, lane, draft.event.wire), body))
    last = records[-1]
    return [*records[:-1], Record(last.subject, last.body, {HEADER: signer.sign(last.body)})]


def extended(head: Head, records: Sequence[Record], seq: int) -> Head:
    """The head after an append of these records whose last one was stored at `seq`."""
    return Head(head.laneseq + len(records), sha256(records[-1].body), seq, seq)
