"""What a fork's genesis records: the parent and its state, the parent's decisions so far, and the change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from contracts.event import Exact, Hex64, Value

if TYPE_CHECKING:
    from contracts.replies import ParentReply


class Evaluated(Value):
    """The control metric at a step."""

    step: int
    value: Exact


class Rows(Value):
    """Rows of the training split in a row, by their places from 1, the last one included."""

    first: int
    last: int


class Fork(Value):
    """The parent's state after `step` attempts of `segment`, and the change under which training goes on.

    `root` is that of the parent's first `size` events as its ledger signed it, in the seal when `sealed`; size 0 when
    it had signed nothing yet. `changes` are the parent's decisions up to there, each with the step at which it took
    effect; `evaluations` its control metric, on which best and patience stand. State root and blob are known when the
    parent wrote a checkpoint there; else the state is computed again. Rows left `without` keep their places in the
    order and weigh nothing. What would be too long for an event stands in the blob `more`, and both lists are empty.
    """

    session: str
    root: Hex64 | None
    size: int
    sealed: bool
    step: int
    segment: int
    weights_digest: Hex64
    state_root: Hex64 | None
    blob: Hex64 | None
    dataset: Hex64
    resolved: dict[str, object]
    changes: list[dict[str, object]]
    set: dict[str, object]
    rows_without: int
    evaluations: list[Evaluated]
    without: list[Rows]
    more: Hex64 | None = None

    @property
    def parent(self) -> ParentReply:
        """In whose bits a session begins, and with which change."""
        return {
            "session": self.session,
            "step": self.step,
            "segment": self.segment,
            "set": self.set,
            "rows_without": self.rows_without,
        }
