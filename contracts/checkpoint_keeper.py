"""What the checkpoint keeper says: what is kept, as what, and what was let go or found broken."""

from typing import Literal

from contracts.event import Event, Hex64
from contracts.roles import CHECKPOINT_KEEPER

Role = Literal["best", "last", "anchor", "final"]


class CheckpointStored(Event, lane=CHECKPOINT_KEEPER, wire="checkpoint.stored"):
    """The blob was read back, its digests hold, and it is kept."""

    segment: int
    step: int
    blob: Hex64
    state_root: Hex64
    bytes: int
    kept_as: list[Role]


class CheckpointPromoted(
    Event, lane=CHECKPOINT_KEEPER, wire="checkpoint.promoted", says="checkpoint of step {step} is the best"
):
    """A checkpoint became the best on the path."""

    segment: int
    step: int
    blob: Hex64


class CheckpointPruned(Event, lane=CHECKPOINT_KEEPER, wire="checkpoint.pruned"):
    """A checkpoint's blob was let go within the budget; its digests stay in the log."""

    segment: int
    step: int
    blob: Hex64
    freed_bytes: int


class CheckpointCorrupt(
    Event, lane=CHECKPOINT_KEEPER, wire="checkpoint.corrupt", says="checkpoint of step {step} is CORRUPT: {reason}"
):
    """A checkpoint's bytes are not those that were written, or are gone."""

    segment: int
    step: int
    blob: Hex64
    reason: str
