"""What the log already holds of a path, and whether values computed again equal it. Pure.

This is why nothing is recorded twice when a trainer dies between an append and its acknowledgement: the next attempt
begins at a checkpoint, and every window that the log has is compared here and not appended again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from contracts.envelope import Fact
from contracts.event import Event
from contracts.session import Checkpoint, SessionState
from contracts.trainer import (
    CheckpointWritten,
    Computed,
    DivergenceFound,
    WindowRecorded,
    computed_at,
)

Key = tuple[str, int, int]

# Why a checkpoint was kept is no part of what was computed: a resumed run may keep the same state for another reason.
_INCIDENTAL = {"reason"}


@dataclass
class RecordedPath:
    """The windows, evaluations and checkpoints on the path after the step from which an attempt starts."""

    known: dict[Key, Event] = field(default_factory=dict)
    reproduced: int = 0

    @classmethod
    def of(cls, facts: Iterable[Fact], session: SessionState, step: int, unusable: Iterable[str] = ()) -> RecordedPath:
        """The records that an attempt from `step` will compute again; checkpoints whose blobs are lost count as new."""
        found: dict[Key, Event] = {}
        lost = {*unusable, *_corrupt(session)}
        for fact in facts:
            event = fact.event
            if isinstance(event, CheckpointWritten) and event.blob in lost:
                continue
            if isinstance(event, Computed):
                segment, at = event.segment, computed_at(event)
                if at >= step and session.on_path(segment, at):
                    found[key(event)] = event
        return cls(found)

    def take(self, computed: Computed) -> DivergenceFound | bool | None:
        """True when the log lacks this event; None when it equals the recorded one; else the difference."""
        recorded = self.known.get(key(computed))
        if recorded is None:
            return True
        self.reproduced += isinstance(computed, WindowRecorded)
        return difference(recorded, computed)


def key(event: Computed) -> Key:
    """Wire name, first and last step: two attempts that record these mean the same event."""
    if isinstance(event, WindowRecorded):
        return (event.wire, event.first, event.last)
    return (event.wire, event.step, event.step)


def difference(recorded: Event, computed: Event) -> DivergenceFound | None:
    """The first field, by name, in which two events that should be equal differ; None when they are equal."""
    # JSON text compares exact floats by their bits, NaN included.
    before, after = recorded.model_dump(mode="json"), computed.model_dump(mode="json")
    for name in sorted(before.keys() - _INCIDENTAL):
        if before[name] != after.get(name):
            first, last = key_range(computed)
            return DivergenceFound(
                segment=after["segment"],
                first=first,
                last=last,
                field=f"{recorded.wire}.{name}",
                recorded=str(before[name])[:200],
                computed=str(after.get(name))[:200],
            )
    return None


def _corrupt(session: SessionState) -> set[str]:
    """Blobs of checkpoints that were found broken and have not been written again since."""
    usable = {one.written.blob for one in session.checkpoints if one.usable}
    return {one.written.blob for one in session.checkpoints if one.gone == "corrupt"} - usable


def key_range(event: Event) -> tuple[int, int]:
    """The first and last step of a window; for any other event its one step, twice."""
    if isinstance(event, WindowRecorded):
        return event.first, event.last
    step: int = getattr(event, "step", 0)
    return step, step


def starting_point(session: SessionState, unusable: Iterable[str] = (), before: int | None = None) -> Checkpoint | None:
    """The newest checkpoint on the path, `before` a step if one is given, whose bytes may be there; None for step 0."""
    bad = set(unusable)
    usable = [one for one in session.path_checkpoints() if one.usable and one.written.blob not in bad]
    usable = [one for one in usable if before is None or one.written.step < before]
    return usable[-1] if usable else None
