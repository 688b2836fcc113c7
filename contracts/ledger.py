"""What the ledger says: the tree over a session so far, what it had to waive, and the seal."""

from contracts.event import Event, Hex64
from contracts.roles import LEDGER


class LedgerCheckpointed(Event, lane=LEDGER, wire="ledger.checkpointed", says="tree over {size:event} signed"):
    """A signed note over the first `size` admitted events of the session."""

    size: int
    root: Hex64
    last_seq: int
    note: str


class DutyWaived(
    Event, lane=LEDGER, wire="duty.waived", says="{role} did not answer for {silent_seconds:.0f} s: {duty} waived"
):
    """A role that owed an answer had no heartbeat, or a guest no answer, for so long; the seal goes on without it."""

    role: str
    duty: str
    silent_seconds: float


class VoidsListed(Event, lane=LEDGER, wire="voids.listed"):
    """Stored messages that were not admitted: where they stand and why."""

    voids: list[dict[str, str | int]]


class SessionSealed(Event, lane=LEDGER, wire="session.sealed", says="sealed over {size:event}, root {root:.16}"):
    """The end: nothing after `last_seq` belongs to the session.

    `keyring` is the head that the genesis named; size and root are those of the tree over the keyring's own events
    that the ledger knew when it sealed. `members` names everything that belongs to the session and is no event.
    """

    size: int
    root: Hex64
    last_seq: int
    lanes: dict[str, Hex64]
    keyring: str
    keyring_size: int
    keyring_root: Hex64
    members: dict[str, Hex64]
    note: str
